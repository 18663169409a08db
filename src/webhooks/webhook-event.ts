import { PUBLIC_EVENTS } from '../conversations/public-event.js';

/** Every event of a conversation. */
export const ANY_EVENT = '*';
/** Tells an organization's other endpoints that one of them was disabled. `*` does not include it. */
export const WEBHOOK_DISABLED = 'webhook.disabled';
/** Sent by POST /webhooks/{id}/ping alone. */
export const WEBHOOK_PING = 'webhook.ping';

/** The names that an endpoint may ask for. */
export const WEBHOOK_EVENTS: readonly string[] = [...PUBLIC_EVENTS, WEBHOOK_DISABLED, ANY_EVENT];

/** The names that a delivery may have. */
export const DELIVERED_EVENTS: readonly string[] = [...PUBLIC_EVENTS, WEBHOOK_DISABLED, WEBHOOK_PING];

/** Whether an endpoint that asks for these events is told of this event of a conversation. */
export const asksFor = (events: readonly string[], type: string): boolean => events.includes(type) || events.includes(ANY_EVENT);
