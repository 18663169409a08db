import type { CommandBus } from '@nestjs/cqrs';
import { type Kysely, sql } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Backend } from '../src/backend.js';
import type { Transactor } from '../src/commands/transactor.js';
import { type PublicEvent, PublicEventsReader } from '../src/conversations/public-events.reader.js';
import type { Database } from '../src/database/database.js';
import { type Outbound, OutboundClient } from '../src/http-out/outbound-client.js';
import { derivedId } from '../src/ids.js';
import type { Metrics } from '../src/metrics/metrics.js';
import { pause } from '../src/pause.js';
import { WakeUp } from './runtime/wake-up.js';
import type { VisitorKeys } from '../src/security/visitor-keys.js';
import { type AnswerKey, keptAnswer, type StoredAttempt } from '../src/webhooks/delivery.attempt.js';
import { DELIVER_WEBHOOK, removeOldDeliveries } from '../src/webhooks/delivery.rows.js';
import { DisableFailedWebhook } from '../src/webhooks/webhook.commands.js';
import { WEBHOOK_DISABLED, WEBHOOK_PING } from '../src/webhooks/webhook-event.js';
import type { ToldEvents } from '../src/webhooks/webhook.told-events.js';
import { conversationMessage, disabledMessage, pingMessage } from '../src/webhooks/webhook.messages.js';
import { signedHeaders } from '../src/webhooks/webhook.signature.js';
import { isActive, type Webhook, webhookAggregate, type WebhookEvent } from '../src/webhooks/webhook.js';
import { type SigningKey, WebhookSecrets } from '../src/webhooks/webhook.secrets.js';
import { isRefused } from './command-of-job.js';
import { describeError, isOfTheSurroundings } from './runtime/failures.js';
import { JOB_LEASE_MS, type TimersClock } from './runtime/jobs.js';
import type { RuntimeLog } from './runtime/runtime-log.js';
import { workerName } from './runtime/worker-name.js';
import { afterAttempt, DISABLED_AFTER_MS } from '../src/webhooks/retry-schedule.js';

/** Deliveries that a process has in hand at the same time. */
const MOST = 512;
/** How many of them may go to endpoints that have not answered well yet, or failed last: those must not take every place. */
const MOST_UNPROVEN = 384;
/** Deliveries in hand for one endpoint that answers well; one that failed gets a single one at a time until it answers well again. */
const MOST_OF_ENDPOINT = 64;
/** The same for one that answers well but slowly, so that a few of them do not take every place. */
const MOST_OF_SLOW_ENDPOINT = 8;
/** Up to which time an answer is no slow one (ms). */
const PROMPT_MS = 1_000;
/** How often the sender looks for due deliveries when nobody wakes it (ms). */
const POLL_MS = 500;
/** Pause between two takes while there is much to do, and before results are written (ms), so that one statement takes or records several. */
const GATHER_MS = 8;
/** A third of the lease: two renewals in a row may fail. */
const RENEW_MS = JOB_LEASE_MS / 3;
/** How often old deliveries are removed (ms). */
const SWEEP_MS = 10 * 60_000;
/** How old an endpoint's settings and secrets may be (ms). */
const SETTINGS_MS = 1_000;
/** Pause before a delivery is tried again when the log or the database was away (ms). It counts as no attempt. */
const UNSENT_MS = 5_000;
/** How long requests that are under way may take when the process ends (ms). They are sent again, with the same id. */
const ENDING_MS = 3_000;

/** How an attempt ended, for measurements. */
export type AttemptOutcome = 'delivered' | 'refused' | 'timeout' | 'unreachable' | 'blocked' | 'unsent';

/** A delivery that this process has, with the job that proves it. */
interface Taken {
  readonly job: number;
  readonly attempt: number;
  readonly receiver: string;
  readonly id: string;
  readonly organization_id: string;
  readonly webhook_id: string;
  readonly event: string;
  readonly kind: string;
  readonly stream_id: string;
  readonly revision: number;
  readonly index: number;
  readonly tries: number;
  readonly status: string;
}

