import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { CLOCK, type Clock } from '../clock.js';
import { DATABASE, type Database } from '../database/database.js';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { type Lag, projectionLag } from '../metrics/projection-lag.js';
import { Checkpoints, type ReactorHealth } from '../read-models/checkpoints.js';
import type { OperationsAnswer } from './operations.answer.js';

/** Parked streams that one answer lists. */
const MOST_PARKED = 100;

type Follower = OperationsAnswer['groups'][number];

/** What stands still and what waits, as `threadlog projections list` and `threadlog parked list` tell it, for one organization. */
@Injectable()
export class OperationsReader {
  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Checkpoints) private readonly checkpoints: Checkpoints,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  async read(organizationId: string): Promise<OperationsAnswer> {
    const [{ groups, reactors }, parked, jobs] = await Promise.all([
      projectionLag(this.store, this.checkpoints, this.clock.now()),
      this.parked(organizationId),
      this.jobs(organizationId),
    ]);
    return {
      groups: groups.map((one) => ({ name: one.group, ...progressOf(one, one.filling) })),
      reactors: reactors.map((one) => ({ name: one.reactor, ...progressOf(one, false) })),
      parked,
      jobs,
    };
  }

  /** The streams of other organizations are theirs alone to know. */
  private async parked(organizationId: string): Promise<OperationsAnswer['parked']> {
    const rows = await this.database
      .selectFrom('keep.parked')
      .select(['group_name', 'stream', 'revision', 'at'])
      .distinctOn(['group_name', 'stream'])
      .where(sql`substring(stream from '^[a-z]+-([^.]+)[.]')`, '=', organizationId)
      .orderBy('group_name')
      .orderBy('stream')
      .orderBy('at')
      .limit(MOST_PARKED)
      .execute();
    return rows
      .map(({ group_name: by, stream, revision, at }) => ({
        by,
        stream: stream.replace(`-${organizationId}.`, '-'),
        revision,
        since: at.toISOString(),
      }))
      .sort((a, b) => (a.since < b.since ? -1 : a.since > b.since ? 1 : 0));
  }

  private async jobs(organizationId: string): Promise<OperationsAnswer['jobs']> {
    const { rows } = await sql<{ kind: string; waiting: number; overdue: number; attempts: number }>`
      select kind, count(*) as waiting, max(attempt) as attempts,
        greatest(0, extract(epoch from clock_timestamp() - min(due_at) filter (where head)) * 1000)::bigint as overdue
      from keep.jobs where organization_id = ${organizationId} group by kind order by kind`.execute(this.database);
    return rows.map(({ kind, waiting, overdue, attempts }) => ({
      kind,
      waiting,
      overdueSeconds: overdue / 1_000,
      mostAttempts: attempts,
    }));
  }
}

function progressOf(one: Lag<Pick<ReactorHealth, 'stopped' | 'paused' | 'owner'>>, filling: boolean): Omit<Follower, 'name'> {
  const { stopped, paused, owner, events, seconds } = one;
  const status = stopped !== null ? 'stopped' : paused ? 'paused' : owner === null ? 'nobody' : filling ? 'filling' : 'working';
  return { status, lagEvents: events, lagSeconds: seconds };
}
