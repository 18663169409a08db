import type { DomainEvent, Metadata, Recorded } from '../../src/event-store/aggregate.js';
import { type EventStore, parseStreamName, type Position, type StoredEvent, type StreamName } from '../../src/event-store/event-store.js';
import { isOfTheSurroundings } from './failures.js';
import type { DecodeBatch, ProjectedEvent } from './projection.js';

/** Greatest number of events in a transaction; a caller may set fewer. */
export const MOST_EVENTS = 5_000;
const MOST_BYTES = 4_000_000;

/** A part of the feed, written in one transaction. */
export interface Batch {
  readonly decoded: readonly ProjectedEvent[];
  readonly failed: readonly { readonly event: StoredEvent; readonly error: Error }[];
  readonly through: Position;
  /** Number of events of the wanted kinds. */
  readonly events: number;
  readonly caughtUp: boolean;
}

/** A batch with the events as they are stored. */
export interface FeedPart extends Batch {
  readonly stored: readonly StoredEvent[];
  /** Number of log events that the part covers, wanted or not. */
  readonly looked: number;
}

/** Revisions that an operator has skipped, by stream. */
export type Skipped = ReadonlyMap<StreamName, ReadonlySet<number>>;

/** The feed in decoded parts of one transaction each. Only the signal ends it. */
export async function* batchesOf(
  store: EventStore,
  after: Position | 'start',
  options: {
    readonly kinds: ReadonlySet<string> | 'all';
    /** Only events of these types; of any type when absent. */
    readonly types?: ReadonlySet<string> | undefined;
    readonly decode: DecodeBatch;
    readonly skipped: Skipped;
    readonly signal: AbortSignal;
    readonly maxEvents?: number | undefined;
    /** Greatest number of events of the next part, asked before each; maxEvents when absent. */
    readonly step?: () => number;
  },
): AsyncGenerator<FeedPart, void, undefined> {
  const { kinds, types, signal, maxEvents = MOST_EVENTS, step = () => maxEvents } = options;
  const isWanted = ({ type, stream }: StoredEvent) =>
    (types === undefined || types.has(type)) && (kinds === 'all' || kinds.has(parseStreamName(stream)?.kind ?? ''));
  for await (const part of store.feed(after, { maxEvents, signal })) {
    for (const { events, last } of inTransactions(part.events, step)) {
      const wanted = events.filter(isWanted);
      const through = last ? part.through : (events.at(-1)?.position ?? part.through);
      yield {
        ...(await readBatch(options.decode, wanted, options.skipped)),
        stored: wanted,
        looked: events.length,
        through,
        caughtUp: last && part.caughtUp,
      };
    }
  }
}

/** Decodes all events except skipped ones. */
export async function readBatch(
  decode: DecodeBatch,
  wanted: readonly StoredEvent[],
  skipped: Skipped,
): Promise<Pick<Batch, 'decoded' | 'failed' | 'events'>> {
  const isSkipped = ({ stream, revision }: StoredEvent) => skipped.get(stream)?.has(revision) === true;
  const passed = skipped.size === 0 ? [] : wanted.filter(isSkipped);
  const readable = passed.length === 0 ? wanted : wanted.filter((event) => !isSkipped(event));
  const { decoded, failed } = readable.length > 0 ? await decodeEach(decode, readable) : { decoded: [], failed: [] };
  const inOrder =
    passed.length === 0 ? decoded : [...decoded, ...passed.map(passedOver)].sort((a, b) => (a.event.position < b.event.position ? -1 : 1));
  return { decoded: inOrder, failed, events: wanted.length };
}

function passedOver({ id, stream, revision, position, type }: StoredEvent): ProjectedEvent {
  const { kind, organizationId, id: streamId } = parseStreamName(stream) ?? { kind: 'conversation', organizationId: '', id: '' };
  const event: Recorded<DomainEvent> = { id, stream, revision, position, type, data: {}, metadata: {} as Metadata };
  return { kind, organizationId, streamId, event, skipped: true };
}

/** Decodes all events together, or stream by stream when that fails: an undecodable event must not hide the others. */
async function decodeEach(decode: DecodeBatch, events: readonly StoredEvent[]): ReturnType<DecodeBatch> {
  try {
    return await decode(events);
  } catch (error) {
    if (isOfTheSurroundings(error)) throw error;
    if (events.length === 1) {
      const [event] = events;
      return {
        decoded: [],
        failed: event === undefined ? [] : [{ event, error: error instanceof Error ? error : new Error(String(error)) }],
      };
    }
    const half = events.length >> 1;
    const first = await decodeEach(decode, events.slice(0, half));
    const second = await decodeEach(decode, events.slice(half));
    return { decoded: [...first.decoded, ...second.decoded], failed: [...first.failed, ...second.failed] };
  }
}

/** Cuts a batch of the feed into parts of one transaction each. An empty part carries the batch's other news (`through`, `caughtUp`). */
function* inTransactions(events: readonly StoredEvent[], step: () => number): Generator<{ events: readonly StoredEvent[]; last: boolean }> {
  let from = 0;
  let bytes = 0;
  let most = step();
  for (const [i, event] of events.entries()) {
    const size = event.data.length + event.metadata.length;
    if (i > from && (bytes + size > MOST_BYTES || i - from >= most)) {
      yield { events: events.slice(from, i), last: false };
      most = step();
      from = i;
      bytes = 0;
    }
    bytes += size;
  }
  yield { events: from === 0 ? events : events.slice(from), last: true };
}
