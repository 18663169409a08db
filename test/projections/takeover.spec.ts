import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { ProjectionGroup } from '../../projections/runtime/group.js';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import type { OpenDatabase } from '../../src/database/database.js';
import { Checkpoints } from '../../src/read-models/checkpoints.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import {
  actualRows,
  conversation,
  eventually,
  expectedRows,
  openWorkerDatabase,
  tinyDecode,
  tinyProjections,
  tinyShapes,
  Writer,
} from './tiny-group.js';

const TAKEOVER_MS = 15_000;
/** Several processes start at once, each compiling its sources. */
const START_MS = 60_000;

let created: TestDatabase;
let database: OpenDatabase;
let store: EventStore;
const children: Worker[] = [];
const standbys: (() => Promise<void>)[] = [];

beforeEach(async () => {
  created = await createDatabase();
  database = openWorkerDatabase(created.url);
  store = await openPostgresEventStore({ url: created.url });
});

afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => child.end()));
  await Promise.all(standbys.splice(0).map((stop) => stop()));
  await store.close();
  await database.close();
  await created.drop();
});

interface Worker {
  readonly process: ChildProcess;
  readonly lines: { message: string }[];
  /** The process is stopped by a signal, or gone. */
  state(): 'runs' | 'frozen' | 'gone';
  end(): Promise<void>;
}

function startWorker(suffix: string, moment = '', signal = ''): Worker {
  const child = spawn(
    process.execPath,
    ['--import', path('../support/typescript.mjs'), path('./tiny-worker.ts'), created.url, suffix, moment, signal],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const lines: { message: string }[] = [];
  let rest = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) lines.push(JSON.parse(line) as { message: string });
  });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const worker: Worker = {
    process: child,
    lines,
    state: () => (child.exitCode !== null || child.signalCode !== null ? 'gone' : isFrozen(child.pid ?? 0) ? 'frozen' : 'runs'),
    async end() {
      if (worker.state() !== 'gone') child.kill('SIGKILL');
      await gone;
    },
  };
  children.push(worker);
  return worker;
}

function path(relative: string): string {
  return fileURLToPath(new URL(relative, import.meta.url));
}

