import type { Kysely } from 'kysely';
import { z } from 'zod';
import { conversationAggregate, type ConversationEvent } from '../src/conversations/conversation.js';
import type { Database } from '../src/database/database.js';
import { decode, type Recorded } from '../src/event-store/aggregate.js';
import { type EventStore, streamName } from '../src/event-store/event-store.js';
import {
  DELIVER_WEBHOOK,
  giveUpDeliveries,
  insertDeliveries,
  laneOf,
  type NewDelivery,
  receiverOf,
} from '../src/webhooks/delivery.rows.js';
import type { ToldEvents } from '../src/webhooks/webhook.told-events.js';
import { deliveryId, Telling } from '../src/webhooks/webhook.telling.js';
import { WEBHOOK_DISABLED } from '../src/webhooks/webhook-event.js';
import { isActive, type Webhook, webhookAggregate, type WebhookEvent } from '../src/webhooks/webhook.js';
import type { NewJob, TimersClock } from './runtime/jobs.js';
import type { ProjectedEvent } from './runtime/projection.js';
import type { Beginning, Consequences, Reactor } from './runtime/reactor.js';

export const WEBHOOKS = 'webhooks';

/** An endpoint as of the reactor's position. */
interface Endpoint {
  readonly organizationId: string;
  readonly id: string;
  readonly webhook: Webhook;
}
/** The reactor's own state: what the events up to its position say of every endpoint that was not deleted. */
interface State {
  readonly endpoints: readonly Endpoint[];
}
/** Written by this reactor alone, from states of the domain. */
const stateSchema = z.object({
  endpoints: z.array(
    z.object({ organizationId: z.string(), id: z.string(), webhook: z.custom<Webhook>((one) => typeof one === 'object') }),
  ),
});

/**
 * Makes a delivery, and a job that sends it, for each endpoint that is to be told of an event. Which endpoints those are, and what they ask
 * for, follows from the events before it, so that an event that is handled late is told as it would have been at once. An organization
 * without endpoints costs one look into a map for each event.
 */
export function webhooks(parts: {
  readonly store: EventStore;
  readonly database: Kysely<Database>;
  readonly timersClock: TimersClock;
  /** The memory that the sender of this process looks into. */
  readonly told?: ToldEvents;
}): Reactor {
  const { store, database, timersClock, told } = parts;
  const telling = new Telling(store);
  return {
    name: WEBHOOKS,
    begins: () => begins(store, database),
    jobs: [DELIVER_WEBHOOK],
    reaction: {
      reads: 'decoded',
      events: { conversation: Object.keys(conversationAggregate.codec.versions), webhook: Object.keys(webhookAggregate.codec.versions) },
      // A conversation that cannot be read must not silence the others. Every conversation depends on the endpoints' own events.
      order: 'within streams',
      stopsAt: [webhookAggregate.kind],
      async handle(events, consequences, kept) {
        const batch = new Batch(telling, told, kept);
        for (const event of events) await batch.take(event);
        await batch.finish(consequences, timersClock);
      },
    },
  };
}

/** The job that sends a delivery. */
export function jobOf(delivery: NewDelivery): NewJob {
  const lane = laneOf(delivery);
  return {
    kind: DELIVER_WEBHOOK,
    key: delivery.id,
    ...(lane === undefined ? {} : { lane }),
    receiver: receiverOf(delivery),
    organizationId: delivery.organizationId,
    payload: {},
  };
}

/** The consequences of one batch. */
class Batch {
  private readonly before: State;
  private state: State;
  private made: NewDelivery[] = [];
  private readonly ended: { readonly organizationId: string; readonly id: string; readonly because: string }[] = [];

  constructor(
    private readonly telling: Telling,
    private readonly told: ToldEvents | undefined,
    kept: unknown,
  ) {
    this.before = this.state = stateOf(kept);
  }

