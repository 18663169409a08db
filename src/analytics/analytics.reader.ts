import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import { CLOCK, type Clock } from '../clock.js';
import type { ConversationFilter } from '../conversations/conversation.list.js';
import type { Status } from '../conversations/conversation.js';
import { type Database, QUESTIONS } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { ReadModels } from '../read-models/read-models.js';
import type { MetricRow, SixNumbers } from './analytics.answer.js';
import { allOf, conditionsOf, joined, keyOf, rowsOf, withinRange } from './fact.sql.js';
import { type Metric, type MetricName, metricNamed } from './metrics.js';
import type { Question, Range } from './question.js';
import { namesOf } from './key-names.reader.js';
import { type Instants, instantsOf, startOfDay } from './analytics.ranges.js';
import { inSnapshot, type Snapshot } from './analytics.snapshot.js';
import { toldText } from './values.js';

/** What an answer says about itself. */
export interface Told {
  readonly instants: Instants;
  readonly asOf: string;
}

/** A row as PostgreSQL answers it; bigints and numerics are texts. */
interface Counted {
  readonly nr: number | null;
  readonly key: string | null;
  readonly status: Status | null;
  readonly count: string;
  readonly sum: string | null;
  readonly mean: string | null;
  readonly median: string | null;
  readonly p90: string | null;
}

/** Most rows of one answer. */
const MOST_ROWS = 50_000;

/** Computes numbers from facts. All statements of an answer see the same position. */
@Injectable()
export class AnalyticsReader {
  constructor(
    @Inject(QUESTIONS) private readonly questions: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  /** The six numbers of the dashboard. */
  async sixNumbers(organizationId: string, range: Range, filter: ConversationFilter): Promise<{ data: SixNumbers; told: Told }> {
    return await inSnapshot(this.questions, this.readModels, organizationId, async (snapshot) => {
      const now = this.clock.now();
      const instants = await instantsOf(snapshot, this.readModels, organizationId, { ...range, interval: undefined }, now);
      const today = await startOfDay(snapshot, range.timezone, now);
      const from = (name: MetricName, what: (value: RawBuilder<unknown>) => RawBuilder<unknown>, more?: RawBuilder<SqlBool>) => {
        const { behind } = metric(name);
        const when = more === undefined ? withinRange(behind.at, instants) : [more];
        return sql`(select ${what(sql.raw(behind.value ?? 'null'))} from ${rowsOf(this.readModels, behind)}
          where ${allOf([...conditionsOf(this.readModels, organizationId, behind, filter), ...when])})`;
      };
      const count = () => sql`count(*)`;
      const mean = (value: RawBuilder<unknown>) => sql`round(avg(${value}), 4)`;
      const { rows } = await sql<Record<keyof SixNumbers, string | null>>`
        select ${from('conversations_opened', count)} as "totalConversations",
          ${from('backlog', count, sql<SqlBool>`f.to_at is null and f.status = 'open'`)} as "openConversations",
          ${from('conversations_resolved', count, sql<SqlBool>`f.at >= ${today}`)} as "resolvedToday",
          ${from('first_response_time', mean)} as "avgFirstResponseTime",
          ${from('resolution_time', mean)} as "avgResolutionTime",
          ${from('rating', mean)} as csat`.execute(snapshot.session);
      const [row] = rows;
      if (row === undefined) throw new Error('a statement of one row answered none');
      const data: SixNumbers = {
        totalConversations: Number(row.totalConversations),
        openConversations: Number(row.openConversations),
        resolvedToday: Number(row.resolvedToday),
        avgFirstResponseTime: toldText('seconds', row.avgFirstResponseTime),
        avgResolutionTime: toldText('seconds', row.avgResolutionTime),
        csat: toldText('rating', row.csat),
      };
      return { data, told: { instants, asOf: snapshot.asOf } };
    });
  }

  /**
   * The rows that answer a question, by start and key.
   * @throws ThreadlogError validation_failed, limit_exceeded
   */
  async rows(question: Question): Promise<{ data: MetricRow[]; told: Told }> {
    const { organizationId, range, interval } = question;
    return await inSnapshot(this.questions, this.readModels, organizationId, async (snapshot) => {
      const instants = await instantsOf(snapshot, this.readModels, organizationId, { ...range, interval }, this.clock.now());
      const counted =
        question.metric.name === 'backlog'
          ? await this.#levels(question, instants, snapshot)
          : await this.#counted(question, instants, snapshot);
      if (counted.length > MOST_ROWS)
        throw new ThreadlogError('limit_exceeded', `more than ${MOST_ROWS} rows: choose a longer interval, a shorter range or a filter`);
      const rows = question.by === undefined && interval !== undefined ? withEmpty(counted, instants) : counted;
      const names = await namesOf(
        snapshot.session,
        this.readModels,
        organizationId,
        question.by,
        counted.map(({ key }) => key),
      );
      const data = rows.map((row) => rowOf(question, row, instants, names));
      return { data, told: { instants, asOf: snapshot.asOf } };
    });
  }

  async #counted(question: Question, instants: Instants, { session }: Snapshot): Promise<readonly Counted[]> {
    const {
      organizationId,
      metric: { behind, unit },
      hours,
      by,
      interval,
      filter,
    } = question;
    const bucket = interval === undefined ? sql`null::integer` : sql`width_bucket(${sql.raw(behind.at)}, ${instants.starts}::bigint[])`;
    const key = by === undefined ? sql`null::text` : keyOf(behind, by);
    const status = behind.status === undefined ? sql`null::text` : sql.raw(behind.status);
    const value = hours === 'working' ? behind.working : behind.value;
    const values = value === undefined ? sql`null::bigint` : sql.raw(value);
    // A share has no percentiles.
    const shares = value !== undefined && unit !== 'share';
    const percentile = (fraction: number) =>
      shares ? sql`(percentile_cont(${sql.lit(fraction)}) within group (order by value))::text` : sql`null::text`;
    const conditions = [...conditionsOf(this.readModels, organizationId, behind, filter), ...withinRange(behind.at, instants)];
    const { rows } = await sql<Counted>`
      select nr, key, status, count(*)::text as count, sum(value)::text as sum,
        ${value === undefined ? sql`null::text` : sql`round(sum(value)::numeric / count(*), 4)::text`} as mean,
        ${percentile(0.5)} as median, ${percentile(0.9)} as p90
      from (
        select ${bucket} as nr, ${key} as key, ${status} as status, ${values} as value
        from ${rowsOf(this.readModels, behind)} ${joined(by)} where ${allOf(conditions)}
      ) counted
      group by nr, key, status order by nr, key collate "C" nulls last, status limit ${MOST_ROWS + 1}`.execute(session);
    // Without any group there is still a number: none.
    return rows.length === 0 && by === undefined && interval === undefined && behind.status === undefined ? [none(null)] : rows;
  }

