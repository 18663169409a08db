import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { ProjectionGroup } from '../../projections/runtime/group.js';
import { JobRunner } from '../../projections/runtime/job-runner.js';
import { Jobs } from '../../projections/runtime/jobs.js';
import { followFor } from '../../projections/runtime/reactor.js';
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
import { tinyReactor } from './tiny-reactor.js';

const TAKEOVER_MS = 15_000;
/** Several processes start at once, each compiling its sources. */
const START_MS = 60_000;

let created: TestDatabase;
let database: OpenDatabase;
let store: EventStore;
const children: Worker[] = [];
const standbys: (() => Promise<void>)[] = [];

async function open(): Promise<void> {
  created = await createDatabase();
  database = openWorkerDatabase(created.url);
  store = await openPostgresEventStore({ url: created.url });
}

async function close(): Promise<void> {
  await Promise.all(children.splice(0).map((child) => child.end()));
  await Promise.all(standbys.splice(0).map((stop) => stop()));
  await store.close();
  await database.close();
  await created.drop();
}

interface Worker {
  readonly process: ChildProcess;
  readonly lines: { message: string }[];
  /** The process is stopped by a signal, or gone. */
  state(): 'runs' | 'frozen' | 'gone';
  end(): Promise<void>;
}

/** @param given of tiny-worker.ts the group's suffix, the moment and the signal; of tiny-reactor-worker.ts the reactor's name and the moment */
function startWorker(given: readonly string[], program = './tiny-worker.ts'): Worker {
  const child = spawn(process.execPath, ['--import', path('../support/typescript.mjs'), path(program), created.url, ...given], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
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

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** A second worker, in this process. */
function standBy(suffix: string): void {
  const ending = new AbortController();
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

/** A second worker of a reactor, in this process, and one that does its jobs. Answers the keys of those that were done, which grow. */
function standByFor(name: string): string[] {
  const ending = new AbortController();
  const done: string[] = [];
  const jobs = new Jobs(database.kysely, undefined);
  const handle = ({ key }: { readonly key: string }) => {
    done.push(key);
    return Promise.resolve('done' as const);
  };
  const runner = new JobRunner({ jobs, kinds: [{ kind: name, backoff: { first: 1_000, longest: 1_000 }, handle }], log: quiet });
  const follower = followFor({ reactor: tinyReactor(name), jobs, decode: tinyDecode(), store, database: database.kysely, log: quiet });
  const ended = [runner.run(ending.signal), follower.run(ending.signal)];
  standbys.push(async () => {
    ending.abort();
    await Promise.all(ended);
  });
  return done;
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

async function reactorRow(name: string) {
  return await database.kysely
    .selectFrom('keep.reactors')
    .select(['owner', 'epoch', 'position', 'events'])
    .where('name', '=', name)
    .executeTakeFirstOrThrow();
}

async function works(worker: Worker): Promise<void> {
  await eventually('it works', async () => (worker.lines.some(({ message }) => message.includes('working')) ? true : undefined), START_MS);
}

/*
 * All of these fail at once, in the second batch of each, since it takes the others the same seconds to notice.
 */
describe('a worker that is killed or freezes, wherever in a batch,', () => {
  const MOMENTS = ['decoding', 'applying', 'between projections', 'before commit'];
  const REACTING = ['handling', 'before commit'];
  interface Case {
    readonly suffix: string;
    readonly worker: Worker;
  }
  let writer: Writer;
  let killed: readonly Case[];
  let frozen: readonly Case[];
  let reacting: readonly (Case & { readonly done: string[] })[];
  let fatal: string;
  let began: number;

  beforeAll(async () => {
    await open();
    writer = new Writer(store);
    const start = (prefix: string, signal: string) =>
      MOMENTS.map((moment, i) => ({ suffix: `${prefix}${i}`, worker: startWorker([`${prefix}${i}`, moment, signal]) }));
    killed = start('_k', 'SIGKILL');
    frozen = start('_f', 'SIGSTOP');
    const reactors = REACTING.map((moment) => ({ suffix: moment, worker: startWorker([moment, moment], './tiny-reactor-worker.ts') }));
    for (const { worker } of [...killed, ...frozen, ...reactors]) await works(worker);
    const first = await writer.write({ stream: conversation('a') });
    for (const { suffix } of [...killed, ...frozen]) {
      await reached(suffix, first);
      standBy(suffix);
    }
    for (const { suffix } of reactors)
      await eventually('it reacts', async () => ((await reactorRow(suffix)).position >= first ? true : undefined));
    reacting = reactors.map((one) => ({ ...one, done: standByFor(one.suffix) }));
    fatal = await writer.write({ stream: conversation('a') });
    began = performance.now();
  }, 2 * START_MS);
  afterAll(close);

  /** Every other worker has handled the batch that the first one did not end. */
  async function takenOver(cases: readonly Case[], state: 'gone' | 'frozen', handled: (suffix: string) => Promise<unknown>): Promise<void> {
    for (const { suffix, worker } of cases) {
      await eventually(`it is ${state}`, async () => (worker.state() === state ? true : undefined));
      await handled(suffix);
    }
  }
  const left = () => Math.max(began + TAKEOVER_MS - performance.now(), 0);

  it('is taken over within 15 s, and blocks nobody', async () => {
    await Promise.all([
      takenOver(killed, 'gone', (suffix) => reached(suffix, fatal, left())),
      takenOver(frozen, 'frozen', (suffix) => reached(suffix, fatal, left())),
      takenOver(reacting, 'frozen', (suffix) =>
        eventually('another reacts', async () => ((await reactorRow(suffix)).position >= fatal ? true : undefined), left()),
      ),
    ]);
    expect(performance.now() - began).toBeLessThan(TAKEOVER_MS);
  });

  it('has written every event once when it was killed', async () => {
    const last = await writer.write({ stream: conversation('a') }, { stream: conversation('b') });
    for (const { suffix } of killed) {
      await reached(suffix, last);
      expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
    }
  });

  it('writes nothing once it wakes', async () => {
    const last = await writer.write({ stream: conversation('a') }, { stream: conversation('b') });
    for (const { suffix } of frozen) await reached(suffix, last);
    const before = await Promise.all(frozen.map(({ suffix }) => row(suffix)));
    for (const { worker } of frozen) await wake(worker);
    const later = await writer.write({ stream: conversation('c') });
    for (const [i, { suffix, worker }] of frozen.entries()) {
      await reached(suffix, later);
      expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
      expect(await row(suffix)).toMatchObject({ owner: before[i]!.owner, epoch: before[i]!.epoch });
      expect(worker.state()).toBe('runs');
    }
  });

  it('adds no job once it wakes, so that each is done once, where it is a reactor’s', async () => {
    for (const { suffix, worker, done } of reacting) {
      const keys = () => writer.written.map(({ stream, revision }) => `${stream}@${revision}`);
      await eventually('the other has done them', async () => (done.length === keys().length ? true : undefined));
      const before = await reactorRow(suffix);
      await wake(worker);
      await writer.write({ stream: conversation('d') });
      await eventually('the other goes on', async () => (done.length >= keys().length ? true : undefined));
      expect(done.toSorted()).toEqual(keys().toSorted());
      expect(await reactorRow(suffix)).toMatchObject({ owner: before.owner, epoch: before.epoch });
      expect(worker.state()).toBe('runs');
    }
  });
});

/** It goes on, and has found out that it lost when this is over. */
async function wake(worker: Worker): Promise<void> {
  worker.process.kill('SIGCONT');
  await eventually('it notices', async () =>
    worker.lines.some(({ message }) => /lost its lease|interrupted/.test(message)) ? true : undefined,
  );
}

describe('a worker of its own log', () => {
  beforeEach(open);
  afterEach(close);

  it('is taken over within 15 s of a kill -9 also when the database’s clock was set back by a day, and stays when it is set ahead', async () => {
    const writer = new Writer(store);
    const worker = startWorker(['_c']);
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
    const worker = startWorker(['_e', 'decoding', 'SIGSTOP']);
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
    const worker = startWorker(['_o']);
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
});
