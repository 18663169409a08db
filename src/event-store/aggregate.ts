import type { Position, StoredEvent, StreamKind, StreamName } from './event-store.js';

/** Who caused an event: an id, never a name, since names are personal. */
export interface Actor {
  readonly type: 'agent' | 'apiKey' | 'visitor' | 'automation' | 'system';
  readonly id: string;
}

/** What stands beside every event's data. Times are ISO 8601 in UTC with milliseconds. */
export interface Metadata {
  readonly organizationId: string;
  readonly actor: Actor;
  /** Never before the previous event of the stream. */
  readonly occurredAt: string;
  readonly commandId: string;
  /** Keyed hash of the request, so that a commandId that comes again with another request is noticed. */
  readonly requestHash: string;
  readonly correlationId: string;
  readonly causationId: string;
  /** How many reactions lie between the first cause and this event. */
  readonly causationDepth: number;
  readonly schemaVersion: number;
  /** Names the visitor's data key that sealed this event's personal fields. */
  readonly keyId?: string;
  /** True for history that came from a file: reactors do not act on it. */
  readonly imported?: true;
  /** SHA-256 over the previous event's hash and this event's stored form, in hex. */
  readonly hash: string;
}

/** What an event of a domain looks like: a past-tense literal and its facts. */
export interface DomainEvent {
  readonly type: string;
  readonly data: object;
}

/** A domain event as it came from the log. */
export type Recorded<E extends DomainEvent> = E & {
  readonly id: string;
  readonly stream: StreamName;
  readonly revision: number;
  readonly position: Position;
  readonly metadata: Metadata;
};

/** An event whose type or version this build does not know: commands refuse the stream, projections park it. */
export class UnknownEvent extends Error {
  override readonly name = 'UnknownEvent';
}

/** Stored JSON to event and back, for every event type of one aggregate. */
export interface Codec<E extends DomainEvent> {
  /** The version that encode() writes, by type: the key set is the list of event types. */
  readonly versions: { readonly [T in E['type']]: number };
  /** Which fields of a type hold sealed (personal) values. */
  readonly sealed: { readonly [T in E['type']]?: readonly string[] };
  /** @throws UnknownEvent */
  decode(type: string, schemaVersion: number, data: unknown): E;
}

/** One kind of stream: how its state follows from its events. */
export interface Aggregate<S, E extends DomainEvent> {
  readonly kind: StreamKind;
  readonly codec: Codec<E>;
  readonly initial: S;
  /** Pure: no I/O, no clock, no chance. */
  readonly evolve: (state: S, event: Recorded<E>) => S;
}

/** Parses the metadata of a stored event. */
export function metadataOf(event: StoredEvent): Metadata {
  return JSON.parse(event.metadata) as Metadata;
}

/** @throws UnknownEvent that names where it stands */
export function decode<E extends DomainEvent>(codec: Codec<E>, stored: StoredEvent): Recorded<E> {
  const { id, stream, revision, position } = stored;
  const metadata = metadataOf(stored);
  let event: E;
  try {
    event = codec.decode(stored.type, metadata.schemaVersion, JSON.parse(stored.data));
  } catch (error) {
    // What JSON.parse says quotes the text, which belongs in no log.
    const said = error instanceof UnknownEvent ? error.message : 'not the JSON of an event';
    throw new UnknownEvent(`${stream} revision ${revision}: ${said}`);
  }
  // New names stand before a spread: V8 puts those that follow one in by a slow path, at a microsecond each.
  return { id, stream, revision, position, metadata, ...event };
}
