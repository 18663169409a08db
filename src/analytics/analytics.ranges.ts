import { type RawBuilder, sql } from 'kysely';
import { ThreadlogError } from '../errors.js';
import type { ReadModels } from '../read-models/read-models.js';
import { factsTable } from './fact.tables.js';
import type { Bound, Interval, Range } from './question.js';
import type { Snapshot } from './analytics.snapshot.js';

/** Most intervals of one series. */
export const MOST_INTERVALS = 5_000;

/** A range as instants (ms). */
export interface Instants {
  /** Undefined: everything before `to`. */
  readonly from: number | undefined;
  readonly to: number | undefined;
  /** When each interval starts, distinct and in order. The first starts at or before `from`. Without an interval: the one instant that is before all. */
  readonly starts: readonly number[];
}

/** PostgreSQL does not know a time zone that this program knows. */
const UNKNOWN_ZONE = '22023';

const invalid = (field: string, message: string) => new ThreadlogError('validation_failed', undefined, { errors: [{ field, message }] });

/**
 * The instants of a range. The database's own time zones decide where days begin.
 * @param now ms; the end of a series without `to`
 * @throws ThreadlogError validation_failed
 */
export async function instantsOf(
  { session }: Snapshot,
  readModels: ReadModels,
  organizationId: string,
  { from, to, timezone, interval }: Range & { readonly interval: Interval | undefined },
  now: number,
): Promise<Instants> {
  const ms = (bound: Bound | undefined) =>
    typeof bound === 'string'
      ? sql<number>`(extract(epoch from ${firstAt(sql`${bound}::timestamp`, timezone)}) * 1000)::bigint`
      : sql<number | undefined>`${bound ?? null}::bigint`;
  const first = sql<number | null>`
    (select min(at) from ${readModels.view(factsTable)} where organization_id = ${organizationId} and kind = 'opened')`;
  const [range] = await zoned(timezone, async () => {
    const { rows } = await sql<{ from: string | null; to: string | null; first: string | null }>`
      select ${ms(from)}::text as "from", ${ms(to)}::text as "to", ${interval === undefined ? sql`null` : first}::text as first`.execute(
      session,
    );
    return rows;
  });
  const begin = number(range?.from ?? null);
  const end = number(range?.to ?? null);
  if (begin !== undefined && end !== undefined && begin >= end) throw invalid('to', 'must be later than from');
  if (interval === undefined) return { from: begin, to: end, starts: [0] };
  const last = end ?? now + 1;
  const earliest = begin ?? number(range?.first ?? null) ?? last - 1;
  if ((last - earliest) / SHORTEST[interval] > MOST_INTERVALS)
    throw invalid('interval', `would give more than ${MOST_INTERVALS} intervals: choose a longer interval or a shorter range`);
  return { from: begin, to: end, starts: await startsOf(session, interval, timezone, Math.min(earliest, last - 1), last) };
}

/** The shortest time from one start to the next (ms), but for changes of the clock. */
const SHORTEST: Readonly<Record<Interval, number>> = { hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000, month: 28 * 86_400_000 };

/**
 * The instant (timestamptz) at which a clock on the wall shows a time (timestamp). Where clocks are set back it shows the time twice, and the
 * first counts: a day begins with its first midnight. PostgreSQL takes the second.
 */
function firstAt(local: RawBuilder<unknown>, timezone: string): RawBuilder<unknown> {
  const at = sql`(${local} at time zone ${timezone})`;
  // By the offset that was in force before any change that could make the time come twice.
  const before = sql`(${at} - interval '25 hours')`;
  const offset = sql`((${before} at time zone ${timezone}) - (${before} at time zone 'UTC'))`;
  const earlier = sql`((${local} - ${offset}) at time zone 'UTC')`;
  return sql`case when ${earlier} at time zone ${timezone} = ${local} then least(${earlier}, ${at}) else ${at} end`;
}

/** When the intervals start that hold the instants from `from` to before `to`: distinct, in order, and the first at or before `from`. */
async function startsOf(session: Snapshot['session'], interval: Interval, timezone: string, from: number, to: number): Promise<number[]> {
  const instant = (ms: number) => sql`to_timestamp(${ms}::numeric / 1000)`;
  const unit = sql.lit(interval);
  const one = sql`${sql.lit(`1 ${interval}`)}::interval`;
  // Hours pass evenly, also where the clock goes back; days, weeks and months begin when the clock on the wall says so. Where it is set back
  // over midnight, an instant may show a day that the next one has followed already, hence one more on both sides.
  const starts =
    interval === 'hour'
      ? sql`select date_trunc('hour', at, ${timezone}) as start
          from generate_series(date_trunc('hour', ${instant(from)}, ${timezone}), ${instant(to - 1)}, interval '30 minutes') as at`
      : sql`select ${firstAt(sql`local`, timezone)} as start
          from generate_series(date_trunc(${unit}, ${instant(from)} at time zone ${timezone}) - ${one}, (${instant(to - 1)} at time zone ${timezone}) + ${one}, ${one}) as local`;
  // A day that a country left out would begin when the next one does.
  const { rows } = await sql<{ start: string }>`
    select distinct (extract(epoch from start) * 1000)::bigint::text as start from (${starts}) each`.execute(session);
  const sorted = rows
    .map(({ start }) => Number(start))
    .filter((start) => start < to)
    .sort((a, b) => a - b);
  return sorted.slice(
    Math.max(
      sorted.findLastIndex((start) => start <= from),
      0,
    ),
  );
}

/** When the day of an instant began in a time zone (ms). @throws ThreadlogError validation_failed */
export async function startOfDay({ session }: Snapshot, timezone: string, at: number): Promise<number> {
  const midnight = sql`date_trunc('day', to_timestamp(${at}::numeric / 1000) at time zone ${timezone})`;
  const [row] = await zoned(timezone, async () => {
    const { rows } = await sql<{ start: string }>`
      select (extract(epoch from ${firstAt(midnight, timezone)}) * 1000)::bigint::text as start`.execute(session);
    return rows;
  });
  return Number(row?.start);
}

const number = (text: string | null) => (text === null ? undefined : Number(text));

async function zoned<T>(timezone: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if ((error as { code?: unknown }).code === UNKNOWN_ZONE) throw invalid('timezone', `the database does not know ${timezone}`);
    throw error;
  }
}
