import type { Kysely } from 'kysely';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { pause } from '../../src/pause.js';
import { batchesOf, type FeedPart, type Skipped } from './batches.js';
import { Cadence } from './cadence.js';
import { CheckpointRefused, describeError, GroupPaused, GroupStopped, LeaseLost } from './failures.js';
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

/** A feed that runs beside a busy log may never say that it has caught up; its small batches are collected all the same. */
const WORTH_WRITING = 64;
/** How often a worker looks whether what an operator paused may go on (ms). */
const PAUSED_MS = 250;
const STATS_MS = 30_000;
const BACKOFF = { first: 100, longest: 5_000 } as const;

/** Told of every step of a follower, so that readers in the same process need not poll. `Checkpoints` fits. */
export interface CheckpointSignal {
  /** @param parked whether the follower goes on without some stream */
  advanced(name: string, position: Position | 'start', parked: boolean): void;
  left(name: string): void;
}

/** What a follower does with the batches of one lease. */
export interface BatchHandler {
  /** Revisions that an operator has passed over. */
  readonly skipped: Skipped;
  /** Whether it goes on without some stream. */
  readonly goesWithout: boolean;
  /**
   * Handles a batch that begins where the one before ended. The checkpoint moves with it, or with one of the next.
   * @throws LeaseLost, GroupPaused, GroupStopped, or what the surroundings say
   */
  write(batch: FeedPart, from: Position | 'start'): Promise<void>;
  /** Moves a checkpoint that was left behind. Called twice a second, also while a batch is being handled; 'at once' when the lease is given up. */
  flush?(when: 'in time' | 'at once'): Promise<void>;
}

/** What all followers of the feed are given. */
export interface FollowerSurroundings {
  readonly store: EventStore;
  readonly decode: DecodeBatch;
  /** Sessions with WORKER_SESSION's settings (lease.ts), two of them for each follower. */
  readonly database: Kysely<Database>;
  readonly log: RuntimeLog;
  readonly checkpoints?: CheckpointSignal;
  /** Told of every batch that was handled: its events, and the time that it took (ms). */
  readonly measure?: (name: string, events: number, ms: number) => void;
  /** Commands in flight in this process; absent in a worker that runs beside no API. */
  readonly inFlight?: () => number;
  /** Greatest number of events in one transaction. */
  readonly maxEvents?: number;
}

/** What anyone may see of the checkpoint that a lease is for. */
type SeenBy<L extends Lease | ReactorLease> = Seen & Pick<L, Extract<'shape', keyof L>>;

/** What tells one follower from another. */
export interface FollowerOptions<L extends Lease | ReactorLease> extends FollowerSurroundings {
  /** Unique among all followers. */
  readonly name: string;
  /** As log lines call it. */
  readonly noun: 'projection group' | 'reactor';
  readonly key: CheckpointKey;
  /** Streams of these kinds are handed on. */
  readonly kinds: ReadonlySet<string> | 'all';
  /** Events of these types alone; of any when absent. */
  readonly types?: ReadonlySet<string>;
  /** Makes what the checkpoint speaks of where there is none. */
  readonly prepare: () => Promise<void>;
  /** Undefined while there is no checkpoint. */
  readonly see: (owner: string) => Promise<SeenBy<L> | undefined>;
  /** Undefined while another worker has it. */
  readonly take: (owner: string) => Promise<L | undefined>;
  /** @throws GroupStopped when the checkpoint is not for this process to move */
  readonly assertOwn: (seen: SeenBy<L> | L) => void;
  /** Why a checkpoint beyond the log's head is refused, and what to do. */
  readonly beyondHead: (position: Position, head: Position | 'start') => string;
  /** Whatever was known under an earlier lease may be outdated. */
  readonly begin: (lease: L) => Promise<BatchHandler>;
}

/** What a worker knows while it has the lease. */
interface Work {
  readonly lease: Lease | ReactorLease;
  readonly session: AbortController;
  readonly handler: BatchHandler;
  position: Position | 'start';
  /** Waiting for the feed after everything was handled. */
  idle: boolean;
  writing: boolean;
  renewedAt: number;
  /** Why the lease could not be kept. */
  lost?: { readonly error: unknown };
}

