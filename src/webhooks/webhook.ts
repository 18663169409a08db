import { z } from 'zod';
import { ThreadlogError } from '../errors.js';
import type { Actor, Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';

/** What narrows an endpoint; absent fields let everything through. They are compared with the conversation as it is after the event. */
export interface WebhookFilters {
  readonly inboxId?: string;
  readonly teamId?: string;
  readonly tag?: string;
}

/** An endpoint's settings. Its secrets are in keep.webhook_secrets, never here. */
export interface WebhookFields {
  readonly url: string;
  /** Names of events, or `*` for every event of a conversation. */
  readonly events: readonly string[];
  readonly filters: WebhookFilters;
  /** Leaves out the events that the endpoint's owner caused. */
  readonly ignoreOwnWrites: boolean;
}

/**
 * Why an endpoint gets nothing. requested: somebody turned it off; gone: it answered 410; failing: every attempt failed for five days.
 */
export type DisabledReason = 'requested' | 'gone' | 'failing';

export type WebhookEvent =
  | { readonly type: 'WebhookCreated'; readonly data: WebhookFields & { readonly owner: Actor } }
  /** Only the fields to change; events and filters are replaced as a whole. */
  | { readonly type: 'WebhookChanged'; readonly data: Partial<WebhookFields> }
  | { readonly type: 'WebhookDisabled'; readonly data: { readonly reason: DisabledReason } }
  | { readonly type: 'WebhookEnabled'; readonly data: Record<string, never> }
  /** From now on deliveries are signed with a new secret, and until the given instant with the earlier ones as well. */
  | { readonly type: 'WebhookSecretRotated'; readonly data: { readonly earlierUntil: string } }
  /** Its secrets are destroyed, so it does not come back. */
  | { readonly type: 'WebhookDeleted'; readonly data: Record<string, never> };

export interface Webhook extends WebhookFields {
  readonly exists: boolean;
  readonly archived: boolean;
  /** Null while it is enabled. */
  readonly disabled: { readonly reason: DisabledReason; readonly at: string } | null;
  /** Who made it. */
  readonly owner: Actor;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const fields = {
  url: z.string(),
  events: z.array(z.string()),
  // Strict: without a filter that this build does not know, an endpoint would be told too much.
  filters: z.strictObject({ inboxId: z.string().optional(), teamId: z.string().optional(), tag: z.string().optional() }),
  ignoreOwnWrites: z.boolean(),
};

export const webhookAggregate: Aggregate<Webhook, WebhookEvent> = {
  kind: 'webhook',
  codec: schemaCodec<WebhookEvent>({
    WebhookCreated: [
      z.object({
        ...fields,
        owner: z.object({ type: z.enum(['agent', 'apiKey', 'visitor', 'automation', 'system']), id: z.string() }),
      }),
    ],
    WebhookChanged: [z.object(fields).partial()],
    WebhookDisabled: [z.object({ reason: z.enum(['requested', 'gone', 'failing']) })],
    WebhookEnabled: [z.object({})],
    WebhookSecretRotated: [z.object({ earlierUntil: z.string() })],
    WebhookDeleted: [z.object({})],
  }),
  initial: {
    exists: false,
    archived: false,
    disabled: null,
    owner: { type: 'apiKey', id: '' },
    url: '',
    events: [],
    filters: {},
    ignoreOwnWrites: false,
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'WebhookCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'WebhookChanged':
        return { ...before, ...event.data, updatedAt: at };
      case 'WebhookDisabled':
        return { ...before, disabled: { reason: event.data.reason, at }, updatedAt: at };
      case 'WebhookEnabled':
        return { ...before, disabled: null, updatedAt: at };
      case 'WebhookSecretRotated':
        return { ...before, updatedAt: at };
      case 'WebhookDeleted':
        return { ...before, archived: true, updatedAt: at };
    }
  },
};

/** Whether deliveries are made and sent. */
export const isActive = (w: Webhook): boolean => w.exists && !w.archived && w.disabled === null;

export type WebhookDecision = (w: Webhook) => readonly WebhookEvent[];

/** Returns no event when it was made before. */
export function createWebhook({ url, events, filters, ignoreOwnWrites }: WebhookFields, owner: Actor): WebhookDecision {
  return (w) => (w.exists ? [] : [{ type: 'WebhookCreated', data: { url, events, filters, ignoreOwnWrites, owner } }]);
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived */
export function changeWebhook({ enabled, ...changes }: Partial<WebhookFields> & { readonly enabled?: boolean }): WebhookDecision {
  return (w) => {
    requireKept(w);
    const differing = Object.fromEntries(
      Object.entries(changes).filter(
        ([field, value]) => value !== undefined && JSON.stringify(value) !== JSON.stringify(w[field as keyof WebhookFields]),
      ),
    );
    return [
      ...(Object.keys(differing).length === 0 ? [] : [{ type: 'WebhookChanged', data: differing } as const]),
      ...(enabled === undefined ? [] : enabled ? enableWebhook()(w) : disableWebhook('requested')(w)),
    ];
  };
}

/** @throws ThreadlogError not_found, resource_archived */
export function disableWebhook(reason: DisabledReason): WebhookDecision {
  return (w) => {
    requireKept(w);
    return w.disabled === null ? [{ type: 'WebhookDisabled', data: { reason } }] : [];
  };
}

/** @throws ThreadlogError not_found, resource_archived */
export function enableWebhook(): WebhookDecision {
  return (w) => {
    requireKept(w);
    return w.disabled === null ? [] : [{ type: 'WebhookEnabled', data: {} }];
  };
}

/** @param earlierUntil ISO instant. @throws ThreadlogError not_found, resource_archived */
export function rotateSecret(earlierUntil: string): WebhookDecision {
  return (w) => {
    requireKept(w);
    return [{ type: 'WebhookSecretRotated', data: { earlierUntil } }];
  };
}

/** @throws ThreadlogError not_found */
export function deleteWebhook(): WebhookDecision {
  return (w) => {
    if (!w.exists) throw new ThreadlogError('not_found');
    return w.archived ? [] : [{ type: 'WebhookDeleted', data: {} }];
  };
}

function requireKept(w: Webhook): void {
  if (!w.exists) throw new ThreadlogError('not_found');
  if (w.archived) throw new ThreadlogError('resource_archived', 'the webhook was deleted');
}
