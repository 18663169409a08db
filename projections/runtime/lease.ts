import { type Kysely, type RawBuilder, sql } from 'kysely';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import { CheckpointRefused, GroupPaused, LeaseLost } from './failures.js';

/** How long a silent worker keeps its group or reactor (ms). With the standby's wait, this is the time to takeover after a kill -9. */
export const LEASE_MS = 8_000;
/** How often an idle worker renews its lease (ms). */
export const RENEW_MS = 2_000;
/** How often a standby tries to take over (ms): a worker that stops properly is replaced within this time. */
export const STANDBY_MS = 250;

/**
 * Settings of every session that writes batches. A worker that freezes in its transaction holds the checkpoint's row until the server ends
 * the session. A standby that waits for that row gives up and tries again.
 */
export const WORKER_SESSION = { idle_in_transaction_session_timeout: 5_000, lock_timeout: 2_000 } as const;

/** Names a checkpoint's row: the live generation of this build's group, any generation by its number, or a reactor. */
export type CheckpointKey =
  { readonly group: Pick<ReadGroup, 'name' | 'shape'> } | { readonly generation: number } | { readonly reactor: string };

/** The right that a worker proves in every statement that moves a checkpoint. */
export type Held = ({ readonly generation: number } | { readonly reactor: string }) & { readonly epoch: number };

/** Where a checkpoint stood when its lease was taken. */
interface Stood {
  readonly position: Position | 'start';
  readonly logId: string;
}

/** The right to write one generation. */
export type Lease = Stood & {
  readonly generation: number;
  readonly epoch: number;
  /** The generation is live, and has not yet caught up with the log for the first time. */
  readonly filling: boolean;
};

/** The right to go on with a reactor. `state` is the reactor's own state; null before its first batch. */
export type ReactorLease = Stood & { readonly reactor: string; readonly epoch: number; readonly state: unknown };

/** The part of a checkpoint that any process may read. */
export interface Seen {
  readonly free: boolean;
  readonly logId: string;
  readonly position: Position | 'start';
  /** The idle-in-transaction timeout of this session, in ms; 0 when it has none. */
  readonly idleTimeout: string;
}

export const leaseEnd = sql<Date>`clock_timestamp() + ${sql.lit(`${LEASE_MS} ms`)}::interval`;

/**
 * True when a lease has run out. A lease that ends further ahead than any lease can was taken before the database's clock was set back. It
 * counts as over: a live worker renews it within seconds, and a dead worker's lease would stay for as long as the clock was ahead.
 */
export const leaseIsOver = sql<boolean>`
  (lease_until < clock_timestamp() or lease_until > clock_timestamp() + ${sql.lit(`${2 * LEASE_MS} ms`)}::interval)`;

/** Finds a checkpoint's row. All statements of this file use it. */
function rowOf(key: CheckpointKey): { readonly table: RawBuilder<unknown>; readonly row: RawBuilder<boolean> } {
  if ('reactor' in key) return { table: sql.table('keep.reactors'), row: sql`name = ${key.reactor}` };
  const table = sql.table('read.checkpoints');
  if ('generation' in key) return { table, row: sql`generation = ${key.generation}` };
  return { table, row: sql`group_name = ${key.group.name} and shape = ${key.group.shape} and version = 0 and live` };
}

interface SeenRow {
  log_id: string;
  position: string;
  free: boolean | null;
  idle_timeout: string;
}

async function see<R>(database: Kysely<Database>, key: CheckpointKey, owner: string, more: RawBuilder<unknown>) {
  const { table, row } = rowOf(key);
  const { rows } = await sql<SeenRow & R>`
    select log_id, position, (owner = ${owner} or ${leaseIsOver}) as free,
      current_setting('idle_in_transaction_session_timeout') as idle_timeout${more}
    from ${table} where ${row}`.execute(database);
  const [found] = rows;
  if (found === undefined) return undefined;
  return {
    found,
    seen: {
      free: found.free === true,
      logId: found.log_id,
      position: positionFrom(found.position),
      idleTimeout: found.idle_timeout,
    } satisfies Seen,
  };
}

