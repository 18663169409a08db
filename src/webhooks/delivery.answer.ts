import { z } from 'zod';
import { conversationAggregate } from '../conversations/conversation.js';
import { ANSWER_KEPT } from '../http-out/outbound-client.js';
import { ERASED } from '../security/sealing.js';
import { DELIVERED_EVENTS } from './webhook-event.js';

const instant = z.iso.datetime({ precision: 3 });

export const DELIVERY_STATUSES = ['pending', 'delivered', 'failed', 'given_up'] as const;
export type DeliveryStatus = (typeof DELIVERY_STATUSES)[number];

const head = {
  id: z.string().describe('Sent as webhook-id with every attempt.'),
  event: z.enum(DELIVERED_EVENTS as [string, ...string[]]),
  position: z.string().nullable().describe("The event's position; null for a ping."),
  conversationId: z.string().nullable(),
  status: z
    .enum(DELIVERY_STATUSES)
    .describe('pending: not tried yet; failed: it will be tried again; given_up: it will not, unless it is resent.'),
};
const tail = {
  nextAttemptAt: instant.optional(),
  lastStatus: z.number().int().optional(),
  lastError: z.string().optional(),
  createdAt: instant,
  deliveredAt: instant.optional(),
};

/** An event on its way to an endpoint, in a list. */
export const deliverySchema = z.strictObject({ ...head, attempts: z.number().int(), ...tail }).meta({ id: 'WebhookDelivery' });
export type DeliveryAnswer = z.infer<typeof deliverySchema>;

const attemptSchema = z
  .strictObject({
    at: instant,
    status: z.number().int().optional(),
    error: z.string().optional().describe('Why there was no answer.'),
    durationMs: z.number().int(),
    response: z.string().optional().describe(`The first ${ANSWER_KEPT} bytes of the answer; ${ERASED} once the visitor was erased.`),
  })
  .meta({ id: 'WebhookAttempt' });
export type AttemptAnswer = z.infer<typeof attemptSchema>;

/** A delivery with its attempts, oldest first. */
export const deliveryWithAttemptsSchema = z
  .strictObject({ ...head, attempts: z.array(attemptSchema), ...tail })
  .meta({ id: 'WebhookDeliveryWithAttempts' });
export type DeliveryWithAttemptsAnswer = z.infer<typeof deliveryWithAttemptsSchema>;

export const deliveriesPageSchema = z.strictObject({
  data: z.array(deliverySchema),
  meta: z.strictObject({ limit: z.number().int(), hasMore: z.boolean(), nextCursor: z.string().nullable() }),
});
export type DeliveriesPage = z.infer<typeof deliveriesPageSchema>;

export const replaySchema = z.strictObject({ count: z.number().int() }).meta({ id: 'WebhookReplay' });

/** What a list reads of a delivery. */
export interface DeliveryRow {
  readonly seq: number;
  readonly id: string;
  readonly event: string;
  readonly kind: string;
  readonly stream_id: string;
  readonly position: string;
  readonly status: DeliveryStatus;
  readonly attempts: number;
  readonly next_attempt_at: Date | null;
  readonly last_status: number | null;
  readonly last_error: string | null;
  readonly created_at: Date;
  readonly delivered_at: Date | null;
}

export function deliveryAnswer(row: DeliveryRow): DeliveryAnswer {
  const { id, event, kind, stream_id, position, status, attempts } = row;
  return {
    id,
    event,
    position: position === '' ? null : position,
    conversationId: kind === conversationAggregate.kind ? stream_id : null,
    status,
    attempts,
    ...(row.next_attempt_at === null ? {} : { nextAttemptAt: row.next_attempt_at.toISOString() }),
    ...(row.last_status === null ? {} : { lastStatus: row.last_status }),
    ...(row.last_error === null ? {} : { lastError: row.last_error }),
    createdAt: row.created_at.toISOString(),
    ...(row.delivered_at === null ? {} : { deliveredAt: row.delivered_at.toISOString() }),
  };
}

export function deliveryWithAttemptsAnswer(row: DeliveryRow, attempts: readonly AttemptAnswer[]): DeliveryWithAttemptsAnswer {
  return { ...deliveryAnswer(row), attempts: [...attempts] };
}
