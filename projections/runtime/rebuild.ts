import { setTimeout as sleep } from 'node:timers/promises';
import { type Kysely, sql } from 'kysely';
import type pg from 'pg';
import { type EventStore, type Position, parseStreamName, type StoredEvent, type StreamName } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import { batchesOf, type FeedPart, MOST_EVENTS, readBatch } from './batches.js';
import { BatchWriter } from './batch-writer.js';
import { describeError, LeaseLost, isLockTimeout } from './failures.js';
import {
  beginGeneration,
  dropGeneration,
  finishTables,
  type LiveGeneration,
  lockLive,
  ofGroup,
  swapGeneration,
  unshownGenerations,
} from './generations.js';
import { type Lease, RENEW_MS, renewLease } from './lease.js';
import { readParked } from './parking.js';
import { type DecodeBatch, decodeFor, groupOf, type Projection } from './projection.js';
import { RebuildPace } from './rebuild-pace.js';
import { RowCopier } from './rows.js';
import type { RuntimeLog } from './runtime-log.js';
import { openWorkerSessions } from './sessions.js';
import { ignoreFailure } from '../../src/ignore-failure.js';
import { workerName } from './worker-name.js';

/** How long a rebuild waits for a connection (ms): a busy machine must not fail it. */
const CONNECT_MS = 20_000;
/** How long the lease's statements and the drops may take (ms); rows and indexes have no limit. */
const ANSWER_MS = 30_000;
/** How often a rebuild checks whether another one is alive (ms). */
const LOOK_MS = 500;
/** The longest time (ms) for which a swap that waits for one reader of the views makes other readers wait. */
const SWAP_LOCK_MS = 50;
const SWAP_AGAIN_MS = 1_000;
/** How long a rebuild waits for readers of the replaced tables (ms); after that the next rebuild drops the tables. */
const LAST_READERS_MS = 30_000;

/** Another process is rebuilding the same group's read models. */
export class RebuildRunning extends Error {
  override readonly name = 'RebuildRunning';
}

export interface RebuildProgress {
  readonly phase: 'filling' | 'indexing' | 'catching up' | 'swapping' | 'dropping the old tables';
  /** Number of events written so far. */
  readonly events: number;
  /** Events that the live generation has handled, which estimates the total. 0 when there is no live generation. */
  readonly expected: number;
}

export interface Rebuilt {
  readonly generation: number;
  readonly events: number;
  readonly position: Position | 'start';
  /** Number of streams that are parked in the new generation. */
  readonly parked: number;
  /** False when the replaced tables were still being read: the next rebuild drops them. */
  readonly oldDropped: boolean;
}

export interface RebuildOptions {
  readonly group: string;
  /** Projections that only this rebuild uses: they remember rows of the generation that it makes. */
  readonly projections: readonly Projection[];
  readonly decode: DecodeBatch;
  readonly store: EventStore;
  readonly databaseUrl: string;
  readonly log: RuntimeLog;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: RebuildProgress) => void;
  /** Handles events that operators have skipped as well. */
  readonly withSkipped?: boolean;
  /** Greatest number of events in one transaction. */
  readonly maxEvents?: number;
}

/**
 * Makes a group's read models again from the log's beginning, in new tables, while the live ones are read and written as usual. One
 * transaction then makes the new tables live. A rebuild writes rows and nothing else. If it ends before the swap, it has changed nothing
 * that anybody reads, and the next rebuild removes its tables.
 * @throws RebuildRunning, GroupStopped at a bad stream that must not be parked, LeaseLost when it was frozen and taken for dead
 */
export async function rebuildGroup(options: RebuildOptions): Promise<Rebuilt> {
  const { databaseUrl, log } = options;
  const onError = (error: Error) => log.warn({ error: error.message }, 'a database connection of the rebuild broke');
  // One session writes everything, so that rows can be copied within its transactions. Another session renews the lease meanwhile.
  const one = { poolSize: 1, connectTimeoutMs: CONNECT_MS, onError };
  const writing = openWorkerSessions(databaseUrl, { name: 'threadlog-rebuild', ...one });
  const keeping = openWorkerSessions(databaseUrl, { name: 'threadlog-rebuild-lease', ...one, queryTimeoutMs: ANSWER_MS });
  try {
    return await new Rebuild(options, writing.kysely, clientOf(writing.pool), keeping.kysely).run();
  } finally {
    await writing.close();
    await keeping.close();
  }
}

