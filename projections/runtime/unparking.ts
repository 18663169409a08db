import { type Kysely, sql } from 'kysely';
import type { EventStore, Position, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { BatchWriter } from './batch-writer.js';
import { readBatch, type Skipped } from './batches.js';
import { describeError, GroupStopped, type Poison } from './failures.js';
import { lockLive } from './generations.js';
import type { Jobs } from './jobs.js';
import { assertOwnLog, positionFrom } from './lease.js';
import { NO_GENERATION, readSkipped } from './parking.js';
import { groupOf } from './projection.js';
import type { DecodeBatch, Projection } from './projection.js';
import { assertOwnReactorLog, Gathered, handleIsolated, isWantedBy, type Reactor, writeGathered } from './reactor.js';
import type { RuntimeLog } from './runtime-log.js';

export interface ParkedEvent {
  readonly revision: number;
  readonly position: string;
  readonly eventId: string;
  readonly type: string;
  readonly error: string;
}

export interface Replayed {
  /** The skipped event; null when none was to be skipped. */
  readonly skipped: ParkedEvent | null;
  /** Number of events that were handled: the parked event and the events after it. */
  readonly handled: number;
  /** The event at which the stream is parked again; null when the stream goes on. */
  readonly parked: ParkedEvent | null;
}

export interface UnparkingOptions {
  readonly group: string;
  /** Projections that nothing but this call uses. */
  readonly projections: readonly Projection[];
  readonly decode: DecodeBatch;
  readonly store: EventStore;
  /** Sessions with WORKER_SESSION's settings. */
  readonly database: Kysely<Database>;
  readonly log: RuntimeLog;
}

/**
 * Handles a parked stream's events in order, from the parked event up to the group's checkpoint, and lets the stream go on with the group.
 * One transaction writes the rows and ends the parking. If the parked event or a later one cannot be handled, the stream stays parked there
 * with the new error. The group's worker must begin anew afterwards, since it remembers the stream as parked.
 * @param options.skip skips the parked event first, for good: its revision counts, no row has its content, and rebuilds leave it out
 * @returns undefined when the stream is not parked in the live generation
 * @throws GroupStopped when the live rows belong to another log or are missing; when no event can follow the skipped one
 */
export async function replayParked(
  options: UnparkingOptions,
  stream: StreamName,
  { skip = false }: { readonly skip?: boolean } = {},
): Promise<Replayed | undefined> {
  const { group, projections, decode, store, database, log } = options;
  return await database.transaction().execute(async (tx) => {
    // The group's worker waits meanwhile, so its checkpoint, up to which the stream is replayed, does not move.
    const live = await lockLive(tx, groupOf(group, projections));
    if (live === undefined) throw new GroupStopped(`there are no read models of ${group} yet`);
    assertOwnLog(group, live, store.log);
    const { generation, position } = live;
    const writer = new BatchWriter({ group, projections, database, log }, { generation, epoch: 0 });
    writer.forget();
    const replayed = await replayStream(tx, { name: group, generation, position }, store, stream, skip, async (events, skipped) => {
      const { decoded, failed } = await readBatch(decode, events, skipped);
      const [poison] = await writer.applyReadable(tx, decoded, failed);
      return poison;
    });
    if (replayed !== undefined)
      await tx
        .updateTable('read.checkpoints')
        .set((eb) => ({ epoch: eb('epoch', '+', 1) }))
        .where('generation', '=', generation)
        .returning(sql`set_config('synchronous_commit', 'on', true)`.as('durable'))
        .execute();
    return replayed;
  });
}

/**
 * As replayParked(), for a stream that a reactor has parked.
 * @returns undefined when the stream is not parked
 * @throws GroupStopped when the reactor followed another log
 */
export async function replayParkedOfReactor(
  options: Pick<UnparkingOptions, 'decode' | 'store' | 'database'> & { readonly reactor: Reactor; readonly jobs: Jobs },
  stream: StreamName,
  { skip = false }: { readonly skip?: boolean } = {},
): Promise<Replayed | undefined> {
  const { reactor, jobs, decode, store, database } = options;
  const { name } = reactor;
  return await database.transaction().execute(async (tx) => {
    const row = await tx
      .selectFrom('keep.reactors')
      .select(['position', 'log_id', 'state'])
      .where('name', '=', name)
      .forUpdate()
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const position = positionFrom(row.position);
    assertOwnReactorLog(name, { position, logId: row.log_id }, store.log);
    const gathered = new Gathered(() => Promise.resolve(tx));
    const target = { name, generation: NO_GENERATION, position };
    const replayed = await replayStream(tx, target, store, stream, skip, async (events, skipped) => {
      const { decoded, failed } = await readBatch(
        decode,
        events.filter((event) => isWantedBy(reactor, event)),
        skipped,
      );
      const readable = decoded.filter((one) => one.skipped !== true);
      const [poison] = await handleIsolated(reactor, tx, gathered, readable, failed, row.state);
      return poison;
    });
    if (replayed === undefined) return undefined;
    await writeGathered(tx, name, jobs, gathered);
    await sql`
      update keep.reactors set epoch = epoch + 1 where name = ${name}
      returning set_config('synchronous_commit', 'on', true)`.execute(tx);
    return replayed;
  });
}

/** @param apply handles events of the stream in order, and answers the first event that it cannot handle */
async function replayStream(
  tx: Kysely<Database>,
  target: { readonly name: string; readonly generation: number; readonly position: Position | 'start' },
  store: EventStore,
  stream: StreamName,
  skip: boolean,
  apply: (events: readonly StoredEvent[], skipped: Skipped) => Promise<Poison | undefined>,
): Promise<Replayed | undefined> {
  const { name, generation, position } = target;
  const row = await tx
    .selectFrom('keep.parked')
    .select(['revision', 'position', 'event_id', 'type', 'error'])
    .where('group_name', '=', name)
    .where('generation', '=', generation)
    .where('stream', '=', stream)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  if (skip) await skipEvent(tx, target, stream, row);

  const skipped = await readSkipped(tx, name);
  let handled = 0;
  let parked: ParkedEvent | null = null;
  for await (const events of store.read(stream, { from: row.revision })) {
    const passed = events.filter((event) => position !== 'start' && event.position <= position);
    const poison = await apply(passed, skipped);
    handled += poison === undefined ? passed.length : poison.event.revision - (passed[0]?.revision ?? 0);
    if (poison !== undefined) {
      const { id, revision, position: at, type } = poison.event;
      parked = { revision, position: at, eventId: id, type, error: describeError(poison.error) };
      break;
    }
    // The worker handles the events beyond its checkpoint.
    if (passed.length < events.length) break;
  }
  if (parked === null)
    await tx
      .deleteFrom('keep.parked')
      .where('group_name', '=', name)
      .where('generation', '=', generation)
      .where('stream', '=', stream)
      .execute();
  else
    await tx
      .updateTable('keep.parked')
      // `at` stays as it is: a retry must not count as another failure, since too many failures stop the group.
      .set({ revision: parked.revision, position: parked.position, event_id: parked.eventId, type: parked.type, error: parked.error })
      .where('group_name', '=', name)
      .where('generation', '=', generation)
      .where('stream', '=', stream)
      .execute();
  const was: ParkedEvent = { revision: row.revision, position: row.position, eventId: row.event_id, type: row.type, error: row.error };
  return { skipped: skip ? was : null, handled: skip ? Math.max(handled - 1, 0) : handled, parked };
}

/** @throws GroupStopped */
async function skipEvent(
  tx: Kysely<Database>,
  { name, generation }: { readonly name: string; readonly generation: number },
  stream: StreamName,
  event: { readonly revision: number; readonly event_id: string; readonly type: string; readonly error: string },
): Promise<void> {
  // A reactor has no row that begins with this event.
  if (event.revision === 0 && generation !== NO_GENERATION)
    throw new GroupStopped(`revision 0 begins ${stream}: there is no row without it, so nothing could follow what is skipped`);
  const { revision, event_id, type, error } = event;
  await tx
    .insertInto('keep.skipped')
    .values({ group_name: name, stream, revision, event_id, type, error })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}
