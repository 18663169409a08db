import { setMaxListeners } from 'node:events';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.js';
import { ThreadlogError } from '../errors.js';
import { type Ids, randomIds } from '../ids.js';
import {
  type Actor,
  type Aggregate,
  decode,
  type DomainEvent,
  type Metadata,
  metadataOf,
  type Recorded,
  UnknownEvent,
} from '../event-store/aggregate.js';
import {
  type EventStore,
  type NewEvent,
  OutcomeUnknown,
  type Position,
  StoreUnavailable,
  streamName,
  type StreamName,
} from '../event-store/event-store.js';
import { chain, CHAIN_START } from '../event-store/hash-chain.js';

/** Tells a request from another one that has the same commandId. */
export interface RequestIdentity {
  /** Keyed hash of the request; only where the commandId can come again (`keyed`). */
  readonly requestHash: string;
  /**
   * The hash that earlier builds gave this request; absent where it is the same. It is compared with what they stored and never stored, so
   * that a retry is answered across an upgrade.
   */
  readonly earlierRequestHash?: string;
}

/** Whether a stored hash is that of this request. */
export function isSameRequest(stored: string, { requestHash, earlierRequestHash }: RequestIdentity): boolean {
  return stored === requestHash || stored === earlierRequestHash;
}

/** Who asks, and under which id the log remembers it. */
export interface CommandContext extends RequestIdentity {
  readonly organizationId: string;
  readonly actor: Actor;
  /** The same command sent again carries the same id: it is then answered, not done, again. */
  readonly commandId: string;
  /** True when the client sent an Idempotency-Key: what appended nothing is then remembered beside the log. */
  readonly keyed?: true;
  readonly correlationId: string;
  /** The command's or event's id that led here; the command's own id by default. */
  readonly causationId?: string;
  readonly causationDepth?: number;
  readonly imported?: true;
  /** The caller has just seen that the stream does not exist: it is not read again, since the append proves it. */
  readonly fresh?: true;
  /** Looks for the commandId in the whole stream, not in the last 24 h of it alone: for what may be tried again much later. */
  readonly thorough?: true;
  /** Names the data key that sealed the personal values of this command's events. */
  readonly keyId?: string;
  /** The revision that the stream must have, or those of which it must have one: If-Match may list several. */
  readonly ifMatch?: number | readonly number[];
  /** Why the caller may not ask for this any more: what was done before is still answered, and what was not is refused with it. */
  readonly refused?: ThreadlogError;
  /** For all that one request does, to however many streams (commandDeadline()); each command has its own when absent. */
  readonly deadline?: AbortSignal;
  /** Shared by all that one request does; told when the first of it is in the log. */
  readonly writes?: { any: boolean };
}

/**
 * For a command whose new stream's id derives from it: however late it comes again, it meets the stream that it made, and would take it for
 * another's if it were not looked for in all of it.
 */
export const everAgain = (command: CommandContext): CommandContext => ({ ...command, thorough: true });

/** Whether a revision is what If-Match asks for; without one every revision is. */
export const isExpected = (ifMatch: CommandContext['ifMatch'], revision: number): boolean =>
  ifMatch === undefined || (typeof ifMatch === 'number' ? ifMatch === revision : ifMatch.includes(revision));

/**
 * For what looks or writes elsewhere before its own stream is asked whether the command was done before.
 * @throws ThreadlogError the context's `refused`
 */
export function assertNotRefused({ refused }: CommandContext): void {
  if (refused !== undefined) throw refused;
}

/**
 * A step of a command in another stream, and not its answer: If-Match and the request's own memory belong to the one that is answered. A
 * refused command takes no steps, and the steps of one that was done before are not refused.
 */
export function aside({ ifMatch: _ifMatch, keyed: _keyed, refused: _refused, ...rest }: CommandContext): CommandContext {
  return rest;
}