/** Reads a group's checkpoint. Undefined when the group has no live generation yet. Takes no lock. */
export async function seeLease(database: Kysely<Database>, group: ReadGroup, owner: string): Promise<Seen | undefined> {
  return (await see(database, { group }, owner, sql``))?.seen;
}

/** Reads a reactor's checkpoint. Undefined when the reactor was never installed. Takes no lock. */
export async function seeReactor(database: Kysely<Database>, reactor: string, owner: string): Promise<Seen | undefined> {
  return (await see(database, { reactor }, owner, sql``))?.seen;
}

interface TakenRow {
  epoch: number;
  position: string;
  log_id: string;
}

async function take<R>(database: Kysely<Database>, key: CheckpointKey, owner: string, logId: string, more: RawBuilder<unknown>) {
  const { table, row } = rowOf(key);
  const { rows } = await sql<TakenRow & R>`
    update ${table} set
      owner = ${owner},
      epoch = epoch + 1,
      lease_until = ${leaseEnd},
      stopped = null,
      -- what was never written to belongs to no log yet
      log_id = case when position = '' then ${logId} else log_id end
    where ${row} and (owner = ${owner} or ${leaseIsOver})
    returning epoch, position, log_id${more}`.execute(database);
  return rows[0];
}

/**
 * Takes the lease when it is free, expired or already this owner's, and raises the epoch. The commit is durable, unlike that of batches: if
 * a server crash undid an epoch, two workers would get the same epoch.
 */
export async function takeLease(database: Kysely<Database>, group: ReadGroup, owner: string, logId: string): Promise<Lease | undefined> {
  const row = await take<{ generation: number; filling: boolean }>(
    database,
    { group },
    owner,
    logId,
    sql`, generation, phase is not null as filling`,
  );
  if (row === undefined) return undefined;
  const { generation, epoch, filling } = row;
  return { generation, epoch, position: positionFrom(row.position), logId: row.log_id, filling };
}

/** As takeLease(), for a reactor. */
export async function takeReactor(
  database: Kysely<Database>,
  reactor: string,
  owner: string,
  logId: string,
): Promise<ReactorLease | undefined> {
  const row = await take<{ state: unknown }>(database, { reactor }, owner, logId, sql`, state`);
  return row && { reactor, epoch: row.epoch, position: positionFrom(row.position), logId: row.log_id, state: row.state };
}

/** A statement that writes rows of a batch beside the checkpoint: an `insert` that does nothing when `moved` is empty. */
export type WithMoved = (moved: RawBuilder<unknown>) => RawBuilder<unknown>;

/**
 * The first statement of every batch: moves the checkpoint, proves the epoch and the position, and renews the lease. The commit does not
 * wait for the disk: a server crash may lose a batch's rows and checkpoint, but only together.
 * @param move.state the reactor's state, if it changed
 * @param rows written by the same statement, so that outside a transaction the whole batch is one statement and one round trip
 * @throws LeaseLost, GroupPaused
 */
export async function moveCheckpoint(
  session: Kysely<Database>,
  held: Held,
  move: { from: Position | 'start'; to: Position; events: number; state?: unknown },
  rows: readonly WithMoved[] = [],
): Promise<void> {
  const moved = sql.ref('moved');
  const { table, row } = rowOf(held);
  const state = move.state === undefined ? sql`` : sql`, state = ${JSON.stringify(move.state)}::jsonb`;
  const written = rows.map((insert, i) => sql`, ${sql.ref(`written_${i}`)} as (${insert(sql`exists (select from ${moved})`)})`);
  const result = await sql<{ moved: boolean }>`
    with ${moved} as (
      update ${table}
      set position = ${move.to}, events = events + ${move.events}, lease_until = ${leaseEnd}, progress_at = clock_timestamp()${state}
      where ${row} and epoch = ${held.epoch} and position = ${move.from === 'start' ? '' : move.from} and not paused
      returning set_config('synchronous_commit', 'off', true)
    )${sql.join(written, sql``)}
    select exists (select from ${moved}) as moved`.execute(session);
  if (result.rows[0]?.moved === true) return;
  if (await isPaused(session, held)) throw new GroupPaused(`${nameOf(held)} is paused`);
  throw new LeaseLost(`${nameOf(held)} is no longer at ${move.from} under epoch ${held.epoch}`);
}

