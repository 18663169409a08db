import type { Kysely } from 'kysely';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { pause } from '../../src/pause.js';
import { batchesOf, type FeedPart, type Skipped } from './batches.js';
import { Cadence } from './cadence.js';
import { CheckpointRefused, describeError, GroupPaused, GroupStopped, isLockTimeout, LeaseLost } from './failures.js';
import {
  type CheckpointKey,
  isPaused,
  type Lease,
  noteNothingToDo,
  noteRefused,
  type ReactorLease,
  releaseLease,
  RENEW_MS,
  renewLease,
  type Seen,
  STANDBY_MS,
} from './lease.js';
import type { DecodeBatch } from './projection.js';
import type { RuntimeLog } from './runtime-log.js';
import { ignoreFailure } from '../../src/ignore-failure.js';
import { workerName } from './worker-name.js';

/** After a batch of fewer events the follower rests, even if the feed has not caught up: beside a busy log the feed may never do so. */
const WORTH_WRITING = 64;
/** How often a paused worker checks whether it may go on (ms). */
const PAUSED_MS = 250;
const STATS_MS = 30_000;
const BACKOFF = { first: 100, longest: 5_000 } as const;

/** Receives every step of a follower, so that readers in the same process need not poll. `Checkpoints` implements it. */
export interface CheckpointSignal {
  /** @param parked whether the follower has parked any stream */
  advanced(name: string, position: Position | 'start', parked: boolean): void;
  left(name: string): void;
}

/** Handles the batches of one lease. */
export interface BatchHandler {
  /** Revisions that an operator has skipped. */
  readonly skipped: Skipped;
  /** Whether any stream is parked. */
  readonly goesWithout: boolean;
  /**
   * Handles a batch that begins where the previous batch ended. The checkpoint moves with this batch or with one of the next.
   * @throws LeaseLost, GroupPaused, GroupStopped, or an error of the surroundings
   */
  write(batch: FeedPart, from: Position | 'start'): Promise<void>;
  /** True while write() has not come to its transaction, which keeps the lease then. False at all times when absent. */
  readonly isGathering?: boolean;
  /** Moves a checkpoint that write() left behind. Called twice a second, even during a write(); 'at once' when the lease is given up. */
  flush?(when: 'in time' | 'at once'): Promise<void>;
}

/** What all followers of the feed need. */
export interface FollowerSurroundings {
  readonly store: EventStore;
  readonly decode: DecodeBatch;
  /** Sessions with WORKER_SESSION's settings (lease.ts), two of them for each follower. */
  readonly database: Kysely<Database>;
  readonly log: RuntimeLog;
  readonly checkpoints?: CheckpointSignal;
  /** Called after every handled batch with its number of events and its time (ms). */
  readonly measure?: (name: string, events: number, ms: number) => void;
  /** Commands in flight in this process; absent in a worker without an API. */
  readonly inFlight?: () => number;
  /** Greatest number of events in one transaction. */
  readonly maxEvents?: number;
  /** Longest pause between batches (ms); that of a list when absent. */
  readonly longestRest?: number;
}

/** What any process may read of the checkpoint that a lease is for. */
type SeenBy<L extends Lease | ReactorLease> = Seen & Pick<L, Extract<'shape', keyof L>>;

/** What each follower sets for itself. */
export interface FollowerOptions<L extends Lease | ReactorLease> extends FollowerSurroundings {
  /** Unique among all followers. */
  readonly name: string;
  /** The follower's name for itself in log lines. */
  readonly noun: 'projection group' | 'reactor';
  readonly key: CheckpointKey;
  /** Only events of streams of these kinds are handed on. */
  readonly kinds: ReadonlySet<string> | 'all';
  /** Only events of these types are handed on; of any type when absent. */
  readonly types?: ReadonlySet<string>;
  /** Makes the tables or rows that the checkpoint is for, where they are missing. */
  readonly prepare: () => Promise<void>;
  /** Undefined while there is no checkpoint. */
  readonly see: (owner: string) => Promise<SeenBy<L> | undefined>;
  /** Undefined while another worker has the lease. */
  readonly take: (owner: string) => Promise<L | undefined>;
  /** @throws GroupStopped when this process must not move the checkpoint */
  readonly assertOwn: (seen: SeenBy<L> | L) => void;
  /** The text that says why a checkpoint beyond the log's head is refused, and what to do. */
  readonly beyondHead: (position: Position, head: Position | 'start') => string;
  /** Answers a new handler for the lease. Anything remembered under an earlier lease may be outdated. */
  readonly begin: (lease: L) => Promise<BatchHandler>;
}

/** A worker's state while it has the lease. */
interface Work {
  readonly lease: Lease | ReactorLease;
  readonly session: AbortController;
  readonly handler: BatchHandler;
  position: Position | 'start';
  /** True while the worker has handled everything and waits for the feed. */
  idle: boolean;
  writing: boolean;
  renewedAt: number;
  /** Why the lease could not be kept. */
  lost?: { readonly error: unknown };
}