/**
 * As aside(), with an id of its own: for what one command may do several times, such as claim, lose and claim the same key again, and must
 * not be answered with the first time.
 */
export function step(command: CommandContext): CommandContext {
  const { keyId: _keyId, fresh: _fresh, thorough: _thorough, ...rest } = aside(command);
  return { ...rest, commandId: randomIds.next(), causationId: command.commandId };
}

/** What a decision answers: events, which may say when they happened (ms) where that is not now, as imported history does. */
export type Decided<E extends DomainEvent> = E & { readonly at?: number };

export interface Transacted<S, E extends DomainEvent> {
  /** appended: by this call. repeated: by an earlier call with the same commandId. unchanged: the decision answered no events. */
  readonly outcome: 'appended' | 'repeated' | 'unchanged';
  /** State, revision and position after the events of this command. */
  readonly state: S;
  readonly revision: number;
  readonly position: Position;
  /** The events of this command. */
  readonly events: readonly Recorded<E>[];
}

/** Answers of keyed commands that the log does not remember, since they appended nothing. */
export interface UnchangedAnswers {
  find(commandId: string): Promise<{ readonly requestHash: string; readonly stream: string; readonly revision: number } | undefined>;
  save(commandId: string, request: RequestIdentity, answer: { readonly stream: string; readonly revision: number }): Promise<void>;
}

/** A stream as it was last seen. Changed in place by the append that proved it; `state` itself never is. */
interface Seen {
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
  /** What it weighs in memory, at least. */
  bytes: number;
  /** Of `bytes`, what was added by appends and not weighed since. */
  unweighed: number;
}

/** A recorded event whose position the log has not told yet. */
type Unplaced<E extends DomainEvent> = Omit<Recorded<E>, 'position'>;

/** A decision's events as they are sent, and as they will be read. */
interface Encoded<E extends DomainEvent> {
  readonly stored: readonly NewEvent[];
  readonly recorded: readonly Unplaced<E>[];
  /** Of the last event. */
  readonly hash: string;
}

/** How long a commandId is remembered, in stream time (ms): as long as the API promises for an Idempotency-Key. */
const REMEMBER_MS = 24 * 60 * 60 * 1000;
/** Lost races in a row before the client is told; a queue per stream keeps this process from racing itself. */
const ATTEMPTS = 12;
/** A command is answered within this time, if only by outcome_unknown. */
const DEADLINE_MS = 10_000;
const CACHE_BYTES = 64 * 1024 * 1024;
/** Weighing a state costs as much as writing it, so appends are counted by what they hold until it is this much. */
const WEIGH_AFTER_BYTES = 4_096;
/** Of a command that is remembered. */
const COMMAND_BYTES = 200;

/**
 * The command protocol: load (from memory when it can), decide, append, and on a lost race again. Exactly once by commandId, since event
 * ids do not give it: append X (reply lost), another writer appends Y, X is retried at the fresh revision, and the store keeps it twice.
 */
export class Transactor {
  private readonly cache = new LRUCache<StreamName, Seen>({ maxSize: CACHE_BYTES, sizeCalculation: (seen) => seen.bytes });
  /** The last command of each stream that is being handled: this process never races itself. */
  private readonly queues = new Map<StreamName, Promise<unknown>>();
  private running = 0;
  private hits = 0;
  private misses = 0;

  constructor(
    private readonly store: EventStore,
    private readonly clock: Clock,
    private readonly ids: Ids,
    private readonly unchanged: UnchangedAnswers,
  ) {}

  /** Commands being handled now; projections slow their cadence by it. */
  get inFlight(): number {
    return this.running;
  }

  /** What is kept in memory, and how often it was there. */
  get cached(): { readonly hits: number; readonly misses: number; readonly bytes: number; readonly streams: number } {
    return { hits: this.hits, misses: this.misses, bytes: this.cache.calculatedSize, streams: this.cache.size };
  }

