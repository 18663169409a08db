import { type ControlledTransaction, type Kysely, sql } from 'kysely';
import {
  type EventStore,
  parseStreamName,
  type Position,
  type StoredEvent,
  type StreamKind,
  type StreamName,
} from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import type { FeedPart, Skipped } from './batches.js';
import { describeError, GroupPaused, GroupStopped, CheckpointRefused, isOfTheSurroundings, LeaseLost, type Poison } from './failures.js';
import { type BatchHandler, Follower, type FollowerSurroundings } from './follower.js';
import { applyReadable } from './isolation.js';
import type { JobKey, Jobs, NewJob } from './jobs.js';
import { moveCheckpoint, type ReactorLease, seeReactor, takeReactor } from './lease.js';
import { logParked, NO_GENERATION, park, readParked, readSkipped } from './parking.js';
import type { ProjectedEvent } from './projection.js';
import { ignoreFailure } from '../../src/ignore-failure.js';
import { nextTurn } from '../../src/pause.js';

/** How long a checkpoint may lag behind handled events that had no consequences (ms). */
const LAZY_MS = 500;

/** Where a reactor begins when it is first installed. */
export interface Beginning {
  readonly position: Position | 'start';
  readonly state?: unknown;
}

/** What a batch leads to. All consequences are committed with the checkpoint, or none. */
export interface Consequences {
  /** Adds a job unless a job of its kind with its key exists. */
  add(job: NewJob): void;
  /** Removes a job that this batch or an earlier one added. */
  remove(job: JobKey): void;
  /** Replaces the reactor's state. */
  keep(state: unknown): void;
  /** The batch's transaction, for the reactor's own rows in the schema keep. It has already moved the checkpoint. */
  transaction(): Promise<Kysely<Database>>;
  /** To be awaited every few ms by a reaction that may take long: lets other work of the process run, the renewal of the lease included. */
  rest(): Promise<void>;
}

/** Which events of the feed a reactor handles, and how. */
export type Reaction =
  | {
      readonly reads: 'decoded';
      /** The types of events that the reactor handles, by kind of stream. Other events are not decoded for it. */
      readonly events: Readonly<Record<StreamKind, readonly string[]>>;
      /**
       * 'within streams': an event that the reactor cannot handle parks its stream, and the other streams go on, in the order of the log. 'of
       * the log': the reactor stops at such an event, since later events may depend on it.
       */
      readonly order: 'within streams' | 'of the log';
      /** Kinds of streams that are not parked, since the events of others depend on them: the reactor stops at a bad event of theirs. */
      readonly stopsAt?: readonly StreamKind[];
      /**
       * Turns events, in log order, into consequences. Personal fields are sealed. It may read and write only the reactor's own rows: an
       * action outside them is a job. Imported events (`metadata.imported`) change the reactor's state and cause nothing. Events come again
       * when their batch was not committed, and must then have the same consequences.
       */
      handle(events: readonly ProjectedEvent[], consequences: Consequences, state: unknown): void | Promise<void>;
    }
  | {
      /** Every event of every stream, as it is stored. An event that the reactor cannot handle stops it. */
      readonly reads: 'stored';
      /** As for decoded events. */
      handle(events: readonly StoredEvent[], consequences: Consequences, state: unknown): void | Promise<void>;
    };

/** Turns events into jobs and into a small state of its own. It is never rebuilt or set back, and calls nothing outside. */
export interface Reactor {
  /** Unique among all followers of the feed; names its checkpoint for ever. */
  readonly name: string;
  /** 'head': the events after its installation. 'start': the whole log. A function answers the place itself. */
  readonly begins: 'head' | 'start' | (() => Promise<Beginning>);
  /** The kinds of jobs that the reactor adds. A process that has no handler for one of them does not start. */
  readonly jobs: readonly string[];
  /** Greatest number of events in a batch; as many as all followers take when absent. */
  readonly maxEvents?: number;
  readonly reaction: Reaction;
  /** Drops what the reactor remembers beside its state. Called when a lease begins: another process may have handled events. */
  readonly forget?: () => void;
}

/**
 * Records where a reactor begins, unless it was installed before. A process awaits this before it takes its first command, so that the
 * reactor misses none of the process's events.
 */
