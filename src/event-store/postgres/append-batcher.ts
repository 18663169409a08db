import type pg from 'pg';
import { InvalidAppend, OutcomeUnknown, StoreUnavailable } from '../event-store.js';
import type { Appended, Expected, NewEvent, StreamName } from '../event-store.js';
import { isConnectionLost, isRolledBack, isTransient, messageOf } from './postgres-errors.js';
import { positionOf } from './position.js';
import { ignoreFailure } from '../../ignore-failure.js';

const SEPARATOR = '\u001e';
export const APPEND = {
  name: 'append_many',
  text: 'select log.append_many($1, $2, $3, $4, $5, $6)',
  rowMode: 'array',
} as const;

/**
 * Limit of batches in flight. The second batch waits for the lock that the first holds, so it pays only when it is full, or when the first
 * is late: at 32 callers one batch of all is faster than two halves, since each batch pays for a commit.
 */
const LANES = 2;
const LATE_MS = 50;
/** Limits the size of a batch, and so how long it holds the log's lock. A larger append is sent alone. */
const BATCH_BYTES = 64 * 1024;
/** Limit of waiting appends while the server is away. Beyond it callers are refused at once, so that the memory does not fill. */
const QUEUE_BYTES = 64 * 1024 * 1024;
/** How often deadlines are checked (ms). One sweep costs less than a listener on every caller's signal. */
const SWEEP_MS = 20;
export const BACKOFF_MS = { first: 50, most: 1_000 } as const;

/** An append in the form that log.append_many takes. */
export interface Appending {
  readonly stream: StreamName;
  /** The revision of the first event. */
  readonly first: number;
  readonly events: readonly NewEvent[];
}

interface PendingAppend extends Appending {
  readonly bytes: number;
  readonly deadline: AbortSignal;
  readonly resolve: (appended: Appended) => void;
  readonly reject: (error: Error) => void;
  /** The caller has its answer. */
  settled: boolean;
  inFlight: boolean;
  /** The reply of an earlier attempt was lost, so the append may be in the log. */
  maybeWritten: boolean;
  /** Its batch was refused as a whole, so it is sent alone, where it cannot harm others. */
  alone: boolean;
}

/**
 * Collects the concurrent appends of this process into few calls of log.append_many: appends are cheap when many share one commit and one
 * lock. Every append gets its own answer.
 *
 * After a lost reply the same bytes are sent again. Under the lock the function reads from expected+1: it answers "appended" when it finds
 * the same ids, "conflict" when it finds others, and writes the events when it finds none. So a second attempt can neither write twice nor
 * take the first attempt's events for somebody else's.
 */
export class AppendBatcher {
  readonly #connect: () => Promise<pg.Client>;
  readonly #appended: () => void;
  readonly #lanes: Lane[] = Array.from({ length: LANES }, () => ({ client: undefined, running: undefined, sentAt: 0, failures: 0 }));
  /** Appends to be sent, at most one per stream, so that appends to one stream keep the order of their calls. */
  #ready: PendingAppend[] = [];
  /** Streams with an append that is ready or in flight, and the appends that wait behind it. */
  readonly #streams = new Map<StreamName, PendingAppend[] | undefined>();
  readonly #pending = new Set<PendingAppend>();
  #bytes = 0;
  #planned = false;
  #sweep: NodeJS.Timeout | undefined;
  #lastFailure = 'no connection yet';
  readonly #closing = new AbortController();

  /**
   * @param connect opens a connection that is set up for appends; its queries fail by themselves when they get no answer
   * @param appended called after each batch that wrote events
   */
  constructor(connect: () => Promise<pg.Client>, appended: () => void) {
    this.#connect = connect;
    this.#appended = appended;
  }

