import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { WORKER_SESSION } from '../../projections/runtime/lease.js';
import {
  type DecodeBatch,
  groupOf,
  type ProjectedEvent,
  type Projection,
  type ProjectionTarget,
} from '../../projections/runtime/projection.js';
import type { Metadata } from '../../src/event-store/aggregate.js';
import {
  parseStreamName,
  streamName,
  type EventStore,
  type NewEvent,
  type StoredEvent,
  type StreamName,
} from '../../src/event-store/event-store.js';
import { openDatabase, type OpenDatabase } from '../../src/database/database.js';
import type { ReadGroup } from '../../src/read-models/groups.js';
import { readTable } from '../../src/read-models/table.js';

/** Where a worker process stops itself, or dies: the places of a batch that matter. */
export type Moment = 'decoding' | 'applying' | 'between projections' | 'before commit';

/** What the tests do to a group: events with `boom` in their data fail in the database, `throw` in the projection, type Unreadable in the decoder. */
export interface Hooks {
  readonly at?: (moment: Moment, events: number) => void | Promise<void>;
}

const seenTable = (suffix: string) =>
  readTable<{ stream: string; revision: number; position: string; delivery: string }>({
    name: `seen${suffix}`,
    group: `group${suffix}`,
    version: 1,
    columns: {
      stream: 'text not null',
      revision: 'integer not null',
      position: 'text not null',
      delivery: 'uuid not null default gen_random_uuid()',
    },
    key: ['delivery'],
    guard: 'none',
    indexes: {},
  });

const revisionsTable = (suffix: string) =>
  readTable<{ stream: string; revision: number; events: number; total: number }>({
    name: `revisions${suffix}`,
    group: `group${suffix}`,
    version: 1,
    columns: {
      stream: 'text',
      revision: 'integer not null',
      events: 'integer not null',
      total: 'integer not null check (total >= 0)',
    },
    key: ['stream'],
    guard: 'revision',
    indexes: { revision: '(revision)' },
  });

/** Two projections that show everything a runtime can do wrong: `seen` has one row per delivery, `revisions` a guarded row per stream. */
export function tinyProjections(suffix: string, hooks: Hooks = {}): Projection[] {
  return [
    {
      name: `seen${suffix}`,
      kinds: ['conversation', 'visitor', 'inbox'],
      tables: [seenTable(suffix)],
      async apply(events, target) {
        await hooks.at?.('applying', events.length);
        await insertSeen(events, target, `seen${suffix}`);
        await hooks.at?.('between projections', events.length);
      },
    },
    {
      name: `revisions${suffix}`,
      kinds: ['conversation'],
      tables: [revisionsTable(suffix)],
      async apply(events, target) {
        await upsertRevisions(events, target, `revisions${suffix}`);
        await hooks.at?.('before commit', events.length);
      },
    },
  ];
}

async function insertSeen(events: readonly ProjectedEvent[], { transaction, table }: ProjectionTarget, name: string): Promise<void> {
  const tx = await transaction();
  const rows = events.map(({ event }) => {
    const data = event.data as { throw?: boolean };
    if (data.throw) throw new Error('the projection cannot take "private words"');
    return sql`(${event.stream}, ${event.revision}, ${event.position})`;
  });
  await sql`insert into ${sql.table(table(name))} (stream, revision, position) values ${sql.join(rows)}`.execute(tx);
}

async function upsertRevisions(events: readonly ProjectedEvent[], { transaction, table }: ProjectionTarget, name: string): Promise<void> {
  const tx = await transaction();
  const target = sql.table(table(name));
  const known = new Map<string, { revision: number; events: number; total: number }>();
  const streams = [...new Set(events.map(({ event }) => event.stream))];
  const { rows } = await sql<{
    stream: string;
    revision: number;
    events: number;
    total: number;
  }>`select * from ${target} where stream in (${sql.join(streams)})`.execute(tx);
  for (const row of rows) known.set(row.stream, row);
  for (const { event } of events) {
    const row = known.get(event.stream) ?? { revision: -1, events: 0, total: 0 };
    if (event.revision <= row.revision) continue;
    const data = event.data as { n?: number; boom?: boolean };
    known.set(event.stream, {
      revision: event.revision,
      events: row.events + 1,
      total: row.total + (data.boom ? -1_000_000 : (data.n ?? 0)),
    });
  }
  const values = [...known].map(([stream, row]) => sql`(${stream}, ${row.revision}::int, ${row.events}::int, ${row.total}::int)`);
  await sql`
    insert into ${target} (stream, revision, events, total) values ${sql.join(values)}
    on conflict (stream) do update set revision = excluded.revision, events = excluded.events, total = excluded.total`.execute(tx);
}

