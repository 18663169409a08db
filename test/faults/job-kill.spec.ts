import pg from 'pg';
import { pauseWork } from '../../projections/runtime/lease.js';
import type { Backend } from '../../src/backend.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';

/*
 * A worker is killed while it does jobs. More snoozes are due than a process ends at once: of the first it has sent the appends, which the log
 * has not answered, and the others it holds without having begun them. The log writes what was sent when nobody waits for it any more.
 */
const SNOOZES = 24;
const TAKEN_OVER_MS = 20_000;

let database: TestDatabase;
let installation: Installation;
let api: ThreadlogProcess;
let workers: readonly ThreadlogProcess[];
let backend: Backend;
let log: pg.Client;

beforeAll(async () => {
  database = await createDatabase();
  // A session of the test holds the lock of the log, which must be PostgreSQL's for that.
  installation = await makeInstallation({ databaseUrl: database.url });
  api = await installation.start('api');
  workers = await Promise.all([installation.start('worker'), installation.start('worker')]);
  backend = await installation.openBackend();
  log = new pg.Client({ connectionString: database.url });
  await log.connect();
}, 120_000);
afterAll(async () => {
  await log?.end();
  await backend?.close();
  await installation?.dispose();
  await database?.drop();
}, 60_000);

async function ask(method: string, path: string, body?: object): Promise<{ id: string; type: string }[] & { id: string }> {
  const answer = await fetch(`${api.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': api.key, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const { data } = (await answer.json()) as { data: { id: string; type: string }[] & { id: string } };
  expect(answer.status).toBeLessThan(300);
  return data;
}

const jobs = () => backend.database.selectFrom('keep.jobs').select(['owner', 'attempt']).where('kind', '=', 'wake-conversation').execute();

test('another takes its jobs over within 20 s, and each is done once, whatever of them was under way', async () => {
  const ids: string[] = [];
  for (let n = 0; n < SNOOZES; n += 1) ids.push((await ask('POST', '/conversations', { visitor: {}, message: 'Hello' })).id);
  const wakings = async () => {
    const told = await Promise.all(ids.map((id) => ask('GET', `/conversations/${id}/events`)));
    return told.map((events) => events.filter(({ type }) => type === 'ConversationStatusChanged').length);
  };
  // All of them are jobs at once, and due, with the log held.
  await pauseWork(backend.database, { reactor: 'snooze-timer' }, true);
  let due = 0;
  for (const id of ids) {
    due = Date.now() + 2_000;
    await ask('POST', `/conversations/${id}/snooze`, { until: new Date(due).toISOString() });
  }
  await eventually(() => Date.now() > due);
  const { rows } = await log.query<{ key: string }>(
    `select substring(pg_get_functiondef('log.append_many'::regproc) from 'pg_advisory_xact_lock\\((\\d+)\\)') as key`,
  );
  let killed: ThreadlogProcess | undefined;
  let began: number;
  let owner: string;
  let held: number;
  await log.query('begin');
  try {
    await log.query('select pg_advisory_xact_lock($1)', [rows[0]?.key]);
    await pauseWork(backend.database, { reactor: 'snooze-timer' }, false);
    // Nearly always one worker has all of them, since it is told of them by the reactor in its process.
    const owners = await eventually(async () => {
      const taken = (await jobs()).map((job) => job.owner ?? '');
      return taken.length === SNOOZES && !taken.includes('') ? taken : undefined;
    }, 30_000);
    const times = (owner: string) => owners.filter((other) => other === owner).length;
    owner = owners.toSorted((a, b) => times(b) - times(a))[0] ?? '';
    held = times(owner);
    // Its first append has come as far as the lock.
    await eventually(async () => {
      const waiting = `select 1 from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())`;
      return ((await log.query(waiting)).rowCount ?? 0) > 0;
    });
    killed = workers.find(({ pid }) => owner.split(':').includes(String(pid)));
    await killed?.kill();
    began = performance.now();
  } finally {
    await log.query('rollback');
  }
  expect(killed).toBeDefined();
  const orphaned = await eventually(async () => (await wakings()).filter((times) => times > 0).length);
  expect(orphaned).toBeLessThan(SNOOZES);
  expect((await jobs()).filter((job) => job.owner === owner)).toHaveLength(held);
  await eventually(async () => (await jobs()).length === 0, TAKEN_OVER_MS);
  expect(performance.now() - began).toBeLessThan(TAKEN_OVER_MS);
  expect(await wakings()).toEqual(ids.map(() => 1));
}, 120_000);