export async function installReactor(database: Kysely<Database>, store: EventStore, { name, begins }: Reactor): Promise<void> {
  const there = await database.selectFrom('keep.reactors').select('name').where('name', '=', name).executeTakeFirst();
  if (there !== undefined) return;
  const beginning: Beginning =
    begins === 'start' ? { position: 'start' } : begins === 'head' ? { position: await store.head() } : await begins();
  const { position, state = null } = beginning;
  await database
    .insertInto('keep.reactors')
    .values({
      name,
      log_id: store.log.id,
      position: position === 'start' ? '' : position,
      state: state === null ? null : JSON.stringify(state),
    })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .execute();
}

export interface ReactorOptions extends Omit<FollowerSurroundings, 'checkpoints'> {
  readonly reactor: Reactor;
  readonly jobs: Jobs;
  /** Called when jobs were added. */
  readonly onJobs?: () => void;
}

/** Follows the feed for one reactor. */
export function followFor(options: ReactorOptions): Follower<ReactorLease> {
  const { reactor, database, store, decode } = options;
  const { name, reaction } = reactor;
  return new Follower<ReactorLease>({
    ...options,
    ...(reactor.maxEvents === undefined ? {} : { maxEvents: reactor.maxEvents }),
    name,
    noun: 'reactor',
    key: { reactor: name },
    kinds: reaction.reads === 'stored' ? 'all' : new Set(Object.keys(reaction.events)),
    ...(reaction.reads === 'stored' ? {} : { types: new Set(Object.values(reaction.events).flat()) }),
    decode: reaction.reads === 'stored' ? () => Promise.resolve({ decoded: [], failed: [] }) : decode,
    prepare: () => installReactor(database, store, reactor),
    see: (owner) => seeReactor(database, name, owner),
    take: (owner) => takeReactor(database, name, owner, store.log.id),
    assertOwn: (seen) => assertOwnReactorLog(name, seen, store.log),
    beyondHead: (position, head) =>
      `the reactor ${name} is at position ${position}, but the log ends at ${head}. The log has lost events, or was restored from an older backup than the schema keep: docs/operating.md says how to go on.`,
    begin: async (lease) => {
      const handler = new ReactorHandler(options, lease);
      await handler.begin();
      return handler;
    },
  });
}

/** @throws CheckpointRefused when the reactor followed another log */
export function assertOwnReactorLog(
  name: string,
  seen: { readonly position: Position | 'start'; readonly logId: string },
  log: EventStore['log'],
): void {
  if (seen.position !== 'start' && seen.logId !== log.id)
    throw new CheckpointRefused(
      `the reactor ${name} has followed the log ${seen.logId}, but the open ${log.adapter} log is ${log.id}. Open the log that it followed; docs/operating.md says how to go on with another.`,
    );
}

/** Collects the consequences of a part of a batch until they are written. */
export class Gathered implements Consequences {
  readonly added = new Map<string, NewJob>();
  readonly removed = new Map<string, JobKey>();
  state: { readonly now: unknown } | undefined;

  constructor(private readonly begin: () => Promise<Kysely<Database>>) {}

  add(job: NewJob): void {
    const id = JSON.stringify([job.kind, job.key]);
    if (!this.added.has(id)) this.added.set(id, job);
  }

  remove({ kind, key }: JobKey): void {
    const id = JSON.stringify([kind, key]);
    this.added.delete(id);
    this.removed.set(id, { kind, key });
  }

  keep(state: unknown): void {
    this.state = { now: state };
  }

  transaction(): Promise<Kysely<Database>> {
    return this.begin();
  }

  rest(): Promise<void> {
    return nextTurn();
  }

  /** Takes over the consequences of a later part. */
  take(part: Gathered): void {
    for (const key of part.removed.values()) this.remove(key);
    for (const job of part.added.values()) this.add(job);
    if (part.state !== undefined) this.state = part.state;
  }

  get hasJobs(): boolean {
    return this.added.size > 0 || this.removed.size > 0;
  }
}

/** Handles the batches of one lease. */
class ReactorHandler implements BatchHandler {
  readonly #options: ReactorOptions;
  readonly #lease: ReactorLease;
  readonly #parked = new Set<StreamName>();
  #skipped: Skipped = new Map();
  /** The reactor's state after the last batch, written or not. */
  #state: unknown;
  /** The position of the checkpoint. */
  #at: Position | 'start';
  #writtenAt = 0;
  /** The events since then that were handled and led to no job. */
  #behind: { readonly through: Position; readonly events: number; readonly state: boolean } | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #isGathering = false;

