/**
 * The port between Threadlog and the log that holds its events. Three adapters stand behind it (eventstoredb, postgres, memory) and one
 * contract suite proves that they agree: test/contract/event-store.contract.ts.
 *
 * What is missing is missing on purpose, because these are the places where two stores drift apart: no "any" revision, no filter beyond
 * Threadlog's own streams, no deletes, no meaning in event ids, pull instead of push, limits owned by the port.
 */

/** `<kind>-<organizationId>.<id>`. Only streamName() makes one. */
export type StreamName = string & { readonly __s: unique symbol };

/** A place in the log: fixed width for one adapter, compares with `<`, opaque otherwise. */
export type Position = string & { readonly __p: unique symbol };

/** The last revision of the stream, or 'none' for a stream that must not exist yet. Revisions start at 0. */
export type Expected = 'none' | number;

export interface NewEvent {
  /** Lower-case UUID, distinct within the append; it has no other meaning. */
  readonly id: string;
  /** 1..100 of [A-Za-z0-9] */
  readonly type: string;
  /** JSON text, kept byte for byte. */
  readonly data: string;
  /** JSON text, kept byte for byte. */
  readonly metadata: string;
}

export interface StoredEvent extends NewEvent {
  readonly stream: StreamName;
  readonly revision: number;
  readonly position: Position;
}

export type Appended =
  /** `revision` and `position` are those of the last event of the append. */
  | { readonly outcome: 'appended'; readonly revision: number; readonly position: Position }
  | { readonly outcome: 'conflict'; readonly actual: Expected };

/** One append of several. */
export interface Append {
  readonly stream: StreamName;
  readonly expected: Expected;
  readonly events: readonly NewEvent[];
}

/** The store could not be reached: certainly nothing was written. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable';
}

/** Not settled before the deadline: the append may or may not be in the log, and nothing may be concluded. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** Refused before any I/O, alike in every adapter: no events, too many or too large, a bad id, type or JSON text. */
export class InvalidAppend extends Error {
  override readonly name = 'InvalidAppend';
}

/** Per append: number of events, bytes of all ids, types, data and metadata together (UTF-8); bytes of a stream's name. */
export const LIMITS = { events: 500, bytes: 900_000, stream: 400 } as const;

export interface FeedBatch {
  /** In log order; empty when only `through` or `caughtUp` has news. */
  readonly events: readonly StoredEvent[];
  /** Everything of Threadlog's at or before this position has been delivered. */
  readonly through: Position;
  /** True when nothing more was in the log when this batch was read. */
  readonly caughtUp: boolean;
}

export interface EventStore {
  /** `id` is the log's identity: a checkpoint that was written for another log is refused. */
  readonly log: { readonly adapter: 'eventstoredb' | 'postgres' | 'memory'; readonly id: string };

  /**
   * All or nothing. After a lost reply the adapter reads again from expected+1: the same ids mean appended, others conflict, nothing means
   * that the same bytes are sent again, until the deadline.
   * @throws StoreUnavailable | OutcomeUnknown | InvalidAppend
   */
  append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended>;

  /**
   * As append() one after the other, each answered by itself: what is appended stands in the log in the order of `appends`, also after a
   * lost reply. A stream may come again. After an error the first of them may be in the log; the same again completes them.
   * @throws StoreUnavailable | OutcomeUnknown | InvalidAppend
   */
  appendInOrder(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]>;

  /**
   * In batches, from `from` to `to` (both inclusive), or backwards from `to` (default: the end) down to `from`. A missing stream is an
   * empty iteration; a failure throws StoreUnavailable.
   */
  read(
    stream: StreamName,
    options?: { from?: number; to?: number; backwards?: boolean; limit?: number },
  ): AsyncIterable<readonly StoredEvent[]>;

  /** Every append acknowledged before this call is at or before it. */
  head(): Promise<Position | 'start'>;

  /**
   * Every event after `after` (exclusive), pulled: the next batch is fetched when the consumer came back. Drops and reconnects are hidden,
   * no event comes twice within one iteration, and it ends only by the signal.
   */
  feed(after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }): AsyncIterable<FeedBatch>;

  close(): Promise<void>;
}

