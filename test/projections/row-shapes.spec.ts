import { sql } from 'kysely';
import { BatchWriter } from '../../projections/runtime/batch-writer.js';
import { batchesOf } from '../../projections/runtime/batches.js';
import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { takeLease } from '../../projections/runtime/lease.js';
import { groupOf, type Projection } from '../../projections/runtime/projection.js';
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import { readRows } from '../../projections/runtime/rows.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import type { OpenDatabase } from '../../src/database/database.js';
import { readTable } from '../../src/read-models/table.js';
import { seededRandom } from '../support/seeded-random.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { conversation, openWorkerDatabase, tinyDecode, Writer } from './tiny-group.js';

/*
 * Whatever the key and the guard of a table: delivered twice, cut anywhere, rebuilt in batches of any size, the rows are the same bytes.
 */

interface StreamRow {
  organization_id: string;
  id: string;
  revision: number;
  total: number;
}
/** A row per stream, guarded by its revision. */
const streams = readTable<StreamRow>({
  name: 'shape_streams',
  group: 'shapes',
  version: 1,
  columns: { organization_id: 'text', id: 'text', revision: 'integer not null', total: 'integer not null' },
  key: ['organization_id', 'id'],
  guard: 'revision',
  indexes: { total: '(organization_id, total)' },
});

/** A row per event. */
const notes = readTable<{ organization_id: string; id: string; revision: number; said: string; tags: readonly string[] }>({
  name: 'shape_notes',
  group: 'shapes',
  version: 1,
  columns: { organization_id: 'text', id: 'text', revision: 'integer', said: 'text not null', tags: 'text[] not null' },
  key: ['organization_id', 'id', 'revision'],
  guard: 'none',
  indexes: {},
});

/** A fact per episode of three events, guarded by the position of the last event that changed it. */
const episodes = readTable<{ organization_id: string; id: string; episode: number; position: string; events: readonly number[] }>({
  name: 'shape_episodes',
  group: 'shapes',
  version: 1,
  columns: {
    organization_id: 'text',
    id: 'text',
    episode: 'integer',
    position: 'text collate "C" not null',
    events: 'jsonb not null',
  },
  key: ['organization_id', 'id', 'episode'],
  guard: 'position',
  indexes: {},
});
const TABLES = [streams, notes, episodes];

function projections(): Projection[] {
  return [
    {
      name: 'shapes',
      kinds: ['conversation'],
      tables: TABLES,
      async apply(events, target) {
        const key = (id: string) => ({ organization_id: 'org', id });
        const ids = [...new Set(events.map(({ streamId }) => streamId))];
        const before = new Map((await readRows(target, streams, ids.map(key))).map((row) => [row.id, row]));
        const known = new Map(before);
        const facts = new Map<string, { organization_id: string; id: string; episode: number; position: string; events: number[] }>();
        const wanted = events.map(({ streamId, event }) => ({ ...key(streamId), episode: Math.floor(event.revision / 3) }));
        const older = await readRows(target, episodes, wanted);
        for (const row of older) facts.set(`${row.id} ${row.episode}`, { ...row, events: [...row.events] });
        const there = new Set(facts.keys());
        const said = [];
        for (const { streamId: id, event } of events) {
          const { n = 0 } = event.data as { n?: number };
          said.push({ ...key(id), revision: event.revision, said: `${n} "\\ \t`, tags: [`a,${n}`, '"'] });
          const row = known.get(id);
          if (event.revision > (row?.revision ?? -1)) known.set(id, { ...key(id), revision: event.revision, total: (row?.total ?? 0) + n });
          const episode = Math.floor(event.revision / 3);
          const fact = facts.get(`${id} ${episode}`) ?? { ...key(id), episode, position: '', events: [] };
          if (event.position > fact.position)
            facts.set(`${id} ${episode}`, { ...fact, position: event.position, events: [...fact.events, n] });
        }
        await target.write(notes, { made: said, changed: [] });
        const changed = [...known.values()];
        await target.write(streams, {
          made: changed.filter(({ id }) => !before.has(id)),
          changed: changed.filter(({ id }) => before.has(id)),
        });
        await target.write(episodes, {
          made: [...facts].filter(([name]) => !there.has(name)).map(([, fact]) => fact),
          changed: [...facts].filter(([name]) => there.has(name)).map(([, fact]) => fact),
        });
      },
    },
  ];
}

let created: TestDatabase;
let open: OpenDatabase;
beforeAll(async () => {
  created = await createDatabase();
  open = openWorkerDatabase(created.url);
});
afterAll(async () => {
  await open.close();
  await created.drop();
});

const group = groupOf('shapes', projections());
const nothing = () => undefined;
const quiet = { info: nothing, warn: nothing, error: nothing };

async function bytes(): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const { name } of TABLES) {
    const { rows } = await sql<{ row: string }>`select t::text as row from ${sql.table(`${group.schema}.${name}`)} t order by 1`.execute(
      open.kysely,
    );
    found[name] = rows.map(({ row }) => row);
  }
  return found;
}

test.each([1, 2, 3])(
  'rows of every shape, cut at random (seed %i)',
  async (seed) => {
    const random = seededRandom(seed);
    const store = new MemoryEventStore();
    const writer = new Writer(store);
    for (let n = 0; n < 60; n++) await writer.write({ stream: conversation(`c${random.int(7)}`), data: { n } });
    await sql`drop table if exists ${sql.raw((await tables()).join(', ') || 'nothing')} cascade`.execute(open.kysely);
    await sql`delete from read.checkpoints`.execute(open.kysely);
    await makeLiveGeneration(open.kysely, group, { id: store.log.id, empty: true });
    const lease = await takeLease(open.kysely, group, 'worker', store.log.id);
    if (lease === undefined) throw new Error('the lease is free');

    const ending = new AbortController();
    const live = new BatchWriter({ group: 'shapes', projections: projections(), database: open.kysely, log: quiet }, lease);
    await live.begin();
    let from: Parameters<typeof live.write>[1] = 'start';
    const options = { kinds: new Set(['conversation']), decode: tinyDecode(), skipped: new Map(), signal: ending.signal };
    for (;;) {
      const { value: batch } = await batchesOf(store, from, { ...options, maxEvents: 1 + random.int(9) }).next();
      if (batch === undefined) throw new Error('the feed ended');
      await live.write(batch, from);
      // Once more, as after an answer that was lost: the checkpoint is set back, and what is known of rows is forgotten.
      await open.kysely
        .updateTable('read.checkpoints')
        .set({ position: from === 'start' ? '' : from })
        .execute();
      live.forget();
      await live.write(batch, from);
      from = batch.through;
      if (batch.caughtUp) break;
    }
    ending.abort();
    const once = await bytes();
    expect(once['shape_notes']).toHaveLength(60);
    for (const maxEvents of [1, 7, 5_000]) {
      await rebuildGroup({
        group: 'shapes',
        projections: projections(),
        decode: tinyDecode(),
        store,
        databaseUrl: created.url,
        log: quiet,
        signal: new AbortController().signal,
        maxEvents,
      });
      expect(await bytes()).toEqual(once);
    }
  },
  120_000,
);

async function tables(): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select 'read.' || tablename as name from pg_tables where schemaname = 'read' and tablename ~ '_g[0-9]+$'`.execute(open.kysely);
  return rows.map(({ name }) => name);
}
