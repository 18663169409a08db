import { sql, type Kysely } from 'kysely';
import { parseStreamName, type StreamName } from '../../src/event-store/event-store.js';
import { STREAMS } from '../../src/features.js';
import type { Database } from '../../src/database/database.js';
import { describeError, GroupStopped, type Poison } from './failures.js';
import type { RuntimeLog } from './runtime-log.js';

/** Limit of streams parked within a minute. Beyond it the fault is not in a few streams, and the group stops instead of parking more. */
const MOST_PER_MINUTE = 50;

/** The generation number of a reactor's parked streams: reactors are never rebuilt and have no generations. Groups count from 1. */
export const NO_GENERATION = 0;

/** The revisions that operators have skipped in a group, the same for all generations, so that a rebuild makes the same rows. */
export async function readSkipped(database: Kysely<Database>, group: string): Promise<Map<StreamName, Set<number>>> {
  const rows = await database.selectFrom('keep.skipped').select(['stream', 'revision']).where('group_name', '=', group).execute();
  const skipped = new Map<StreamName, Set<number>>();
  for (const row of rows) {
    const stream = row.stream as StreamName;
    const revisions = skipped.get(stream);
    if (revisions === undefined) skipped.set(stream, new Set([row.revision]));
    else revisions.add(row.revision);
  }
  return skipped;
}

/** The streams that are parked in a generation. */
export async function readParked(database: Kysely<Database>, group: string, generation: number): Promise<Set<StreamName>> {
  const rows = await database
    .selectFrom('keep.parked')
    .select('stream')
    .where('group_name', '=', group)
    .where('generation', '=', generation)
    .execute();
  return new Set(rows.map((row) => row.stream as StreamName));
}

/** Logs that a stream was parked, once its batch is committed. @param by the group or the reactor */
export function logParked(log: RuntimeLog, by: { readonly group: string } | { readonly reactor: string }, { event, error }: Poison): void {
  const { stream, revision, position, id: eventId, type } = event;
  log.error({ ...by, stream, revision, position, eventId, type, error: describeError(error) }, 'stream parked');
}

/**
 * Parks the streams of events that cannot be handled, in the transaction of their batch. The checkpoint passes these events; the streams'
 * events wait in the log, from the parked revision on, until an operator retries or skips.
 * @param expected streams that do not count toward the limit
 * @throws GroupStopped when other streams depend on such a stream, or when too many streams are parked at once
 */
export async function park(
  tx: Kysely<Database>,
  group: string,
  generation: number,
  poison: readonly Poison[],
  expected: ReadonlySet<StreamName> = new Set(),
): Promise<void> {
  for (const { event, error } of poison) {
    if (!mayBeParked(event.stream))
      throw new GroupStopped(
        `${event.type} ${event.id} at revision ${event.revision} of the settings stream ${event.stream} cannot be handled: ${describeError(error)}`,
        { cause: error },
      );
  }
  await tx
    .insertInto('keep.parked')
    .values(
      poison.map(({ event, error }) => ({
        group_name: group,
        generation,
        stream: event.stream,
        revision: event.revision,
        position: event.position,
        event_id: event.id,
        type: event.type,
        error: describeError(error),
        at: sql<Date>`clock_timestamp()`,
      })),
    )
    .execute();
  const { recent } = await tx
    .selectFrom('keep.parked')
    .select(sql<number>`count(*)`.as('recent'))
    .where('group_name', '=', group)
    .where('generation', '=', generation)
    .where('at', '>', sql<Date>`clock_timestamp() - interval '1 minute'`)
    .where(sql<boolean>`stream <> all (${[...expected]}::text[])`)
    .executeTakeFirstOrThrow();
  if (recent > MOST_PER_MINUTE)
    throw new GroupStopped(
      `more than ${MOST_PER_MINUTE} streams would be parked within a minute; the last: ${describeError(poison.at(-1)?.error)}`,
    );
}

/** False for settings streams (inbox, agent, organization …): without it, conversations that name it would silently be shown wrong. */
function mayBeParked(stream: StreamName): boolean {
  return STREAMS.get(parseStreamName(stream)?.kind ?? '')?.unreadable === 'parks';
}
