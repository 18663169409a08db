import { z } from 'zod';
import { type DataKey, ERASED, type Sealed } from '../security/sealing.js';
import type { AttemptAnswer } from './delivery.answer.js';

/*
 * An attempt as keep.webhook_deliveries holds it. A receiver may answer with what it was sent, so the answer to an event of a conversation is
 * sealed with the visitor's key, as the texts of messages are: when the visitor is erased, nobody can read it any more.
 */
const storedAttemptSchema = z.object({
  at: z.string(),
  durationMs: z.number(),
  status: z.number().optional(),
  error: z.string().optional(),
  /** The answer to a message that holds no personal content. */
  response: z.string().optional(),
  sealed: z.string().optional(),
  keyId: z.string().optional(),
});
export type StoredAttempt = z.infer<typeof storedAttemptSchema>;

/** The key that seals an answer, and its id. */
export interface AnswerKey {
  readonly keyId: string;
  /** Undefined when the visitor was erased: the answer is not kept then. */
  readonly key: DataKey | undefined;
}

const contextOf = (deliveryId: string) => `webhook.answer ${deliveryId}`;

/** What is kept of an answer's text. @param sealing absent when the message held no personal content */
export function keptAnswer(deliveryId: string, text: string, sealing: AnswerKey | undefined): Partial<StoredAttempt> {
  if (sealing === undefined) return { response: text };
  return sealing.key === undefined ? {} : { sealed: sealing.key.seal(contextOf(deliveryId), text), keyId: sealing.keyId };
}

/** Attempts as they are stored. */
export const storedAttempts = (log: unknown): readonly StoredAttempt[] => z.array(storedAttemptSchema).parse(log);

/** @param keys the keys that still exist, by id */
export function attemptAnswer(deliveryId: string, stored: StoredAttempt, keys: ReadonlyMap<string, DataKey>): AttemptAnswer {
  const { sealed, keyId, ...shown } = stored;
  if (sealed === undefined || keyId === undefined) return shown;
  const key = keys.get(keyId);
  return { ...shown, response: key === undefined ? ERASED : String(key.unseal(contextOf(deliveryId), sealed as Sealed)) };
}
