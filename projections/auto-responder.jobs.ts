import type { CommandBus } from '@nestjs/cqrs';
import { z } from 'zod';
import { AnswerVisitor } from '../src/conversations/automatic-answer.commands.js';
import { derivedId } from '../src/ids.js';
import { causedBy, isRefused } from './command-of-job.js';
import type { JobKind } from './runtime/job-runner.js';

export const ANSWER_VISITOR = 'answer-visitor';

const payloadSchema = z.strictObject({
  conversationId: z.string(),
  /** The inbox of the conversation when the visitor wrote. */
  inboxId: z.string(),
  /** The episode that the message belongs to. */
  episode: z.number().int(),
  /** The event of the message, its revision and its time (ms). */
  eventId: z.string(),
  revision: z.number().int(),
  writtenAt: z.number().int(),
  correlationId: z.string(),
  depth: z.number().int(),
});
export type AnswerVisitorPayload = z.infer<typeof payloadSchema>;

/** Answers a visitor's message by the inbox's settings, once in an episode however many messages, attempts and processes there are. */
export function answerVisitorJobs(commands: CommandBus): JobKind {
  return {
    kind: ANSWER_VISITOR,
    backoff: { first: 1_000, longest: 60_000 },
    async handle({ organizationId, payload }) {
      const { conversationId, eventId, correlationId, depth, ...message } = payloadSchema.parse(payload);
      const context = {
        organizationId,
        actor: { type: 'automation', id: message.inboxId } as const,
        commandId: derivedId('auto-responder', organizationId, conversationId, String(message.episode)),
        ...causedBy({ eventId, correlationId, depth }),
      };
      try {
        await commands.execute(new AnswerVisitor(context, conversationId, message));
        return 'done';
      } catch (error) {
        if (isRefused(error)) return { gaveUp: error.code };
        throw error;
      }
    },
  };
}
