import { decode, type DomainEvent, type Recorded } from './event-store/aggregate.js';
import type { DecodeBatch, Failed, ProjectedEvent } from './event-store/decoding.js';
import { parseStreamName, type StoredEvent } from './event-store/event-store.js';
import { STREAMS } from './features.js';
import type { DataKey } from './security/sealing.js';
import type { VisitorKeys } from './security/visitor-keys.js';

/** All followers in a process get the same event objects, so each event is parsed only once, however many reactors it concerns. */
const parsed = new WeakMap<StoredEvent, ProjectedEvent>();

/** @throws UnknownEvent, or Error when the stream's kind is unknown */
function parse(stored: StoredEvent): ProjectedEvent {
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

function parseEach(events: readonly StoredEvent[]): { readonly decoded: ProjectedEvent[]; readonly failed: Failed[] } {
  const decoded: ProjectedEvent[] = [];
  const failed: Failed[] = [];
  for (const event of events) {
    try {
      decoded.push(parse(event));
    } catch (error) {
      failed.push(failedBy(event, error));
    }
  }
  return { decoded, failed };
}

const failedBy = (event: StoredEvent, error: unknown): Failed => ({
  event,
  error: error instanceof Error ? error : new Error(String(error)),
});

/** Decodes a batch without any key, for followers that must not read personal fields. */
export const sealedDecoder: DecodeBatch = (events) => Promise.resolve(parseEach(events));

/**
 * Decodes a batch and finds the keys of its personal fields, with one query for all keys that are not known yet. The fields stay sealed until
 * unsealed() opens them, since a fold of many events keeps few of their texts, and opening one costs more than reading its event.
 */
export function batchDecoder(keys: VisitorKeys): DecodeBatch {
  return async (events) => {
    const { decoded, failed } = parseEach(events);
    const wanted = new Map<string, Set<string>>();
    for (const { event, organizationId } of decoded) {
      const { keyId } = event.metadata;
      if (keyId === undefined) continue;
      const ids = wanted.get(organizationId);
      if (ids === undefined) wanted.set(organizationId, new Set([keyId]));
      else ids.add(keyId);
    }
    const found = new Map<string, ReadonlyMap<string, DataKey>>();
    for (const [organizationId, keyIds] of wanted) found.set(organizationId, await keys.findMany(organizationId, keyIds));
    return { decoded: decoded.map((one) => withKey(one, found)), failed };
  };
}

function withKey(
  { kind, organizationId, streamId, event }: ProjectedEvent,
  found: ReadonlyMap<string, ReadonlyMap<string, DataKey>>,
): ProjectedEvent {
  const { keyId } = event.metadata;
  const key = keyId === undefined ? undefined : found.get(organizationId)?.get(keyId);
  return { kind, organizationId, streamId, event, key };
}

/**
 * The event with its personal fields opened, or `[erased]` in their place without the key.
 * @throws Error when the sealed bytes were changed
 */
export function unsealed({ kind, event, key }: ProjectedEvent): Recorded<DomainEvent> {
  return STREAMS.get(kind)?.unseal?.(event, key) ?? event;
}

/** Decodes a batch and opens all its personal fields, for readers that show each event. */
export function unsealingDecoder(
  keys: VisitorKeys,
): (events: readonly StoredEvent[]) => Promise<{ readonly decoded: readonly Recorded<DomainEvent>[]; readonly failed: readonly Failed[] }> {
  const decodeBatch = batchDecoder(keys);
  return async (events) => {
    const { decoded, failed } = await decodeBatch(events);
    const opened: Recorded<DomainEvent>[] = [];
    const all: Failed[] = [...failed];
    for (const one of decoded) {
      try {
        opened.push(unsealed(one));
      } catch (error) {
        const stored = events.find(({ id, stream }) => id === one.event.id && stream === one.event.stream);
        if (stored !== undefined) all.push(failedBy(stored, error));
      }
    }
    return { decoded: opened, failed: all };
  };
}
