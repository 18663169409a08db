import pg from 'pg';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { ANSWERED_MS } from './watch.js';

/*
 * PostgreSQL refuses the append of a command, or keeps it waiting, for longer than the command has: what the client is told, that nothing was
 * written, and that the same Idempotency-Key does it once as soon as the fault is over. Each fault has a database and an API of its own, so
 * that all of them last their ten seconds at the same time.
 */
interface Fault {
  begin(world: World): Promise<void>;
  end(world: World): Promise<void>;
}

interface World {
  readonly api: TestApi;
  readonly database: TestDatabase;
  /** Looks on, and makes faults. */
  readonly sql: pg.Client;
  /** A session of somebody else's. */
  readonly other: pg.Client;
}

/** Whatever is appended meets this first, inside the log's lock. */
const onAppend = (body: string): Fault => ({
  async begin({ sql }) {
    await sql.query(`create function public.fault() returns trigger language plpgsql as $$ begin ${body}; return null; end $$`);
    await sql.query('create trigger fault before insert on log.events for each statement execute function public.fault()');
  },
  end: async ({ sql }) => void (await sql.query('drop trigger fault on log.events')),
});
const raise = (code: string) => onAppend(`raise exception 'injected' using errcode = '${code}'`);
/** Its client has vanished, or an operator has ended it. */
const endOther = async ({ sql, other }: World) => {
  const { rows } = await sql.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name = 'another' and datname = current_database()`,
  );
  expect(rows).toHaveLength(1);
  const gone = new Promise((resolve) => other.once('end', resolve));
  await sql.query('select pg_terminate_backend($1)', [rows[0]?.pid]);
  await gone;
};

const FAULTS: Readonly<Record<string, Fault>> = {
  '40001, a serialization failure': raise('40001'),
  '40P01, a deadlock': raise('40P01'),
  '53300, too many connections': raise('53300'),
  '57P01, its session is ended': onAppend('perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1)'),
  'the log’s lock is held by a session that is idle in its transaction': {
    begin: async ({ sql, other }) => {
      await other.query('begin');
      await other.query('select pg_advisory_xact_lock($1)', [await logLock(sql)]);
    },
    end: endOther,
  },
  'a lock on the log’s table is held by a session that is idle in its transaction': {
    begin: async ({ other }) => {
      await other.query('begin');
      await other.query('lock table log.events in share mode');
    },
    end: endOther,
  },
};

const worlds: World[] = [];
afterAll(async () => {
  for (const { api, database, sql, other } of worlds) {
    await api.stop();
    await sql.end();
    await other.end();
    await database.drop();
  }
}, 60_000);

async function start(): Promise<World> {
  const database = await createDatabase();
  const connect = async (name: string) => {
    const client = new pg.Client({ connectionString: database.url, application_name: name });
    // That it is ended is what some of these tests are about.
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const [sql, other] = [await connect('test'), await connect('another')];
  const world = { api: await startApi({ database, environment: { EVENTSTORE_URL: '' } }), database, sql, other };
  worlds.push(world);
  return world;
}

async function logLock(sql: pg.Client): Promise<string | undefined> {
  const { rows } = await sql.query<{ key: string }>(
    `select substring(pg_get_functiondef('log.append_many'::regproc) from 'pg_advisory_xact_lock\\((\\d+)\\)') as key`,
  );
  return rows[0]?.key;
}

const open = async ({ api }: World): Promise<string> => {
  const opened = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Ada' }, message: 'Hi' } });
  return (opened.body as { data: { id: string } }).data.id;
};
const reply = ({ api }: World, id: string): Promise<Answer> =>
  api.call('POST', `/conversations/${id}/reply`, { body: { message: 'once' }, headers: { 'idempotency-key': 'once' } });
const stored = async ({ sql }: World, id: string): Promise<string[]> => {
  const { rows } = await sql.query<{ type: string }>('select type from log.events where stream like $1 order by position', [
    `conversation-%.${id}`,
  ]);
  return rows.map(({ type }) => type);
};

it('are 503 with a time to come again and write nothing, and the same key is one event once they are taken again', async () => {
  // One API after the other: many at once keep this process from its sockets.
  const met: [string, Fault, World][] = [];
  for (const [name, fault] of Object.entries(FAULTS)) met.push([name, fault, await start()]);
  const outcomes = met.map(async ([name, fault, world]) => {
    const { api } = world;
    const id = await open(world);
    await expectReadModelsEqualFold(api);
    const before = await stored(world, id);
    await fault.begin(world);
    const began = performance.now();
    const asked = reply(world, id);
    // What needs no append goes on.
    await api.expect(200, 'GET', `/conversations/${id}`);
    await api.expect(200, 'GET', '/conversations?limit=1');
    const answer = await asked;
    const inTime = performance.now() - began < ANSWERED_MS;
    const { code } = answer.body as { code: string };
    const refused = {
      status: answer.status,
      type: answer.headers.get('content-type'),
      retryAfter: answer.headers.get('retry-after'),
      // At the deadline an attempt may be under way.
      known: ['store_unavailable', 'outcome_unknown'].includes(code) || code,
      inTime,
      written: (await stored(world, id)).slice(before.length),
    };
    await fault.end(world);
    const again = [await reply(world, id), await reply(world, id)];
    await expectReadModelsEqualFold(api);
    const after = (await stored(world, id)).slice(before.length);
    return [name, { refused, again: again.map(({ status }) => status), same: again[0]?.text === again[1]?.text, after }] as const;
  });
  expect(Object.fromEntries(await Promise.all(outcomes))).toEqual(
    Object.fromEntries(
      Object.keys(FAULTS).map((name) => [
        name,
        {
          refused: {
            status: 503,
            type: 'application/problem+json; charset=utf-8',
            retryAfter: '1',
            known: true,
            inTime: true,
            written: [],
          },
          again: [201, 201],
          same: true,
          after: ['MessageSent'],
        },
      ]),
    ),
  );
}, 120_000);

it('are repeated without a word to the client where the fault passes: a deadlock in which the append is the victim', async () => {
  const world = await start();
  const { sql, other } = world;
  const id = await open(world);
  const before = await stored(world, id);
  await sql.query('create table public.elsewhere (n integer); insert into public.elsewhere values (1); create sequence public.attempts');
  await other.query('begin');
  await other.query('select n from public.elsewhere for update');
  // The first attempt holds the log's lock, and wants what the other session holds once that one has waited for the log for so long that it
  // looks for no deadlock any more: it looks once, after a second.
  await onAppend(`
    if nextval('public.attempts') = 1 then
      while not exists (
        select from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory' and l.waitstart < clock_timestamp() - interval '1.1 s'
      ) loop perform pg_sleep(0.01); end loop;
    end if;
    perform n from public.elsewhere for update`).begin(world);
  const asked = reply(world, id);
  await eventually(async () => (await sql.query<{ called: boolean }>('select is_called as called from public.attempts')).rows[0]?.called);
  // It gets the lock because the append is rolled back.
  await other.query('select pg_advisory_xact_lock($1)', [await logLock(sql)]);
  expect(await stored(world, id)).toEqual(before);
  await other.query('commit');
  expect((await asked).status).toBe(201);
  expect(await stored(world, id)).toEqual([...before, 'MessageSent']);
  const { rows } = await sql.query<{ attempts: number }>('select last_value::int as attempts from public.attempts');
  expect(rows[0]?.attempts).toBeGreaterThan(1);
}, 60_000);

it('only wait where idle_in_transaction_session_timeout ends the session that holds the log’s lock', async () => {
  const world = await start();
  const { database, sql, other } = world;
  const id = await open(world);
  await other.end();
  await sql.query(
    `do $$ begin execute format('alter database %I set idle_in_transaction_session_timeout = ''1s''', current_database()); end $$`,
  );
  const holder = new pg.Client({ connectionString: database.url });
  const ended = new Promise<Error>((resolve) => holder.on('error', resolve));
  await holder.connect();
  await holder.query('begin');
  await holder.query('select pg_advisory_xact_lock($1)', [await logLock(sql)]);
  expect((await reply(world, id)).status).toBe(201);
  expect(await ended).toMatchObject({ code: '25P03' });
}, 60_000);
