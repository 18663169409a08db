import { decode } from './event-store/aggregate.js';
import type { DecodeBatch, ProjectedEvent } from './event-store/decoding.js';
import { parseStreamName, type StoredEvent } from './event-store/event-store.js';
import { STREAMS } from './features.js';
import type { DataKey } from './security/sealing.js';
import type { VisitorKeys } from './security/visitor-keys.js';

/** All followers in a process get the same event objects, so each event is parsed only once. */
const parsed = new WeakMap<StoredEvent, Omit<ProjectedEvent, 'skipped'>>();

/** @throws UnknownEvent, or Error when the stream's kind is unknown */
function parse(stored: StoredEvent): Omit<ProjectedEvent, 'skipped'> {
  const before = parsed.get(stored);
  if (before !== undefined) return before;
  const name = parseStreamName(stored.stream);
  const known = name === undefined ? undefined : STREAMS.get(name.kind);
  if (name === undefined || known === undefined)
    throw new Error(`this build does not know streams such as ${stored.stream.split('-', 1)[0] ?? ''}`);
  const event = { kind: name.kind, organizationId: name.organizationId, streamId: name.id, event: decode(known.aggregate.codec, stored) };
  parsed.set(stored, event);
  return event;
}

/** Decodes a batch and leaves its personal fields sealed, for followers that do not need them. */
export const sealedDecoder: DecodeBatch = (events) => {
  const decoded: ProjectedEvent[] = [];
  const failed: { event: StoredEvent; error: Error }[] = [];
  for (const event of events) {
    try {
      decoded.push(parse(event));
    } catch (error) {
      failed.push({ event, error: error instanceof Error ? error : new Error(String(error)) });
    }
  }
  return Promise.resolve({ decoded, failed });
};

/** Decodes a batch and opens its personal fields, with one query for all keys that are not known yet. */
export function batchDecoder(keys: VisitorKeys): DecodeBatch {
  return async (events) => {
    const wanted = new Map<string, Set<string>>();
    const failed: { event: StoredEvent; error: Error }[] = [];
    const read: ProjectedEvent[] = [];
    for (const stored of events) {
      try {
        const one = parse(stored);
        read.push(one);
        const { keyId } = one.event.metadata;
        if (keyId !== undefined) {
          const ids = wanted.get(one.organizationId);
          if (ids === undefined) wanted.set(one.organizationId, new Set([keyId]));
          else ids.add(keyId);
        }
      } catch (error) {
        failed.push({ event: stored, error: error instanceof Error ? error : new Error(String(error)) });
      }
    }
    const found = new Map<string, Map<string, DataKey>>();
    for (const [organizationId, keyIds] of wanted) found.set(organizationId, await keys.findMany(organizationId, keyIds));

    const decoded: ProjectedEvent[] = [];
    for (const one of read) {
      const { keyId } = one.event.metadata;
      const key = keyId === undefined ? undefined : found.get(one.organizationId)?.get(keyId);
      try {
        decoded.push({ ...one, event: STREAMS.get(one.kind)?.unseal?.(one.event, key) ?? one.event });
      } catch (error) {
        const stored = events.find(({ id, stream }) => id === one.event.id && stream === one.event.stream);
        if (stored !== undefined) failed.push({ event: stored, error: error instanceof Error ? error : new Error(String(error)) });
      }
    }
    return { decoded, failed };
  };
}
