import type { Kysely } from 'kysely';
import type { Database } from '../../src/database/database.js';
import type { Position } from '../../src/event-store/event-store.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import type { FeedPart } from './batches.js';
import { BatchWriter } from './batch-writer.js';
import { type BatchHandler, Follower, type FollowerSurroundings } from './follower.js';
import { makeLiveGeneration, markFilled } from './generations.js';
import { Housekeeping } from './housekeeping.js';
import { assertOwnLog, type Lease, seeLease, takeLease } from './lease.js';
import { decodeFor, groupOf, type Projection } from './projection.js';

export interface ProjectionGroupOptions extends FollowerSurroundings {
  /** Unique among all followers; names the checkpoint. */
  readonly name: string;
  readonly projections: readonly Projection[];
  /** Makes the views that read the stable views, whenever those may have changed. */
  readonly makeViews?: (tx: Kysely<Database>) => Promise<void>;
}

/** Projections that share one feed, one decode, one transaction per batch and one checkpoint. */
export class ProjectionGroup {
  readonly #options: ProjectionGroupOptions;
  readonly #group: ReadGroup;
  readonly #follower: Follower<Lease>;

  constructor(options: ProjectionGroupOptions) {
    const { name, projections, database, store } = options;
    const names = [projections.map((p) => p.name), projections.flatMap((p) => p.tables.map((table) => table.name))];
    for (const list of names) {
      const twice = list.find((other, i) => list.indexOf(other) !== i);
      if (twice !== undefined) throw new Error(`the group ${name} has two projections or tables named ${twice}`);
    }
    this.#options = options;
    this.#group = groupOf(name, projections);
    this.#follower = new Follower<Lease>({
      ...options,
      decode: decodeFor(projections, options.decode),
      noun: 'projection group',
      key: { group: this.#group },
      kinds: new Set(projections.flatMap(({ kinds }) => kinds)),
      prepare: () => this.prepare(),
      see: (owner) => seeLease(database, this.#group, owner),
      take: (owner) => takeLease(database, this.#group, owner, store.log.id),
      assertOwn: (seen) => assertOwnLog(name, seen, store.log),
      beyondHead: (position, head) =>
        `the read models of the group ${name} are at position ${position}, but the log ends at ${head}. The log has lost events, or was restored from an older backup; make the read models again from it with threadlog projections rebuild ${name}.`,
      begin: (lease) => this.#begin(lease),
    });
  }

  /** Makes this build's tables and views when the database has none of their shape, so that queries find them before the first event. */
  async prepare(): Promise<void> {
    const { store, database } = this.#options;
    await makeLiveGeneration(database, this.#group, { id: store.log.id, empty: (await store.head()) === 'start' });
  }

  /**
   * Works or stands by until the signal, then finishes the batch in hand and gives up the lease.
   * @throws GroupStopped when it cannot go on without a person
   */
  async run(signal: AbortSignal): Promise<void> {
    await this.#follower.run(signal);
  }

  async #begin(lease: Lease): Promise<BatchHandler> {
    const { name, projections, database, log, store, makeViews } = this.#options;
    const writer = new BatchWriter({ group: name, projections, database, log }, lease);
    await writer.begin();
    const housekeeping = new Housekeeping({ group: this.#group, database, log, now: () => performance.now(), makeViews });
    // Beside a busy log the feed may never report that it has caught up. Reaching the log's head at the time of the lease is enough.
    const aim = lease.filling ? await store.head() : 'start';
    let filling = lease.filling;
    const filled = async () => {
      filling = false;
      await markFilled(database, lease);
      log.info({ group: name, generation: lease.generation }, 'the read models of this build are filled');
      housekeeping.soon();
    };
    const holds = (position: Position | 'start') => aim === 'start' || (position !== 'start' && position >= aim);
    if (filling && holds(lease.position)) await filled();
    return {
      skipped: writer.skipped,
      get goesWithout() {
        return writer.parked.size > 0;
      },
      async write(batch: FeedPart, from) {
        await writer.write(batch, from);
        if (filling && (batch.caughtUp || holds(batch.through))) await filled();
      },
      flush: () => housekeeping.look(),
    };
  }
}
