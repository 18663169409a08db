import { type AutomaticAssignmentRow, automaticAssignmentsTable } from '../src/conversations/automatic-assignment.table.js';
import type { ConversationEvent } from '../src/conversations/conversation.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { FoldingProjection, ProjectedEvent, ProjectionTarget } from './runtime/projection.js';

/** Writes a row for each assignment that an inbox made by itself, from which the order of turns follows. */
export class AutomaticAssignmentsProjection implements FoldingProjection {
  readonly name = 'automatic-assignments';
  readonly kinds = ['conversation'] as const;
  readonly tables = [automaticAssignmentsTable];

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const made: AutomaticAssignmentRow[] = [];
    for (const { organizationId, streamId, event, skipped } of events) {
      const { type, data, revision, position } = event as Recorded<ConversationEvent>;
      if (type !== 'ConversationAssigned' || data.reason === undefined || skipped) continue;
      made.push({
        organization_id: organizationId,
        conversation_id: streamId,
        revision,
        position,
        inbox_id: data.reason.inboxId,
        agent_id: data.assignee.id,
      });
    }
    if (made.length > 0) await target.write(automaticAssignmentsTable, { made, changed: [] });
  }
}
