import type { Clock } from '../clock.js';
import { ThreadlogError } from '../errors.js';
import type { Ids } from '../ids.js';
import { storeUnavailable } from '../store-away.js';
import { type Aggregate, decode, type DomainEvent, metadataOf, type Recorded, UnknownEvent } from '../event-store/aggregate.js';
import {
  type EventStore,
  OutcomeUnknown,
  type Position,
  StoreUnavailable,
  type StreamKind,
  streamName,
  type StreamName,
} from '../event-store/event-store.js';
import { assertNotRefused, type CommandContext, isExpected, isSameRequest, type RequestIdentity } from './command-context.js';
import { commandDeadline } from './deadline.js';
import { type Decided, encode, type Encoded } from './encoding.js';
import { nothing, REMEMBER_MS, type Seen, StreamMemory } from './stream-memory.js';
import { StreamQueue } from './stream-queue.js';

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

/** Stores the answers of keyed commands that appended nothing, since the log does not remember them. */
export interface UnchangedAnswers {
  find(commandId: string): Promise<{ readonly requestHash: string; readonly stream: string; readonly revision: number } | undefined>;
  save(commandId: string, request: RequestIdentity, answer: { readonly stream: string; readonly revision: number }): Promise<void>;
}

/** The state of a stream before the events that a command has just appended to it; revision -1 when they are its first. */
export interface StateBefore {
  readonly kind: StreamKind;
  readonly organizationId: string;
  readonly stream: StreamName;
  readonly revision: number;
  readonly state: unknown;
}

/** Number of lost races in a row before the command is refused. A queue per stream keeps this process from racing itself. */
const ATTEMPTS = 12;

/**
 * The command protocol: load (from memory if possible), decide, append, and begin again after a lost race. The commandId makes a command
 * happen exactly once. Event ids could not: X is appended (reply lost), another writer appends Y, a retry of X at the new revision is kept.
 */
export class Transactor {
  private readonly memory: StreamMemory;
  private readonly queue = new StreamQueue();
  private running = 0;
  /** Called after each append of this process, for whoever is to tell of the events and would otherwise read their stream again. */
  onAppended: (before: StateBefore) => void = () => undefined;

  constructor(
    private readonly store: EventStore,
    private readonly clock: Clock,
    private readonly ids: Ids,
    private readonly unchanged: UnchangedAnswers,
  ) {
    this.memory = new StreamMemory(store);
  }

  /** Number of commands being handled now, by which projections slow their cadence. */
  get inFlight(): number {
    return this.running;
  }

  /** Size and hit counts of the memory of streams. */
  get cached(): StreamMemory['cached'] {
    return this.memory.cached;
  }

  /**
   * Runs one command on one stream.
   * @param prepare fetches what the decision needs besides the state. It is called again whenever the state turned out to be outdated, and
   *   not at all for a command that was answered before, since a refusal now must not replace the first answer
   * @throws ThreadlogError from decide; revision_mismatch, idempotency_key_reused, concurrent_changes, outcome_unknown, store_unavailable
   */
  async transact<S, E extends DomainEvent, C = undefined>(
    aggregate: Aggregate<S, E>,
    id: string,
    command: CommandContext,
    decide: (state: S, context: C, now: number) => readonly Decided<E>[],
    prepare?: (state: S) => Promise<C>,
  ): Promise<Transacted<S, E>> {
    const stream = streamName(aggregate.kind, command.organizationId, id);
    const deadline = command.deadline ?? commandDeadline();
    this.running++;
    try {
      return await this.queue.run(stream, deadline, () => this.attempts(aggregate, stream, command, deadline, decide, prepare));
    } catch (error) {
      throw asThreadlogError(error);
    } finally {
      this.running--;
    }
  }

