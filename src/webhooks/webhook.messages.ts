import { z } from 'zod';
import { publicEventBody, publicEventBodySchema } from '../conversations/public-event.answer.js';
import { PUBLIC_EVENTS } from '../conversations/public-event.js';
import type { PublicEvent } from '../conversations/public-events.reader.js';
import type { VisitorBrief } from '../conversations/conversation.answer.js';
import type { Channel } from '../docs/asyncapi.js';
import type { Recorded } from '../event-store/aggregate.js';
import type { DisabledReason, Webhook, WebhookEvent } from './webhook.js';
import { WEBHOOK_DISABLED, WEBHOOK_PING } from './webhook-event.js';

/** Raised when a field of a message about webhooks changes its meaning. */
const SCHEMA_VERSION = 1;

/** What a webhook is sent of an event of a conversation: the name, and what live frames hold. */
export const conversationMessageSchema = z
  .strictObject({ event: z.enum(PUBLIC_EVENTS), ...publicEventBodySchema.shape })
  .meta({ id: 'WebhookMessage' });

/**
 * Tells the organization's other endpoints that one of them was disabled by itself. Path and query of its address are left out, since they may
 * hold a token.
 */
export const disabledMessageSchema = z
  .strictObject({
    event: z.literal(WEBHOOK_DISABLED),
    id: z.string(),
    timestamp: z.iso.datetime({ precision: 3 }),
    webhook: z.strictObject({ id: z.string(), origin: z.string() }),
    reason: z.enum(['gone', 'failing']),
    position: z.string(),
    schemaVersion: z.literal(SCHEMA_VERSION),
  })
  .meta({ id: 'WebhookDisabledMessage' });

/** A test. */
export const pingMessageSchema = z
  .strictObject({
    event: z.literal(WEBHOOK_PING),
    id: z.string(),
    timestamp: z.iso.datetime({ precision: 3 }),
    webhook: z.strictObject({ id: z.string(), url: z.string() }),
    schemaVersion: z.literal(SCHEMA_VERSION),
  })
  .meta({ id: 'WebhookPingMessage' });

/** What endpoints are sent. */
export const WEBHOOK_CHANNEL: Channel = {
  name: 'webhooks',
  address: null,
  title: 'Webhooks',
  description:
    'Signed POST requests to the address of an endpoint, by the Standard Webhooks specification: at least once, and in order for each conversation.',
  sent: [
    { name: 'webhook.message', summary: 'Something happened in a conversation.', payload: conversationMessageSchema },
    {
      name: WEBHOOK_DISABLED,
      summary: 'Another endpoint of the organization was disabled by itself.',
      payload: disabledMessageSchema,
    },
    { name: WEBHOOK_PING, summary: 'A test, asked for by POST /webhooks/{id}/ping.', payload: pingMessageSchema },
  ],
  received: [],
};

export function conversationMessage(told: PublicEvent, visitor: VisitorBrief): z.infer<typeof conversationMessageSchema> {
  return { event: told.type, ...publicEventBody(told, visitor) };
}

export function disabledMessage(
  id: string,
  { url }: Webhook,
  event: Recorded<WebhookEvent>,
  reason: Exclude<DisabledReason, 'requested'>,
): z.infer<typeof disabledMessageSchema> {
  return {
    event: WEBHOOK_DISABLED,
    id: event.id,
    timestamp: event.metadata.occurredAt,
    webhook: { id, origin: new URL(url).origin },
    reason,
    position: event.position,
    schemaVersion: SCHEMA_VERSION,
  };
}

/** @param now ms */
export function pingMessage(deliveryId: string, webhookId: string, { url }: Webhook, now: number): z.infer<typeof pingMessageSchema> {
  return {
    event: WEBHOOK_PING,
    id: deliveryId,
    timestamp: new Date(now).toISOString(),
    webhook: { id: webhookId, url },
    schemaVersion: SCHEMA_VERSION,
  };
}
