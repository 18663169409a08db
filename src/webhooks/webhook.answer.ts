import { z } from 'zod';
import type { Webhook } from './webhook.js';
import { WEBHOOK_EVENTS } from './webhook-event.js';

const instant = z.iso.datetime({ precision: 3 });

/** A webhook, as every route answers it. */
export const webhookSchema = z
  .strictObject({
    id: z.string(),
    url: z.string(),
    events: z.array(z.enum(WEBHOOK_EVENTS as [string, ...string[]])).readonly(),
    filters: z.strictObject({ inboxId: z.string().optional(), teamId: z.string().optional(), tag: z.string().optional() }),
    ignoreOwnWrites: z.boolean(),
    enabled: z.boolean(),
    disabled: z
      .strictObject({ reason: z.enum(['requested', 'gone', 'failing']), at: instant })
      .nullable()
      .describe('requested: somebody turned it off; gone: it answered 410; failing: every attempt failed for five days.'),
    owner: z.strictObject({ type: z.enum(['agent', 'apiKey', 'visitor', 'automation', 'system']), id: z.string() }),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: instant,
    updatedAt: instant,
  })
  .meta({ id: 'Webhook' });
export type WebhookAnswer = z.infer<typeof webhookSchema>;

/** The answers of the requests that made the secret; no other answer holds it. */
export const webhookWithSecretSchema = webhookSchema.extend({ secret: z.string() }).meta({ id: 'WebhookWithSecret' });

export function webhookAnswer(id: string, webhook: Webhook, revision: number): WebhookAnswer {
  const { url, events, filters, ignoreOwnWrites, disabled, owner, archived, createdAt, updatedAt } = webhook;
  return {
    id,
    url,
    events,
    filters,
    ignoreOwnWrites,
    enabled: disabled === null,
    disabled,
    owner: { type: owner.type, id: owner.id },
    archived,
    revision,
    createdAt,
    updatedAt,
  };
}
