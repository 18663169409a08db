import { sql, type Kysely } from 'kysely';
import type { Position } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import { LeaseLost } from './failures.js';
import { type Lease, leaseEnd, leaseIsOver, positionFrom } from './lease.js';
import { ddlOf } from '../../src/read-models/table.js';
import { pointStableViews, type ViewGone } from './stable-views.js';

const LOCK = '7305806211930123';
/** How long one waits for another that makes tables or views (ms): on a slow disk it takes seconds. */
const MAKING_MS = 20_000;

/** Keeps all others from making, beginning or swapping a generation until the transaction ends. */
export async function lockGenerations(tx: Kysely<Database>): Promise<void> {
  await sql`set local lock_timeout = ${sql.lit(MAKING_MS)}`.execute(tx);
  await sql`select pg_advisory_xact_lock(${sql.lit(LOCK)}::bigint)`.execute(tx);
  // Locks of rows and tables keep the session's own limit: whoever reads them would wait behind this session.
  await sql`set local lock_timeout to default`.execute(tx);
}

/** The name of a projection's table in a generation, schema included. */
export function tableOf(generation: number): (name: string) => string {
  return (name) => `read.${name}_g${generation}`;
}

/**
 * Makes a group's live generation and its views when the database has none of the group's shape. Any number of processes may call it at
 * once; the second finds the generation that the first made.
 * @param log.empty true: the rows may be read at once, since there is nothing to fill in
 */
export async function makeLiveGeneration(
  database: Kysely<Database>,
  group: ReadGroup,
  log: { readonly id: string; readonly empty: boolean },
): Promise<void> {
  await database.transaction().execute(async (tx) => {
    await lockGenerations(tx);
    const live = await tx
      .selectFrom('read.checkpoints')
      .select('generation')
      .where((row) => row.and(ofGroup(group)))
      .where('live', '=', true)
      .executeTakeFirst();
    if (live !== undefined) return;
    const generation = await makeTables(tx, group, 'with indexes');
    await showGeneration(tx, group, generation);
    await tx
      .insertInto('read.checkpoints')
      .values({
        generation,
        group_name: group.name,
        live: true,
        shape: group.shape,
        log_id: log.id,
        progress_at: sql<Date>`clock_timestamp()`,
        phase: log.empty ? null : 'filling',
      })
      .execute();
  });
}

/** Selects the rows of read.checkpoints that belong to this build. */
export const ofGroup = ({ name, shape }: Pick<ReadGroup, 'name' | 'shape'>) => ({ group_name: name, shape, version: 0 });

/** Records that a new live generation has caught up for the first time, so that readiness no longer waits for it. */
export async function markFilled(database: Kysely<Database>, { generation, epoch }: Pick<Lease, 'generation' | 'epoch'>): Promise<void> {
  await database
    .updateTable('read.checkpoints')
    .set({ phase: null })
    .where('generation', '=', generation)
    .where('epoch', '=', epoch)
    .where('live', '=', true)
    .execute();
}

/** Makes the empty tables of a new generation and answers its number. */
async function makeTables(tx: Kysely<Database>, group: ReadGroup, indexes: 'with indexes' | 'without indexes'): Promise<number> {
  const { rows } = await sql<{ generation: number }>`select nextval('read.generations')::integer as generation`.execute(tx);
  const generation = rows[0]?.generation;
  if (generation === undefined) throw new Error('the sequence of generations returned no number');
  const table = tableOf(generation);
  for (const one of group.tables) {
    const statements = ddlOf(one, table(one.name));
    for (const statement of indexes === 'with indexes' ? statements : statements.slice(0, 1)) await sql.raw(statement).execute(tx);
  }
  // After the read models were dropped, generations count from 1 again. The new one must not inherit the parked streams of a dropped one.
  await tx.deleteFrom('keep.parked').where('group_name', '=', group.name).where('generation', '=', generation).execute();
  return generation;
}

/** Points the views that queries read at a generation. All generations of a shape have the same columns, so dependent views stay. */
async function showGeneration(tx: Kysely<Database>, group: ReadGroup, generation: number): Promise<void> {
  await sql`create schema if not exists ${sql.id(group.schema)}`.execute(tx);
  for (const { name } of group.tables)
    await sql`
      create or replace view ${sql.id(group.schema, name)} as select * from ${sql.table(tableOf(generation)(name))}`.execute(tx);
}

/**
 * Makes the tables of a generation that no view shows yet, without indexes, and takes its lease.
 * @returns undefined while another process makes a generation of this group
 */
export async function beginGeneration(
  database: Kysely<Database>,
  group: ReadGroup,
  logId: string,
  owner: string,
): Promise<Pick<Lease, 'generation' | 'epoch'> | undefined> {
  return await database.transaction().execute(async (tx) => {
    await lockGenerations(tx);
    if ((await unshownGenerations(tx, group)).some(({ free }) => !free)) return undefined;
    const generation = await makeTables(tx, group, 'without indexes');
    const epoch = 1;
    await tx
      .insertInto('read.checkpoints')
      .values({
        generation,
        group_name: group.name,
        live: false,
        shape: group.shape,
        log_id: logId,
        progress_at: sql<Date>`clock_timestamp()`,
        epoch,
        owner,
        lease_until: leaseEnd,
        phase: 'filling',
      })
      .execute();
    return { generation, epoch };
  });
}