/** The client that a pool of one has handed out. */
function clientOf(pool: pg.Pool): () => pg.ClientBase {
  let current: pg.ClientBase | undefined;
  pool.on('acquire', (client) => (current = client));
  return () => {
    if (current === undefined) throw new Error('rows are copied within a transaction');
    return current;
  };
}

class Rebuild {
  readonly #owner = workerName();
  readonly #ending = new AbortController();
  readonly #group: ReadGroup;
  readonly #decode: DecodeBatch;
  readonly #kinds: ReadonlySet<string>;
  #lost: unknown;
  #position: Position | 'start' = 'start';
  #events = 0;
  #expected = 0;
  readonly #pace = new RebuildPace(() => performance.now());

  constructor(
    private readonly options: RebuildOptions,
    private readonly database: Kysely<Database>,
    private readonly client: () => pg.ClientBase,
    private readonly keeping: Kysely<Database>,
  ) {
    this.#decode = decodeFor(options.projections, options.decode);
    this.#group = groupOf(options.group, options.projections);
    this.#kinds = new Set(options.projections.flatMap(({ kinds }) => kinds));
  }

  async run(): Promise<Rebuilt> {
    const { group, log, signal } = this.options;
    const lease = await this.#begin();
    const end = () => this.#ending.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    const timer = setInterval(() => void this.#keep(lease), RENEW_MS);
    let shown = false;
    try {
      const old = await this.#make(lease);
      shown = true;
      clearInterval(timer);
      const parked = (await readParked(this.database, group, lease.generation)).size;
      const oldDropped = old === undefined || (await this.#dropOld(old.generation));
      return { generation: lease.generation, events: this.#events, position: this.#position, parked, oldDropped };
    } catch (error) {
      throw this.#lost ?? error;
    } finally {
      clearInterval(timer);
      signal.removeEventListener('abort', end);
      this.#ending.abort();
      if (!shown)
        await this.#abandon(lease).catch((error: unknown) =>
          log.warn({ group, error: describeError(error) }, 'could not remove the tables of this rebuild; the next one removes them'),
        );
    }
  }

  /** @throws RebuildRunning */
  async #begin(): Promise<Pick<Lease, 'generation' | 'epoch'>> {
    const { store } = this.options;
    for (;;) {
      await this.#removeAbandoned();
      const lease = await beginGeneration(this.database, this.#group, store.log.id, this.#owner);
      if (lease !== undefined) return lease;
    }
  }

  /** @throws RebuildRunning */
  async #removeAbandoned(): Promise<void> {
    const { group, signal } = this.options;
    let first: Map<number, string> | undefined;
    for (;;) {
      signal.throwIfAborted();
      const found = await unshownGenerations(this.database, this.#group);
      for (const { generation, free } of found) if (free) await this.#dropAbandoned(generation);
      const held = found.filter(({ free }) => !free);
      if (held.length === 0) return;
      // A rebuild that was just killed still holds its lease for some seconds, but only a live rebuild renews it.
      const alive = held.find(({ generation, leaseUntil }) => first !== undefined && first.get(generation) !== leaseUntil);
      if (alive !== undefined) throw new RebuildRunning(`${alive.owner ?? 'another process'} already rebuilds the group ${group}`);
      first ??= new Map(held.map(({ generation, leaseUntil }) => [generation, leaseUntil]));
      await sleep(LOOK_MS, undefined, { signal });
    }
  }

  async #dropAbandoned(generation: number): Promise<void> {
    try {
      await dropGeneration(this.database, this.options.group, generation);
    } catch (error) {
      // Someone still reads the tables, or the server works on them for a killed rebuild. They harm nothing; the next rebuild drops them.
      if (!isLockTimeout(error)) throw error;
    }
  }