  /** A stream as it was last seen, counted. */
  private recall(stream: StreamName): Seen | undefined {
    const seen = this.cache.get(stream);
    if (seen === undefined) this.misses++;
    else this.hits++;
    return seen;
  }

  /**
   * Runs one command on one stream.
   * @param prepare fetches what the decision needs besides the state; called again whenever the state turned out to be older than thought,
   *   and not at all for a command that was answered before: what it refuses now says nothing against the first answer
   * @throws ThreadlogError what the decision throws; revision_mismatch, idempotency_key_reused, concurrent_changes, outcome_unknown, store_unavailable
   */
  async transact<S, E extends DomainEvent, C = undefined>(
    aggregate: Aggregate<S, E>,
    id: string,
    command: CommandContext,
    decide: (state: S, context: C, now: number) => readonly Decided<E>[],
    prepare?: (state: S) => Promise<C>,
  ): Promise<Transacted<S, E>> {
    const stream = streamName(aggregate.kind, command.organizationId, id);
    const before = this.queues.get(stream);
    this.running++;
    const deadline = command.deadline ?? commandDeadline();
    const attempts = () => this.attempts(aggregate, stream, command, deadline, decide, prepare);
    const run = before === undefined ? attempts() : turn(before, deadline).then(attempts);
    // Who gave up waiting leaves the stream to whom it waited for.
    const settled = (before === undefined ? run : Promise.all([before, run])).then(
      () => undefined,
      () => before,
    );
    this.queues.set(stream, settled);
    void settled.then(() => {
      if (this.queues.get(stream) === settled) this.queues.delete(stream);
    });
    try {
      return await run;
    } catch (error) {
      throw asThreadlogError(error);
    } finally {
      this.running--;
    }
  }