/**
 * Follows the log's feed from a checkpoint: takes and keeps the lease, and hands on batches at a cadence that suits the load. Any number of
 * processes may follow under one name: one works, the others stand by.
 */
export class Follower<L extends Lease | ReactorLease> {
  readonly #owner = workerName();
  readonly #options: FollowerOptions<L>;
  readonly #called: Readonly<Record<string, string>>;
  readonly #stats = { since: performance.now(), events: 0, batches: 0, writeMs: 0 };

  constructor(options: FollowerOptions<L>) {
    this.#options = options;
    this.#called = { [options.noun === 'reactor' ? 'reactor' : 'group']: options.name };
  }

  /**
   * Works or stands by until the signal, then finishes the batch in hand and gives up the lease. After any failure of the surroundings it
   * tries again.
   * @throws GroupStopped when it cannot go on without a person
   */
  async run(signal: AbortSignal): Promise<void> {
    const { noun, log } = this.#options;
    let backoff: number = BACKOFF.first;
    while (!signal.aborted) {
      try {
        const lease = await this.#standForLease();
        if (lease === undefined) {
          await pause(STANDBY_MS, signal);
          continue;
        }
        await this.#holdLease(lease, signal, () => (backoff = BACKOFF.first));
      } catch (error) {
        if (error instanceof GroupStopped) {
          log.error({ ...this.#called, error: describeError(error) }, `${noun} stopped`);
          throw error;
        }
        if (error instanceof LeaseLost) {
          log.warn({ ...this.#called, owner: this.#owner, reason: error.message }, `${noun} lost its lease, standing by`);
          continue;
        }
        log.warn({ ...this.#called, error: describeError(error), againInMs: backoff }, `${noun} interrupted, trying again`);
        await pause(backoff * (0.5 + Math.random() / 2), signal);
        backoff = Math.min(backoff * 2, BACKOFF.longest);
      }
    }
  }

  /** Undefined while another worker has the lease. Checks before it takes: a process that must not write must not stop one that may. */
  async #standForLease(): Promise<L | undefined> {
    const { prepare, see, take, assertOwn } = this.#options;
    let seen = await see(this.#owner);
    if (seen === undefined) {
      await prepare();
      seen = await see(this.#owner);
    }
    if (seen === undefined) return undefined;
    if (seen.idleTimeout === '0')
      throw new GroupStopped(
        'the sessions of this worker have no idle_in_transaction_session_timeout; a frozen one would block the others',
      );
    assertOwn(seen);
    if (!seen.free) return undefined;
    await this.#refuseBeyondHead(seen.position);
    const lease = await take(this.#owner);
    if (lease === undefined) return undefined;
    assertOwn(lease);
    await this.#refuseBeyondHead(lease.position);
    return lease;
  }

  /** @throws CheckpointRefused */
  async #refuseBeyondHead(position: Position | 'start'): Promise<void> {
    const { store, database, key, beyondHead } = this.#options;
    if (position === 'start') return;
    const head = await store.head();
    if (head !== 'start' && position <= head) return;
    const refused = new CheckpointRefused(beyondHead(position, head));
    // All processes have this log, so readiness and the list of checkpoints must show the refusal.
    await noteRefused(database, key, refused.message);
    throw refused;
  }

  async #holdLease(lease: L, signal: AbortSignal, working: () => void): Promise<void> {
    const { name, noun, log, checkpoints, begin } = this.#options;
    // The caller's signal or a failed renewal ends the session. Everything that waits on behalf of this lease listens to it.
    const session = new AbortController();
    const end = () => session.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    let work: Work | undefined;
    let timer: NodeJS.Timeout | undefined;
    let stopped: string | null = null;
    try {
      // Beginning is quick; its time counts as time without a renewal.
      const renewedAt = performance.now();
      const handler = await begin(lease);
      const held: Work = { lease, session, handler, position: lease.position, idle: false, writing: false, renewedAt };
      work = held;
      timer = setInterval(() => this.#tick(held), RENEW_MS / 4);
      const { epoch, position } = lease;
      const generation = 'generation' in lease ? { generation: lease.generation } : {};
      log.info({ ...this.#called, owner: this.#owner, ...generation, epoch, position }, `${noun} working`);
      checkpoints?.advanced(name, position, handler.goesWithout);
      await this.#work(held, working);
    } catch (error) {
      if (error instanceof GroupStopped) stopped = error.message;
      throw error;
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', end);
      session.abort();
      checkpoints?.left(name);
      this.#report(true);
      if (stopped !== null || signal.aborted) await this.#release(lease, work?.handler, stopped);
    }
  }

  async #work(work: Work, working: () => void): Promise<void> {
    const { session } = work;
    const { store, decode, maxEvents, kinds, types } = this.#options;
    const cadence = new Cadence(this.#options.inFlight, () => performance.now(), this.#options.longestRest);
    const batches = batchesOf(store, work.position, {
      kinds,
      types,
      decode,
      skipped: work.handler.skipped,
      signal: session.signal,
      maxEvents,
    });
    // Far behind the head, the next batch is read and decoded while this one is handled. Otherwise the follower waits first.
    let next = batches.next();
    try {
      for (;;) {
        const { value: batch, done } = await next;
        if (session.signal.aborted) break;
        if (done === true) throw new Error('the feed ended by itself');
        work.idle = false;
        const behind = !batch.caughtUp && batch.events >= WORTH_WRITING;
        if (behind) next = ahead(batches.next());
        await this.#write(work, batch);
        working();
        if (behind) continue;
        work.idle = batch.caughtUp;
        await cadence.rest(batch.events, session.signal, pause);
        next = ahead(batches.next());
      }
    } catch (error) {
      // A feed may end with an error when the signal ends it.
      if (!session.signal.aborted) throw error;
    } finally {
      session.abort();
      // The generator cannot be closed before this read has ended.
      await ignoreFailure(next, 'the signal has ended the read ahead, and nobody wants its result');
      await batches.return();
    }
    if (work.lost !== undefined) throw work.lost.error;
  }

  async #write(work: Work, batch: FeedPart): Promise<void> {
    const { name, checkpoints } = this.#options;
    // Before the log's first event, head() has no position to answer.
    if (batch.through === work.position || (batch.looked === 0 && work.position === 'start')) return;
    const began = performance.now();
    work.writing = true;
    try {
      await work.handler.write(batch, work.position);
    } catch (error) {
      if (!(error instanceof GroupPaused)) throw error;
      work.writing = false;
      await this.#untilResumed(work);
      return work.session.signal.aborted ? undefined : await this.#write(work, batch);
    } finally {
      work.writing = false;
    }
    work.position = batch.through;
    work.renewedAt = performance.now();
    checkpoints?.advanced(name, batch.through, work.handler.goesWithout);
    this.#stats.events += batch.events;
    this.#stats.batches++;
    this.#stats.writeMs += work.renewedAt - began;
    this.#options.measure?.(name, batch.events, work.renewedAt - began);
  }

  /** Holds the batch in hand until the pause ends. Renews the lease meanwhile, or gives it up when the worker ends. */
  async #untilResumed({ lease, session }: Work): Promise<void> {
    const { noun, database, log } = this.#options;
    log.info({ ...this.#called, owner: this.#owner }, `${noun} paused`);
    while (!session.signal.aborted && (await isPaused(database, lease))) await pause(PAUSED_MS, session.signal);
    if (!session.signal.aborted) log.info({ ...this.#called, owner: this.#owner }, `${noun} resumed`);
  }

  /** Renews the lease of a worker that does not write; the transaction of a batch renews it as well. */
  #tick(work: Work): void {
    this.#report(false);
    if (work.session.signal.aborted) return;
    const lost = (error: unknown) => {
      work.lost = { error };
      work.session.abort();
    };
    void work.handler.flush?.('in time').catch((error: unknown) => {
      // On a pause, the next batch waits until it ends.
      if (!(error instanceof GroupPaused)) lost(error);
    });
    const now = performance.now();
    const { writing, handler, renewedAt } = work;
    if ((writing && handler.isGathering !== true) || now - renewedAt < RENEW_MS) return;
    work.renewedAt = now;
    void this.#renew(work).catch((error: unknown) => {
      // A batch that came to its transaction meanwhile has the checkpoint's row, and keeps the lease itself.
      if (!(writing && isLockTimeout(error))) lost(error);
    });
  }

  async #renew(work: Work): Promise<void> {
    await renewLease(this.#options.database, work.lease);
    if (!work.idle || work.session.signal.aborted) return;
    // The log is asked for its head, since a feed that hangs looks like a feed that has no events.
    const head = await ignoreFailure(this.#options.store.head(), 'the progress of the group is unknown while the log is away');
    if (head !== undefined && (head === 'start' || head <= (work.position === 'start' ? '' : work.position)))
      await noteNothingToDo(this.#options.database, work.lease);
  }

  #report(last: boolean): void {
    const { since, events, batches, writeMs } = this.#stats;
    const now = performance.now();
    if (!last && now - since < STATS_MS) return;
    if (batches > 0)
      this.#options.log.info(
        { ...this.#called, events, batches, writeMs: Math.round(writeMs), seconds: Math.round((now - since) / 1_000) },
        `${this.#options.noun} moved`,
      );
    Object.assign(this.#stats, { since: now, events: 0, batches: 0, writeMs: 0 });
  }

  async #release(lease: L, handler: BatchHandler | undefined, stopped: string | null): Promise<void> {
    const { database, noun, log } = this.#options;
    await ignoreFailure(handler?.flush?.('at once'), 'events whose checkpoint was not written come again');
    try {
      await releaseLease(database, lease, stopped);
    } catch (error) {
      // The lease runs out by itself.
      log.warn({ ...this.#called, error: describeError(error) }, `${noun} could not give up its lease`);
    }
  }
}

/** Marks a promise that is awaited later: its failure is handled there, and must not end the process before that. */
function ahead<T>(promise: Promise<T>): Promise<T> {
  void ignoreFailure(promise, 'its failure is handled where the promise is awaited');
  return promise;
}
