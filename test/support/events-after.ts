import { parseStreamName, type Position, type StoredEvent } from '../../src/event-store/event-store.js';
import type { TestApi } from './api.js';

/**
 * What the organization's streams got after a position, up to the log's head of now. A server may be shared, so its head alone does not
 * tell that a test wrote nothing.
 */
export async function eventsAfter(
  { backend, organizationId }: Pick<TestApi, 'backend' | 'organizationId'>,
  after: Position | 'start',
): Promise<StoredEvent[]> {
  const head = await backend.store.head();
  if (head === 'start' || head === after) return [];
  const found: StoredEvent[] = [];
  const reading = new AbortController();
  try {
    for await (const batch of backend.store.feed(after, { maxEvents: 5_000, signal: reading.signal })) {
      for (const event of batch.events)
        if (event.position <= head && parseStreamName(event.stream)?.organizationId === organizationId) found.push(event);
      if (batch.through >= head) break;
    }
  } finally {
    reading.abort();
  }
  return found;
}