/** What became of a delivery in hand. keep.record_deliveries writes it. */
interface Result {
  readonly taken: Taken;
  readonly outcome: 'delivered' | 'again' | 'given_up' | 'unsent';
  /** The attempt, as the delivery log has it. Absent when there was none. */
  readonly entry?: StoredAttempt;
  /** The endpoint is to blame for the failure. */
  readonly endpointFailed?: boolean;
  readonly status?: number;
  readonly error?: string;
  readonly delayMs?: number;
}

interface InHand {
  readonly taken: Taken;
  readonly ending: AbortController;
  /** False once the attempt has ended, and only its result is still to be written. */
  sending: boolean;
}

/** An endpoint as it was read. */
interface Found {
  readonly state: Webhook;
  readonly revision: number;
}

/** What a delivery sends, and what seals the answer to it. */
interface Message {
  readonly body: { readonly timestamp: string };
  readonly sealing?: AnswerKey;
}

export interface WebhookSenderOptions {
  readonly database: Kysely<Database>;
  readonly transactor: Transactor;
  readonly commands: CommandBus;
  readonly events: PublicEventsReader;
  readonly toldEvents: ToldEvents;
  readonly keys: VisitorKeys;
  readonly secrets: WebhookSecrets;
  readonly client: OutboundClient;
  readonly clock: Backend['clock'];
  readonly timersClock: TimersClock;
  readonly log: RuntimeLog;
  readonly measure?: (outcome: AttemptOutcome, ms: number, delayMs?: number) => void;
}

/**
 * Sends deliveries. It takes many at once, in each lane the first alone, and writes many results at once. Any number of processes may run
 * one: a delivery belongs to one process at a time, and comes to another one when its lease runs out, with the same webhook-id.
 */
export class WebhookSender {
  readonly kind = DELIVER_WEBHOOK;
  readonly #owner = workerName();
  /** A job may be here twice: when its lease ran out unnoticed, and this process took it again. */
  readonly #inHand = new Set<InHand>();
  readonly #results: { readonly one: InHand; readonly result: Result }[] = [];
  /** How many deliveries of a receiver may be in hand: twice as many after each good and prompt answer, one after a failure. */
  readonly #allowance = new LRUCache<string, number>({ max: 10_000 });
  readonly #endpoints = new LRUCache<string, Promise<Found | undefined>>({ max: 1_000, ttl: SETTINGS_MS });
  readonly #secrets = new LRUCache<string, Promise<readonly SigningKey[]>>({ max: 1_000, ttl: SETTINGS_MS });
  /** One stored event gives several public ones, to several endpoints. */
  readonly #told = new LRUCache<string, Promise<readonly PublicEvent[]>>({ max: 500, ttl: SETTINGS_MS });
  #recording = false;
  readonly #wakeUp = new WakeUp();

  constructor(private readonly options: WebhookSenderOptions) {}

  /** Makes the sender look for deliveries at once. */
  wake(): void {
    this.#wakeUp.call();
  }