/** appendInOrder() of a store that is not quicker with many: one that waits for each answer. */
export async function appendEach(
  store: Pick<EventStore, 'append'>,
  appends: readonly Append[],
  deadline: AbortSignal,
): Promise<readonly Appended[]> {
  for (const { stream, expected, events } of appends) assertAppendable(stream, expected, events);
  const answers: Appended[] = [];
  for (const { stream, expected, events } of appends) answers.push(await store.append(stream, expected, events, deadline));
  return answers;
}

/** Nest's injection token for the EventStore of this process. */
export const EVENT_STORE = Symbol('EventStore');

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TYPE = /^[A-Za-z0-9]{1,100}$/;

/**
 * The checks that every adapter makes before any I/O, so that all of them refuse the same appends with the same words.
 * @throws InvalidAppend
 */
export function assertAppendable(stream: StreamName, expected: Expected, events: readonly NewEvent[]): void {
  if (Buffer.byteLength(stream) > LIMITS.stream) throw new InvalidAppend(`a stream's name has at most ${LIMITS.stream} bytes`);
  // PostgreSQL cannot hold U+0000, EventStoreDB no lone surrogate; no name that streamName() makes has either.
  if (CONTROL_IN_NAME.test(stream) || !stream.isWellFormed()) throw new InvalidAppend("a stream's name is text without control characters");
  if (expected !== 'none' && !(Number.isSafeInteger(expected) && expected >= 0))
    throw new InvalidAppend('the expected revision is "none" or an integer from 0');
  if (events.length === 0) throw new InvalidAppend('an append has at least one event');
  if (events.length > LIMITS.events) throw new InvalidAppend(`an append has at most ${LIMITS.events} events`);
  let bytes = 0;
  const ids = new Set<string>();
  for (const event of events) {
    if (!UUID.test(event.id)) throw new InvalidAppend('an event id is a lower-case UUID');
    if (ids.has(event.id)) throw new InvalidAppend('event ids are distinct within an append');
    ids.add(event.id);
    if (!TYPE.test(event.type)) throw new InvalidAppend('an event type is 1 to 100 of A-Z a-z 0-9');
    // A raw control character cannot occur in JSON text, and the Postgres adapter separates its parameters with one.
    if (!isJsonText(event.data) || !isJsonText(event.metadata)) throw new InvalidAppend('data and metadata are JSON text');
    bytes += event.id.length + event.type.length + Buffer.byteLength(event.data) + Buffer.byteLength(event.metadata);
  }
  if (bytes > LIMITS.bytes) throw new InvalidAppend(`an append has at most ${LIMITS.bytes} bytes`);
}

// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/;

// oxlint-disable-next-line no-control-regex
const CONTROL_IN_NAME = /[\u0000-\u001f]/;

/** Cheap on purpose: texts come from JSON.stringify; a full parse of each would double the cost of an append. */
function isJsonText(text: string): boolean {
  return text.length > 0 && !CONTROL.test(text) && text.isWellFormed();
}

const KINDS = [
  'conversation',
  'visitor',
  'company',
  'inbox',
  'assignee',
  'apikey',
  'cannedresponse',
  'view',
  'organization',
  'claim',
  'head',
] as const;
export type StreamKind = (typeof KINDS)[number];

/**
 * The only maker of stream names. The organization always comes from the caller's key, so that another tenant's id names nothing.
 * Ids are kept exactly as given; EventStoreDB's category ends at the first dash, so a kind has none.
 */
export function streamName(kind: StreamKind, organizationId: string, id: string): StreamName {
  return `${kind}-${organizationId}.${id}` as StreamName;
}

/** The parts of a name that streamName() made; undefined for any other text. */
export function parseStreamName(stream: string): { kind: StreamKind; organizationId: string; id: string } | undefined {
  const dash = stream.indexOf('-');
  const dot = stream.indexOf('.', dash);
  const kind = KINDS.find((k) => k === stream.slice(0, dash));
  if (kind === undefined || dot < 0) return undefined;
  return { kind, organizationId: stream.slice(dash + 1, dot), id: stream.slice(dot + 1) };
}