  /** How many spans last at the end of each interval, or of the range. */
  async #levels(question: Question, instants: Instants, { session }: Snapshot): Promise<readonly Counted[]> {
    const {
      organizationId,
      metric: { behind },
      by,
      filter,
    } = question;
    const key = by === undefined ? sql`null::text` : keyOf(behind, by);
    // A span that begins within an interval counts at its end, and a span that ends within it does not.
    const changes = (at: string, sign: string) => sql`
      select width_bucket(${sql.raw(at)}, ${instants.starts}::bigint[]) as nr, ${key} as key, ${sql.raw(sign)} as n
      from ${rowsOf(this.readModels, behind)} ${joined(by)}
      where ${allOf([
        ...conditionsOf(this.readModels, organizationId, behind, filter),
        sql<SqlBool>`${sql.raw(at)} is not null`,
        ...(instants.to === undefined ? [] : [sql<SqlBool>`${sql.raw(at)} < ${instants.to}`]),
      ])} group by 1, 2`;
    const { rows } = await sql<{ nr: number; key: string | null; n: string }>`
      select nr, key, sum(n)::text as n from (${changes('f.from_at', 'count(*)')} union all ${changes('f.to_at', '-count(*)')}) changed
      group by nr, key order by nr, key collate "C" nulls last`.execute(session);
    const series = question.interval !== undefined;
    const last = instants.starts.length;
    const found: Counted[] = [];
    const level = new Map<string | null, number>();
    let next = 0;
    for (let nr = series ? 1 : last; nr <= last && found.length <= MOST_ROWS; nr++) {
      for (; (rows[next]?.nr ?? Infinity) <= nr; next++) {
        const change = rows[next];
        if (change !== undefined) level.set(change.key, (level.get(change.key) ?? 0) + Number(change.n));
      }
      const keys = by === undefined ? [null] : [...level.keys()].sort(byKey);
      for (const one of keys) {
        const count = level.get(one) ?? 0;
        if (count > 0 || by === undefined) found.push({ ...none(series ? nr : null), key: one, count: String(count) });
      }
    }
    return found;
  }
}

function metric(name: MetricName): Metric {
  const found = metricNamed(name);
  if (found === undefined) throw new Error(`there is no metric ${name}`);
  return found;
}

const none = (nr: number | null): Counted => ({ nr, key: null, status: null, count: '0', sum: null, mean: null, median: null, p90: null });

const byKey = (a: string | null, b: string | null) => (a === b ? 0 : a === null || (b !== null && a > b) ? 1 : -1);

/** A series has a row for each interval, also where nothing was counted. */
function withEmpty(rows: readonly Counted[], { starts }: Instants): readonly Counted[] {
  const found = new Set(rows.map(({ nr }) => nr));
  const empty = starts.map((_, i) => i + 1).filter((nr) => !found.has(nr));
  return [...rows, ...empty.map(none)].sort((a, b) => (a.nr ?? 0) - (b.nr ?? 0));
}

/** Nothing is counted before the first start, and a made-up one could not be opened. */
function startOf(nr: number | null, starts: Instants['starts']): string {
  const start = starts[(nr ?? 1) - 1];
  if (start === undefined) throw new Error(`the series has no interval ${nr}`);
  return new Date(start).toISOString();
}

function rowOf(
  { metric: { unit, behind }, by, interval }: Question,
  { nr, key, status, count, sum, mean, median, p90 }: Counted,
  { starts }: Instants,
  names: ReadonlyMap<string, string>,
): MetricRow {
  const told = (text: string | null) => toldText(unit, text);
  const name = key === null ? undefined : names.get(key);
  return {
    ...(interval === undefined ? {} : { start: startOf(nr, starts) }),
    ...(by === undefined ? {} : { key, ...(name === undefined ? {} : { name }) }),
    ...(status === null || by === 'status' ? {} : { status }),
    count: Number(count),
    ...(behind.value === undefined ? {} : { sum: told(sum) ?? 0, mean: told(mean) }),
    ...(behind.value === undefined || unit === 'share' ? {} : { median: told(median), p90: told(p90) }),
  };
}
