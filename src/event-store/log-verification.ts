import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import { metadataOf } from './aggregate.js';
import { type EventStore, parseStreamName, type StoredEvent, type StreamName } from './event-store.js';
import { CHAIN_START, verifyLink } from './hash-chain.js';

/** The first event of a stream that is not the event that was written there. */
export interface BadEvent {
  readonly stream: StreamName;
  readonly revision: number;
  readonly eventId: string;
  readonly position: string;
  readonly why: string;
}

/** An event without its position in the log. */
type ChainedEvent = Omit<StoredEvent, 'position'>;

/** A stream's last event, in few bytes, since a log has many streams. */
interface LastEvent {
  readonly revision: number;
  /** The hash as 32 characters of one byte each, half as long as its hex text. */
  readonly hash: string;
  /** ms */
  readonly occurredAt: number;
}

const instant = z.string().regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/);
const metadataShape = z.object({
  organizationId: z.string(),
  actor: z.object({ type: z.enum(['agent', 'apiKey', 'visitor', 'automation', 'system']), id: z.string() }),
  occurredAt: instant,
  commandId: z.string().min(1),
  requestHash: z.string(),
  correlationId: z.string(),
  causationId: z.string(),
  causationDepth: z.number().int().min(0),
  schemaVersion: z.number().int().min(1),
  keyId: z.string().optional(),
  imported: z.literal(true).optional(),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
});

/**
 * Proves that streams are unaltered, given their events in order (of one stream, or of the feed, which mixes streams). After a stream's
 * first bad event its later events cannot be judged, so they are not checked.
 */
export class LogVerification {
  /** Number of events taken. */
  events = 0;
  /** Bad events in the order in which they were found. */
  readonly bad: BadEvent[] = [];
  private readonly last = new Map<StreamName, LastEvent | 'bad'>();

  /** Number of streams seen. */
  get streams(): number {
    return this.last.size;
  }

  /** The hash of the stream's last event; undefined when an event of it is bad, or none was taken. */
  provedHash(stream: StreamName): string | undefined {
    const last = this.last.get(stream);
    return last === undefined || last === 'bad' ? undefined : Buffer.from(last.hash, 'latin1').toString('hex');
  }

  take(event: StoredEvent): void {
    this.events++;
    const before = this.last.get(event.stream);
    if (before === 'bad') return;
    const found = follows(event, before);
    if (typeof found !== 'string') {
      this.last.set(event.stream, found);
      return;
    }
    this.last.set(event.stream, 'bad');
    this.bad.push({ stream: event.stream, revision: event.revision, eventId: event.id, position: event.position, why: found });
  }
}

/** The event in the form to remember, or a text that says what is wrong with it. */
function follows(event: ChainedEvent, before: LastEvent | undefined): LastEvent | string {
  const next = before === undefined ? 0 : before.revision + 1;
  if (event.revision > next)
    return event.revision === next + 1 ? `revision ${next} is missing` : `revisions ${next} to ${event.revision - 1} are missing`;
  if (event.revision < next) return `revision ${event.revision} comes after revision ${next - 1}`;
  const named = parseStreamName(event.stream);
  if (named === undefined) return 'the stream has a name that Threadlog does not give';
  // Checked before the shape, so that a changed event is always reported as altered.
  const hash = verifyLink(before === undefined ? CHAIN_START : Buffer.from(before.hash, 'latin1').toString('hex'), event);
  if (hash === undefined) return 'the hash does not follow from the event and the one before it: one of the two was altered';
  let metadata: unknown;
  try {
    metadata = JSON.parse(event.metadata);
    JSON.parse(event.data);
  } catch {
    return 'data or metadata is not JSON';
  }
  const shaped = metadataShape.safeParse(metadata);
  if (!shaped.success) return `metadata.${shaped.error.issues[0]?.path.join('.') ?? ''} is not what Threadlog writes`;
  if (shaped.data.organizationId !== named.organizationId) return 'metadata names another organization than the stream';
  const occurredAt = Date.parse(shaped.data.occurredAt);
  if (Number.isNaN(occurredAt)) return 'metadata.occurredAt is no time';
  if (before !== undefined && occurredAt < before.occurredAt) return 'it happened before the event before it';
  return { revision: event.revision, hash: Buffer.from(hash, 'hex').toString('latin1'), occurredAt };
}

/** Number of streams whose last event ChainCheck remembers, at 300 bytes each. */
const REMEMBERED = 50_000;

/**
 * Proves events one by one, in the order of the feed and in bounded memory. For a stream that was forgotten it reads the previous event
 * again, which was proved when it came.
 */
export class ChainCheck {
  readonly #last = new LRUCache<StreamName, LastEvent>({ max: REMEMBERED });

  /** @param store holds the earlier events */
  constructor(private readonly store: Pick<EventStore, 'read'>) {}

  /** What is wrong with the event; undefined when it follows from the event before it. */
  async whyNot(event: ChainedEvent): Promise<string | undefined> {
    const { stream, revision } = event;
    const before = this.#last.get(stream) ?? (revision > 0 ? await this.#read(stream, revision - 1) : undefined);
    const found = follows(event, before);
    if (typeof found === 'string') return found;
    this.#last.set(stream, found);
    return undefined;
  }

  async #read(stream: StreamName, revision: number): Promise<LastEvent | undefined> {
    for await (const [event] of this.store.read(stream, { from: revision, to: revision })) {
      if (event === undefined) continue;
      const { hash, occurredAt } = metadataOf(event);
      return { revision, hash: Buffer.from(hash, 'hex').toString('latin1'), occurredAt: Date.parse(occurredAt) };
    }
    return undefined;
  }
}
