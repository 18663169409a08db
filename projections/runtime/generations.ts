import { createHash } from 'node:crypto';
import { sql, type Kysely } from 'kysely';
import type { Position } from '../../src/event-store/event-store.js';
import { READ_MODEL_VERSION, READ_SCHEMA, type Database } from '../../src/platform/database.js';
import { LeaseLost } from './failures.js';
import { type Lease, leaseEnd, leaseIsOver, positionFrom } from './lease.js';
import { ddlOf, type ReadTable } from '../../src/read-models/table.js';
import type { Projection } from './projection.js';

const LOCK = '7305806211930123';

/** Until the transaction ends, nobody else makes, begins or swaps a generation. */
const lockGenerations = (tx: Kysely<Database>) => sql`select pg_advisory_xact_lock(${sql.lit(LOCK)}::bigint)`.execute(tx);

/** The name of a projection's table in a generation, schema included. */
export function tableOf(generation: number): (name: string) => string {
  return (name) => `read.${name}_g${generation}`;
}

/**
 * A hash of the statements that make a group's tables. Rows that were written into other tables than this build's would be read by it, and
 * written by it, with another meaning.
 */
export function shapeOf(projections: readonly Projection[]): string {
  const statements = tablesOf(projections).map((table) => [table.name, table.version, table.guard, ddlOf(table, table.name)]);
  return createHash('sha256').update(JSON.stringify(statements)).digest('hex');
}

/**
 * Makes a group's live generation and its views when the database has none for this build's version. Any number of processes may call it
 * at once; the second finds what the first made.
 */
export async function makeLiveGeneration(
  database: Kysely<Database>,
  group: { name: string; projections: readonly Projection[]; logId: string },
): Promise<void> {
  await database.transaction().execute(async (tx) => {
    await lockGenerations(tx);
    const live = await tx
      .selectFrom('read.checkpoints')
      .select('generation')
      .where('group_name', '=', group.name)
      .where('version', '=', READ_MODEL_VERSION)
      .where('live', '=', true)
      .executeTakeFirst();
    if (live !== undefined) return;
    const generation = await makeTables(tx, group, 'with indexes');
    await showGeneration(tx, group.projections, generation, 'anew');
    await tx
      .insertInto('read.checkpoints')
      .values({
        generation,
        group_name: group.name,
        version: READ_MODEL_VERSION,
        live: true,
        shape: shapeOf(group.projections),
        log_id: group.logId,
        progress_at: sql<Date>`now()`,
      })
      .execute();
  });
}

/** Makes the empty tables of a new generation and answers its number. */
async function makeTables(
  tx: Kysely<Database>,
  group: { name: string; projections: readonly Projection[] },
  indexes: 'with indexes' | 'without indexes',
): Promise<number> {
  const { rows } = await sql<{ generation: number }>`select nextval('read.generations')::integer as generation`.execute(tx);
  const generation = rows[0]?.generation;
  if (generation === undefined) throw new Error('the sequence of generations gave no number');
  const table = tableOf(generation);
  for (const one of tablesOf(group.projections)) {
    const statements = ddlOf(one, table(one.name));
    for (const statement of indexes === 'with indexes' ? statements : statements.slice(0, 1)) await sql.raw(statement).execute(tx);
  }
  // A database whose read models were dropped counts from 1 again, and must not find the parked streams of a generation that is gone.
  await tx.deleteFrom('keep.parked').where('group_name', '=', group.name).where('generation', '=', generation).execute();
  return generation;
}

/**
 * Points the views of this build's version at a generation.
 * @param how 'anew' where the columns may be others; 'as they are' keeps what depends on the views
 */
async function showGeneration(
  tx: Kysely<Database>,
  projections: readonly Projection[],
  generation: number,
  how: 'anew' | 'as they are',
): Promise<void> {
  await sql`create schema if not exists ${sql.id(READ_SCHEMA)}`.execute(tx);
  for (const { name } of tablesOf(projections)) {
    const view = sql.id(READ_SCHEMA, name);
    if (how === 'anew') await sql`drop view if exists ${view}`.execute(tx);
    await sql`create or replace view ${view} as select * from ${sql.table(tableOf(generation)(name))}`.execute(tx);
  }
}

/**
 * Makes the tables of a generation that is not shown to anybody yet, without indexes, and takes its lease.
 * @returns undefined while another makes one of this group
 */
