import { TAKE_OFF_ARCHIVED, type TakeOffArchivedPayload } from './archived-assignees.jobs.js';
import type { Reactor } from './runtime/reactor.js';

/** How long commands may still assign to an archived agent or team (ms): they see it up to a second late and have ten seconds to end. */
const STRAGGLERS_MS = 12_000;

/** Takes an archived agent or team off every conversation that has not ended: at once, and again when no command can still assign to it. */
export const archivedAssignees: Reactor = {
  name: 'archived-assignees',
  begins: 'head',
  jobs: [TAKE_OFF_ARCHIVED],
  reaction: {
    reads: 'decoded',
    events: { assignee: ['AssigneeArchived'] },
    order: 'within streams',
    handle(events, consequences) {
      for (const { organizationId, streamId: assigneeId, event } of events) {
        if (event.metadata.imported === true) continue;
        const payload: TakeOffArchivedPayload = { assigneeId, eventId: event.id, position: event.position };
        for (const [sweep, inMs] of [0, STRAGGLERS_MS].entries())
          consequences.add({
            kind: TAKE_OFF_ARCHIVED,
            key: `${event.id}.${sweep}`,
            lane: `${TAKE_OFF_ARCHIVED} ${event.id}`,
            organizationId,
            payload,
            due: { inMs },
          });
      }
    },
  },
};
