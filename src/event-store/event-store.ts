/**
 * The port between Threadlog and the log that holds its events. Three adapters implement it (eventstoredb, postgres, memory), and one
 * contract suite proves that they agree: test/contract/event-store.contract.ts.
 *
 * The port leaves out, on purpose, everything in which stores differ: there is no "any" revision, no filter beyond Threadlog's own streams,
 * no deletes, and no meaning in event ids. Reads are pulled and not pushed, and the port owns the limits.
 */

/** `<kind>-<organizationId>.<id>`. Only streamName() makes such names. */
export type StreamName = string & { readonly __s: unique symbol };

/** A place in the log. Positions of one adapter have a fixed width, compare with `<`, and are opaque otherwise. */
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

/** One of several appends. */
export interface Append {
  readonly stream: StreamName;
  readonly expected: Expected;
  readonly events: readonly NewEvent[];
}

/** The store could not be reached. Certainly nothing was written. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable';
}

/** The append was not settled before the deadline: it may or may not be in the log, and the caller must assume neither. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** Refused before any I/O, in the same way by every adapter: no events, too many or too large events, a bad id, type or JSON text. */
export class InvalidAppend extends Error {
  override readonly name = 'InvalidAppend';
}

/** Limits of an append: number of events; total bytes of all ids, types, data and metadata (UTF-8); bytes of the stream's name. */
export const LIMITS = { events: 500, bytes: 900_000, stream: 400 } as const;

export interface FeedBatch {
  /** In log order; empty when only `through` or `caughtUp` has news. */
  readonly events: readonly StoredEvent[];
  /** All events of Threadlog at or before this position have been delivered. */
  readonly through: Position;
  /** True when the log had no more events when this batch was read. */
  readonly caughtUp: boolean;
}

export interface EventStore {
  /** `id` is the log's identity. A checkpoint of another log is refused. */
  readonly log: { readonly adapter: 'eventstoredb' | 'postgres' | 'memory'; readonly id: string };

  /**
   * Appends all events or none. After a lost reply the adapter reads again from expected+1: the same ids mean appended, other ids mean a
   * conflict, and if there is nothing, it sends the same bytes again, until the deadline.
   * @throws StoreUnavailable | OutcomeUnknown | InvalidAppend
   */
  append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended>;

  /**
   * As one append() after the other, each with its own answer. The events stand in the log in the order of `appends`, even after a lost
   * reply. A stream may occur several times. After an error the first appends may be in the log; the same call again completes them.
   * @throws StoreUnavailable | OutcomeUnknown | InvalidAppend
   */
  appendInOrder(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]>;

  /**
   * Reads in batches, from `from` to `to` (both inclusive), or backwards from `to` (default: the end) down to `from`. A missing stream
   * gives an empty iteration; a failure throws StoreUnavailable.
   */
  read(
    stream: StreamName,
    options?: { from?: number; to?: number; backwards?: boolean; limit?: number },
  ): AsyncIterable<readonly StoredEvent[]>;

  /** The end of the log: every append that was acknowledged before this call is at or before this position. */
  head(): Promise<Position | 'start'>;

  /**
   * Every event after `after` (exclusive). The feed is pulled: it fetches the next batch when the consumer asks for it. It hides drops and
   * reconnects, delivers no event twice within one iteration, and ends only by the signal.
   */
  feed(after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }): AsyncIterable<FeedBatch>;

  close(): Promise<void>;
}

/** appendInOrder() for a store that gains nothing from batches: it waits for each answer. */
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
 * The checks that every adapter makes before any I/O, so that all adapters refuse the same appends with the same words.
 * @throws InvalidAppend
 */
export function assertAppendable(stream: StreamName, expected: Expected, events: readonly NewEvent[]): void {
  if (Buffer.byteLength(stream) > LIMITS.stream) throw new InvalidAppend(`a stream's name has at most ${LIMITS.stream} bytes`);
  // PostgreSQL cannot hold U+0000, EventStoreDB cannot hold lone surrogates, and names from streamName() have neither.
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

/** A cheap check, since the texts come from JSON.stringify; fully parsing each would double the cost of an append. */
function isJsonText(text: string): boolean {
  return text.length > 0 && !CONTROL.test(text) && text.isWellFormed();
}

/** The kind of an aggregate's streams, in lower case; features.ts lists all kinds. A kind is part of stored names for ever. */
export type StreamKind = string;

/**
 * The only function that makes stream names. The organization always comes from the caller's key, so that an id of another tenant names no
 * stream. Ids are kept exactly as given. A kind has no dash, since EventStoreDB's category ends at the first dash.
 */
export function streamName(kind: StreamKind, organizationId: string, id: string): StreamName {
  return `${kind}-${organizationId}.${id}` as StreamName;
}

/** The parts of a name from streamName(); undefined for a text of another form. It does not check the kind, which features.ts knows. */
export function parseStreamName(stream: string): { kind: StreamKind; organizationId: string; id: string } | undefined {
  const dash = stream.indexOf('-');
  const dot = stream.indexOf('.', dash);
  if (dash < 1 || dot < 0) return undefined;
  return { kind: stream.slice(0, dash), organizationId: stream.slice(dash + 1, dot), id: stream.slice(dot + 1) };
}
