import { LRUCache } from 'lru-cache';
import { type Aggregate, decode, type DomainEvent } from '../event-store/aggregate.js';
import type { EventStore, Position, StreamName } from '../event-store/event-store.js';
import { CHAIN_START } from '../event-store/hash-chain.js';
import type { CommandContext } from './command-context.js';
import type { Encoded } from './encoding.js';

/** A stream as it was last seen. An append that proved it changes it in place; the `state` object is never changed, only replaced. */
export interface Seen {
  state: unknown;
  /** -1 while the stream does not exist. */
  revision: number;
  position: Position | undefined;
  hash: string;
  occurredAt: string;
  /** Commands of the last 24 h of stream time, oldest first. */
  commands: Map<string, { requestHash: string; from: number; to: number; occurredAt: string }>;
  /** performance.now() of the last read or append that proved it current. */
  provedAt: number;
  /** Lower bound of its size in memory. */
  bytes: number;
  /** The part of `bytes` that appends added since the last weighing. */
  unweighed: number;
}

/** How long a commandId is remembered, in stream time (ms): the time that the API promises for an Idempotency-Key. */
export const REMEMBER_MS = 24 * 60 * 60 * 1000;
const CACHE_BYTES = 64 * 1024 * 1024;
/** Weighing a state costs as much as serializing it, so the sizes of appended events are added up until they reach this much. */
const WEIGH_AFTER_BYTES = 4_096;
/** Size of a remembered command. */
const COMMAND_BYTES = 200;

/** Reads streams, and remembers as many as fit in the memory as they were last seen. */
export class StreamMemory {
  private readonly cache = new LRUCache<StreamName, Seen>({ maxSize: CACHE_BYTES, sizeCalculation: (seen) => seen.bytes });
  private hits = 0;
  private misses = 0;

  constructor(private readonly store: EventStore) {}

  /** Size and hit counts of the memory. */
  get cached(): { readonly hits: number; readonly misses: number; readonly bytes: number; readonly streams: number } {
    return { hits: this.hits, misses: this.misses, bytes: this.cache.calculatedSize, streams: this.cache.size };
  }

  /** A stream as it was last seen. Counts a hit or a miss. */
  recall(stream: StreamName): Seen | undefined {
    const seen = this.cache.get(stream);
    if (seen === undefined) this.misses++;
    else this.hits++;
    return seen;
  }

  forget(stream: StreamName): void {
    this.cache.delete(stream);
  }

  /** @throws StoreUnavailable, UnknownEvent */
  read<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, stream: StreamName): Promise<Seen> {
    return this.refresh(aggregate, stream, nothing(aggregate));
  }

  /** Reads the events after `seen`. @throws StoreUnavailable, UnknownEvent */
  async refresh<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, stream: StreamName, seen: Seen): Promise<Seen> {
    const next: Seen = { ...seen, commands: new Map(seen.commands), provedAt: performance.now() };
    let state = seen.state as S;
    for await (const batch of this.store.read(stream, { from: seen.revision + 1 }))
      for (const stored of batch) {
        const event = decode(aggregate.codec, stored);
        state = aggregate.evolve(state, event);
        const { commandId, requestHash, occurredAt, hash } = event.metadata;
        const before = next.commands.get(commandId);
        // The events of one command are neighbours. Other events with its id come from an earlier run, forgotten when the id came again.
        const from = before?.to === event.revision - 1 ? before.from : event.revision;
        if (from === event.revision) next.commands.delete(commandId);
        next.commands.set(commandId, { requestHash, from, to: event.revision, occurredAt });
        next.revision = event.revision;
        next.position = event.position;
        next.occurredAt = occurredAt;
        next.hash = hash;
      }
    next.state = state;
    forgetOld(next);
    weigh(next);
    if (next.revision >= 0) this.cache.set(stream, next);
    return next;
  }

  /** Adds to `seen` the events that a command appended. @param state the state after the appended events */
  extend<S, E extends DomainEvent>(
    stream: StreamName,
    seen: Seen,
    state: S,
    { stored, recorded, hash }: Encoded<E>,
    position: Position,
    { commandId, requestHash }: CommandContext,
  ): void {
    const first = recorded[0];
    const last = recorded[recorded.length - 1];
    if (first === undefined || last === undefined) throw new Error('an append has events');
    const { occurredAt } = last.metadata;
    seen.state = state;
    seen.revision = last.revision;
    seen.position = position;
    seen.hash = hash;
    seen.occurredAt = occurredAt;
    seen.provedAt = performance.now();
    seen.commands.set(commandId, { requestHash, from: first.revision, to: last.revision, occurredAt });
    forgetOld(seen);
    const added = COMMAND_BYTES + stored.reduce((bytes, { data }) => bytes + 2 * data.length, 0);
    seen.bytes += added;
    seen.unweighed += added;
    if (seen.unweighed > WEIGH_AFTER_BYTES) {
      weigh(seen);
      // The cache computes a size only for entries that it does not have yet.
      this.cache.delete(stream);
    }
    if (this.cache.peek(stream) !== seen) this.cache.set(stream, seen);
  }
}

/** A stream that does not exist. */
export function nothing<S, E extends DomainEvent>(aggregate: Aggregate<S, E>): Seen {
  return {
    state: aggregate.initial,
    revision: -1,
    position: undefined,
    hash: CHAIN_START,
    occurredAt: '',
    commands: new Map(),
    provedAt: 0,
    bytes: 2_000,
    unweighed: 0,
  };
}

/** Weighs the state by its text: a character takes at most two bytes. */
function weigh(seen: Seen): void {
  seen.bytes = 512 + 2 * JSON.stringify(seen.state).length + COMMAND_BYTES * seen.commands.size;
  seen.unweighed = 0;
}

function forgetOld(seen: Seen): void {
  const limit = Date.parse(seen.occurredAt) - REMEMBER_MS;
  for (const [commandId, command] of seen.commands) {
    if (Date.parse(command.occurredAt) >= limit) return;
    seen.commands.delete(commandId);
  }
}
