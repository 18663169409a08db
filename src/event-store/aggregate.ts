import type { Position, StoredEvent, StreamKind, StreamName } from './event-store.js';

/** Who caused an event: an id, never a name, since names are personal. */
export interface Actor {
  readonly type: 'agent' | 'apiKey' | 'visitor' | 'automation' | 'system';
  readonly id: string;
}

/** The metadata of every event. Times are ISO 8601 in UTC with milliseconds. */
export interface Metadata {
  readonly organizationId: string;
  readonly actor: Actor;
  /** Never earlier than that of the stream's previous event. */
  readonly occurredAt: string;
  readonly commandId: string;
  /** Keyed hash of the request. It shows when a commandId comes again with another request. */
  readonly requestHash: string;
  readonly correlationId: string;
  readonly causationId: string;
  /** Number of reactions between the first cause and this event. */
  readonly causationDepth: number;
  readonly schemaVersion: number;
  /** Names the visitor's data key that sealed this event's personal fields. */
  readonly keyId?: string;
  /** True for history imported from a file. Reactors do not act on it. */
  readonly imported?: true;
  /** SHA-256 over the previous event's hash and this event's stored form, in hex. */
  readonly hash: string;
}

/** An event of a domain: a past-tense name and its facts. */
export interface DomainEvent {
  readonly type: string;
  readonly data: object;
}

/** A domain event as read from the log. */
export type Recorded<E extends DomainEvent> = E & {
  readonly id: string;
  readonly stream: StreamName;
  readonly revision: number;
  readonly position: Position;
  readonly metadata: Metadata;
};

/** This build does not know the event's type or version. Commands refuse its stream, and projections park it. */
export class UnknownEvent extends Error {
  override readonly name = 'UnknownEvent';
}

/** Converts stored JSON to events and back, for every event type of one aggregate. */
export interface Codec<E extends DomainEvent> {
  /** The version that encode() writes, by type. The keys are the list of event types. */
  readonly versions: { readonly [T in E['type']]: number };
  /** The fields that hold sealed (personal) values, by type. */
  readonly sealed: { readonly [T in E['type']]?: readonly string[] };
  /** @throws UnknownEvent */
  decode(type: string, schemaVersion: number, data: unknown): E;
}

/** One kind of stream: how its state follows from its events. */
export interface Aggregate<S, E extends DomainEvent> {
  readonly kind: StreamKind;
  readonly codec: Codec<E>;
  readonly initial: S;
  /** Must be pure: no I/O, no clock, no randomness. */
  readonly evolve: (state: S, event: Recorded<E>) => S;
}

/** Parses the metadata of a stored event. */
export function metadataOf(event: StoredEvent): Metadata {
  return JSON.parse(event.metadata) as Metadata;
}

/** @throws UnknownEvent that names the event's stream and revision */
export function decode<E extends DomainEvent>(codec: Codec<E>, stored: StoredEvent): Recorded<E> {
  const { id, stream, revision, position } = stored;
  const metadata = metadataOf(stored);
  let event: E;
  try {
    event = codec.decode(stored.type, metadata.schemaVersion, JSON.parse(stored.data));
  } catch (error) {
    // The message of JSON.parse quotes the text, which must not get into any log.
    const said = error instanceof UnknownEvent ? error.message : 'not the JSON of an event';
    throw new UnknownEvent(`${stream} revision ${revision}: ${said}`);
  }
  // New names stand before the spread: V8 adds names that follow a spread by a slow path, at a microsecond each.
  return { id, stream, revision, position, metadata, ...event };
}
