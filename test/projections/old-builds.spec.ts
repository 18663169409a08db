import { sql } from 'kysely';
import { makeLiveGeneration, markFilled } from '../../projections/runtime/generations.js';
import { Housekeeping } from '../../projections/runtime/housekeeping.js';
import { takeLease } from '../../projections/runtime/lease.js';
import type { OpenDatabase } from '../../src/database/database.js';
import { readGroup, type ReadGroup } from '../../src/read-models/groups.js';
import { readTable } from '../../src/read-models/table.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { openWorkerDatabase } from './tiny-group.js';

let created: TestDatabase;
let open: OpenDatabase;
let lines: { message: string; view?: string }[];

beforeEach(async () => {
  created = await createDatabase();
  open = openWorkerDatabase(created.url);
  lines = [];
});
afterEach(async () => {
  await open.close();
  await created.drop();
});

/** A group with one table of these columns, beside its key. */
const groupWith = (columns: Readonly<Record<string, string>>, version = 1): ReadGroup =>
  readGroup('core', [
    readTable<{ id: string }>({
      name: 'things',
      group: 'core',
      version,
      columns: { id: 'text', ...columns },
      key: ['id'],
      guard: 'none',
      indexes: {},
    }),
  ]);

/** Made, filled, and kept by a worker of this group. */
async function live(group: ReadGroup): Promise<void> {
  await makeLiveGeneration(open.kysely, group, { id: 'log', empty: false });
  const lease = await takeLease(open.kysely, group, 'worker', 'log');
  if (lease === undefined) throw new Error('the lease is free');
  await markFilled(open.kysely, lease);
  await keep(group);
}

async function keep(group: ReadGroup): Promise<void> {
  const note = (facts: object, message: string) => void lines.push({ ...facts, message });
  await new Housekeeping({ group, database: open.kysely, log: { info: note, warn: note, error: note }, now: () => 1 }).look();
}

/** Nobody has worked on anything for so long. */
const passTime = (hours: number) =>
  sql`update read.checkpoints set progress_at = progress_at - ${`${hours} h`}::interval, lease_until = '-infinity'`.execute(open.kysely);

const columns = async () => {
  const { rows } = await sql<{ name: string }>`
    select column_name as name from information_schema.columns where table_schema = 'threadlog' and table_name = 'things'
    order by ordinal_position`.execute(open.kysely);
  return rows.map(({ name }) => name);
};
const relations = async () => {
  const { rows } = await sql<{ name: string }>`
    select n.nspname || '.' || c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'v') and (n.nspname ~ '^read_' or c.relname ~ '_g[0-9]+$' or n.nspname = 'mine') order by 1`.execute(
    open.kysely,
  );
  return rows.map(({ name }) => name);
};

test('the view for people keeps its columns and what was made on it, and shows new columns behind them', async () => {
  await live(groupWith({ a: 'text', b: 'integer' }));
  await sql`create schema mine`.execute(open.kysely);
  await sql`create view mine.report as select id, b from threadlog.things`.execute(open.kysely);
  await live(groupWith({ a: 'text', c: 'text', b: 'integer' }));
  expect(await columns()).toEqual(['id', 'a', 'b', 'c']);
  expect(await relations()).toContain('mine.report');

  // A column less: what read it goes with it, and the log names it.
  await live(groupWith({ a: 'text', c: 'text' }));
  expect(await columns()).toEqual(['id', 'a', 'c']);
  expect(await relations()).not.toContain('mine.report');
  expect(lines.filter(({ view }) => view !== undefined)).toMatchObject([{ view: 'mine.report' }]);
});

test('the view for people does not show what is still being filled', async () => {
  await live(groupWith({ a: 'text' }));
  const next = groupWith({ a: 'text', b: 'text' });
  await makeLiveGeneration(open.kysely, next, { id: 'log', empty: false });
  await keep(next);
  expect(await columns()).toEqual(['id', 'a']);
});

test('rows that change their meaning without a change of the columns get tables of their own', () => {
  expect(groupWith({ a: 'text' }, 2).shape).not.toBe(groupWith({ a: 'text' }).shape);
});

test('an installation whose read models have a number is taken over, and what it left goes after a day', async () => {
  // As the build before made it.
  for (const statement of [
    'create table read.things_g1 (id text primary key, a text)',
    "select nextval('read.generations')",
    'create schema read_v1',
    'create view read_v1.things as select * from read.things_g1',
    "insert into read.checkpoints (generation, group_name, version, live, shape, log_id) values (1, 'core', 1, true, 'old', 'log')",
    'create schema mine',
    'create view mine.report as select a from read_v1.things',
  ])
    await sql.raw(statement).execute(open.kysely);
  const group = groupWith({ a: 'text' });
  await live(group);
  // The old build may run: its row, and that of this build, are live side by side, and no index is in the way of either.
  const generations = await open.kysely.selectFrom('read.checkpoints').select(['version', 'live']).orderBy('generation').execute();
  expect(generations).toEqual([
    { version: 1, live: true },
    { version: 0, live: true },
  ]);
  await passTime(23);
  await live(group);
  expect(await relations()).toContain('read_v1.things');

  await passTime(2);
  await live(group);
  expect(await relations()).toEqual(['read.things_g2', `${group.schema}.things`].sort());
  expect(lines).toMatchObject([{ view: 'mine.report' }, { message: expect.stringContaining('nobody has run for a day') }]);
  const { rows } = await sql`select 1 from pg_namespace where nspname = 'read_v1'`.execute(open.kysely);
  expect(rows).toEqual([]);
  expect(await columns()).toEqual(['id', 'a']);
});

test('what a worker of another build keeps is let be, however old', async () => {
  await live(groupWith({ a: 'text' }));
  await passTime(100);
  await sql`update read.checkpoints set owner = 'another', lease_until = clock_timestamp() + interval '5 s'`.execute(open.kysely);
  await live(groupWith({ b: 'text' }));
  expect(await open.kysely.selectFrom('read.checkpoints').select('generation').execute()).toHaveLength(2);
});
