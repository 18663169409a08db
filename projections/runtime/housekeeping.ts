import { type Kysely, sql } from 'kysely';
import type { Database } from '../../src/database/database.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import { describeError } from './failures.js';
import { lockGenerations, tablesOfGeneration } from './generations.js';
import { leaseIsOver } from './lease.js';
import type { RuntimeLog } from './runtime-log.js';
import { dependentViews, pointStableViews, type ViewGone } from './stable-views.js';

/** Read models of another shape that no worker has touched for this long belong to a build that is gone. */
const ABANDONED_AFTER = sql`interval '1 day'`;
/** How often the worker looks for them (ms). */
const LOOK_MS = 60 * 60_000;
/** Pause after a failed look (ms), for example when a reader blocked the change. */
const AGAIN_MS = 5_000;

/** A group's worker, beside its batches, points the stable views and drops the read models of builds that are gone. */
export class Housekeeping {
  #due = 0;
  #running: Promise<void> | undefined;

  constructor(
    private readonly options: {
      readonly group: ReadGroup;
      /** A session with WORKER_SESSION's settings. */
      readonly database: Kysely<Database>;
      readonly log: RuntimeLog;
      /** Milliseconds of a clock that never goes back. */
      readonly now: () => number;
      /** Makes the views that read the stable views, within the transaction that has pointed those. */
      readonly makeViews?: ((tx: Kysely<Database>) => Promise<void>) | undefined;
    },
  ) {}

  /** Makes the next look() look at once, whenever the last look was. */
  soon(): void {
    this.#due = 0;
  }

  /** Looks when a look is due. Only one look runs at a time, and it never throws. */
  async look(): Promise<void> {
    const { now } = this.options;
    if (this.#running === undefined && now() >= this.#due) {
      this.#due = now() + LOOK_MS;
      this.#running = this.#keep().finally(() => (this.#running = undefined));
    }
    await this.#running;
  }

  async #keep(): Promise<void> {
    const { group, database, log, now, makeViews } = this.options;
    try {
      const gone = await database.transaction().execute(async (tx) => {
        await lockGenerations(tx);
        const dropped = await pointStableViews(tx, group.name);
        await makeViews?.(tx);
        return dropped;
      });
      this.#tell(gone);
      await this.#dropAbandoned();
    } catch (error) {
      this.#due = now() + AGAIN_MS;
      log.warn({ group: group.name, error: describeError(error), againInMs: AGAIN_MS }, 'could not clean up old read models');
    }
  }

  async #dropAbandoned(): Promise<void> {
    const { group, database, log } = this.options;
    const abandoned = sql<boolean>`
      group_name = ${group.name} and not (version = 0 and shape = ${group.shape}) and ${leaseIsOver}
      and greatest(progress_at, lease_until) < clock_timestamp() - ${ABANDONED_AFTER}`;
    const { rows } = await sql<{ generation: number }>`select generation from read.checkpoints where ${abandoned} order by 1`.execute(
      database,
    );
    for (const { generation } of rows) {
      const gone = await database.transaction().execute(async (tx) => {
        await lockGenerations(tx);
        const dropped = await sql`
          delete from read.checkpoints where generation = ${generation} and ${abandoned} returning 1`.execute(tx);
        return dropped.rows.length === 0 ? undefined : await dropShown(tx, group.name, generation);
      });
      if (gone === undefined) continue;
      this.#tell(gone);
      log.info({ group: group.name, generation }, 'dropped the read models of a build that nobody has run for a day');
    }
  }

  #tell(gone: readonly ViewGone[]): void {
    const { group, log } = this.options;
    for (const { view, because } of gone) log.warn({ group: group.name, view, because }, 'dropped a view that read a view of Threadlog');
  }
}

/** Drops the tables of a generation with the views over them. */
async function dropShown(tx: Kysely<Database>, group: string, generation: number): Promise<ViewGone[]> {
  const gone = await pointStableViews(tx, group);
  for (const table of await tablesOfGeneration(tx, generation)) {
    for (const view of await dependentViews(tx, 'read', table)) {
      const [schema = ''] = view.split('.', 1);
      if (!/^read_|^threadlog$/.test(schema)) gone.push({ view, because: `read.${table} belonged to a build that is gone` });
    }
    await sql`drop table ${sql.id('read', table)} cascade`.execute(tx);
  }
  await tx.deleteFrom('keep.parked').where('group_name', '=', group).where('generation', '=', generation).execute();
  // The schemas whose views showed only this generation.
  const { rows } = await sql<{ name: string }>`
    select nspname as name from pg_namespace n where nspname ~ '^read_'
    and not exists (select from pg_class c where c.relnamespace = n.oid)`.execute(tx);
  for (const { name } of rows) await sql`drop schema ${sql.id(name)}`.execute(tx);
  return gone;
}
