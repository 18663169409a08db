import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { Kysely } from 'kysely';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/platform/database.js';
import { type Batch, batchesOf, type LogFollower } from './batches.js';
import { BatchWriter } from './batch-writer.js';
import { Cadence } from './cadence.js';
import { CheckpointRefused, describeError, GroupPaused, GroupStopped, LeaseLost } from './failures.js';
import { makeLiveGeneration, shapeOf } from './generations.js';
import {
  assertOwnLog,
  assertOwnTables,
  isPaused,
  noteNothingToDo,
  noteRefused,
  releaseLease,
  RENEW_MS,
  renewLease,
  seeLease,
  STANDBY_MS,
  takeLease,
  type Lease,
} from './lease.js';
import type { DecodeBatch, Projection } from './projection.js';
import type { RuntimeLog } from './runtime-log.js';

/** A feed that runs beside a busy log may never say that it has caught up; its small batches are collected all the same. */
const WORTH_WRITING = 64;
/** How often a worker looks whether its paused group may go on (ms). */
const PAUSED_MS = 250;
const STATS_MS = 30_000;
const BACKOFF = { first: 100, longest: 5_000 } as const;

/** Told of every step of a group, so that readers in the same process need not poll. `Checkpoints` fits. */
export interface CheckpointSignal {
  /** @param parked whether the group goes on without some stream */
  advanced(group: string, position: Position | 'start', parked: boolean): void;
  left(group: string): void;
}

export interface ProjectionGroupOptions {
  /** Unique among all groups; names the checkpoint. */
  readonly name: string;
  readonly projections: readonly Projection[];
  readonly decode: DecodeBatch;
  readonly store: EventStore;
  /** Sessions with WORKER_SESSION's settings (lease.ts), two of them for each group. */
  readonly database: Kysely<Database>;
  readonly log: RuntimeLog;
  readonly checkpoints?: CheckpointSignal;
  readonly follower?: LogFollower;
  /** Told of every batch that was written: its events, and the time that writing it took (ms). */
  readonly measure?: (group: string, events: number, ms: number) => void;
  /** Commands in flight in this process; absent in a worker that runs beside no API. */
  readonly inFlight?: () => number;
  /** Greatest number of events in one transaction. */
  readonly maxEvents?: number;
}

/** What a worker knows while it has the lease. */
interface Work {
  readonly lease: Lease;
  readonly session: AbortController;
  readonly writer: BatchWriter;
  position: Position | 'start';
  /** Waiting for the feed after everything was handled. */
  idle: boolean;
  writing: boolean;
  renewedAt: number;
  /** Why the lease could not be renewed. */
  lost?: { readonly error: unknown };
}

/**
 * Projections that share one feed, one decode, one transaction per batch and one checkpoint. Any number of processes may run a group: one
 * works, the others stand by.
 */
export class ProjectionGroup {
  readonly #owner = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
  readonly #options: ProjectionGroupOptions;
  readonly #kinds: ReadonlySet<string>;
  readonly #shape: string;
  readonly #stats = { since: performance.now(), events: 0, batches: 0, writeMs: 0 };

  constructor(options: ProjectionGroupOptions) {
    const names = [options.projections.map((p) => p.name), options.projections.flatMap((p) => Object.keys(p.tables))];
    for (const list of names) {
      const twice = list.find((name, i) => list.indexOf(name) !== i);
      if (twice !== undefined) throw new Error(`the group ${options.name} has two projections or tables named ${twice}`);
    }
    this.#options = options;
    this.#shape = shapeOf(options.projections);
    this.#kinds = new Set(options.projections.flatMap((projection) => projection.kinds));
  }

  /** Makes the tables and views of this build's version when the database has none, so that queries find them before any event came. */
  async prepare(): Promise<void> {
    const { name, projections, store } = this.#options;
    await makeLiveGeneration(this.#options.database, { name, projections, logId: store.log.id });
  }

  /**
   * Works or stands by until the signal; then the batch in hand is finished and the lease is given up. Whatever the surroundings do, it
   * tries again.
   * @throws GroupStopped when it cannot go on without a person
   */
  async run(signal: AbortSignal): Promise<void> {
    const { name, log } = this.#options;
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
          log.error({ group: name, error: describeError(error) }, 'projection group stopped');
          throw error;
        }
        if (error instanceof LeaseLost) {
          log.warn({ group: name, owner: this.#owner, reason: error.message }, 'projection group lost its lease, standing by');
          continue;
        }
        log.warn({ group: name, error: describeError(error), againInMs: backoff }, 'projection group interrupted, trying again');
        await pause(backoff * (0.5 + Math.random() / 2), signal);
        backoff = Math.min(backoff * 2, BACKOFF.longest);
      }
    }
  }

