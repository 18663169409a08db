import type { Recorded } from '../src/event-store/aggregate.js';
import type { ConversationEvent } from '../src/conversations/conversation.js';
import type { InboxEvent } from '../src/inboxes/inbox.js';
import type { AssigneeEvent } from '../src/team/assignee.js';
import { ActingInboxes, type ActingInboxesParts } from './acting-inboxes.js';
import { ASSIGN_WAITING, type AssignWaitingPayload } from './inbox-assignment.jobs.js';
import type { ProjectedEvent } from './runtime/projection.js';
import { causeOf } from './command-of-job.js';
import type { Reactor } from './runtime/reactor.js';

export const INBOX_ASSIGNMENT = 'inbox-assignment';

/** The most conversations that one job names, so that its row stays small when the reactor was far behind. */
const MOST_CAUSES = 200;

/**
 * Adds a job for each event after which a waiting conversation may get an agent: a conversation begins to wait, or an agent becomes free.
 * One job stands for all such events of an organization in a batch.
 */
export function inboxAssignment(parts: ActingInboxesParts): Reactor {
  const inboxes = new ActingInboxes(parts, 'assignment', ({ mode }) => mode !== 'manual');
  return {
    name: INBOX_ASSIGNMENT,
    begins: 'head',
    jobs: [ASSIGN_WAITING],
    forget: () => inboxes.forget(),
    reaction: {
      reads: 'decoded',
      events: {
        conversation: [
          'ConversationOpened',
          'ConversationStatusChanged',
          'ConversationSnoozed',
          'ConversationAssigned',
          'ConversationUnassigned',
          'ConversationTeamChanged',
          'InboxChanged',
        ],
        assignee: ['AgentChanged', 'TeamChanged', 'AssigneeUnarchived'],
        inbox: ['InboxCreated', 'InboxChanged', 'InboxUnarchived'],
      },
      order: 'within streams',
      async handle(events, consequences) {
        const found = new Map<string, AssignWaitingPayload>();
        const add = (organizationId: string, payload: AssignWaitingPayload) =>
          consequences.add({
            kind: ASSIGN_WAITING,
            key: payload.last.eventId,
            lane: `${ASSIGN_WAITING} ${organizationId}`,
            organizationId,
            payload,
          });
        for (const one of events) {
          const { kind, organizationId, streamId, event } = one;
          if (kind === 'inbox') inboxes.see(one);
          if (event.metadata.imported === true || !mayAssign(one)) continue;
          if (!(await inboxes.any(organizationId, event.position))) continue;
          const last = causeOf(event);
          const causes = found.get(organizationId)?.causes ?? {};
          if (kind === 'conversation') causes[streamId] = last;
          const payload = { last, position: event.position, causes };
          if (Object.keys(causes).length < MOST_CAUSES) found.set(organizationId, payload);
          else {
            found.delete(organizationId);
            add(organizationId, payload);
          }
        }
        for (const [organizationId, payload] of found) add(organizationId, payload);
      },
    },
  };
}

/** Whether a conversation may wait, or an agent be free, since this event. */
function mayAssign({ kind, event }: ProjectedEvent): boolean {
  switch (kind) {
    case 'conversation':
      return changesWaiting(event as Recorded<ConversationEvent>);
    case 'assignee': {
      const { type, data } = event as Recorded<AssigneeEvent>;
      if (type === 'AgentChanged') return data.availability === 'online';
      return type === 'AssigneeUnarchived' || (type === 'TeamChanged' && data.agentIds !== undefined);
    }
    default: {
      const { type, data } = event as Recorded<InboxEvent>;
      return type === 'InboxUnarchived' || (type === 'InboxChanged' && data.assignment !== undefined);
    }
  }
}

function changesWaiting({ type, data }: Recorded<ConversationEvent>): boolean {
  // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- the default takes the events that the reactor does not handle
  switch (type) {
    case 'ConversationStatusChanged':
      return data.from === 'open' || data.to === 'open';
    case 'ConversationSnoozed':
      return data.from === 'open';
    case 'ConversationAssigned':
      // Nobody had it, so nobody is freed.
      return data.reason === undefined;
    default:
      return true;
  }
}