export async function beginGeneration(
  database: Kysely<Database>,
  group: { name: string; projections: readonly Projection[]; logId: string },
  owner: string,
): Promise<Pick<Lease, 'generation' | 'epoch'> | undefined> {
  return await database.transaction().execute(async (tx) => {
    await lockGenerations(tx);
    if ((await unshownGenerations(tx, group.name)).some(({ free }) => !free)) return undefined;
    const generation = await makeTables(tx, group, 'without indexes');
    const epoch = 1;
    await tx
      .insertInto('read.checkpoints')
      .values({
        generation,
        group_name: group.name,
        version: READ_MODEL_VERSION,
        live: false,
        shape: shapeOf(group.projections),
        log_id: group.logId,
        progress_at: sql<Date>`now()`,
        epoch,
        owner,
        lease_until: leaseEnd,
        phase: 'filling',
      })
      .execute();
    return { generation, epoch };
  });
}

/** Makes what beginGeneration() left out, one index after the other, and gathers what the planner must know before it meets the tables. */
export async function finishTables(
  session: Kysely<Database>,
  projections: readonly Projection[],
  generation: number,
  signal: AbortSignal,
): Promise<void> {
  // One core is left to the requests that go on meanwhile.
  await sql`set max_parallel_maintenance_workers = 0`.execute(session);
  await sql`set maintenance_work_mem = '128MB'`.execute(session);
  for (const one of tablesOf(projections)) {
    const table = tableOf(generation)(one.name);
    for (const statement of ddlOf(one, table).slice(1)) {
      signal.throwIfAborted();
      await sql.raw(statement).execute(session);
    }
    // Also marks pages as visible to all, without which a count visits every row.
    await sql.raw(`vacuum (analyze) ${table}`).execute(session);
  }
}

/** The group's live generation, locked against its worker until the transaction ends; undefined when there is none. */
export async function lockLive(tx: Kysely<Database>, group: string): Promise<LiveGeneration | undefined> {
  // A worker that starts makes a live generation when there is none, and must not do so beside a swap.
  await lockGenerations(tx);
  const row = await tx
    .selectFrom('read.checkpoints')
    .select(['generation', 'position', 'log_id', 'shape', 'paused'])
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', true)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) return undefined;
  const { generation, shape, paused } = row;
  return { generation, shape, paused, logId: row.log_id, position: positionFrom(row.position) };
}

export interface LiveGeneration {
  readonly generation: number;
  readonly position: Position | 'start';
  readonly logId: string;
  readonly shape: string;
  readonly paused: boolean;
}

/**
 * Shows a finished generation instead of the live one, whose worker is refused from then on and goes on with the new one. The views come
 * last: whoever reads waits for them until the commit.
 * @param old what lockLive() answered in this transaction
 * @throws LeaseLost when the new generation is not the caller's any more
 */
export async function swapGeneration(
  tx: Kysely<Database>,
  projections: readonly Projection[],
  old: LiveGeneration | undefined,
  made: Pick<Lease, 'generation' | 'epoch'>,
): Promise<void> {
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
  const sameColumns = old === undefined || old.shape === shapeOf(projections);
  await showGeneration(tx, projections, made.generation, old !== undefined && sameColumns ? 'as they are' : 'anew');
}

/** Generations of a group that nobody shows: replaced ones, and those of rebuilds that ended before their swap. */
export async function unshownGenerations(
  database: Kysely<Database>,
  group: string,
): Promise<{ generation: number; owner: string | null; leaseUntil: string; free: boolean }[]> {
  const rows = await database
    .selectFrom('read.checkpoints')
    .select(['generation', 'owner'])
    .select(sql<string>`lease_until::text`.as('lease_until'))
    .select(leaseIsOver.as('free'))
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', false)
    .orderBy('generation')
    .execute();
  return rows.map(({ generation, owner, lease_until: leaseUntil, free }) => ({ generation, owner, leaseUntil, free }));
}

/**
 * Drops the tables of a generation that nobody shows or makes, with what is known of it. Waits for those that still read it, for as long
 * as the session's lock_timeout allows; new readers do not meet it.
 * @returns false when it is live or another's
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
    // By their names, since another build may have made them. Without "cascade" a table that a view shows cannot go.
    const { rows } = await sql<{ name: string }>`
      select tablename as name from pg_tables where schemaname = 'read' and tablename ~ ${`_g${generation}$`}`.execute(tx);
    for (const { name } of rows) await sql`drop table ${sql.id('read', name)}`.execute(tx);
    await tx.deleteFrom('keep.parked').where('group_name', '=', group).where('generation', '=', generation).execute();
    return true;
  });
}

const tablesOf = (projections: readonly Projection[]): readonly ReadTable[] => projections.flatMap(({ tables }) => tables);