  /** Undefined while another worker has the group. Checks first and takes then: a process that must not write must not stop one that may. */
  async #standForLease(): Promise<Lease | undefined> {
    const { name, database, store } = this.#options;
    let seen = await seeLease(database, name, this.#owner);
    if (seen === undefined) {
      await this.prepare();
      seen = await seeLease(database, name, this.#owner);
    }
    if (seen === undefined) return undefined;
    if (seen.idleTimeout === '0')
      throw new GroupStopped(
        'the sessions of this worker have no idle_in_transaction_session_timeout; a frozen one would block the others',
      );
    this.#refuseAnother(seen);
    if (!seen.free) return undefined;
    await this.#refuseBeyondHead(seen.position);
    const lease = await takeLease(database, name, this.#owner, store.log.id);
    if (lease === undefined) return undefined;
    this.#refuseAnother(lease);
    await this.#refuseBeyondHead(lease.position);
    return lease;
  }

  /** @throws GroupStopped */
  #refuseAnother(seen: Pick<Lease, 'logId' | 'position' | 'shape'>): void {
    assertOwnTables(this.#options.name, seen, this.#shape);
    assertOwnLog(this.#options.name, seen, this.#options.store.log);
  }

  /** @throws CheckpointRefused */
  async #refuseBeyondHead(position: Position | 'start'): Promise<void> {
    const { name, store, database } = this.#options;
    if (position === 'start') return;
    const head = await store.head();
    if (head !== 'start' && position <= head) return;
    const refused = new CheckpointRefused(
      `the read models of the group ${name} are at position ${position}, but the log ends at ${head}. The log has lost events, or was restored from an older backup; make the read models again from it with threadlog projections rebuild ${name}.`,
    );
    // It is the log that everybody has: readiness and whoever lists the groups must hear of it.
    await noteRefused(database, name, refused.message);
    throw refused;
  }

  async #holdLease(lease: Lease, signal: AbortSignal, working: () => void): Promise<void> {
    const { name, database, log, projections, checkpoints } = this.#options;
    // Ended by the caller's signal or by what the renewals find; everything that waits on behalf of this lease listens to it.
    const session = new AbortController();
    const end = () => session.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    const work: Work = {
      lease,
      session,
      writer: new BatchWriter({ group: name, projections, database, log }, lease),
      position: lease.position,
      idle: false,
      writing: false,
      renewedAt: performance.now(),
    };
    const timer = setInterval(() => this.#tick(work), RENEW_MS / 4);
    let stopped: string | null = null;
    try {
      await work.writer.begin();
      log.info(
        { group: name, owner: this.#owner, generation: lease.generation, epoch: lease.epoch, position: lease.position },
        'projection group working',
      );
      checkpoints?.advanced(name, lease.position, work.writer.parked.size > 0);
      await this.#work(work, working);
    } catch (error) {
      if (error instanceof GroupStopped) stopped = error.message;
      throw error;
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', end);
      session.abort();
      checkpoints?.left(name);
      this.#report(true);
      if (stopped !== null || signal.aborted) await this.#release(lease, stopped);
    }
  }

  async #work(work: Work, working: () => void): Promise<void> {
    const { session } = work;
    const { store, decode, follower, maxEvents } = this.#options;
    const cadence = new Cadence(this.#options.inFlight, () => performance.now());
    const batches = batchesOf(store, work.position, {
      kinds: this.#kinds,
      decode,
      skipped: work.writer.skipped,
      signal: session.signal,
      maxEvents,
      follower,
    });
    // Far behind, what comes after a batch is read and decoded while the batch is written. Otherwise the group waits first.
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
      // The read ahead ends by the signal, and its failure is no news now; the generator cannot be closed before.
      await next.catch(() => undefined);
      await batches.return();
    }
    if (work.lost !== undefined) throw work.lost.error;
  }

  async #write(work: Work, batch: Batch): Promise<void> {
    const { name, checkpoints } = this.#options;
    // A place before the first event is no place that head() knows.
    if (batch.through === work.position || (batch.events === 0 && work.position === 'start')) return;
    const began = performance.now();
    work.writing = true;
    try {
      await work.writer.write(batch, work.position);
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
    checkpoints?.advanced(name, batch.through, work.writer.parked.size > 0);
    this.#stats.events += batch.events;
    this.#stats.batches++;
    this.#stats.writeMs += work.renewedAt - began;
    this.#options.measure?.(name, batch.events, work.renewedAt - began);
  }

  /** The batch in hand waits; the lease is renewed meanwhile, or given up when the worker ends. */
  async #untilResumed({ lease, session }: Work): Promise<void> {
    const { name, database, log } = this.#options;
    log.info({ group: name, owner: this.#owner }, 'projection group paused');
    while (!session.signal.aborted && (await isPaused(database, lease))) await pause(PAUSED_MS, session.signal);
    if (!session.signal.aborted) log.info({ group: name, owner: this.#owner }, 'projection group resumed');
  }

  /** Renews the lease of a worker that has nothing to write; a batch renews it by itself. */
  #tick(work: Work): void {
    this.#report(false);
    const now = performance.now();
    if (work.writing || work.session.signal.aborted || now - work.renewedAt < RENEW_MS) return;
    work.renewedAt = now;
    void this.#renew(work).catch((error: unknown) => {
      work.lost = { error };
      work.session.abort();
    });
  }

  async #renew(work: Work): Promise<void> {
    await renewLease(this.#options.database, work.lease);
    if (!work.idle || work.session.signal.aborted) return;
    // The log is asked, since a feed that has gone silent looks like one with nothing to say.
    const head = await this.#options.store.head().catch(() => undefined);
    if (head !== undefined && (head === 'start' || head <= (work.position === 'start' ? '' : work.position)))
      await noteNothingToDo(this.#options.database, work.lease);
  }

  #report(last: boolean): void {
    const { since, events, batches, writeMs } = this.#stats;
    const now = performance.now();
    if (!last && now - since < STATS_MS) return;
    if (batches > 0)
      this.#options.log.info(
        { group: this.#options.name, events, batches, writeMs: Math.round(writeMs), seconds: Math.round((now - since) / 1_000) },
        'projection group moved',
      );
    Object.assign(this.#stats, { since: now, events: 0, batches: 0, writeMs: 0 });
  }

  async #release(lease: Lease, stopped: string | null): Promise<void> {
    try {
      await releaseLease(this.#options.database, lease, stopped);
    } catch (error) {
      // It runs out by itself.
      this.#options.log.warn({ group: this.#options.name, error: describeError(error) }, 'projection group could not give up its lease');
    }
  }
}

/** A promise that is awaited later: its failure is met there, and must not end the process before. */
function ahead<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
