import { LRUCache } from 'lru-cache';
import { type Aggregate, decode, type DomainEvent, type Recorded } from './aggregate.js';
import { type EventStore, type StreamName, streamName } from './event-store.js';

/** The memory for states (bytes), unless the reader sets another. */
const CACHE_BYTES = 32 * 1024 * 1024;

interface Known<S> {
  readonly revision: number;
  readonly state: S;
}

/**
 * The states of one kind of stream as of given revisions, for followers that handle events in the order of the log: the state of each stream
 * stays in memory where the follower left it, so that its next event costs no read.
 */
export class StatesAt<S, E extends DomainEvent> {
  readonly #known: LRUCache<StreamName, Known<S>>;

  constructor(
    private readonly store: EventStore,
    private readonly aggregate: Aggregate<S, E>,
    cacheBytes: number = CACHE_BYTES,
  ) {
    this.#known = new LRUCache({ maxSize: cacheBytes, sizeCalculation: ({ state }) => 256 + 2 * JSON.stringify(state).length });
  }

  /**
   * The state of a stream after its event `revision`; -1 gives the state before its first event.
   * @throws StoreUnavailable, UnknownEvent; Error when the stream has no such revision
   */
  async at(organizationId: string, id: string, revision: number): Promise<S> {
    if (revision < 0) return this.aggregate.initial;
    const stream = streamName(this.aggregate.kind, organizationId, id);
    const known = this.#known.get(stream);
    if (known?.revision === revision) return known.state;
    const behind = known !== undefined && known.revision < revision ? known : undefined;
    let state = behind?.state ?? this.aggregate.initial;
    let reached = behind?.revision ?? -1;
    for await (const batch of this.store.read(stream, { from: reached + 1, to: revision }))
      for (const stored of batch) {
        state = this.aggregate.evolve(state, decode(this.aggregate.codec, stored));
        reached = stored.revision;
      }
    if (reached !== revision) throw new Error(`${stream} has no revision ${revision}`);
    // A look at the past must not throw away what the follower goes on from.
    if (known === undefined || known.revision < revision) this.#known.set(stream, { revision, state });
    return state;
  }

  /**
   * An event of a stream with the states before and after it, in at most one read.
   * @throws as at()
   */
  async around(organizationId: string, id: string, revision: number): Promise<{ before: S; event: Recorded<E>; after: S }> {
    const stream = streamName(this.aggregate.kind, organizationId, id);
    const known = this.#known.get(stream);
    const behind = known !== undefined && known.revision < revision ? known : undefined;
    let before = behind?.state ?? this.aggregate.initial;
    for await (const batch of this.store.read(stream, { from: (behind?.revision ?? -1) + 1, to: revision }))
      for (const stored of batch) {
        const event = decode(this.aggregate.codec, stored);
        const after = this.aggregate.evolve(before, event);
        if (event.revision === revision) {
          this.keep(organizationId, id, revision, after);
          return { before, event, after };
        }
        before = after;
      }
    throw new Error(`${stream} has no revision ${revision}`);
  }

  /**
   * Records the state after an event of which the follower may be about to get the next one. It is ignored where the follower has a state of
   * the stream: that one is on its way through the events, which the writer's is ahead of.
   */
  prime(stream: StreamName, revision: number, state: S): void {
    if (!this.#known.has(stream)) this.#known.set(stream, { revision, state });
  }

  /** Records the state after an event, so that the stream's next event finds it here. */
  keep(organizationId: string, id: string, revision: number, state: S): void {
    const stream = streamName(this.aggregate.kind, organizationId, id);
    const known = this.#known.get(stream);
    if (known === undefined || known.revision < revision) this.#known.set(stream, { revision, state });
  }
}