  constructor(options: ReactorOptions, lease: ReactorLease) {
    this.#options = options;
    this.#lease = lease;
    this.#state = lease.state;
    this.#at = lease.position;
  }

  get skipped(): Skipped {
    return this.#skipped;
  }

  /** It needs every event in the order of the log, and so cannot be tried on a part of a batch. */
  get #goesInOrder(): boolean {
    const { reaction } = this.#options.reactor;
    return reaction.reads === 'stored' || reaction.order === 'of the log';
  }

  get goesWithout(): boolean {
    return this.#parked.size > 0;
  }

  get isGathering(): boolean {
    return this.#isGathering;
  }

  async begin(): Promise<void> {
    const { database, reactor } = this.#options;
    reactor.forget?.();
    for (const stream of await readParked(database, reactor.name, NO_GENERATION)) this.#parked.add(stream);
    this.#skipped = await readSkipped(database, reactor.name);
  }

  async write(batch: FeedPart): Promise<void> {
    await this.#inTurn(() => this.#write(batch));
  }

  async flush(when: 'in time' | 'at once'): Promise<void> {
    if (when === 'at once') await this.#inTurn(() => this.#flush());
    else if (this.#behind !== undefined && performance.now() - this.#writtenAt >= LAZY_MS) await this.#inTurn(() => this.#flush());
  }

  /** Runs one piece of work at a time: two moves of the checkpoint at once would look as if another worker had moved it. */
  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(work);
    this.#turn = ignoreFailure(turn, 'the caller gets the error, and the next piece of work only waits for the end');
    await turn;
  }

  async #write(batch: FeedPart): Promise<void> {
    const { reactor, database } = this.#options;
    const failed = batch.failed.filter(({ event }) => !this.#parked.has(event.stream));
    const events = batch.decoded.filter((one) => one.skipped !== true && !this.#parked.has(one.event.stream));
    const begun: { tx?: ControlledTransaction<Database> } = {};
    const begin = async () => {
      if (begun.tx !== undefined) return begun.tx;
      // From here on the transaction keeps the lease: it has the checkpoint's row.
      this.#isGathering = false;
      const tx = await database.startTransaction().execute();
      begun.tx = tx;
      await this.#move(tx, batch);
      return tx;
    };
    this.#isGathering = true;
    const all = new Gathered(begin);
    let poison: Poison[] = [];
    try {
      const [unreadable] = failed;
      if (unreadable !== undefined && this.#goesInOrder) throw stopped(reactor.name, unreadable.error);
      if (failed.length > 0) poison = await this.#isolated(await begin(), all, events, failed);
      else {
        try {
          await this.#handle(events, batch.stored, all, this.#state);
        } catch (error) {
          if (error instanceof LeaseLost || error instanceof GroupPaused || isOfTheSurroundings(error)) throw error;
          if (this.#goesInOrder) throw stopped(reactor.name, error);
          await rollBack(begun.tx);
          delete begun.tx;
          all.added.clear();
          all.removed.clear();
          all.state = undefined;
          poison = await this.#isolated(await begin(), all, events, []);
        }
      }
      const state = all.state ?? { now: this.#state };
      if (begun.tx === undefined && !all.hasJobs) {
        await this.#putOff(batch, state.now, all.state !== undefined);
        return;
      }
      const tx = await begin();
      if (this.#behind?.state === true) all.state ??= state;
      await writeGathered(tx, reactor.name, this.#options.jobs, all);
      await begun.tx?.commit().execute();
      this.#at = batch.through;
      this.#state = state.now;
      this.#behind = undefined;
      this.#writtenAt = performance.now();
      if (all.added.size > 0) this.#options.onJobs?.();
    } catch (error) {
      await rollBack(begun.tx);
      throw error;
    } finally {
      this.#isGathering = false;
    }
    for (const one of poison) {
      this.#parked.add(one.event.stream);
      logParked(this.#options.log, { reactor: reactor.name }, one);
    }
  }

  /** Leaves a batch that only moves the checkpoint to be written with one of the next batches. */
  async #putOff(batch: FeedPart, state: unknown, changed: boolean): Promise<void> {
    const before = { behind: this.#behind, state: this.#state };
    this.#behind = {
      through: batch.through,
      events: (before.behind?.events ?? 0) + batch.events,
      state: changed || before.behind?.state === true,
    };
    this.#state = state;
    try {
      if (performance.now() - this.#writtenAt >= LAZY_MS) await this.#flush();
    } catch (error) {
      // The batch is handled again, for example when a pause ends.
      this.#behind = before.behind;
      this.#state = before.state;
      throw error;
    }
  }

  async #move(tx: Kysely<Database>, batch: FeedPart): Promise<void> {
    const events = (this.#behind?.events ?? 0) + batch.events;
    await moveCheckpoint(tx, this.#lease, { from: this.#at, to: batch.through, events });
  }

  async #flush(): Promise<void> {
    const behind = this.#behind;
    if (behind === undefined) return;
    const { through: to, events, state } = behind;
    await moveCheckpoint(this.#options.database, this.#lease, {
      from: this.#at,
      to,
      events,
      ...(state ? { state: this.#state } : {}),
    });
    this.#at = to;
    this.#behind = undefined;
    this.#writtenAt = performance.now();
  }

  async #handle(
    events: readonly ProjectedEvent[],
    stored: readonly StoredEvent[],
    consequences: Consequences,
    state: unknown,
  ): Promise<void> {
    const { reaction } = this.#options.reactor;
    if (reaction.reads === 'stored') await reaction.handle(stored, consequences, state);
    else if (events.length > 0) await reaction.handle(events, consequences, state);
  }

  /** Gathers the consequences of the events that can be handled, and parks the streams of the others. */
  async #isolated(tx: Kysely<Database>, all: Gathered, events: readonly ProjectedEvent[], failed: FeedPart['failed']): Promise<Poison[]> {
    const { reactor } = this.#options;
    const poison = await handleIsolated(reactor, tx, all, events, failed, this.#state);
    const stops = poison.find(({ event }) => mayNotBeParked(reactor, event));
    if (stops !== undefined) throw stopped(reactor.name, stops.error);
    if (poison.length > 0) await park(tx, reactor.name, NO_GENERATION, poison);
    return poison;
  }
}

/** Writes the gathered consequences in the transaction that moves the checkpoint. */
export async function writeGathered(tx: Kysely<Database>, name: string, jobs: Jobs, { added, removed, state }: Gathered): Promise<void> {
  await jobs.remove([...removed.values()], tx);
  await jobs.add([...added.values()], tx);
  if (state !== undefined) await sql`update keep.reactors set state = ${JSON.stringify(state.now)}::jsonb where name = ${name}`.execute(tx);
}

/** Whether a reactor that reads decoded events handles this event. */
export function isWantedBy({ reaction }: Reactor, { stream, type }: Pick<StoredEvent, 'stream' | 'type'>): boolean {
  const kind = parseStreamName(stream)?.kind;
  return reaction.reads === 'decoded' && kind !== undefined && reaction.events[kind]?.includes(type) === true;
}

/** Whether other streams depend on an event's stream for this reactor. */
function mayNotBeParked({ reaction }: Reactor, { stream }: Pick<StoredEvent, 'stream'>): boolean {
  const kind = parseStreamName(stream)?.kind;
  return reaction.reads === 'decoded' && kind !== undefined && reaction.stopsAt?.includes(kind) === true;
}

/** Gathers the consequences of the events of each stream, up to its first event that cannot be handled. For reactions within streams. */
export async function handleIsolated(
  { name, reaction }: Reactor,
  tx: Kysely<Database>,
  all: Gathered,
  events: readonly ProjectedEvent[],
  failed: FeedPart['failed'],
  state: unknown,
): Promise<Poison[]> {
  if (reaction.reads === 'stored') throw new Error(`the reactor ${name} handles stored events and not decoded ones`);
  const apply = async (part: readonly ProjectedEvent[]) => {
    const gathered = new Gathered(() => Promise.resolve(tx));
    await reaction.handle(part, gathered, all.state?.now ?? state);
    all.take(gathered);
  };
  return applyReadable(tx, events, failed, apply, () => undefined);
}

function stopped(name: string, error: unknown): GroupStopped {
  return new GroupStopped(`the reactor ${name} cannot handle an event, and does not go on without it: ${describeError(error)}`, {
    cause: error,
  });
}

/** The rollback fails when the session is gone; nothing is left to roll back then, and the first error is the one to report. */
async function rollBack(tx: ControlledTransaction<Database> | undefined): Promise<void> {
  if (tx === undefined || tx.isCommitted || tx.isRolledBack) return;
  await ignoreFailure(tx.rollback().execute(), 'the rollback fails when the session is gone, and then nothing is left to roll back');
}
