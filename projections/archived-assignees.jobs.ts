import type { CommandBus } from '@nestjs/cqrs';
import { z } from 'zod';
import { RevokeKeysOfAgent } from '../src/api-keys/api-key.commands.js';
import type { ConversationChanged } from '../src/conversations/conversation.commands.js';
import { TakeOffArchived } from '../src/conversations/conversation.commands.js';
import type { Status } from '../src/conversations/conversation.js';
import type { EventStore, Position } from '../src/event-store/event-store.js';
import type { Transactor } from '../src/commands/transactor.js';
import { derivedId } from '../src/ids.js';
import type { Checkpoints } from '../src/read-models/checkpoints.js';
import { FindConversationIds, type FindConversationIdsHandler } from '../src/conversations/conversation.list.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import { assigneeAggregate } from '../src/team/assignee.js';
import { causedBy, isRefused } from './command-of-job.js';
import type { JobKind, Outcome } from './runtime/job-runner.js';

export const TAKE_OFF_ARCHIVED = 'take-off-archived';

const payloadSchema = z.strictObject({
  assigneeId: z.string(),
  /** The event that archived the agent or team. */
  eventId: z.string(),
  /** The position of that event in the log. */
  position: z.string(),
});
export type TakeOffArchivedPayload = z.infer<typeof payloadSchema>;

const NOT_ENDED: readonly Status[] = ['open', 'pending', 'snoozed'];
const PAGE = 500;
const AT_ONCE = 8;
/** How long one attempt waits for the list (ms). */
const LIST_MS = 5_000;
const BEHIND: Outcome = { againInMs: 1_000, because: 'the list of conversations is behind' };

/**
 * Revokes the API keys of an archived agent, in case the request that archived it could not, and takes the agent or team off every conversation
 * that has not ended, until the list of conversations shows none. A repeated job is harmless: a decision on its own result changes nothing.
 */
export function takeOffArchivedJobs(parts: {
  readonly commands: CommandBus;
  readonly store: EventStore;
  readonly transactor: Transactor;
  readonly checkpoints: Checkpoints;
  readonly find: FindConversationIdsHandler;
}): JobKind {
  const { commands, store, transactor, checkpoints, find } = parts;
  const reached = async (position: Position) => (await checkpoints.waitFor(CORE_GROUP, position, LIST_MS)) === 'reached';
  return {
    kind: TAKE_OFF_ARCHIVED,
    backoff: { first: 1_000, longest: 60_000 },
    async handle({ organizationId, key, payload }, signal) {
      const { assigneeId, eventId, position } = payloadSchema.parse(payload);
      const contextOf = (...names: readonly string[]) => ({
        organizationId,
        actor: { type: 'system', id: 'archived-assignees' } as const,
        commandId: derivedId('take-off-archived', key, ...names),
        ...causedBy({ eventId, correlationId: eventId, depth: 0 }),
      });
      await commands.execute(new RevokeKeysOfAgent(contextOf('keys'), assigneeId));
      const unchanged = new Set<string>();
      const refused = new Set<string>();
      // The list must include every event that is in the log by now, the archiving among them: this sweep covers all of them.
      const head = await store.head();
      let after = head === 'start' || head < position ? (position as Position) : head;
      for (let round = 0; ; round++) {
        if (!(await reached(after))) return BEHIND;
        const assignee = (await transactor.load(assigneeAggregate, organizationId, assigneeId, 0))?.state;
        if (assignee?.archived !== true) return 'done';
        const filters =
          assignee.type === 'team' ? [{ teamId: [assigneeId] }, { assigneeId: [assigneeId] }] : [{ assigneeId: [assigneeId] }];
        const found = await Promise.all(
          filters.map((filter) =>
            find.execute(new FindConversationIds(organizationId, { ...filter, status: NOT_ENDED }, PAGE + refused.size)),
          ),
        );
        const left = [...new Set(found.flat())].filter((id) => !refused.has(id));
        if (left.length === 0) return 'done';
        const ids = left.values();
        await Promise.all(
          Array.from({ length: AT_ONCE }, async () => {
            for (const id of ids) {
              if (signal.aborted) return;
              // Each round has its own id, so that an assignee that was assigned again meanwhile is taken off again.
              const context = contextOf(String(round), id);
              try {
                const changed: ConversationChanged = await commands.execute(new TakeOffArchived(context, id, assigneeId));
                if (changed.position > after) after = changed.position;
                // Somebody else made the change, and the list will show it, unless the stream is parked: then it never will.
                if (changed.outcome === 'unchanged' && unchanged.has(id)) refused.add(id);
                if (changed.outcome === 'unchanged') unchanged.add(id);
              } catch (error) {
                if (!isRefused(error)) throw error;
                refused.add(id);
              }
            }
          }),
        );
        if (signal.aborted) return { againInMs: 0, because: 'the process ended' };
      }
    },
  };
}
