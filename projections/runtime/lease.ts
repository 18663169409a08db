import { type Kysely, type RawBuilder, sql } from 'kysely';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import { READ_MODEL_VERSION, type Database } from '../../src/platform/database.js';
import { CheckpointRefused, GroupPaused, GroupStopped, LeaseLost } from './failures.js';

/** How long a worker that says nothing keeps its group (ms). With the standby's wait this is the time to takeover after a kill -9. */
export const LEASE_MS = 8_000;
/** How often an idle worker renews its lease (ms). */
export const RENEW_MS = 2_000;
/** How often a standby looks (ms): a worker that stops in order is replaced within this time. */
export const STANDBY_MS = 250;

/**
 * Settings of every session that a group writes with. A worker that was frozen in its transaction holds the checkpoint's row until the
 * server ends the session; a standby that waits for that row gives up and looks again.
 */
export const WORKER_SESSION = { idle_in_transaction_session_timeout: 5_000, lock_timeout: 2_000 } as const;

/** The right to write one generation, proved by the epoch in every statement that moves its checkpoint. */
export interface Lease {
  readonly generation: number;
  readonly epoch: number;
  readonly position: Position | 'start';
  readonly logId: string;
  readonly shape: string;
}

/** What anyone may see of a group's live generation. */
export interface Seen {
  readonly free: boolean;
  readonly logId: string;
  readonly position: Position | 'start';
  readonly shape: string;
  /** Of this session, in ms; 0 when it has none. */
  readonly idleTimeout: string;
}

export const leaseEnd = sql<Date>`clock_timestamp() + ${sql.lit(`${LEASE_MS} ms`)}::interval`;

/**
 * Nobody may count on it any more. One that ends later than any that is given was given before the database's clock was set back: a worker
 * that lives makes it anew within seconds, and of one that died it would be left for as long as the clock was ahead.
 */
export const leaseIsOver = sql<boolean>`
  (lease_until < clock_timestamp() or lease_until > clock_timestamp() + ${sql.lit(`${2 * LEASE_MS} ms`)}::interval)`;

/** Undefined when the group has no live generation yet. Takes no lock. */
export async function seeLease(database: Kysely<Database>, group: string, owner: string): Promise<Seen | undefined> {
  const row = await database
    .selectFrom('read.checkpoints')
    .select(['log_id', 'position', 'shape'])
    .select(sql<boolean>`owner = ${owner} or ${leaseIsOver}`.as('free'))
    .select(sql<string>`current_setting('idle_in_transaction_session_timeout')`.as('idleTimeout'))
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', true)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  return {
    free: row.free === true,
    logId: row.log_id,
    position: positionFrom(row.position),
    shape: row.shape,
    idleTimeout: row.idleTimeout,
  };
}

/**
 * Takes the lease when it is free, expired or this owner's own, and raises the epoch. It is committed durably, unlike batches: an epoch
 * that a crash of the server took back would be given twice.
 */
export async function takeLease(database: Kysely<Database>, group: string, owner: string, logId: string): Promise<Lease | undefined> {
  const row = await database
    .updateTable('read.checkpoints')
    .set((eb) => ({
      owner,
      epoch: eb('epoch', '+', 1),
      lease_until: leaseEnd,
      stopped: null,
      // A generation that was never written to belongs to no log yet.
      log_id: sql<string>`case when position = '' then ${logId} else log_id end`,
    }))
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', true)
    .where(sql<boolean>`(owner = ${owner} or ${leaseIsOver})`)
    .returning(['generation', 'epoch', 'position', 'log_id', 'shape'])
    .executeTakeFirst();
  if (row === undefined) return undefined;
  return { generation: row.generation, epoch: row.epoch, position: positionFrom(row.position), logId: row.log_id, shape: row.shape };
}

/** The rows that a batch's own statement writes, as `insert` that does nothing where `moved` is empty. */
export type WithMoved = (moved: RawBuilder<unknown>) => RawBuilder<unknown>;

/**
 * The first statement of every batch: moves the checkpoint, proves the epoch and the place, and renews the lease. The rows and the
 * checkpoint of a batch may be lost in a crash of the server, since they are lost together; so its commit waits for no disk.
 * @param rows written with it: outside of a transaction the whole batch is then one statement and one round trip
 * @throws LeaseLost, GroupPaused
 */