  append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    return new Promise((resolve, reject) => {
      if (this.#closing.signal.aborted) return reject(new StoreUnavailable('the store is closed'));
      if (deadline.aborted) return reject(new StoreUnavailable('the deadline had passed before the append was sent'));
      if (this.#bytes > QUEUE_BYTES) return reject(new StoreUnavailable(`too many appends are waiting (${this.#lastFailure})`));
      const bytes = bytesOf(stream, events);
      const first = expected === 'none' ? 0 : expected + 1;
      const flags = { settled: false, inFlight: false, maybeWritten: false, alone: false };
      const pending: PendingAppend = { stream, first, events, bytes, deadline, resolve, reject, ...flags };
      this.#bytes += bytes;
      this.#pending.add(pending);
      this.#sweep ??= setInterval(() => this.#expire(), SWEEP_MS);
      if (this.#streams.has(stream)) {
        const behind = this.#streams.get(stream);
        if (behind === undefined) this.#streams.set(stream, [pending]);
        else behind.push(pending);
      } else {
        this.#streams.set(stream, undefined);
        this.#ready.push(pending);
        this.#plan();
      }
    });
  }

  /** Refuses appends that were not sent, waits for those in flight, and ends the connections. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const pending of this.#pending) if (!pending.inFlight) this.#giveUp(pending, 'the store is closed');
    for (const lane of this.#lanes) await lane.running;
    clearInterval(this.#sweep);
    for (const lane of this.#lanes) await ignoreFailure(lane.client?.end(), 'the connection is given up either way');
  }

  /** Sends after this turn of the event loop, so that all appends of this turn go into one batch. */
  #plan(): void {
    if (this.#planned) return;
    this.#planned = true;
    setImmediate(() => {
      this.#planned = false;
      for (const lane of this.#lanes) {
        if (this.#ready.length === 0 || !this.#mayStartAnother()) return;
        lane.running ??= this.#run(lane).finally(() => {
          lane.running = undefined;
          // An append may have become ready since the last check.
          if (this.#ready.length > 0 && !this.#closing.signal.aborted) this.#plan();
        });
      }
    });
  }

  #mayStartAnother(): boolean {
    const under = this.#lanes.find((lane) => lane.running !== undefined);
    if (under === undefined || (under.sentAt > 0 && Date.now() - under.sentAt > LATE_MS)) return true;
    let bytes = 0;
    return this.#ready.some((pending) => (bytes += pending.bytes) >= BATCH_BYTES);
  }

  async #run(lane: Lane): Promise<void> {
    while (this.#ready.length > 0 && !this.#closing.signal.aborted) {
      let client: pg.Client;
      try {
        client = lane.client ?? (await this.#open(lane));
      } catch (error) {
        this.#lastFailure = messageOf(error);
        await this.#backOff(lane);
        continue;
      }
      const batch = this.#take();
      if (batch.length > 0) await this.#send(lane, client, batch);
    }
  }

  async #open(lane: Lane): Promise<pg.Client> {
    const client = await this.#connect();
    lane.client = client;
    const drop = () => {
      if (lane.client === client) lane.client = undefined;
    };
    client.on('error', drop);
    client.on('end', drop);
    return client;
  }

  async #backOff(lane: Lane): Promise<void> {
    const ms = Math.min(BACKOFF_MS.first * 2 ** lane.failures, BACKOFF_MS.most);
    lane.failures += 1;
    const { signal } = this.#closing;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (signal.aborted) done();
      else signal.addEventListener('abort', done);
    });
  }

  #take(): PendingAppend[] {
    const batch: PendingAppend[] = [];
    let bytes = 0;
    let taken = 0;
    for (const pending of this.#ready) {
      if (!pending.settled && pending.deadline.aborted) this.#giveUp(pending, 'the deadline passed');
      if (!pending.settled) {
        if (batch.length > 0 && (bytes + pending.bytes > BATCH_BYTES || pending.alone)) break;
        batch.push(pending);
        bytes += pending.bytes;
        pending.inFlight = true;
      } else {
        this.#release(pending);
      }
      taken += 1;
      if (pending.alone && !pending.settled) break;
    }
    this.#ready.splice(0, taken);
    return batch;
  }

  async #send(lane: Lane, client: pg.Client, batch: readonly PendingAppend[]): Promise<void> {
    lane.sentAt = Date.now();
    try {
      const result = await client.query<[string]>({ ...APPEND, values: parametersOf(batch) });
      lane.failures = 0;
      this.#answer(batch, result.rows[0]?.[0] ?? '');
    } catch (error) {
      this.#lastFailure = messageOf(error);
      await this.#failed(lane, client, batch, error);
    } finally {
      lane.sentAt = 0;
    }
  }

  #answer(batch: readonly PendingAppend[], text: string): void {
    const answers = answersOf(batch, text);
    batch.forEach((pending, i) => {
      const answer = answers[i];
      if (answer !== undefined) this.#settle(pending, answer);
      this.#release(pending);
    });
    if (answers.some(({ outcome }) => outcome === 'appended')) this.#appended();
  }

  /** Handles each append of a failed batch by itself. Appends that are sent again keep their place at the front. */
  async #failed(lane: Lane, client: pg.Client, batch: readonly PendingAppend[], error: unknown): Promise<void> {
    const rolledBack = isRolledBack(error);
    const transient = isTransient(error);
    if (!rolledBack || isConnectionLost(error)) {
      if (lane.client === client) lane.client = undefined;
      void ignoreFailure(client.end(), 'the connection is given up either way');
    }
    for (const pending of batch) {
      pending.inFlight = false;
      pending.maybeWritten ||= !rolledBack;
      if (this.#closing.signal.aborted) this.#giveUp(pending, 'the store was closed meanwhile');
      else if (rolledBack && !transient) {
        if (batch.length === 1) this.#reject(pending, refusal(error, pending.maybeWritten));
        else pending.alone = true;
      }
    }
    // In front of later appends. Settled appends among them are dropped when the next batch is taken.
    this.#ready.unshift(...batch);
    if (transient || !rolledBack) await this.#backOff(lane);
  }

  #giveUp(pending: PendingAppend, why: string): void {
    const text = `${why} (last failure: ${this.#lastFailure})`;
    if (pending.maybeWritten || pending.inFlight) this.#reject(pending, new OutcomeUnknown(text));
    else this.#reject(pending, new StoreUnavailable(text));
  }

  #expire(): void {
    for (const pending of this.#pending) if (pending.deadline.aborted) this.#giveUp(pending, 'the deadline passed');
    if (this.#ready.length > 0) this.#plan();
    if (this.#pending.size === 0 && this.#lanes.every((lane) => lane.running === undefined)) {
      clearInterval(this.#sweep);
      this.#sweep = undefined;
    }
  }

  #settle(pending: PendingAppend, appended: Appended): void {
    if (this.#forget(pending)) pending.resolve(appended);
  }

  #reject(pending: PendingAppend, error: Error): void {
    if (this.#forget(pending)) pending.reject(error);
  }

  #forget(pending: PendingAppend): boolean {
    if (pending.settled) return false;
    pending.settled = true;
    this.#pending.delete(pending);
    this.#bytes -= pending.bytes;
    return true;
  }

  /** Frees the append's stream, so that the next append to it becomes ready. */
  #release(pending: PendingAppend): void {
    const behind = this.#streams.get(pending.stream);
    let next = behind?.shift();
    while (next?.settled) next = behind?.shift();
    if (next === undefined) {
      this.#streams.delete(pending.stream);
    } else {
      this.#ready.push(next);
      this.#plan();
    }
  }
}