function isFrozen(pid: number): boolean {
  return /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/** A second worker, in this process. */
function standBy(suffix: string): void {
  const ending = new AbortController();
  const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const ended = new ProjectionGroup({
    name: `group${suffix}`,
    projections: tinyProjections(suffix),
    decode: tinyDecode(),
    store,
    database: database.kysely,
    log: quiet,
  }).run(ending.signal);
  standbys.push(async () => {
    ending.abort();
    await ended;
  });
}

async function reached(suffix: string, position: string, withinMs = 10_000): Promise<void> {
  const checkpoints = new Checkpoints(database.kysely, tinyShapes(suffix));
  expect(await checkpoints.waitFor(`group${suffix}`, position as Position, withinMs)).toBe('reached');
}

async function row(suffix: string) {
  const { rows } = await sql<{ owner: string; epoch: number; position: string; events: number }>`
    select owner, epoch, position, events from read.checkpoints where group_name = ${`group${suffix}`}`.execute(database.kysely);
  return rows[0]!;
}

async function works(worker: Worker): Promise<void> {
  await eventually('it works', async () => (worker.lines.some(({ message }) => message.includes('working')) ? true : undefined), START_MS);
}

const MOMENTS = ['decoding', 'applying', 'between projections', 'before commit'];

it('is taken over within 15 s of a kill -9, wherever in its batch it hit, and every event is written once', async () => {
  const writer = new Writer(store);
  const cases = MOMENTS.map((moment, i) => ({ suffix: `_k${i}`, worker: startWorker(`_k${i}`, moment, 'SIGKILL') }));
  for (const { worker } of cases) await works(worker);
  const first = await writer.write({ stream: conversation('a') });
  for (const { suffix } of cases) {
    await reached(suffix, first);
    standBy(suffix);
  }
  const fatal = await writer.write({ stream: conversation('a') });
  const began = performance.now();
  await Promise.all(
    cases.map(async ({ suffix, worker }) => {
      await eventually('it dies', async () => (worker.state() === 'gone' ? true : undefined));
      await reached(suffix, fatal, TAKEOVER_MS);
      expect(performance.now() - began).toBeLessThan(TAKEOVER_MS);
    }),
  );
  const last = await writer.write({ stream: conversation('a') }, { stream: conversation('b') });
  for (const { suffix } of cases) {
    await reached(suffix, last);
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  }
}, 120_000);

it('is taken over within 15 s when it freezes, blocks nobody, and writes nothing once it wakes', async () => {
  const writer = new Writer(store);
  const cases = MOMENTS.map((moment, i) => ({ suffix: `_f${i}`, worker: startWorker(`_f${i}`, moment, 'SIGSTOP') }));
  for (const { worker } of cases) await works(worker);
  const first = await writer.write({ stream: conversation('a') });
  for (const { suffix } of cases) {
    await reached(suffix, first);
    standBy(suffix);
  }
  const fatal = await writer.write({ stream: conversation('a') });
  const began = performance.now();
  await Promise.all(
    cases.map(async ({ suffix, worker }) => {
      await eventually('it freezes', async () => (worker.state() === 'frozen' ? true : undefined));
      await reached(suffix, fatal, TAKEOVER_MS);
      expect(performance.now() - began).toBeLessThan(TAKEOVER_MS);
    }),
  );
  const last = await writer.write({ stream: conversation('a') }, { stream: conversation('b') });
  for (const { suffix } of cases) await reached(suffix, last);
  const before = await Promise.all(cases.map(({ suffix }) => row(suffix)));

  for (const { worker } of cases) worker.process.kill('SIGCONT');
  await Promise.all(
    cases.map(({ worker }) =>
      eventually('it notices', async () =>
        worker.lines.some(({ message }) => /lost its lease|interrupted/.test(message)) ? true : undefined,
      ),
    ),
  );
  const later = await writer.write({ stream: conversation('c') });
  for (const [i, { suffix, worker }] of cases.entries()) {
    await reached(suffix, later);
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
    expect(await row(suffix)).toMatchObject({ owner: before[i]!.owner, epoch: before[i]!.epoch });
    expect(worker.state()).toBe('runs');
  }
}, 120_000);

it('is taken over within 15 s of a kill -9 also when the database’s clock was set back by a day, and stays when it is set ahead', async () => {
  const writer = new Writer(store);
  const worker = startWorker('_c');
  await works(worker);
  await reached('_c', await writer.write({ stream: conversation('a') }));
  await worker.end();
  // Seen by a clock that was set back, its lease ends a day later than it was given for.
  const setBack = (interval: string) =>
    sql`update read.checkpoints set lease_until = lease_until + ${interval}::interval`.execute(database.kysely);
  await setBack('1 day');
  standBy('_c');
  await reached('_c', await writer.write({ stream: conversation('a') }), TAKEOVER_MS);
  const before = await row('_c');
  // One that lives renews it, whatever the clock says of it.
  await setBack('1 day');
  await reached('_c', await writer.write({ stream: conversation('a') }));
  await setBack('-2 days');
  await reached('_c', await writer.write({ stream: conversation('b') }));
  expect(await row('_c')).toMatchObject({ owner: before.owner, epoch: before.epoch });
  expect(await actualRows(database, '_c')).toEqual(expectedRows(writer.written));
}, 120_000);

it('cannot write under an old epoch even where the new owner has not moved yet', async () => {
  const writer = new Writer(store);
  const worker = startWorker('_e', 'decoding', 'SIGSTOP');
  await works(worker);
  await reached('_e', await writer.write({ stream: conversation('a') }));
  await writer.write({ stream: conversation('a') });
  await eventually('it freezes', async () => (worker.state() === 'frozen' ? true : undefined));
  // What a takeover does before its first batch.
  await sql`update read.checkpoints set owner = 'another', epoch = epoch + 1, lease_until = now() + interval '15 s'`.execute(
    database.kysely,
  );
  const before = await row('_e');
  worker.process.kill('SIGCONT');
  await eventually('it notices', async () => (worker.lines.some(({ message }) => message.includes('lost its lease')) ? true : undefined));
  expect(await row('_e')).toEqual(before);
  expect((await actualRows(database, '_e')).seen).toHaveLength(1);
}, 120_000);

it('stops in order on SIGTERM: the next worker need not wait for the lease to run out', async () => {
  const writer = new Writer(store);
  const worker = startWorker('_o');
  await works(worker);
  await reached('_o', await writer.write({ stream: conversation('a') }));
  standBy('_o');
  worker.process.kill('SIGTERM');
  await eventually('it ends', async () => (worker.state() === 'gone' ? true : undefined));
  expect(worker.process.exitCode).toBe(0);
  const began = performance.now();
  await reached('_o', await writer.write({ stream: conversation('a') }));
  expect(performance.now() - began).toBeLessThan(2_000);
}, 120_000);