  /** Fills, indexes and swaps. Answers the generation that was replaced. */
  async #make(lease: Pick<Lease, 'generation' | 'epoch'>): Promise<LiveGeneration | undefined> {
    const { group, projections, log } = this.options;
    const { signal } = this.#ending;
    const live = await this.#live();
    this.#expected = live?.events ?? 0;
    const writer = new BatchWriter(
      {
        group,
        projections,
        database: this.database,
        log,
        copier: new RowCopier(this.client),
        expected: live === undefined ? new Set<StreamName>() : await readParked(this.database, group, live.generation),
      },
      lease,
    );
    await writer.begin(this.options.withSkipped === true ? new Map() : undefined);
    this.#tell('filling');
    await this.#catchUp(writer);
    await this.#enter(lease, 'indexing');
    await finishTables(this.database, this.#group, lease.generation, signal);
    await this.#enter(lease, 'catching up');
    for (;;) {
      // The swap itself writes the events that the live generation has and this one lacks. There must be few of them.
      await this.#catchUp(writer);
      this.#tell('swapping');
      try {
        return await this.#swap(lease, writer);
      } catch (error) {
        if (!isLockTimeout(error)) throw error;
        // A long query reads the views.
        await sleep(SWAP_AGAIN_MS, undefined, { signal });
      }
    }
  }