/**
 * Follows the log's feed from a checkpoint: stands for its lease, keeps it, hands on batches at a cadence that suits the load. Any number
 * of processes may follow under one name: one works, the others stand by.
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
   * Works or stands by until the signal; then the batch in hand is finished and the lease is given up. Whatever the surroundings do, it
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

  /** Undefined while another worker has it. Checks first and takes then: a process that must not write must not stop one that may. */
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
    // It is the log that everybody has: readiness and whoever lists the checkpoints must hear of it.
    await noteRefused(database, key, refused.message);
    throw refused;
  }

  async #holdLease(lease: L, signal: AbortSignal, working: () => void): Promise<void> {
    const { name, noun, log, checkpoints, begin } = this.#options;
    // Ended by the caller's signal or by what the renewals find; everything that waits on behalf of this lease listens to it.
    const session = new AbortController();
    const end = () => session.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    let work: Work | undefined;
    let timer: NodeJS.Timeout | undefined;
    let stopped: string | null = null;
    try {
      // Beginning is quick; what it takes counts as time that nobody renewed.
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
    const cadence = new Cadence(this.#options.inFlight, () => performance.now());
    const batches = batchesOf(store, work.position, {
      kinds,
      types,
      decode,
      skipped: work.handler.skipped,
      signal: session.signal,
      maxEvents,
    });
    // Far behind, what comes after a batch is read and decoded while the batch is handled. Otherwise the follower waits first.
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
      // A feed may end by throwing when it is told to end.
      if (!session.signal.aborted) throw error;
    } finally {
      session.abort();
      // The generator cannot be closed before.
      await ignoreFailure(next, 'the read ahead was told to end, and what it read is not wanted');
      await batches.return();
    }
    if (work.lost !== undefined) throw work.lost.error;
  }

  async #write(work: Work, batch: FeedPart): Promise<void> {
    const { name, checkpoints } = this.#options;
    // Before the first event of the log there is no place that head() knows.
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

  /** The batch in hand waits; the lease is renewed meanwhile, or given up when the worker ends. */
  async #untilResumed({ lease, session }: Work): Promise<void> {
    const { noun, database, log } = this.#options;
    log.info({ ...this.#called, owner: this.#owner }, `${noun} paused`);
    while (!session.signal.aborted && (await isPaused(database, lease))) await pause(PAUSED_MS, session.signal);
    if (!session.signal.aborted) log.info({ ...this.#called, owner: this.#owner }, `${noun} resumed`);
  }

  /** Renews the lease of a worker that has nothing to write; a batch renews it by itself. */
  #tick(work: Work): void {
    this.#report(false);
    if (work.session.signal.aborted) return;
    const lost = (error: unknown) => {
      work.lost = { error };
      work.session.abort();
    };
    void work.handler.flush?.('in time').catch((error: unknown) => {
      // A pause is met by the next batch, which waits for its end.
      if (!(error instanceof GroupPaused)) lost(error);
    });
    const now = performance.now();
    if (work.writing || now - work.renewedAt < RENEW_MS) return;
    work.renewedAt = now;
    void this.#renew(work).catch(lost);
  }

  async #renew(work: Work): Promise<void> {
    await renewLease(this.#options.database, work.lease);
    if (!work.idle || work.session.signal.aborted) return;
    // The log is asked, since a feed that has gone silent looks like one with nothing to say.
    const head = await ignoreFailure(this.#options.store.head(), 'a log that is away says nothing of how far the group is');
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
    await ignoreFailure(handler?.flush?.('at once'), 'what was not written comes again');
    try {
      await releaseLease(database, lease, stopped);
    } catch (error) {
      // It runs out by itself.
      log.warn({ ...this.#called, error: describeError(error) }, `${noun} could not give up its lease`);
    }
  }
}

/** A promise that is awaited later: its failure is met there, and must not end the process before. */
function ahead<T>(promise: Promise<T>): Promise<T> {
  void ignoreFailure(promise, 'its failure is met where it is awaited');
  return promise;
}