  async take({ kind, organizationId, streamId, event }: ProjectedEvent): Promise<void> {
    if (kind === 'webhook') return this.takeWebhook(organizationId, streamId, event as Recorded<WebhookEvent>);
    const endpoints = activeOf(this.state, organizationId);
    if (endpoints.length === 0 || event.metadata.imported === true) return;
    const happening = { organizationId, conversationId: streamId, event: event as Recorded<ConversationEvent> };
    const before = this.made.length;
    for (const { id, webhook } of endpoints) this.made.push(...(await this.telling.deliveries(id, webhook, happening)));
    if (this.made.length > before) this.told?.remember(organizationId, streamId, happening.event);
  }

  private takeWebhook(organizationId: string, id: string, event: Recorded<WebhookEvent>): void {
    const isThis = (one: Endpoint) => one.id === id && one.organizationId === organizationId;
    const webhook = webhookAggregate.evolve(this.state.endpoints.find(isThis)?.webhook ?? webhookAggregate.initial, event);
    const others = this.state.endpoints.filter((one) => !isThis(one));
    this.state = { endpoints: webhook.archived ? others : [...others, { organizationId, id, webhook }] };
    if (event.type === 'WebhookDisabled' || event.type === 'WebhookDeleted') {
      this.made = this.made.filter((one) => one.webhookId !== id || one.organizationId !== organizationId);
      this.ended.push({ organizationId, id, because: webhook.archived ? 'the webhook was deleted' : 'the webhook was disabled' });
    }
    if (event.metadata.imported === true || event.type !== 'WebhookDisabled' || event.data.reason === 'requested') return;
    for (const { id: webhookId, webhook: other } of activeOf(this.state, organizationId))
      if (other.events.includes(WEBHOOK_DISABLED))
        this.made.push({
          id: deliveryId(webhookId, event.id, 0),
          organizationId,
          webhookId,
          event: WEBHOOK_DISABLED,
          kind: webhookAggregate.kind,
          streamId: id,
          revision: event.revision,
          index: 0,
          position: event.position,
        });
  }

  async finish(consequences: Consequences, timersClock: TimersClock): Promise<void> {
    if (this.state !== this.before) consequences.keep(asKept(this.state));
    if (this.made.length === 0 && this.ended.length === 0) return;
    const tx = await consequences.transaction();
    for (const { organizationId, id, because } of this.ended) await giveUpDeliveries(tx, organizationId, id, because);
    for (const one of await insertDeliveries(tx, this.made, timersClock?.())) consequences.add(jobOf(one));
  }
}

/** Begins at the head, with the endpoints that are there: a log may have been copied here with its endpoints. */
async function begins(store: EventStore, database: Kysely<Database>): Promise<Beginning> {
  const position = await store.head();
  const known = await database.selectFrom('keep.webhook_secrets').select(['organization_id', 'webhook_id']).distinct().execute();
  const endpoints: Endpoint[] = [];
  for (const { organization_id: organizationId, webhook_id: id } of known) {
    let webhook = webhookAggregate.initial;
    for await (const batch of store.read(streamName(webhookAggregate.kind, organizationId, id)))
      for (const event of batch)
        if (position !== 'start' && event.position <= position)
          webhook = webhookAggregate.evolve(webhook, decode(webhookAggregate.codec, event));
    if (webhook.exists && !webhook.archived) endpoints.push({ organizationId, id, webhook });
  }
  return { position, state: { endpoints } satisfies State };
}

const NONE: State = { endpoints: [] };

/** The runtime hands the same object over until it changes, so each state is checked and sorted once. */
const states = new WeakMap<object, State>();
const sorted = new WeakMap<State, Map<string, Endpoint[]>>();

function stateOf(kept: unknown): State {
  if (typeof kept !== 'object' || kept === null) return NONE;
  let state = states.get(kept);
  if (state === undefined) states.set(kept, (state = stateSchema.parse(kept)));
  return state;
}

function asKept(state: State): State {
  states.set(state, state);
  return state;
}

function activeOf(state: State, organizationId: string): readonly Endpoint[] {
  let active = sorted.get(state);
  if (active === undefined) {
    active = new Map<string, Endpoint[]>();
    for (const one of state.endpoints) {
      if (!isActive(one.webhook)) continue;
      const beside = active.get(one.organizationId);
      if (beside === undefined) active.set(one.organizationId, [one]);
      else beside.push(one);
    }
    sorted.set(state, active);
  }
  return active.get(organizationId) ?? [];
}
