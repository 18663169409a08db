import { readFile } from 'node:fs/promises';
import { sql } from 'kysely';
import pg from 'pg';
import { projectionsOf } from '../../projections/registry.js';
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import { makeAnalystRole } from '../../src/analytics/analyst.roles.js';
import { ANALYST_VIEWS } from '../../src/analytics/analyst.views.js';
import { METRICS } from '../../src/analytics/metrics.js';
import { batchDecoder } from '../../src/event-decoding.js';
import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { type TestApi, startApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { seededRandom } from '../support/seeded-random.js';
import { writeRandomHistory } from './random-history.js';

/* Analysts read the same facts by SQL, those of their own organization and nothing else. */

let api: TestApi;
let other: { organizationId: string; adminKey: string };
const sessions: pg.Client[] = [];

beforeAll(async () => {
  api = await startApi();
  other = await api.otherOrganization();
  await writeRandomHistory(api, seededRandom(3), { conversations: 60, from: Date.parse('2026-10-12T00:00:00Z'), days: 20 });
  const body = { visitor: { name: 'Canary' }, message: 'canary' };
  await api.expect(201, 'POST', '/conversations', { key: other.adminKey, body });
}, 60_000);
afterAll(async () => {
  for (const one of sessions) await one.end();
  await api.stop();
});

async function analyst(organizationId = api.organizationId): Promise<pg.Client> {
  const { role, password } = await makeAnalystRole(api.backend.database, api.backend.masterKey, organizationId);
  const url = new URL(api.backend.databaseUrl);
  url.username = role;
  url.password = password;
  const session = new pg.Client({ connectionString: url.href });
  await session.connect();
  sessions.push(session);
  // The views are made once the read models are filled, and the role may be older than they.
  await eventually(
    async () => (await session.query(`select from pg_views where schemaname = 'analytics'`)).rowCount === ANALYST_VIEWS.length,
  );
  await makeAnalystRole(api.backend.database, api.backend.masterKey, organizationId);
  return session;
}

const ask = async (path: string) =>
  (await api.expect(200, 'GET', `/analytics/${path}`, { headers: { 'x-min-position': await api.backend.store.head() } })).body;

test('every view counts what the API counts', async () => {
  const session = await analyst();
  for (const { name, unit } of METRICS) {
    const measure = unit === 'seconds' ? 'sum(seconds)' : unit === 'rating' ? 'sum(rating)' : 'null';
    const { data } = await ask(`metrics/${name}?by=inbox`);
    const { rows } = await session.query<{ key: string; count: string; sum: string | null }>(
      `select inbox_id as key, count(*), ${measure} as sum from ${name} ${name === 'backlog' ? 'where to_at is null' : ''} group by 1`,
    );
    // time_in_status tells statuses apart.
    const told = new Map<string, { count: number; sum: number | undefined }>();
    for (const { key, count, sum } of data as { key: string; count: number; sum?: number }[]) {
      const before = told.get(key);
      told.set(key, {
        count: count + (before?.count ?? 0),
        sum: unit === 'share' || sum === undefined ? undefined : sum + (before?.sum ?? 0),
      });
    }
    const shown = rows.map(
      ({ key, count, sum }) =>
        [key, { count: Number(count), sum: sum === null ? undefined : (expect.closeTo(Number(sum), 2) as number) }] as const,
    );
    expect({ name, told: Object.fromEntries(told) }).toEqual({ name, told: Object.fromEntries(shown) });
    expect(rows.length).toBeGreaterThan(1);
  }
});

test('an analyst sees one organization, and may write nothing', async () => {
  const session = await analyst();
  const stranger = await analyst(other.organizationId);
  const all = async (one: pg.Client) => {
    const texts: string[] = [];
    for (const { name } of ANALYST_VIEWS) texts.push(JSON.stringify((await one.query(`select * from ${name}`)).rows));
    return texts.join('\n');
  };
  const [theirs] = (await stranger.query<{ id: string }>('select id from conversations')).rows;
  expect(await all(session)).not.toContain(theirs?.id);
  const [ours] = (await session.query<{ id: string }>('select conversation_id as id from conversations_opened')).rows;
  expect(await all(stranger)).not.toContain(ours?.id);
  expect(await all(stranger)).not.toContain('anary');
  // Neither plans nor the planner's samples of columns tell of them.
  const plans: string[] = [JSON.stringify((await session.query('select * from pg_stats')).rows)];
  for (const { name } of ANALYST_VIEWS)
    plans.push(JSON.stringify((await session.query(`explain (analyze, verbose, settings) select * from ${name}`)).rows));
  for (const canary of [other.organizationId, theirs?.id, 'anary']) expect(plans.join('\n')).not.toContain(canary);
  for (const statement of [
    'select * from threadlog.conversations',
    'select * from keep.analyst_roles',
    'select * from log.events',
    'select * from read.checkpoints',
    'create view analytics.mine as select 1',
    'create table public.mine (a int)',
    'create temporary table mine (a int)',
    'create function pg_temp.mine() returns int language sql as $$ select 1 $$',
    'insert into analytics.conversations_opened (conversation_id) values (1)',
    'delete from analytics.backlog',
    'set session authorization threadlog',
    `set role ${decodeURIComponent(new URL(api.backend.databaseUrl).username)}`,
  ]) {
    await session.query('set default_transaction_read_only = off');
    await expect(session.query(statement)).rejects.toThrow(/permission denied|must be|cannot/);
  }
  // A function that tells what it is given, which an operator may allow some analyst to make, must not be asked before the organization is known.
  const { rows: names } = await session.query<{ own: string; database: string }>(
    'select quote_ident(current_user) as own, quote_ident(current_database()) as database',
  );
  await sql.raw(`grant temporary on database ${names[0]?.database} to ${names[0]?.own}`).execute(api.backend.database);
  await session.query(
    `create function pg_temp.tell(text) returns boolean language plpgsql cost 0.0001 as $$ begin raise notice '%', $1; return true; end $$`,
  );
  await session.query('set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off');
  const told: string[] = [];
  session.on('notice', ({ message }) => told.push(message ?? ''));
  await session.query('select count(*) from conversations where pg_temp.tell(id)');
  expect(told.length).toBeGreaterThan(0);
  expect(told).not.toContain(theirs?.id);
});

test('what an analyst changes of its own role lasts until the role is made again', async () => {
  const session = await analyst(other.organizationId);
  await session.query('set default_transaction_read_only = off');
  await session.query(`alter role current_user password 'mine'`);
  await session.query(`alter role current_user set statement_timeout = '0'; alter role current_user set work_mem = '1GB'`);
  const { rows } = await session.query<{ database: string }>('select quote_ident(current_database()) as database');
  await session.query(`alter role current_user in database ${rows[0]?.database} set statement_timeout = '0'`);
  const again = await analyst(other.organizationId);
  const settings = async (name: string) => Object.values((await again.query<Record<string, string>>(`show ${name}`)).rows[0] ?? {})[0];
  expect([await settings('statement_timeout'), await settings('default_transaction_read_only')]).toEqual(['5min', 'on']);
  expect(await settings('work_mem')).not.toBe('1GB');
  expect((await makeAnalystRole(api.backend.database, api.backend.masterKey, other.organizationId)).makesTemporary).toBe(false);
});

test('rebuilt in batches of other sizes, every row, view and answer is the same', async () => {
  const { backend } = api;
  const session = await analyst();
  const group = projectionsOf(INSIGHT_GROUP);
  const everything = async () => {
    const seen: string[] = [];
    for (const { name, key } of group.flatMap(({ tables }) => tables)) {
      const table = sql.table(`threadlog.${name}`);
      const { rows } = await sql<{ row: string }>`
        select t::text as row from ${table} t where organization_id = ${api.organizationId} order by ${sql.raw(key.join(', '))}`.execute(
        backend.database,
      );
      seen.push(name, ...rows.map(({ row }) => row));
    }
    for (const { name, columns } of ANALYST_VIEWS)
      seen.push(
        name,
        ...(
          await session.query<{ row: string }>(`select t::text as row from ${name} t order by ${Object.keys(columns).join(', ')}`)
        ).rows.map(({ row }) => row),
      );
    for (const { name } of METRICS) seen.push((await api.expect(200, 'GET', `/analytics/metrics/${name}?by=tag&interval=week`)).text);
    return seen;
  };
  await ask('conversations');
  const before = await everything();
  expect(before.length).toBeGreaterThan(2_000);
  // A log that is shared may be long; one event at a time is for one of the test's own.
  for (const maxEvents of api.beganAfter === 'start' ? [1, 7, 5_000] : [501, 5_000]) {
    const result = await rebuildGroup({
      group: INSIGHT_GROUP,
      projections: projectionsOf(INSIGHT_GROUP),
      decode: batchDecoder(backend.keys),
      store: backend.store,
      databaseUrl: backend.databaseUrl,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      signal: new AbortController().signal,
      maxEvents,
    });
    expect(result).toMatchObject({ parked: 0, oldDropped: true });
    expect(await everything()).toEqual(before);
  }
}, 120_000);

test('every column says what it holds', async () => {
  const { rows } = await (
    await analyst()
  ).query<{ view: string; column: string; says: string | null }>(`
    select c.relname as view, a.attname as column, col_description(c.oid, a.attnum) as says
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
    where c.relnamespace = 'analytics'::regnamespace`);
  expect(rows.length).toBeGreaterThan(100);
  expect(rows.filter(({ says }) => (says ?? '') === '')).toEqual([]);
});

test('the queries of the docs answer', async () => {
  const session = await analyst();
  const page = await readFile('docs/analytics.md', 'utf8');
  const queries = [...page.matchAll(/```sql\n([^]*?)```/g)].map(([, query = '']) => query);
  expect(queries.length).toBeGreaterThan(8);
  for (const query of queries) {
    const { rows } = await session.query(query);
    expect({ query, isEmpty: rows.length === 0 }).toEqual({ query, isEmpty: false });
  }
});
