import { type Kysely, sql } from 'kysely';
import type { Database } from '../../src/database/database.js';

/** How long a silent worker keeps its jobs (ms). */
export const JOB_LEASE_MS = 15_000;

/** Work to be done outside the reactor, once a reactor's transaction has committed it. */
export interface NewJob {
  readonly kind: string;
  /** Unique within its kind: adding the same key again does nothing. */
  readonly key: string;
  /** Jobs of a lane are done one after the other, in the order in which they were added. */
  readonly lane?: string;
  /** Whom the job is for, where jobs are taken by receiver, so that none keeps the others waiting. */
  readonly receiver?: string;
  readonly organizationId: string;
  /** Small, without personal content: ids and numbers. */
  readonly payload: object;
  /** A time on the clock of timers (ms), or a delay from now (ms). When absent, the job is due at once. */
  readonly due?: { readonly at: number } | { readonly inMs: number };
}

export interface JobKey {
  readonly kind: string;
  readonly key: string;
}

/** A job that a worker has taken. */
export interface Job extends JobKey {
  readonly id: number;
  readonly organizationId: string;
  readonly lane: string | null;
  readonly payload: unknown;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /** ms */
  readonly dueAt: number;
}

/** The clock that decides when jobs are due (ms); the database's clock when absent. */
export type TimersClock = (() => number) | undefined;

/** The table of jobs. A worker proves by a job's id and attempt that it still has the job. */
export class Jobs {
  constructor(
    private readonly database: Kysely<Database>,
    private readonly clock: TimersClock,
  ) {}

  /** Adds jobs, in the caller's transaction if one is given. Answers the number of jobs that were new. */
  async add(jobs: readonly NewJob[], tx: Kysely<Database> = this.database): Promise<number> {
    if (jobs.length === 0) return 0;
    const rows = jobs.map(({ kind, key, lane, receiver, organizationId, payload, due }) => ({
      kind,
      key,
      lane: lane ?? null,
      receiver: receiver ?? null,
      organization_id: organizationId,
      payload,
      due_ms: due !== undefined && 'at' in due ? due.at : null,
      delay_ms: due !== undefined && 'inMs' in due ? due.inMs : null,
    }));
    const result = await sql<{ added: number }>`
      select keep.add_jobs(${JSON.stringify(rows)}::jsonb, ${this.now}) as added`.execute(tx);
    return result.rows[0]?.added ?? 0;
  }

  /** Removes jobs that are no longer needed. A job that is being done is not stopped. */
  async remove(keys: readonly JobKey[], tx: Kysely<Database> = this.database): Promise<void> {
    if (keys.length === 0) return;
    await sql`
      select keep.remove_jobs(${keys.map(({ kind }) => kind)}::text[], ${keys.map(({ key }) => key)}::text[])`.execute(tx);
  }

  /**
   * Takes due jobs, of each kind the oldest, for JOB_LEASE_MS. Workers that take at the same time get different jobs.
   * @param rooms the greatest number of jobs of each kind
   * @param fair the kinds of which the receivers take turns while more is due than there is room for; jobs without a receiver wait for the end
   *   of that
   */
  async take(rooms: ReadonlyMap<string, number>, owner: string, fair: readonly string[] = []): Promise<Job[]> {
    const { rows } = await sql<{
      id: number;
      kind: string;
      key: string;
      lane: string | null;
      organization_id: string;
      payload: unknown;
      attempt: number;
      due_at: Date;
    }>`
      select id, kind, key, lane, organization_id, payload, attempt, due_at
      from keep.take_due_jobs(
        ${[...rooms.keys()]}::text[], ${[...rooms.values()]}::integer[], ${fair}::text[], ${owner}, ${sql.lit(`${JOB_LEASE_MS} ms`)}::interval, ${this.now}
      )`.execute(this.database);
    return rows
      .map((row) => ({
        id: row.id,
        kind: row.kind,
        key: row.key,
        lane: row.lane,
        organizationId: row.organization_id,
        payload: row.payload,
        attempt: row.attempt,
        dueAt: row.due_at.getTime(),
      }))
      .sort((a, b) => a.dueAt - b.dueAt || a.id - b.id);
  }

  /** Renews the leases of jobs. Answers the ids of the jobs that the caller still has. */
  async renew(jobs: readonly Job[]): Promise<ReadonlySet<number>> {
    const { rows } = await sql<{ id: number }>`
      update keep.jobs j set leased_until = clock_timestamp() + ${sql.lit(`${JOB_LEASE_MS} ms`)}::interval
      from ${held(jobs)} where j.id = held.id and j.attempt = held.attempt returning j.id`.execute(this.database);
    return new Set(rows.map(({ id }) => id));
  }

  /** Removes finished jobs, so that the next jobs of their lanes become free. Jobs that another worker has taken meanwhile stay. */
  async finish(jobs: readonly Job[]): Promise<void> {
    await sql`
      select keep.finish_jobs(${jobs.map(({ id }) => id)}::bigint[], ${jobs.map(({ attempt }) => attempt)}::integer[])`.execute(
      this.database,
    );
  }

  /** Puts a job off by a time, on the clock of timers. Its lane waits for it. */
  async again({ id, attempt }: Job, inMs: number, error: string): Promise<void> {
    await sql`
      update keep.jobs
      set owner = null, leased_until = null, error = ${error},
        due_at = coalesce(${this.now}, clock_timestamp()) + ${inMs}::float8 * interval '1 ms'
      where id = ${id} and attempt = ${attempt}`.execute(this.database);
  }

  /** Gives back jobs that were not begun. */
  async release(jobs: readonly Job[]): Promise<void> {
    if (jobs.length === 0) return;
    await sql`
      update keep.jobs j set owner = null, leased_until = null, attempt = j.attempt - 1
      from ${held(jobs)} where j.id = held.id and j.attempt = held.attempt`.execute(this.database);
  }

  private get now() {
    return this.clock === undefined ? sql`null::timestamptz` : sql`to_timestamp(${this.clock()}::float8 / 1000)`;
  }
}

function held(jobs: readonly Job[]) {
  return sql`unnest(${jobs.map(({ id }) => id)}::bigint[], ${jobs.map(({ attempt }) => attempt)}::integer[]) held(id, attempt)`;
}