  /**
   * The state of a stream, at most `maxAgeMs` old; undefined when the stream does not exist. A missing stream is always looked for again.
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
      let seen = this.memory.recall(stream);
      if (seen === undefined) seen = await this.memory.read(aggregate, stream);
      else if (seen.revision < 0 || performance.now() - seen.provedAt > maxAgeMs) seen = await this.memory.refresh(aggregate, stream, seen);
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
    let seen = this.memory.recall(stream);
    // When other processes write, the memory may be older than the log. A refusal or a "nothing to do" counts only after the stream was
    // read; an append proves the memory by itself.
    let proved = false;
    let searched = command.thorough !== true;
    if (seen === undefined) {
      proved = command.fresh !== true;
      seen = proved ? await this.memory.read(aggregate, stream) : nothing(aggregate);
    }
    if (command.keyed === true) {
      const answered = await this.unchanged.find(command.commandId);
      if (answered !== undefined && answered.stream === stream)
        return await this.repeat(aggregate, stream, command, { ...answered, from: answered.revision + 1, to: answered.revision });
    }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const known = seen.commands.get(command.commandId);
      if (known !== undefined) {
        // After a day another process may have forgotten the command and done it again.
        if (!proved && this.clock.now() - Date.parse(known.occurredAt) > REMEMBER_MS) {
          seen = await this.memory.refresh(aggregate, stream, seen);
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
        // The stream does not exist. A decision that needs it has already refused, so this one would make it.
        if (!expected) throw new ThreadlogError('revision_mismatch', 'there is no revision yet');
      } catch (error) {
        if (proved) throw error;
        seen = await this.memory.refresh(aggregate, stream, seen);
        proved = true;
        continue;
      }
      if (events.length === 0) {
        if (!proved) {
          const revision: number = seen.revision;
          seen = await this.memory.refresh(aggregate, stream, seen);
          proved = true;
          if (seen.revision !== revision) continue;
        }
        if (seen.position === undefined) throw new Error(`${aggregate.kind}: a decision on a missing stream answered no events`);
        if (command.keyed === true) await this.unchanged.save(command.commandId, command, { stream, revision: seen.revision });
        return { outcome: 'unchanged', state: seen.state as S, revision: seen.revision, position: seen.position, events: [] };
      }

      const encoded = encode(aggregate, stream, seen, command, events, now, this.ids);
      let answer;
      try {
        answer = await this.store.append(stream, seen.revision < 0 ? 'none' : seen.revision, encoded.stored, deadline);
      } catch (error) {
        // The memory of this stream may be wrong now.
        this.memory.forget(stream);
        throw error;
      }
      if (answer.outcome === 'appended') return this.appended(aggregate, stream, seen, encoded, answer.position, command);
      // A random pause, since processes that race each other in step would go on losing in step.
      if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(2 ** attempt, 100)));
      seen = await this.memory.refresh(aggregate, stream, seen);
      proved = true;
    }
    throw new ThreadlogError('concurrent_changes', `gave up after ${ATTEMPTS} attempts`, { retryAfterSeconds: 1 });
  }

  private now(seen: Seen): number {
    const now = this.clock.now();
    return seen.occurredAt === '' ? now : Math.max(now, Date.parse(seen.occurredAt));
  }

  private appended<S, E extends DomainEvent>(
    aggregate: Aggregate<S, E>,
    stream: StreamName,
    seen: Seen,
    encoded: Encoded<E>,
    position: Position,
    command: CommandContext,
  ): Transacted<S, E> {
    let state = seen.state as S;
    const events: Recorded<E>[] = [];
    for (const event of encoded.recorded) {
      const whole = { position, ...event } as Recorded<E>;
      events.push(whole);
      state = aggregate.evolve(state, whole);
    }
    if (command.writes !== undefined) command.writes.any = true;
    const { organizationId } = command;
    this.onAppended({ kind: aggregate.kind, organizationId, stream, revision: seen.revision, state: seen.state });
    this.memory.extend(stream, seen, state, encoded, position, command);
    return { outcome: 'appended', state, revision: seen.revision, position, events };
  }

  /** The answer of a command that is already in the log: its own events, and the state right after them. */
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
    if (position === undefined) throw new StoreUnavailable('a stream that existed before is gone');
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
}

function asThreadlogError(error: unknown): unknown {
  if (error instanceof StoreUnavailable) return storeUnavailable(error);
  if (error instanceof OutcomeUnknown) return new ThreadlogError('outcome_unknown', undefined, { retryAfterSeconds: 1 }, { cause: error });
  if (error instanceof UnknownEvent) return new ThreadlogError('internal_error', undefined, {}, { cause: error });
  return error;
}