/** Whether the work is paused. False also when another worker has the lease. */
export async function isPaused(database: Kysely<Database>, held: Held): Promise<boolean> {
  const { table, row } = rowOf(held);
  const { rows } = await sql<{ paused: boolean }>`select paused from ${table} where ${row} and epoch = ${held.epoch}`.execute(database);
  return rows[0]?.paused === true;
}

/**
 * Pauses or resumes a group or reactor for its workers in all processes, including workers that start later. No batch commits after a pause
 * was answered. Answers false when the row does not exist, or is already in the wanted state.
 */
export async function pauseWork(database: Kysely<Database>, key: CheckpointKey, paused: boolean): Promise<boolean> {
  const { table, row } = rowOf(key);
  // A pause must not count as a stall after the work resumes.
  const { rows } = await sql`
    update ${table}
    set paused = ${paused}, progress_at = clock_timestamp(),
      -- a worker that has it goes on, and says so itself no more than once
      stopped = case when not ${paused} and owner is not null then null else stopped end
    where ${row} and paused <> ${paused} returning 1`.execute(database);
  return rows.length > 0;
}

/** @throws CheckpointRefused when the rows were folded from another log */
export function assertOwnLog(group: string, seen: Stood, log: EventStore['log']): void {
  if (seen.position !== 'start' && seen.logId !== log.id)
    throw new CheckpointRefused(
      `the read models of the group ${group} were made from the log ${seen.logId}, but the open ${log.adapter} log is ${log.id}. Open the log that they were made from, or make them again with threadlog projections rebuild ${group}.`,
    );
}

/**
 * Renews the lease of a worker that has nothing to write.
 * @throws LeaseLost
 */
export async function renewLease(database: Kysely<Database>, held: Held): Promise<void> {
  const { table, row } = rowOf(held);
  // A renewal that was under way when the lease was given up must not restore it.
  const { rows } = await sql`
    update ${table} set lease_until = ${leaseEnd} where ${row} and epoch = ${held.epoch} and owner is not null returning 1`.execute(
    database,
  );
  if (rows.length === 0) throw new LeaseLost(`${nameOf(held)} has another epoch than ${held.epoch}`);
}

/** Records that a worker stands still because everything is handled, so that the standstill does not count as a stall. */
export async function noteNothingToDo(database: Kysely<Database>, held: Held): Promise<void> {
  const { table, row } = rowOf(held);
  await sql`update ${table} set progress_at = clock_timestamp() where ${row} and epoch = ${held.epoch}`.execute(database);
}

/** Gives a lease up, so that a standby can take it at once. Does nothing when another worker already has it. */
export async function releaseLease(database: Kysely<Database>, held: Held, stopped: string | null): Promise<void> {
  const { table, row } = rowOf(held);
  await sql`
    update ${table} set owner = null, lease_until = '-infinity', stopped = ${stopped} where ${row} and epoch = ${held.epoch}`.execute(
    database,
  );
}

/** Stops a reactor in all processes until a person resumes it. */
export async function stopReactor(database: Kysely<Database>, reactor: string, reason: string): Promise<void> {
  const { table, row } = rowOf({ reactor });
  await sql`update ${table} set paused = true, stopped = ${reason} where ${row}`.execute(database);
}

/** Records why a worker was refused before it took the lease. A worker that has the lease is not affected. */
export async function noteRefused(database: Kysely<Database>, key: CheckpointKey, reason: string): Promise<void> {
  const { table, row } = rowOf(key);
  await sql`update ${table} set stopped = ${reason} where ${row} and ${leaseIsOver}`.execute(database);
}

function nameOf(held: Held): string {
  return 'reactor' in held ? `the reactor ${held.reactor}` : `generation ${held.generation}`;
}

export function positionFrom(text: string): Position | 'start' {
  return text === '' ? 'start' : (text as Position);
}
