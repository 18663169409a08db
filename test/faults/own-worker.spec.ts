import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandBus } from '@nestjs/cqrs';
import pg from 'pg';
import { startLiveProjections } from '../../projections/live.js';
import { AppModule } from '../../src/app.module.js';
import type { Backend } from '../../src/backend.js';
import { createHttpApp } from '../../src/http/http-app.js';
import { OwnWorker } from '../../src/own-worker.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { endLeasesOfTheDead } from '../support/dead-leases.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { childrenOf, isAlive } from '../support/processes.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * An API process with a worker of its own, as it runs by default. The worker is killed and comes back; the API is killed or told to end, and
 * the worker goes with it.
 */
/** A killed worker's leases run out within this time. */
const TAKEN_OVER_MS = 20_000;

let database: TestDatabase;
let installation: Installation;
let api: ThreadlogProcess;
let backend: Backend;
let sql: pg.Client;
beforeAll(async () => {
  process.env['SHUTDOWN_DELAY_SECONDS'] = '1';
  database = await createDatabase();
  const { EVENTSTORE_URL } = process.env;
  installation = await makeInstallation({ databaseUrl: database.url, ...(EVENTSTORE_URL ? { eventstoreUrl: EVENTSTORE_URL } : {}) });
  api = await installation.start('api', { ownWorker: true });
  backend = await installation.openBackend();
  sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
}, 120_000);
afterAll(async () => {
  await sql?.end();
  await backend?.close();
  await installation?.dispose();
  await database?.drop();
}, 60_000);

