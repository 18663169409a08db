import type { EventStore, StoredEvent, StreamName } from './event-store.js';

/** The last event of a stream; undefined when the stream does not exist. @throws StoreUnavailable */
export async function lastEvent(store: EventStore, stream: StreamName): Promise<StoredEvent | undefined> {
  for await (const [event] of store.read(stream, { backwards: true, limit: 1 })) if (event !== undefined) return event;
  return undefined;
}