  /** Sends until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const wake = () => this.wake();
    signal.addEventListener('abort', wake, { once: true });
    const renewing = setInterval(() => void this.#renew(), RENEW_MS);
    const sweeping = setInterval(() => void this.#sweep(), SWEEP_MS);
    void this.#sweep();
    try {
      while (!signal.aborted) {
        this.#wakeUp.seen();
        const wanted = MOST - this.#inHand.size;
        let taken: readonly Taken[] = [];
        if (wanted > 0)
          try {
            taken = await this.#take(wanted);
          } catch (error) {
            this.options.log.warn({ error: describeError(error) }, 'could not look for due deliveries, trying again');
          }
        for (const one of taken) this.#begin(one);
        if (taken.length === 0) await this.#wakeUp.wait(POLL_MS, signal);
        else await pause(GATHER_MS, signal);
      }
    } finally {
      clearInterval(renewing);
      clearInterval(sweeping);
      signal.removeEventListener('abort', wake);
      await this.#stop();
    }
  }

  #begin(taken: Taken): void {
    const one: InHand = { taken, ending: new AbortController(), sending: true };
    this.#inHand.add(one);
    void this.#attempt(one)
      .catch((error: unknown) => this.#unmade(taken, error))
      .then((result) => this.#record(one, result));
  }

  async #attempt({ taken, ending }: InHand): Promise<Result> {
    const { transactor, clock, client, measure } = this.options;
    const { organization_id: organizationId, webhook_id: webhookId, event } = taken;
    // An earlier attempt was believed lost, and has arrived.
    if (taken.status === 'delivered') return { taken, outcome: 'delivered' };
    const maySend = (webhook: Webhook) => !webhook.archived && (event === WEBHOOK_PING || isActive(webhook));
    let found = await this.#settings(organizationId, webhookId);
    // It may have been enabled since.
    if (found === undefined || !maySend(found.state)) found = await transactor.load(webhookAggregate, organizationId, webhookId);
    if (found === undefined || !maySend(found.state)) return { taken, outcome: 'given_up', error: 'the webhook was disabled or deleted' };
    const webhook = found.state;
    const kept = await this.#keys(organizationId, webhookId);
    // Its maker may have written the event, and be about to write the secret.
    if (kept.length === 0) return this.#failed(taken, { error: 'the webhook has no secret; rotate it' }, clock.now(), 0);
    const message = await this.#message(taken, webhook);
    const body = JSON.stringify(message.body);
    const at = clock.now();
    const keys = kept.filter(({ until }) => until > at).map(({ key }) => key);
    const began = performance.now();
    const headers = {
      ...signedHeaders(taken.id, at, body, keys),
      'content-type': 'application/json',
      'user-agent': 'Threadlog-Webhooks/1',
    };
    const answer = await client.post(webhook.url, headers, body, ending.signal);
    const durationMs = Math.round(performance.now() - began);
    // The process ends, or another one has the delivery: what the receiver made of it is not known.
    if ('failure' in answer && ending.signal.aborted) return { taken, outcome: 'unsent', delayMs: 0 };
    measure?.(outcomeOf(answer), durationMs, ...(isGood(answer) ? [clock.now() - Date.parse(message.body.timestamp)] : []));
    this.#allow(taken.receiver, isGood(answer), durationMs);
    if ('failure' in answer) return this.#failed(taken, { error: answer.error, endpointFailed: true }, at, durationMs);
    const { status, retryAfter } = answer;
    const shown = { status, ...keptAnswer(taken.id, answer.body, message.sealing) };
    if (isGood(answer)) return { taken, outcome: 'delivered', entry: { at: new Date(at).toISOString(), durationMs, ...shown }, status };
    if (status === 410) await this.#disable(organizationId, webhookId, found, 'gone');
    return this.#failed(taken, { error: `answered ${status}`, endpointFailed: true, shown, retryAfter }, at, durationMs);
  }

  /** A failed attempt, and what follows it. @param failure.shown what the delivery log shows of it; the error by default */
  #failed(
    taken: Taken,
    failure: {
      readonly error: string;
      readonly endpointFailed?: boolean;
      readonly shown?: Pick<StoredAttempt, 'status' | 'response' | 'sealed' | 'keyId'>;
      readonly retryAfter?: string | undefined;
    },
    at: number,
    durationMs: number,
  ): Result {
    const { error, endpointFailed = false, shown, retryAfter } = failure;
    const next = afterAttempt(taken.tries + 1, retryAfter, at, Math.random());
    return {
      taken,
      entry: { at: new Date(at).toISOString(), durationMs, ...(shown ?? { error }) },
      error,
      endpointFailed,
      ...(shown?.status === undefined ? {} : { status: shown.status }),
      ...(next === 'give up' ? { outcome: 'given_up' } : { outcome: 'again', delayMs: next.inMs }),
    };
  }

  /** A delivery that could not be made up. When nothing of its own is the cause, it waits; else it has failed, as if it had been sent. */
  #unmade(taken: Taken, error: unknown): Result {
    const { log, measure, clock } = this.options;
    log.warn({ delivery: taken.id, webhook: taken.webhook_id, error: describeError(error) }, 'could not send a delivery');
    measure?.('unsent', 0);
    if (isOfTheSurroundings(error))
      return { taken, outcome: 'unsent', error: 'the log or the database could not be read', delayMs: UNSENT_MS };
    return this.#failed(taken, { error: 'the message could not be made; the log of Threadlog says why' }, clock.now(), 0);
  }

  async #message(taken: Taken, webhook: Webhook): Promise<Message> {
    const { events, keys, clock } = this.options;
    if (taken.event === WEBHOOK_PING) return { body: pingMessage(taken.id, taken.webhook_id, webhook, clock.now()) };
    if (taken.event === WEBHOOK_DISABLED) return { body: await this.#disabledMessage(taken) };
    const told = (await this.#publicEvents(taken))[taken.index];
    if (told === undefined)
      throw new Error(`${taken.kind} ${taken.stream_id} revision ${taken.revision} has no event ${taken.index} to tell`);
    const { keyId } = told.after;
    const [visitor, key] = await Promise.all([events.visitor(told), keys.find(taken.organization_id, keyId)]);
    return { body: conversationMessage(told, visitor), sealing: { keyId, key } };
  }

  async #publicEvents({ organization_id: organizationId, stream_id: conversationId, revision }: Taken): Promise<readonly PublicEvent[]> {
    const { events, toldEvents } = this.options;
    return remembered(this.#told, `${organizationId} ${conversationId} ${revision}`, () => {
      const event = toldEvents.find(organizationId, conversationId, revision);
      return event === undefined
        ? events.at(organizationId, conversationId, revision)
        : events.of({ organizationId, conversationId, event });
    });
  }

  async #disabledMessage({ organization_id: organizationId, stream_id: id, revision }: Taken): Promise<{ readonly timestamp: string }> {
    let state = webhookAggregate.initial;
    for await (const event of this.options.transactor.history<Webhook, WebhookEvent>(webhookAggregate, organizationId, id, {
      to: revision,
    })) {
      state = webhookAggregate.evolve(state, event);
      if (event.revision === revision && event.type === 'WebhookDisabled' && event.data.reason !== 'requested')
        return disabledMessage(id, state, event, event.data.reason);
    }
    throw new Error(`the log has no such revision of the webhook ${id}`);
  }

  /** The endpoint as it was at most SETTINGS_MS ago. Deliveries that ask at the same time share one look. */
  #settings(organizationId: string, webhookId: string): Promise<Found | undefined> {
    return remembered(this.#endpoints, `${organizationId} ${webhookId}`, () =>
      this.options.transactor.load(webhookAggregate, organizationId, webhookId),
    );
  }

  async #keys(organizationId: string, webhookId: string): Promise<readonly SigningKey[]> {
    const name = `${organizationId} ${webhookId}`;
    const keys = await remembered(this.#secrets, name, () =>
      this.options.secrets.valid(organizationId, webhookId, this.options.clock.now()),
    );
    // Its maker may be about to write the first.
    if (keys.length === 0) this.#secrets.delete(name);
    return keys;
  }

  /** Disables the endpoint, in the log. */
  async #disable(
    organizationId: string,
    webhookId: string,
    { state: { url }, revision }: Found,
    reason: 'gone' | 'failing',
  ): Promise<void> {
    // Many deliveries may fail at once: those that saw the endpoint alike disable it once.
    const commandId = derivedId('disable-webhook', organizationId, webhookId, String(revision), reason);
    const context = {
      organizationId,
      actor: { type: 'system', id: 'webhooks' } as const,
      commandId,
      requestHash: '',
      correlationId: commandId,
      causationDepth: 1,
    };
    try {
      await this.options.commands.execute(new DisableFailedWebhook(context, webhookId, reason, url));
    } catch (error) {
      if (!isRefused(error)) throw error;
    }
  }

  #allow(receiver: string, wentWell: boolean, durationMs: number): void {
    const most = durationMs <= PROMPT_MS ? MOST_OF_ENDPOINT : MOST_OF_SLOW_ENDPOINT;
    this.#allowance.set(receiver, wentWell ? Math.min(2 * (this.#allowance.get(receiver) ?? 1), most) : 1);
  }

  async #take(most: number): Promise<readonly Taken[]> {
    const held = new Map<string, number>();
    let unproven = 0;
    for (const { taken, sending } of this.#inHand) {
      if (!sending) continue;
      held.set(taken.receiver, (held.get(taken.receiver) ?? 0) + 1);
      if ((this.#allowance.get(taken.receiver) ?? 1) === 1) unproven++;
    }
    const open = unproven < MOST_UNPROVEN;
    const rooms: Record<string, number> = {};
    for (const [receiver, allowance] of this.#allowance.entries())
      if (allowance > 1 || !open) rooms[receiver] = allowance === 1 ? 0 : Math.max(0, allowance - (held.get(receiver) ?? 0));
    for (const [receiver, count] of held) rooms[receiver] ??= Math.max(0, (this.#allowance.get(receiver) ?? 1) - count);
    const { rows } = await sql<Taken>`
      select * from keep.take_deliveries(
        ${DELIVER_WEBHOOK}, ${JSON.stringify(rooms)}::jsonb, ${open ? 1 : 0}, ${most}, ${this.#owner},
        ${sql.lit(`${JOB_LEASE_MS} ms`)}::interval, ${this.#now})`.execute(this.options.database);
    return rows;
  }

  /** Writes a result, and those that come during a write together afterwards. A delivery is in hand until its own result is written. */
  #record(one: InHand, result: Result): void {
    one.sending = false;
    this.#results.push({ one, result });
    this.wake();
    if (!this.#recording) void this.#writeResults();
  }

  async #writeResults(): Promise<void> {
    this.#recording = true;
    while (this.#results.length > 0) {
      await pause(GATHER_MS);
      const together = this.#results.splice(0);
      for (let failures = 0; ; failures++) {
        try {
          await this.#write(together.map(({ result }) => result));
          break;
        } catch (error) {
          if (failures >= 3) {
            // They are sent again when their leases have run out.
            this.options.log.warn({ deliveries: together.length, error: describeError(error) }, 'could not record deliveries');
            break;
          }
          await pause(100 * 2 ** failures);
        }
      }
      for (const { one } of together) this.#inHand.delete(one);
      this.wake();
    }
    this.#recording = false;
  }

  async #write(results: readonly Result[]): Promise<void> {
    const rows = results.map(({ taken, outcome, entry, status, error, delayMs, endpointFailed = false }) => ({
      job: taken.job,
      attempt: taken.attempt,
      id: taken.id,
      organization_id: taken.organization_id,
      webhook_id: taken.webhook_id,
      outcome,
      entry: entry ?? null,
      tries: taken.tries + 1,
      status: status ?? null,
      error: error ?? null,
      delay_ms: delayMs ?? null,
      endpoint_failed: endpointFailed,
    }));
    const { rows: failing } = await sql<Pick<Taken, 'organization_id' | 'webhook_id'>>`
      select * from keep.record_deliveries(
        ${JSON.stringify(rows)}::jsonb, ${sql.lit(`${DISABLED_AFTER_MS} ms`)}::interval, ${this.#now})`.execute(this.options.database);
    for (const { organization_id: organizationId, webhook_id: webhookId } of failing) await this.#disableFailing(organizationId, webhookId);
  }

  async #disableFailing(organizationId: string, webhookId: string): Promise<void> {
    const { transactor, log } = this.options;
    try {
      const found = await transactor.load(webhookAggregate, organizationId, webhookId);
      if (found !== undefined && isActive(found.state)) await this.#disable(organizationId, webhookId, found, 'failing');
    } catch (error) {
      // The next failure brings it here again.
      log.warn({ webhook: webhookId, error: describeError(error) }, 'could not disable a webhook that fails for days');
    }
  }

  async #renew(): Promise<void> {
    const held = [...this.#inHand];
    if (held.length === 0) return;
    try {
      const { rows } = await sql<{ id: number; attempt: number }>`
        update keep.jobs j set leased_until = clock_timestamp() + ${sql.lit(`${JOB_LEASE_MS} ms`)}::interval
        from unnest(${held.map(({ taken }) => taken.job)}::bigint[], ${held.map(({ taken }) => taken.attempt)}::integer[]) held(id, attempt)
        where j.id = held.id and j.attempt = held.attempt returning j.id, j.attempt`.execute(this.options.database);
      const kept = new Map(rows.map(({ id, attempt }) => [id, attempt]));
      for (const one of held) if (kept.get(one.taken.job) !== one.taken.attempt && this.#inHand.has(one)) one.ending.abort();
    } catch (error) {
      this.options.log.warn({ error: describeError(error) }, 'could not renew the leases of deliveries');
    }
  }

  async #sweep(): Promise<void> {
    try {
      const { database, secrets, clock } = this.options;
      await removeOldDeliveries(database, clock.now());
      await secrets.removeEnded(clock.now());
    } catch (error) {
      this.options.log.warn({ error: describeError(error) }, 'could not remove old deliveries and secrets');
    }
  }

  async #stop(): Promise<void> {
    const end = performance.now() + ENDING_MS;
    while (this.#inHand.size > 0) {
      if (performance.now() > end) for (const { ending } of this.#inHand) ending.abort();
      await pause(10);
    }
    await this.options.client.close();
  }

  get #now() {
    const { timersClock } = this.options;
    return timersClock === undefined ? sql`null::timestamptz` : sql`to_timestamp(${timersClock()}::float8 / 1000)`;
  }
}

