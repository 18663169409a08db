import type { CommandBus } from '@nestjs/cqrs';
import { z } from 'zod';
import { WakeConversation } from '../src/conversations/conversation.commands.js';
import { derivedId } from '../src/ids.js';
import { causedBy, causeSchema, isRefused } from './command-of-job.js';
import type { JobKind } from './runtime/job-runner.js';

export const WAKE_CONVERSATION = 'wake-conversation';

const payloadSchema = z.strictObject({
  conversationId: z.string(),
  /** The revision of the event that set the snooze. */
  snoozeRevision: z.number().int(),
  /** The event that set the snooze; absent in jobs of earlier builds. */
  cause: causeSchema.optional(),
});
export type WakeConversationPayload = z.infer<typeof payloadSchema>;

/** Wakes a conversation whose snooze is over. */
export function wakeConversationJobs(commands: CommandBus): JobKind {
  return {
    kind: WAKE_CONVERSATION,
    backoff: { first: 1_000, longest: 60_000 },
    async handle({ organizationId, payload, dueAt }) {
      const { conversationId, snoozeRevision, cause } = payloadSchema.parse(payload);
      const commandId = derivedId('wake', organizationId, conversationId, String(snoozeRevision));
      const context = {
        organizationId,
        actor: { type: 'system', id: 'snooze-timer' } as const,
        commandId,
        ...(cause === undefined ? { requestHash: '', correlationId: commandId, causationDepth: 1 } : causedBy(cause)),
      };
      try {
        // The job was due on the clock of timers, so that clock has passed this time.
        await commands.execute(new WakeConversation(context, conversationId, snoozeRevision, dueAt));
        return 'done';
      } catch (error) {
        if (isRefused(error)) return { gaveUp: error.code };
        throw error;
      }
    },
  };
}