async function ask(method: string, path: string, body?: object, headers: Record<string, string> = {}) {
  const answer = await fetch(`${api.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': api.key, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, position: answer.headers.get('x-position') ?? '', body: (await answer.json()) as { data: unknown } };
}

async function open(): Promise<{ id: string; position: string }> {
  const { status, position, body } = await ask('POST', '/conversations', { visitor: {}, message: 'Hello' });
  expect(status).toBe(201);
  return { ...(body.data as { id: string }), position };
}

async function metrics(): Promise<string> {
  return (await fetch(`${api.url}/metrics`)).text();
}

function valueOf(text: string, line: string): number | undefined {
  const found = text.split('\n').find((one) => one.startsWith(`${line} `));
  return found === undefined ? undefined : Number(found.slice(line.length + 1));
}

/** The worker's process. */
const workerPid = () => eventually(() => childrenOf(api.pid ?? 0)[0], TAKEN_OVER_MS);

async function connectionsOfWorkers(): Promise<number> {
  const { rowCount } = await sql.query(
    `select from pg_stat_activity where datname = current_database() and application_name ~ '^threadlog-(worker|projections|jobs)'`,
  );
  return rowCount ?? 0;
}

async function leases(): Promise<number> {
  const { rowCount } = await sql.query(
    'select from read.checkpoints where owner is not null union all select from keep.reactors where owner is not null',
  );
  return rowCount ?? 0;
}

/** What the API has logged of its worker’s ends. */
const endsTold = () =>
  api.output
    .split('\n')
    .filter((line) => line.includes('the worker ended, starting it again'))
    .map((line) => JSON.parse(line) as object);

const BATCHES = 'threadlog_projection_batch_events_sum{group="core",process="worker"}';
const OPENED = 'threadlog_command_duration_seconds_count{command="OpenConversation",outcome="appended"}';

test('lists show what was written as soon as the caller asks for it, and the worker’s measurements are beside the API’s', async () => {
  const { id, position } = await open();
  const { status, body } = await ask('GET', '/conversations', undefined, { 'x-min-position': position });
  expect(status).toBe(200);
  expect(body.data).toContainEqual(expect.objectContaining({ id }));
  const text = await metrics();
  expect(valueOf(text, BATCHES)).toBeGreaterThan(0);
  expect(valueOf(text, OPENED)).toBe(1);
  const resident = ['', '{process="worker"}'].map((labels) => valueOf(text, `process_resident_memory_bytes${labels}`));
  expect(resident).toEqual([expect.any(Number), expect.any(Number)]);
  // What both read from the stores is told once.
  expect(text.match(/^threadlog_projection_lag_events.*$/gm)).toHaveLength(2);
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const series = lines.map((line) => line.slice(0, line.lastIndexOf(' ')));
  expect(new Set(series).size).toBe(series.length);
  const types = text.match(/^# TYPE \S+/gm) ?? [];
  expect(new Set(types).size).toBe(types.length);
});

test('a worker that is killed while it writes comes back, goes on, and loses nothing', async () => {
  const { id } = await open();
  const pid = await workerPid();
  const before = valueOf(await metrics(), OPENED) ?? 0;
  const replies = Array.from({ length: 60 }, async (_, i) => {
    if (i === 30) process.kill(pid, 'SIGKILL');
    return (await ask('POST', `/conversations/${id}/reply`, { message: `${i}` })).status;
  });
  expect(new Set(await Promise.all(replies))).toEqual(new Set([201]));
  const next = await eventually(async () => {
    const found = await workerPid();
    return found === pid ? undefined : found;
  }, TAKEN_OVER_MS);
  expect(isAlive(next)).toBe(true);
  await endLeasesOfTheDead(database.url);
  expect(endsTold()).toEqual([expect.objectContaining({ how: 'by SIGKILL', againInMs: 250 })]);
  await eventually(async () => ((await ask('GET', '/conversations')).body.data as { id: string }[]).some((one) => one.id === id));
  await expectReadModelsEqualFold({ backend, organizationId: installation.organizationId });
  // Its series begin anew, and the API's do not.
  await eventually(async () => (valueOf(await metrics(), BATCHES) ?? 0) > 0, TAKEN_OVER_MS);
  expect(valueOf(await metrics(), OPENED)).toBe(before);
}, 90_000);

test('a Ctrl-C that reaches both ends the API first and the worker in order', async () => {
  const pid = await workerPid();
  const told = endsTold();
  await open();
  process.kill(pid, 'SIGINT');
  expect(await api.stop('SIGINT')).toBe(0);
  expect(isAlive(pid)).toBe(false);
  expect([await connectionsOfWorkers(), await leases()]).toEqual([0, 0]);
  expect(endsTold()).toEqual(told);
  await expect(fetch(`${api.url}/health/live`)).rejects.toThrow();
}, 60_000);

test('a worker whose API is killed gives its leases up and ends', async () => {
  await api.start();
  await open();
  const pid = await workerPid();
  expect(await connectionsOfWorkers()).toBeGreaterThan(0);
  await api.kill();
  await eventually(() => !isAlive(pid));
  await eventually(async () => (await connectionsOfWorkers()) === 0);
  expect(await leases()).toBe(0);
}, 60_000);

test('a worker hears of the load of its API, in steps, and so does its successor', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'threadlog-own-worker-'));
  const program = join(folder, 'listens.mjs');
  await writeFile(
    program,
    `const heard = [];
     process.on('message', (said) => {
       if ('inFlight' in said) heard.push(said.inFlight);
       else process.send({ number: said.measuredAs, measured: [process.pid, ...heard] });
     });
     process.once('disconnect', () => process.exit(0));
     process.send('ready');`,
  );
  const worker = new OwnWorker({ info: () => undefined, error: () => undefined }, { program });
  let inFlight = 17;
  await worker.start(backend);
  worker.tellLoad(() => inFlight);
  const heard = async () => (await worker.measured()) as unknown as readonly number[];
  try {
    await eventually(async () => (await heard()).length === 2);
    inFlight = 20;
    expect(await heard()).toEqual([expect.any(Number), 24]);
    inFlight = 0;
    await eventually(async () => (await heard()).length === 3);
    const [pid = 0, ...loads] = await heard();
    expect(loads).toEqual([24, 0]);
    process.kill(pid, 'SIGKILL');
    await eventually(async () => (await heard()).length === 2);
    expect((await heard()).slice(1)).toEqual([0]);
  } finally {
    await worker.stop();
    await rm(folder, { recursive: true, force: true });
  }
});

test('readiness tells that a worker has not come back for half a minute, unless another does its work', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'threadlog-own-worker-'));
  const program = join(folder, 'ends.mjs');
  // It works once and then ends, and never comes back.
  await writeFile(
    program,
    `import { existsSync, writeFileSync } from 'node:fs';
     const was = ${JSON.stringify(join(folder, 'was'))};
     if (existsSync(was)) process.exit(3);
     writeFileSync(was, '');
     process.send('ready', () => process.exit(3));`,
  );
  let now = 0;
  const worker = new OwnWorker({ info: () => undefined, error: () => undefined }, { program, now: () => now });
  await worker.start(backend);
  const app = await createHttpApp(AppModule.over(backend, worker) as never, { logger: backend.logger, trustProxy: 0 });
  const ready = async () =>
    (await app.inject('/health/ready')).json<Record<'projections' | 'reactors', { status: string }[]> & { status: string }>();
  try {
    await eventually(() => (now += 1) && worker.awayMs > 0);
    now += 25_000;
    expect(await ready()).toMatchObject({ status: 'ok', projections: [{ status: 'ok' }, { status: 'ok' }] });
    now += 6_000;
    const told = await ready();
    expect(told.status).toBe('unavailable');
    const standing = [...told.projections, ...told.reactors];
    expect(standing.length).toBeGreaterThan(1);
    expect(standing.filter(({ status }) => status !== 'stalled')).toEqual([]);
    const other = await startLiveProjections(backend, { commands: app.get(CommandBus) });
    try {
      await eventually(async () => (await ready()).status === 'ok');
    } finally {
      await other.stop();
    }
  } finally {
    await worker.stop();
    await app.close();
    await rm(folder, { recursive: true, force: true });
  }
}, 60_000);
