import type { ControlledTransaction, Kysely } from 'kysely';
import type { Position, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import type { Batch, FeedPart, Skipped } from './batches.js';
import { GroupPaused, isOfTheSurroundings, LeaseLost, type Poison } from './failures.js';
import { tableOf } from './generations.js';
import { applyReadable } from './isolation.js';
import { type Lease, moveCheckpoint } from './lease.js';
import { logParked, park, readParked, readSkipped } from './parking.js';
import type { ProjectedEvent, Projection, ProjectionTarget } from './projection.js';
import { GatheredRows, type RowCopier, targetOf } from './rows.js';
import type { RuntimeLog } from './runtime-log.js';
import { ignoreFailure } from '../../src/ignore-failure.js';

/** Writes the batches of one generation: the rows together with the checkpoint, or neither. */
export class BatchWriter {
  /** The streams that are parked in the generation. */
  readonly parked = new Set<StreamName>();
  #skipped: Skipped = new Map();

  /** @param options.copier takes the rows of new streams; absent where a batch may come twice */
  constructor(
    private readonly options: {
      readonly group: string;
      readonly projections: readonly Projection[];
      readonly database: Kysely<Database>;
      readonly log: RuntimeLog;
      readonly copier?: RowCopier;
      /** Streams that were parked before. Parking them again does not count as a failure of this build. */
      readonly expected?: ReadonlySet<StreamName>;
    },
    private readonly lease: Pick<Lease, 'generation' | 'epoch'>,
  ) {}

  /** The skipped revisions of the group, the same for all generations. */
  get skipped(): Skipped {
    return this.#skipped;
  }

  /**
   * Reads which streams of this generation are parked or skipped. To be awaited before the first batch.
   * @param skipped used instead of the revisions that operators have skipped
   */
  async begin(skipped?: Skipped): Promise<void> {
    const { database, group } = this.options;
    this.forget();
    for (const stream of await readParked(database, group, this.lease.generation)) this.parked.add(stream);
    this.#skipped = skipped ?? (await readSkipped(database, group));
  }

  /**
   * Writes a batch in one transaction, or in one statement for a live generation without bad events. It parks the streams of bad events.
   * @throws LeaseLost, GroupPaused, GroupStopped, or an error of the surroundings
   */
  async write(batch: FeedPart, from: Position | 'start'): Promise<void> {
    const events = this.parked.size === 0 ? batch.decoded : batch.decoded.filter(({ event }) => !this.parked.has(event.stream));
    const failed = batch.failed.some(({ event }) => !this.parked.has(event.stream));
    if (failed || !(await this.#writeWhole(batch, from, events))) {
      let poison: Poison[] = [];
      await this.#transaction(async (tx) => {
        poison = await this.writeIn(tx, batch, from);
      });
      this.nowParked(poison);
    }
  }

  /**
   * As write(), in the caller's transaction. The caller calls nowParked() with the answer after the commit, or forget() without a commit.
   */
  async writeIn(tx: Kysely<Database>, batch: FeedPart, from: Position | 'start'): Promise<Poison[]> {
    const { group, expected } = this.options;
    const { generation } = this.lease;
    await moveCheckpoint(tx, this.lease, { from, to: batch.through, events: batch.events });
    await this.#record(batch.stored, this.#target(tx));
    const poison = await this.applyReadable(
      tx,
      batch.decoded.filter(({ event }) => !this.parked.has(event.stream)),
      batch.failed.filter(({ event }) => !this.parked.has(event.stream)),
    );
    if (poison.length > 0) await park(tx, group, generation, poison, expected);
    return poison;
  }

  /** Applies the events of each stream up to the first that cannot be applied, and answers these first failures. */
  async applyReadable(tx: Kysely<Database>, events: readonly ProjectedEvent[], failed: Batch['failed']): Promise<Poison[]> {
    return await applyReadable(
      tx,
      events,
      failed,
      (part) => this.#apply(part, this.#target(tx)),
      () => this.forget(),
    );
  }

  nowParked(poison: readonly Poison[]): void {
    const { log, group } = this.options;
    for (const one of poison) {
      this.parked.add(one.event.stream);
      logParked(log, { group }, one);
    }
  }

  /** Drops all remembered rows. Called whenever a transaction that wrote rows did not commit. */
  forget(): void {
    for (const projection of this.options.projections) if ('apply' in projection) projection.forget?.();
  }

  /** False when an event of the batch cannot be handled. */
  async #writeWhole(batch: FeedPart, from: Position | 'start', events: readonly ProjectedEvent[]): Promise<boolean> {
    try {
      if (this.options.copier === undefined) await this.#writeAtOnce(batch, from, events);
      else
        await this.#transaction(async (tx) => {
          await moveCheckpoint(tx, this.lease, { from, to: batch.through, events: batch.events });
          const target = this.#target(tx);
          await this.#record(batch.stored, target);
          await this.#apply(events, target);
        });
      return true;
    } catch (error) {
      if (error instanceof LeaseLost || error instanceof GroupPaused || isOfTheSurroundings(error)) throw error;
      return false;
    }
  }

  /**
   * Writes rows and checkpoint in one statement, unless a projection asks for a transaction. The epoch and the position in the statement
   * prove that the rows that were read before it are still current.
   */
  async #writeAtOnce(batch: FeedPart, from: Position | 'start', events: readonly ProjectedEvent[]): Promise<void> {
    const { database } = this.options;
    const move = { from, to: batch.through, events: batch.events };
    const begun: { tx?: ControlledTransaction<Database> } = {};
    const target = new GatheredRows(database, tableOf(this.lease.generation), async () => {
      const tx = await database.startTransaction().execute();
      begun.tx = tx;
      await moveCheckpoint(tx, this.lease, move);
      return tx;
    });
    try {
      await this.#record(batch.stored, target);
      await this.#apply(events, target);
      if (begun.tx === undefined) await moveCheckpoint(database, this.lease, move, target.statements);
      else await begun.tx.commit().execute();
    } catch (error) {
      this.forget();
      await rollBack(begun.tx);
      throw error;
    }
  }

  /** Runs a transaction. Between begin and commit there is no other I/O. */
  async #transaction(write: (tx: Kysely<Database>) => Promise<void>): Promise<void> {
    const tx = await this.options.database.startTransaction().execute();
    try {
      await write(tx);
      await tx.commit().execute();
    } catch (error) {
      this.forget();
      await rollBack(tx);
      throw error;
    }
  }

  #target(tx: Kysely<Database>): ProjectionTarget {
    return targetOf(tx, tableOf(this.lease.generation), this.options.copier);
  }

  async #record(stored: readonly StoredEvent[], target: ProjectionTarget): Promise<void> {
    if (stored.length === 0) return;
    for (const projection of this.options.projections) if ('record' in projection) await projection.record(stored, target);
  }

  async #apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    for (const projection of this.options.projections) {
      if (!('apply' in projection)) continue;
      const wanted = events.filter(({ kind }) => projection.kinds.includes(kind));
      if (wanted.length > 0) await projection.apply(wanted, target);
    }
  }
}

async function rollBack(tx: ControlledTransaction<Database> | undefined): Promise<void> {
  await ignoreFailure(tx?.rollback().execute(), 'the rollback fails when the session is gone, and then nothing is left to roll back');
}