/** Makes the indexes that beginGeneration() left out, one after the other, and gathers the statistics that the planner needs. */
export async function finishTables(session: Kysely<Database>, group: ReadGroup, generation: number, signal: AbortSignal): Promise<void> {
  // The other cores are left to the requests that are served meanwhile.
  await sql`set max_parallel_maintenance_workers = 0`.execute(session);
  await sql`set maintenance_work_mem = '128MB'`.execute(session);
  for (const one of group.tables) {
    const table = tableOf(generation)(one.name);
    for (const statement of ddlOf(one, table).slice(1)) {
      signal.throwIfAborted();
      await sql.raw(statement).execute(session);
    }
    // The vacuum also marks pages as visible to all; otherwise a count would visit every row.
    await sql.raw(`vacuum (analyze) ${table}`).execute(session);
  }
}

/** The group's live generation, locked against its worker until the transaction ends; undefined when there is none. */
export async function lockLive(tx: Kysely<Database>, group: ReadGroup): Promise<LiveGeneration | undefined> {
  // A worker that starts makes a live generation when there is none. It must not do so during a swap.
  await lockGenerations(tx);
  const row = await tx
    .selectFrom('read.checkpoints')
    .select(['generation', 'position', 'log_id', 'paused'])
    .where((one) => one.and(ofGroup(group)))
    .where('live', '=', true)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) return undefined;
  const { generation, paused } = row;
  return { generation, paused, logId: row.log_id, position: positionFrom(row.position) };
}

export interface LiveGeneration {
  readonly generation: number;
  readonly position: Position | 'start';
  readonly logId: string;
  readonly paused: boolean;
}

/**
 * Makes a finished generation live instead of the current one. The current one's worker is refused from then on and goes on with the new
 * one. The views are switched last, since readers wait for them until the commit.
 * @param old the answer of lockLive() in this transaction
 * @returns views of others that had to be dropped, since they read columns that the stable views no longer have
 * @throws LeaseLost when the caller no longer has the new generation
 */
export async function swapGeneration(
  tx: Kysely<Database>,
  group: ReadGroup,
  old: LiveGeneration | undefined,
  made: Pick<Lease, 'generation' | 'epoch'>,
): Promise<ViewGone[]> {
  if (old !== undefined)
    await tx
      .updateTable('read.checkpoints')
      .set((eb) => ({ live: false, owner: null, lease_until: sql<Date>`'-infinity'`, epoch: eb('epoch', '+', 1) }))
      .where('generation', '=', old.generation)
      .execute();
  const shown = await tx
    .updateTable('read.checkpoints')
    .set((eb) => ({
      live: true,
      phase: null,
      owner: null,
      lease_until: sql<Date>`'-infinity'`,
      epoch: eb('epoch', '+', 1),
      paused: old?.paused ?? false,
      progress_at: sql<Date>`clock_timestamp()`,
    }))
    .where('generation', '=', made.generation)
    .where('epoch', '=', made.epoch)
    .returning(sql`set_config('synchronous_commit', 'on', true)`.as('durable'))
    .execute();
  if (shown.length === 0) throw new LeaseLost(`generation ${made.generation} was taken for abandoned`);
  await showGeneration(tx, group, made.generation);
  return await pointStableViews(tx, group.name);
}

/** Generations of a group that no view shows: replaced ones, and those of rebuilds that ended before their swap. */
export async function unshownGenerations(
  database: Kysely<Database>,
  group: ReadGroup,
): Promise<{ generation: number; owner: string | null; leaseUntil: string; free: boolean }[]> {
  const rows = await database
    .selectFrom('read.checkpoints')
    .select(['generation', 'owner'])
    .select(sql<string>`lease_until::text`.as('lease_until'))
    .select(leaseIsOver.as('free'))
    .where((one) => one.and(ofGroup(group)))
    .where('live', '=', false)
    .orderBy('generation')
    .execute();
  return rows.map(({ generation, owner, lease_until: leaseUntil, free }) => ({ generation, owner, leaseUntil, free }));
}

/**
 * Drops the tables of a generation that is neither shown nor being made, with its checkpoint and parked streams. It waits for readers of
 * the tables for as long as the session's lock_timeout allows; new readers do not use them.
 * @returns false when the generation is live or another worker has it
 */
export async function dropGeneration(database: Kysely<Database>, group: string, generation: number): Promise<boolean> {
  return await database.transaction().execute(async (tx) => {
    const dropped = await tx
      .deleteFrom('read.checkpoints')
      .where('generation', '=', generation)
      .where('live', '=', false)
      .where(leaseIsOver)
      .returning('generation')
      .execute();
    if (dropped.length === 0) return false;
    // Without "cascade" PostgreSQL does not drop a table that a view shows.
    for (const name of await tablesOfGeneration(tx, generation)) await sql`drop table ${sql.id('read', name)}`.execute(tx);
    await tx.deleteFrom('keep.parked').where('group_name', '=', group).where('generation', '=', generation).execute();
    return true;
  });
}

/** Finds the tables of a generation by their names, since another build may have made them. */
export async function tablesOfGeneration(tx: Kysely<Database>, generation: number): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select tablename as name from pg_tables where schemaname = 'read' and tablename ~ ${`_g${generation}$`} order by 1`.execute(tx);
  return rows.map(({ name }) => name);
}