interface Lane {
  client: pg.Client | undefined;
  running: Promise<void> | undefined;
  /** When the batch in flight was sent, in ms; 0 without one. */
  sentAt: number;
  failures: number;
}

/** The error for an append that the log refuses however often it is sent. */
export function refusal(error: unknown, maybeWritten: boolean): Error {
  const why = `the log refused the append: ${messageOf(error)}`;
  if (maybeWritten) return new OutcomeUnknown(why, { cause: error });
  if (error instanceof Error && 'code' in error && String(error.code).startsWith('22')) return new InvalidAppend(why, { cause: error });
  return new StoreUnavailable(why, { cause: error });
}

/** The size of an append in a batch. */
export function bytesOf(stream: StreamName, events: readonly NewEvent[]): number {
  let bytes = 0;
  for (const event of events) bytes += 100 + stream.length + Buffer.byteLength(event.data) + Buffer.byteLength(event.metadata);
  return bytes;
}

/** Parses log.append_many's answer to each append of a batch. */
export function answersOf(batch: readonly Appending[], text: string): Appended[] {
  const answers = text.split(',');
  if (answers.length !== batch.length) throw new Error(`log.append_many gave ${answers.length} answers to ${batch.length} appends`);
  return batch.map(({ first, events }, i) => {
    const answer = answers[i] ?? '';
    if (!answer.startsWith('!')) return { outcome: 'appended', revision: first + events.length - 1, position: positionOf(answer) };
    const actual = Number(answer.slice(1));
    return { outcome: 'conflict', actual: actual < 0 ? 'none' : actual };
  });
}

/** Joins each column into one text, since pg would escape every element of an array. No JSON text holds the separator. */
export function parametersOf(batch: readonly Appending[]): string[] {
  let streams = '';
  let revisions = '';
  let ids = '';
  let types = '';
  let data = '';
  let metadata = '';
  let separator = '';
  for (const { stream, first, events } of batch) {
    let revision = first;
    for (const event of events) {
      streams += separator + stream;
      revisions += separator + String(revision);
      ids += separator + event.id;
      types += separator + event.type;
      data += separator + event.data;
      metadata += separator + event.metadata;
      separator = SEPARATOR;
      revision += 1;
    }
  }
  return [streams, revisions, ids, types, data, metadata];
}