/** What is remembered under a name, or being read; a failure is not remembered. */
function remembered<T>(memory: LRUCache<string, Promise<T>>, name: string, read: () => Promise<T>): Promise<T> {
  const known = memory.get(name);
  if (known !== undefined) return known;
  const reading = read();
  memory.set(name, reading);
  reading.catch(() => memory.delete(name));
  return reading;
}

const isGood = (answer: Outbound): boolean => 'status' in answer && answer.status >= 200 && answer.status < 300;

function outcomeOf(answer: Outbound): AttemptOutcome {
  if ('status' in answer) return isGood(answer) ? 'delivered' : 'refused';
  return answer.failure === 'unresolved' ? 'unreachable' : answer.failure;
}

/** The sender of a process, over its own connections to the database. */
export function openWebhookSender(
  { store, transactor, keys, masterKey, reachable, clock, timersClock, logger, told }: Backend & { readonly told: ToldEvents },
  database: Kysely<Database>,
  commands: CommandBus,
  metrics?: Pick<Metrics, 'webhookAttempt'>,
): WebhookSender {
  return new WebhookSender({
    database,
    transactor,
    commands,
    events: new PublicEventsReader(store, transactor, keys),
    toldEvents: told,
    keys,
    secrets: new WebhookSecrets(database, masterKey),
    client: new OutboundClient(reachable),
    clock,
    timersClock,
    log: logger,
    measure: (outcome, ms, delayMs) => metrics?.webhookAttempt(outcome, ms, delayMs),
  });
}