  /**
   * The state of a stream, at most `maxAgeMs` old; a stream that does not exist is always looked for again. Undefined: it does not exist.
   * @throws ThreadlogError store_unavailable
   */
  async load<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    organizationId: string,
    id: string,
    maxAgeMs = 0,
  ): Promise<{ state: S; revision: number; position: Position } | undefined> {
    const stream = streamName(aggregate.kind, organizationId, id);
    try {
      let seen = this.recall(stream);
      if (seen === undefined) seen = await this.read(aggregate, stream);
      else if (seen.revision < 0 || performance.now() - seen.provedAt > maxAgeMs) seen = await this.refresh(aggregate, stream, seen);
      return seen.position === undefined ? undefined : { state: seen.state as S, revision: seen.revision, position: seen.position };
    } catch (error) {
      throw asThreadlogError(error);
    }
  }

  /** Every event of a stream, decoded, oldest first. */
  async *history<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    organizationId: string,
    id: string,
    range: { from?: number; to?: number; limit?: number } = {},
  ): AsyncIterable<Recorded<E>> {
    try {
      for await (const batch of this.store.read(streamName(aggregate.kind, organizationId, id), range))
        for (const event of batch) yield decode(aggregate.codec, event);
    } catch (error) {
      throw asThreadlogError(error);
    }
  }

  private async attempts<S, E extends DomainEvent, C>(
    aggregate: Aggregate<S, E>,
    stream: StreamName,
    command: CommandContext,
    deadline: AbortSignal,
    decide: (state: S, context: C, now: number) => readonly Decided<E>[],
    prepare: ((state: S) => Promise<C>) | undefined,
  ): Promise<Transacted<S, E>> {
    let seen = this.recall(stream);
    // What comes from memory may be older than the log when other processes write: a refusal or a "nothing to do" is only believed
    // after the stream was looked at; an append proves the memory by itself.
    let proved = false;
    let searched = command.thorough !== true;
    if (seen === undefined) {
      proved = command.fresh !== true;
      seen = proved ? await this.read(aggregate, stream) : nothing(aggregate);
    }
    if (command.keyed === true) {
      const answered = await this.unchanged.find(command.commandId);
      if (answered !== undefined && answered.stream === stream)
        return { ...(await this.repeat(aggregate, stream, command, { ...answered, from: answered.revision + 1, to: answered.revision })) };
    }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const known = seen.commands.get(command.commandId);
      if (known !== undefined) {
        // After a day another process may have forgotten the command, and done it anew.
        if (!proved && this.clock.now() - Date.parse(known.occurredAt) > REMEMBER_MS) {
          seen = await this.refresh(aggregate, stream, seen);
          proved = true;
          continue;
        }
        return await this.repeat(aggregate, stream, command, known);
      }
      if (!searched && seen.revision >= 0) {
        searched = true;
        const older = await this.search(stream, command.commandId, seen.revision);
        if (older !== undefined) return await this.repeat(aggregate, stream, command, older);
      }

      let events: readonly Decided<E>[];
      const now = this.now(seen);
      try {
        const expected = isExpected(command.ifMatch, seen.revision);
        if (!expected && seen.revision >= 0) throw new ThreadlogError('revision_mismatch', `the revision is ${seen.revision}`);
        assertNotRefused(command);
        const context = prepare === undefined ? (undefined as C) : await prepare(seen.state as S);
        events = decide(seen.state as S, context, now);
        // Of what is not there, the decision has said so, unless it would make it.
        if (!expected) throw new ThreadlogError('revision_mismatch', 'there is no revision yet');
      } catch (error) {
        if (proved) throw error;
        seen = await this.refresh(aggregate, stream, seen);
        proved = true;
        continue;
      }
      if (events.length === 0) {
        if (!proved) {
          const revision: number = seen.revision;
          seen = await this.refresh(aggregate, stream, seen);
          proved = true;
          if (seen.revision !== revision) continue;
        }
        if (seen.position === undefined) throw new Error(`${aggregate.kind}: a decision on nothing answered nothing`);
        if (command.keyed === true) await this.unchanged.save(command.commandId, command, { stream, revision: seen.revision });
        return { outcome: 'unchanged', state: seen.state as S, revision: seen.revision, position: seen.position, events: [] };
      }

      const encoded = this.encode(aggregate, stream, seen, command, events, now);
      let answer;
      try {
        answer = await this.store.append(stream, seen.revision < 0 ? 'none' : seen.revision, encoded.stored, deadline);
      } catch (error) {
        // Whatever the memory says of this stream now, it may be wrong.
        this.cache.delete(stream);
        throw error;
      }
      if (answer.outcome === 'appended') return this.remember(aggregate, stream, seen, encoded, answer.position, command);
      // Processes that race each other in step would go on losing in step.
      if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(2 ** attempt, 100)));
      seen = await this.refresh(aggregate, stream, seen);
      proved = true;
    }
    throw new ThreadlogError('concurrent_changes', `gave up after ${ATTEMPTS} attempts`, { retryAfterSeconds: 1 });
  }

  private now(seen: Seen): number {
    const now = this.clock.now();
    return seen.occurredAt === '' ? now : Math.max(now, Date.parse(seen.occurredAt));
  }

  private encode<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    stream: StreamName,
    seen: Seen,
    command: CommandContext,
    events: readonly Decided<E>[],
    now: number,
  ): Encoded<E> {
    let happened = seen.occurredAt === '' ? -Infinity : Date.parse(seen.occurredAt);
    let occurredAt = '';
    const stored: NewEvent[] = [];
    const recorded: Unplaced<E>[] = [];
    let hash = seen.hash;
    let revision = seen.revision;
    let metadata: Omit<Metadata, 'hash'> | undefined;
    let body = '';
    for (const { at = now, ...rest } of events) {
      const event = rest as unknown as E;
      revision++;
      if (occurredAt === '' || at > happened) {
        happened = Math.max(happened, at);
        occurredAt = new Date(happened).toISOString();
      }
      const type: E['type'] = event.type;
      const schemaVersion: number = aggregate.codec.versions[type];
      // The events of a command differ in little but this, and its text costs as much as its hash.
      if (metadata?.occurredAt !== occurredAt || metadata.schemaVersion !== schemaVersion) {
        metadata = {
          organizationId: command.organizationId,
          actor: command.actor,
          occurredAt,
          commandId: command.commandId,
          requestHash: command.requestHash,
          correlationId: command.correlationId,
          causationId: command.causationId ?? command.commandId,
          causationDepth: command.causationDepth ?? 0,
          schemaVersion,
          ...(command.keyId === undefined ? {} : { keyId: command.keyId }),
          ...(command.imported === undefined ? {} : { imported: true as const }),
        };
        body = JSON.stringify(metadata);
      }
      const id = this.ids.next();
      const next = chain(hash, stream, revision, { id, type, data: JSON.stringify(event.data) }, body);
      hash = next.hash;
      stored.push(next.stored);
      // New names stand before a spread: V8 puts those that follow one in by a slow path, at a microsecond each.
      recorded.push({ id, stream, revision, metadata: { hash, ...metadata }, ...event } as Unplaced<E>);
    }
    return { stored, recorded, hash };
  }

  private remember<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    stream: StreamName,
    seen: Seen,
    { stored, recorded, hash }: Encoded<E>,
    position: Position,
    command: CommandContext,
  ): Transacted<S, E> {
    let state = seen.state as S;
    const events: Recorded<E>[] = [];
    for (const event of recorded) {
      const whole = { position, ...event } as Recorded<E>;
      events.push(whole);
      state = aggregate.evolve(state, whole);
    }
    const first = recorded[0];
    const last = recorded[recorded.length - 1];
    if (first === undefined || last === undefined) throw new Error('an append has events');
    if (command.writes !== undefined) command.writes.any = true;
    seen.state = state;
    seen.revision = last.revision;
    seen.position = position;
    seen.hash = hash;
    seen.occurredAt = last.metadata.occurredAt;
    seen.provedAt = performance.now();
    seen.commands.set(command.commandId, {
      requestHash: command.requestHash,
      from: first.revision,
      to: last.revision,
      occurredAt: last.metadata.occurredAt,
    });
    forget(seen);
    const added = COMMAND_BYTES + stored.reduce((bytes, { data }) => bytes + 2 * data.length, 0);
    seen.bytes += added;
    seen.unweighed += added;
    if (seen.unweighed > WEIGH_AFTER_BYTES) {
      weigh(seen);
      // The cache asks for the size of what it does not have only.
      this.cache.delete(stream);
    }
    if (this.cache.peek(stream) !== seen) this.cache.set(stream, seen);
    return { outcome: 'appended', state, revision: seen.revision, position, events };
  }

  /** The answer of a command that is in the log already: its own events, and the state right after them. */
  private async repeat<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    stream: StreamName,
    command: CommandContext,
    known: { requestHash: string; from: number; to: number },
  ): Promise<Transacted<S, E>> {
    if (!isSameRequest(known.requestHash, command)) throw new ThreadlogError('idempotency_key_reused');
    let state = aggregate.initial;
    let position: Position | undefined;
    const events: Recorded<E>[] = [];
    for await (const batch of this.store.read(stream, { to: known.to }))
      for (const stored of batch) {
        const event = decode(aggregate.codec, stored);
        state = aggregate.evolve(state, event);
        position = event.position;
        if (event.revision >= known.from) events.push(event);
      }
    if (position === undefined) throw new StoreUnavailable('a stream that was there is gone');
    return { outcome: 'repeated', state, revision: known.to, position, events };
  }

  private async search(
    stream: StreamName,
    commandId: string,
    to: number,
  ): Promise<{ requestHash: string; from: number; to: number } | undefined> {
    let found: { requestHash: string; from: number; to: number } | undefined;
    for await (const batch of this.store.read(stream, { to }))
      for (const stored of batch) {
        const metadata = metadataOf(stored);
        if (metadata.commandId === commandId)
          found = { requestHash: metadata.requestHash, from: found?.from ?? stored.revision, to: stored.revision };
        else if (found !== undefined) return found;
      }
    return found;
  }

  private async read<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, stream: StreamName): Promise<Seen> {
    return this.refresh(aggregate, stream, nothing(aggregate));
  }

  /** Reads what came after `seen`. */
  private async refresh<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, stream: StreamName, seen: Seen): Promise<Seen> {
    const next: Seen = { ...seen, commands: new Map(seen.commands), provedAt: performance.now() };
    let state = seen.state as S;
    for await (const batch of this.store.read(stream, { from: seen.revision + 1 }))
      for (const stored of batch) {
        const event = decode(aggregate.codec, stored);
        state = aggregate.evolve(state, event);
        const { commandId, requestHash, occurredAt, hash } = event.metadata;
        const before = next.commands.get(commandId);
        // The events of one command are neighbours. Others of its id are those of an earlier one, which was forgotten when it came again.
        const from = before?.to === event.revision - 1 ? before.from : event.revision;
        if (from === event.revision) next.commands.delete(commandId);
        next.commands.set(commandId, { requestHash, from, to: event.revision, occurredAt });
        next.revision = event.revision;
        next.position = event.position;
        next.occurredAt = occurredAt;
        next.hash = hash;
      }
    next.state = state;
    forget(next);
    weigh(next);
    if (next.revision >= 0) this.cache.set(stream, next);
    return next;
  }
}

