import type { EventStore, Position, StoredEvent } from './event-store.js';

/** Number of events in one batch. */
const BATCH = 5_000;

/**
 * All events of the log up to a position, in feed order, for work that must end while others go on writing.
 * @param end a head() of the same log
 * @param after the position to begin after
 * @param maxEvents number of events in one batch
 * @throws the signal's reason when it aborts
 */
export async function* eventsUntil(
  store: EventStore,
  end: Position | 'start',
  signal: AbortSignal,
  after: Position | 'start' = 'start',
  maxEvents = BATCH,
): AsyncGenerator<readonly StoredEvent[], void, undefined> {
  if (end === 'start') return;
  const reading = new AbortController();
  const interrupt = () => reading.abort();
  signal.addEventListener('abort', interrupt, { once: true });
  signal.throwIfAborted();
  try {
    for await (const { events, through } of store.feed(after, { maxEvents, signal: reading.signal })) {
      const last = events.at(-1);
      if (last !== undefined) yield last.position <= end ? events : events.filter(({ position }) => position <= end);
      if (through >= end) break;
    }
  } finally {
    signal.removeEventListener('abort', interrupt);
    reading.abort();
  }
  signal.throwIfAborted();
}