export async function moveCheckpoint(
  session: Kysely<Database>,
  lease: Pick<Lease, 'generation' | 'epoch'>,
  move: { from: Position | 'start'; to: Position; events: number },
  rows: readonly WithMoved[] = [],
): Promise<void> {
  const moved = sql.ref('moved');
  const written = rows.map((insert, i) => sql`, ${sql.ref(`written_${i}`)} as (${insert(sql`exists (select from ${moved})`)})`);
  const result = await sql<{ moved: boolean }>`
    with ${moved} as (
      update read.checkpoints
      set position = ${move.to}, events = events + ${move.events}, lease_until = ${leaseEnd}, progress_at = clock_timestamp()
      where generation = ${lease.generation} and epoch = ${lease.epoch} and position = ${move.from === 'start' ? '' : move.from} and not paused
      returning set_config('synchronous_commit', 'off', true)
    )${sql.join(written, sql``)}
    select exists (select from ${moved}) as moved`.execute(session);
  if (result.rows[0]?.moved === true) return;
  if (await isPaused(session, lease)) throw new GroupPaused(`generation ${lease.generation} is paused`);
  throw new LeaseLost(`generation ${lease.generation} is no longer at ${move.from} under epoch ${lease.epoch}`);
}

/** False also when the lease is another's. */
export async function isPaused(database: Kysely<Database>, lease: Pick<Lease, 'generation' | 'epoch'>): Promise<boolean> {
  const row = await database
    .selectFrom('read.checkpoints')
    .select('paused')
    .where('generation', '=', lease.generation)
    .where('epoch', '=', lease.epoch)
    .executeTakeFirst();
  return row?.paused === true;
}

/**
 * Tells a group's workers, in whatever process and also those that start later, to handle nothing, or to go on. No batch commits after a
 * pause was answered. Answers false when the group has no live generation, or is as was asked.
 */
export async function pauseGroup(database: Kysely<Database>, group: string, paused: boolean): Promise<boolean> {
  const changed = await database
    .updateTable('read.checkpoints')
    // What stood still on purpose is no stall when it may go on.
    .set({ paused, progress_at: sql<Date>`clock_timestamp()` })
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', true)
    .where('paused', '<>', paused)
    .returning('generation')
    .execute();
  return changed.length > 0;
}

/** @throws GroupStopped when rows of this generation are not for this build to write */
export function assertOwnTables(group: string, seen: Pick<Lease, 'shape'>, shape: string): void {
  if (seen.shape !== shape)
    throw new GroupStopped(
      `the tables of the group ${group} were made by a build with other tables. Raise READ_MODEL_VERSION, so that this build makes its own beside them, or rebuild them with threadlog projections rebuild ${group}.`,
    );
}

/** @throws CheckpointRefused when the rows were folded from another log */
export function assertOwnLog(group: string, seen: Pick<Lease, 'logId' | 'position'>, log: EventStore['log']): void {
  if (seen.position !== 'start' && seen.logId !== log.id)
    throw new CheckpointRefused(
      `the read models of the group ${group} were made from the log ${seen.logId}, but the open ${log.adapter} log is ${log.id}. Open the log that they were made from, or make them again with threadlog projections rebuild ${group}.`,
    );
}

/**
 * Keeps the lease of a worker that has nothing to write.
 * @throws LeaseLost
 */
export async function renewLease(database: Kysely<Database>, lease: Pick<Lease, 'generation' | 'epoch'>): Promise<void> {
  const renewed = await database
    .updateTable('read.checkpoints')
    .set({ lease_until: leaseEnd })
    .where('generation', '=', lease.generation)
    .where('epoch', '=', lease.epoch)
    // A renewal that was under way when the lease was given up must not bring it back.
    .where('owner', 'is not', null)
    .returning('generation')
    .execute();
  if (renewed.length === 0) throw new LeaseLost(`generation ${lease.generation} has another epoch than ${lease.epoch}`);
}

/** Says that the group stands still because everything is handled, so that nobody takes it for a stall. */
export async function noteNothingToDo(database: Kysely<Database>, lease: Lease): Promise<void> {
  await database
    .updateTable('read.checkpoints')
    .set({ progress_at: sql<Date>`clock_timestamp()` })
    .where('generation', '=', lease.generation)
    .where('epoch', '=', lease.epoch)
    .execute();
}

/** Gives the group up, so that a standby takes it at once. Does nothing when it is another's already. */
export async function releaseLease(database: Kysely<Database>, lease: Lease, stopped: string | null): Promise<void> {
  await database
    .updateTable('read.checkpoints')
    .set({ owner: null, lease_until: sql<Date>`'-infinity'`, stopped })
    .where('generation', '=', lease.generation)
    .where('epoch', '=', lease.epoch)
    .execute();
}

/** Says why nobody can work on a group, beside the lease: whoever is refused before taking it. A worker that has it is let be. */
export async function noteRefused(database: Kysely<Database>, group: string, reason: string): Promise<void> {
  await database
    .updateTable('read.checkpoints')
    .set({ stopped: reason })
    .where('group_name', '=', group)
    .where('version', '=', READ_MODEL_VERSION)
    .where('live', '=', true)
    .where(leaseIsOver)
    .execute();
}

export function positionFrom(text: string): Position | 'start' {
  return text === '' ? 'start' : (text as Position);
}