  /** Writes all events of the log after the last batch. The next batch is read and decoded while the current one is written. */
  async #catchUp(writer: BatchWriter): Promise<void> {
    const { store, maxEvents = MOST_EVENTS } = this.options;
    const decode = this.#decode;
    const reading = new AbortController();
    const signal = AbortSignal.any([this.#ending.signal, reading.signal]);
    // Each call opens a new feed, since a feed that has caught up stays silent until there are new events.
    const step = () => this.#pace.step(maxEvents);
    const batches = batchesOf(store, this.#position, { kinds: this.#kinds, decode, skipped: writer.skipped, signal, maxEvents, step });
    let next = batches.next();
    try {
      for (;;) {
        const { value: batch, done } = await next;
        this.#ending.signal.throwIfAborted();
        if (done === true) throw new Error('the feed ended by itself');
        if (!batch.caughtUp) {
          next = batches.next();
          void ignoreFailure(next, 'its failure is handled where the promise is awaited, unless the write fails first');
        }
        if (batch.through !== this.#position && !(batch.events === 0 && this.#position === 'start')) {
          await writer.write(batch, this.#position);
          this.#position = batch.through;
          this.#events += batch.events;
        }
        this.#tell(undefined);
        if (batch.caughtUp) return;
        await this.#giveWay();
      }
    } finally {
      // The signal ends the read ahead; the feed cannot be closed before that.
      reading.abort();
      await ignoreFailure(next, 'the signal has ended the read ahead, and nobody wants its result');
      await ignoreFailure(batches.return(), 'a feed may end with an error when the signal ends it');
    }
  }

  /** Rests so that the live rows stay in time. A rebuild does not rest while it catches up, since it must finish under any load. */
  async #giveWay(): Promise<void> {
    if (this.#phase !== 'filling') return;
    const rest = this.#pace.rest((await this.#live())?.events ?? 0);
    if (rest >= 1) await sleep(rest, undefined, { signal: this.#ending.signal });
    this.#pace.rested();
  }

  async #swap(lease: Pick<Lease, 'generation' | 'epoch'>, writer: BatchWriter): Promise<LiveGeneration | undefined> {
    const { group, store, log } = this.options;
    const tx = await this.database.startTransaction().execute();
    try {
      const old = await lockLive(tx, this.#group);
      // Rows that were made from another log are replaced, whatever their position.
      const rest = old?.logId === store.log.id ? await this.#rest(old.position, writer) : undefined;
      const poison = rest === undefined ? [] : await writer.writeIn(tx, rest, this.#position);
      if (this.options.withSkipped === true) await tx.deleteFrom('keep.skipped').where('group_name', '=', group).execute();
      await sql`set local lock_timeout = ${sql.lit(SWAP_LOCK_MS)}`.execute(tx);
      const gone = await swapGeneration(tx, this.#group, old, lease);
      await tx.commit().execute();
      for (const { view, because } of gone) log.warn({ group, view, because }, 'dropped a view that read a view of Threadlog');
      writer.nowParked(poison);
      if (rest !== undefined) {
        this.#position = rest.through;
        this.#events += rest.events;
      }
      return old;
    } catch (error) {
      writer.forget();
      await ignoreFailure(tx.rollback().execute(), 'the rollback fails when the session is gone, and then nothing is left to roll back');
      throw error;
    }
  }

  /** The events that the live generation has and the new one lacks: few, since the new one has just caught up. Undefined for none. */
  async #rest(until: Position | 'start', writer: BatchWriter): Promise<FeedPart | undefined> {
    const { store, maxEvents } = this.options;
    if (until === 'start' || (this.#position !== 'start' && this.#position >= until)) return undefined;
    const events: StoredEvent[] = [];
    let through = this.#position;
    const reading = new AbortController();
    try {
      for await (const part of store.feed(this.#position, { maxEvents: maxEvents ?? 1_000, signal: reading.signal })) {
        for (const event of part.events)
          if (event.position <= until && this.#kinds.has(parseStreamName(event.stream)?.kind ?? '')) events.push(event);
        through = part.through < until ? part.through : until;
        // The live generation may be beyond the end of a restored log; then the end of the log is the aim.
        if (part.through >= until || part.caughtUp) break;
      }
    } finally {
      reading.abort();
    }
    if (through === this.#position || through === 'start') return undefined;
    return { ...(await readBatch(this.#decode, events, writer.skipped)), stored: events, looked: events.length, through, caughtUp: true };
  }

  /** @returns false when the tables are read for too long */
  async #dropOld(generation: number): Promise<boolean> {
    const { group, signal } = this.options;
    this.#tell('dropping the old tables');
    const until = performance.now() + LAST_READERS_MS;
    while (!signal.aborted) {
      try {
        return await dropGeneration(this.keeping, group, generation);
      } catch (error) {
        if (!isLockTimeout(error)) throw error;
        if (performance.now() > until) return false;
      }
    }
    return false;
  }

  async #abandon({ generation, epoch }: Pick<Lease, 'generation' | 'epoch'>): Promise<void> {
    await this.keeping
      .updateTable('read.checkpoints')
      .set({ lease_until: sql<Date>`'-infinity'` })
      .where('generation', '=', generation)
      .where('epoch', '=', epoch)
      .where('live', '=', false)
      .execute();
    await dropGeneration(this.keeping, this.options.group, generation);
  }

  async #live(): Promise<{ generation: number; events: number } | undefined> {
    return await this.database
      .selectFrom('read.checkpoints')
      .select(['generation', 'events'])
      .where((row) => row.and(ofGroup(this.#group)))
      .where('live', '=', true)
      .executeTakeFirst();
  }

  async #keep(lease: Pick<Lease, 'generation' | 'epoch'>): Promise<void> {
    try {
      await renewLease(this.keeping, lease);
    } catch (error) {
      // Other errors may pass before the lease runs out. A lease that another worker has does not come back.
      if (!(error instanceof LeaseLost)) return;
      this.#lost = error;
      this.#ending.abort(error);
    }
  }

  async #enter(lease: Pick<Lease, 'generation' | 'epoch'>, phase: 'indexing' | 'catching up'): Promise<void> {
    await this.keeping
      .updateTable('read.checkpoints')
      .set({ phase })
      .where('generation', '=', lease.generation)
      .where('epoch', '=', lease.epoch)
      .execute();
    this.#tell(phase);
  }

  #phase: RebuildProgress['phase'] = 'filling';

  #tell(phase: RebuildProgress['phase'] | undefined): void {
    this.#phase = phase ?? this.#phase;
    this.options.onProgress?.({ phase: this.#phase, events: this.#events, expected: this.#expected });
  }
}
