import { randomUUID } from 'node:crypto';
import { appendEach, assertAppendable, StoreUnavailable } from '../event-store.js';
import type { Append, Appended, EventStore, Expected, FeedBatch, NewEvent, Position, StoredEvent, StreamName } from '../event-store.js';

const BATCH = 500;

/** The log in an array, for tests. It passes the same contract as the other adapters. Its events end with the process. */
export class MemoryEventStore implements EventStore {
  readonly log = { adapter: 'memory', id: randomUUID() } as const;
  readonly #events: StoredEvent[] = [];
  readonly #streams = new Map<StreamName, StoredEvent[]>();
  readonly #waiting = new Set<() => void>();
  #closed = false;

  async append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    assertAppendable(stream, expected, events);
    // Takes one turn of the event loop, as any real store does. There must be none between the check and the write.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#closed || deadline.aborted) throw new StoreUnavailable(this.#closed ? 'the store is closed' : 'the deadline has passed');
    const stored = this.#streams.get(stream) ?? [];
    const actual = stored.length - 1;
    const first = expected === 'none' ? 0 : expected + 1;
    if (actual !== first - 1) {
      const again = stored.slice(first, first + events.length);
      const last = again.at(-1);
      // The same ids at the same revisions are the same append, sent again.
      if (last !== undefined && again.length === events.length && again.every((event, i) => event.id === events[i]?.id))
        return { outcome: 'appended', revision: last.revision, position: last.position };
      return { outcome: 'conflict', actual: actual < 0 ? 'none' : actual };
    }
    for (const { id, type, data, metadata } of events) {
      const event = { id, type, data, metadata, stream, revision: stored.length, position: positionOf(this.#events.length + 1) };
      stored.push(event);
      this.#events.push(event);
    }
    this.#streams.set(stream, stored);
    this.#wake();
    return { outcome: 'appended', revision: stored.length - 1, position: positionOf(this.#events.length) };
  }

  appendInOrder(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]> {
    return appendEach(this, appends, deadline);
  }

  async *read(
    stream: StreamName,
    options: { from?: number; to?: number; backwards?: boolean; limit?: number } = {},
  ): AsyncGenerator<readonly StoredEvent[]> {
    if (this.#closed) throw new StoreUnavailable('the store is closed');
    const { from = 0, to = Number.MAX_SAFE_INTEGER, backwards = false, limit = Number.MAX_SAFE_INTEGER } = options;
    const found = (this.#streams.get(stream) ?? []).slice(Math.max(from, 0), Math.max(to + 1, 0));
    if (backwards) found.reverse();
    const events = found.slice(0, Math.max(limit, 0));
    for (let i = 0; i < events.length; i += BATCH) {
      yield events.slice(i, i + BATCH);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  head(): Promise<Position | 'start'> {
    if (this.#closed) return Promise.reject(new StoreUnavailable('the store is closed'));
    return Promise.resolve(this.#events.at(-1)?.position ?? 'start');
  }

  async *feed(after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }): AsyncGenerator<FeedBatch> {
    const { maxEvents, signal } = options;
    let next = after === 'start' ? 0 : Number(after);
    let said = false;
    while (!signal.aborted && !this.#closed) {
      const events = this.#events.slice(next, next + maxEvents);
      const caughtUp = next + events.length >= this.#events.length;
      if (events.length > 0 || !said) {
        next += events.length;
        said = caughtUp;
        yield { events, through: positionOf(next), caughtUp };
      } else {
        await this.#changed(signal);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    return Promise.resolve();
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
  }

  async #changed(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
    });
  }
}

function positionOf(number: number): Position {
  return String(number).padStart(19, '0') as Position;
}