let shared: { readonly signal: AbortSignal; readonly until: number } | undefined;

/**
 * By when what begins now is answered, if only by outcome_unknown. One timer serves all commands of a half second: a timer each costs more
 * than the rest of the protocol.
 */
export function commandDeadline(): AbortSignal {
  const now = performance.now();
  if (shared === undefined || now > shared.until) {
    shared = { signal: AbortSignal.timeout(DEADLINE_MS), until: now + 500 };
    // Every command of a half second may wait on it; each takes its listener away again.
    setMaxListeners(0, shared.signal);
  }
  return shared.signal;
}

/** Waits for the command before on the same stream, and no longer than the deadline: nothing was done then. */
async function turn(before: Promise<unknown>, deadline: AbortSignal): Promise<void> {
  if (deadline.aborted) throw new StoreUnavailable('the deadline passed');
  let passed = () => undefined as void;
  const late = new Promise<never>((_, reject) => {
    passed = () => reject(new StoreUnavailable('the deadline passed behind other commands on the stream'));
    deadline.addEventListener('abort', passed);
  });
  try {
    await Promise.race([before, late]);
  } finally {
    deadline.removeEventListener('abort', passed);
  }
}

/** A stream that does not exist. */
function nothing<S, E extends DomainEvent>(aggregate: Aggregate<S, E>): Seen {
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

/** Two bytes a character is the most that a text takes. */
function weigh(seen: Seen): void {
  seen.bytes = 512 + 2 * JSON.stringify(seen.state).length + COMMAND_BYTES * seen.commands.size;
  seen.unweighed = 0;
}

function forget(seen: Seen): void {
  const limit = Date.parse(seen.occurredAt) - REMEMBER_MS;
  for (const [commandId, command] of seen.commands) {
    if (Date.parse(command.occurredAt) >= limit) return;
    seen.commands.delete(commandId);
  }
}

function asThreadlogError(error: unknown): unknown {
  if (error instanceof StoreUnavailable)
    return new ThreadlogError('store_unavailable', undefined, { retryAfterSeconds: 1 }, { cause: error });
  if (error instanceof OutcomeUnknown) return new ThreadlogError('outcome_unknown', undefined, { retryAfterSeconds: 1 }, { cause: error });
  if (error instanceof UnknownEvent) return new ThreadlogError('internal_error', undefined, {}, { cause: error });
  return error;
}