/** What this build says of the group of that suffix. */
export const tinyGroup = (suffix: string): ReadGroup => groupOf(`group${suffix}`, tinyProjections(suffix));
export const tinyShapes = (suffix: string): ReadonlyMap<string, string> => new Map([[`group${suffix}`, tinyGroup(suffix).shape]]);

export function tinyDecode(hooks: Hooks = {}): DecodeBatch {
  return async (events) => {
    await hooks.at?.('decoding', events.length);
    const decoded: ProjectedEvent[] = [];
    const failed: { event: StoredEvent; error: Error }[] = [];
    for (const event of events) {
      const name = parseStreamName(event.stream)!;
      if (event.type === 'Unreadable') failed.push({ event, error: new Error('no codec knows it') });
      else
        decoded.push({
          kind: name.kind,
          organizationId: name.organizationId,
          streamId: name.id,
          event: { ...event, data: JSON.parse(event.data) as object, metadata: {} as Metadata },
        });
    }
    return { decoded, failed };
  };
}

export function openWorkerDatabase(url: string): OpenDatabase {
  return openDatabase({ url, poolSize: 4, name: 'test-worker', settings: WORKER_SESSION, onError: () => undefined });
}

export function conversation(id: string): StreamName {
  return streamName('conversation', 'org', id);
}

export interface Fact {
  readonly stream: StreamName;
  readonly type?: string;
  readonly data?: object;
}

/** Appends single events to streams whose revisions it keeps. */
export class Writer {
  readonly #revisions = new Map<StreamName, number>();
  readonly written: { stream: StreamName; revision: number; n: number }[] = [];

  constructor(private readonly store: EventStore) {}

  async write(...facts: readonly Fact[]): Promise<string> {
    let position = '';
    for (const { stream, type = 'Happened', data = { n: 1 } } of facts) {
      const last = this.#revisions.get(stream);
      const event: NewEvent = { id: randomUUID(), type, data: JSON.stringify(data), metadata: '{}' };
      const appended = await this.store.append(stream, last ?? 'none', [event], AbortSignal.timeout(5_000));
      if (appended.outcome !== 'appended') throw new Error(`the test's stream ${stream} was written by another`);
      this.#revisions.set(stream, appended.revision);
      this.written.push({ stream, revision: appended.revision, n: (data as { n?: number }).n ?? 0 });
      position = appended.position;
    }
    return position;
  }
}

/** What the read models must hold after everything was written. */
export function expectedRows(written: readonly { stream: StreamName; revision: number; n: number }[]) {
  const revisions = new Map<string, { stream: string; revision: number; events: number; total: number }>();
  for (const { stream, revision, n } of written) {
    if (!stream.startsWith('conversation-')) continue;
    const row = revisions.get(stream) ?? { stream, revision, events: 0, total: 0 };
    revisions.set(stream, { stream, revision, events: row.events + 1, total: row.total + n });
  }
  return {
    seen: written.map(({ stream, revision }) => `${stream}@${revision}`).sort(),
    revisions: [...revisions.values()].sort((a, b) => (a.stream < b.stream ? -1 : 1)),
  };
}

/** What they do hold, read through the views. */
export async function actualRows({ kysely }: OpenDatabase, suffix: string) {
  const { schema } = tinyGroup(suffix);
  const seen = await sql<{ at: string }>`select stream || '@' || revision as at from ${sql.table(`${schema}.seen${suffix}`)}`.execute(
    kysely,
  );
  const revisions = await sql<{
    stream: string;
    revision: number;
    events: number;
    total: number;
  }>`select * from ${sql.table(`${schema}.revisions${suffix}`)} order by stream collate "C"`.execute(kysely);
  return { seen: seen.rows.map((row) => row.at).sort(), revisions: revisions.rows };
}

/** Polls until the check answers something other than undefined. */
export async function eventually<T>(what: string, check: () => Promise<T | undefined>, withinMs = 10_000): Promise<T> {
  const until = performance.now() + withinMs;
  for (;;) {
    const found = await check();
    if (found !== undefined) return found;
    if (performance.now() > until) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
