import { type Batch, type LogFollower } from './batches.js';
import { BatchWriter } from './batch-writer.js';
import { Follower, type FollowerSurroundings } from './follower.js';
import { makeLiveGeneration, shapeOf } from './generations.js';
import { assertOwnLog, assertOwnTables, type Lease, seeLease, takeLease } from './lease.js';
import type { Projection } from './projection.js';

export interface ProjectionGroupOptions extends FollowerSurroundings {
  /** Unique among all followers; names the checkpoint. */
  readonly name: string;
  readonly projections: readonly Projection[];
  readonly follower?: LogFollower;
}

/** Projections that share one feed, one decode, one transaction per batch and one checkpoint. */
export class ProjectionGroup {
  readonly #options: ProjectionGroupOptions;
  readonly #follower: Follower<Lease>;

  constructor(options: ProjectionGroupOptions) {
    const { name, projections, database, log, store } = options;
    const names = [projections.map((p) => p.name), projections.flatMap((p) => p.tables.map((table) => table.name))];
    for (const list of names) {
      const twice = list.find((other, i) => list.indexOf(other) !== i);
      if (twice !== undefined) throw new Error(`the group ${name} has two projections or tables named ${twice}`);
    }
    this.#options = options;
    const shape = shapeOf(projections);
    this.#follower = new Follower<Lease>({
      ...options,
      noun: 'projection group',
      key: { group: name },
      kinds: new Set(projections.flatMap(({ kinds }) => kinds)),
      prepare: () => this.prepare(),
      see: (owner) => seeLease(database, name, owner),
      take: (owner) => takeLease(database, name, owner, store.log.id),
      assertOwn: (seen) => {
        assertOwnTables(name, seen, shape);
        assertOwnLog(name, seen, store.log);
      },
      beyondHead: (position, head) =>
        `the read models of the group ${name} are at position ${position}, but the log ends at ${head}. The log has lost events, or was restored from an older backup; make the read models again from it with threadlog projections rebuild ${name}.`,
      begin: async (lease) => {
        const writer = new BatchWriter({ group: name, projections, database, log }, lease);
        await writer.begin();
        return { skipped: writer.skipped, write: (batch: Batch, from) => writer.write(batch, from) };
      },
    });
  }

  /** Makes the tables and views of this build's version when the database has none, so that queries find them before any event came. */
  async prepare(): Promise<void> {
    const { name, projections, store, database } = this.#options;
    await makeLiveGeneration(database, { name, projections, logId: store.log.id });
  }

  /**
   * Works or stands by until the signal; then the batch in hand is finished and the lease is given up.
   * @throws GroupStopped when it cannot go on without a person
   */
  async run(signal: AbortSignal): Promise<void> {
    await this.#follower.run(signal);
  }
}
