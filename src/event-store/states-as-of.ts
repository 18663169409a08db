import { LRUCache } from 'lru-cache';
import { type Aggregate, decode, type DomainEvent, type Recorded } from './aggregate.js';
import { type EventStore, type Position, type StreamName, streamName } from './event-store.js';

/** The memory for states (bytes). */
const CACHE_BYTES = 16 * 1024 * 1024;

/** A stream up to a position: its state, and its last event there. `revision` is -1 while the stream has none. */
export interface AsOf<S> {
  readonly state: S;
  readonly revision: number;
  /** The position of the last event; '' when there is no event. */
  readonly position: Position | '';
}

/**
 * The states of one kind of stream as of positions in the log, for a follower of the whole log that looks at other streams beside the one
 * whose event it handles. It hands on this kind's events with follow(), so that what is in memory stays at the follower's position.
 */
export class StatesAsOf<S, E extends DomainEvent> {
  readonly #known: LRUCache<StreamName, AsOf<S>>;

  constructor(
    private readonly store: EventStore,
    private readonly aggregate: Aggregate<S, E>,
    cacheBytes = CACHE_BYTES,
  ) {
    this.#known = new LRUCache({
      maxSize: cacheBytes,
      sizeCalculation: ({ state }) => 256 + 2 * JSON.stringify(state).length,
    });
  }

  /**
   * A stream with its events at or before a position. The positions of successive calls must not go back without a forget() between them.
   * @throws StoreUnavailable, UnknownEvent
   */
  async at(organizationId: string, id: string, position: Position): Promise<AsOf<S>> {
    const stream = streamName(this.aggregate.kind, organizationId, id);
    const known = this.#known.get(stream);
    if (known !== undefined) return known;
    const found = await readAsOf(this.store, this.aggregate, stream, (event) => event.position <= position);
    this.#known.set(stream, found);
    return found;
  }

  /** Takes the next event of the log of this kind. */
  follow(event: Recorded<E>): void {
    const known = this.#known.get(event.stream);
    // Read up to a later position than this event's: the event is in it.
    if (known === undefined || known.revision >= event.revision) return;
    if (known.revision === event.revision - 1) {
      const { revision, position } = event;
      this.#known.set(event.stream, { state: this.aggregate.evolve(known.state, event), revision, position });
    } else this.#known.delete(event.stream);
  }

  /** The follower begins again elsewhere, or has missed events. */
  forget(): void {
    this.#known.clear();
  }
}

/**
 * A stream up to its last event that is included. Events that come after one that is not are not included either.
 * @throws StoreUnavailable, UnknownEvent
 */
export async function readAsOf<S, E extends DomainEvent>(
  store: EventStore,
  aggregate: Aggregate<S, E>,
  stream: StreamName,
  includes: (event: Recorded<E>) => boolean,
): Promise<AsOf<S>> {
  let found: AsOf<S> = { state: aggregate.initial, revision: -1, position: '' };
  for await (const batch of store.read(stream))
    for (const stored of batch) {
      const event = decode(aggregate.codec, stored);
      if (!includes(event)) return found;
      found = { state: aggregate.evolve(found.state, event), revision: event.revision, position: event.position };
    }
  return found;
}
