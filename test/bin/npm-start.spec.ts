import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { eventually } from '../support/eventually.js';
import { findPostmaster } from '../support/postgres-server.js';
import { childrenOf, freePort, isAlive, signal } from '../support/processes.js';

/*
 * Threadlog as README.md starts it: npm, and below it the server with its worker and its embedded PostgreSQL. However npm is ended, all of them
 * end in order, and the port is free again.
 */
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** A start may compile first, and the machine may be busy. */
const STARTED_MS = 120_000;

let folder: string;
let dataDir: string;
let port: number;
const started: ChildProcess[] = [];

beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'threadlog-npm-')));
  // PostgreSQL runs as another user where the tests run as root, and that user must get in.
  await chmod(folder, 0o755);
  dataDir = join(folder, 'data');
});
beforeEach(async () => {
  port = await freePort();
});
afterEach(async () => {
  for (const { pid } of started.splice(0)) if (pid !== undefined) signal(-pid, 'SIGKILL');
  const pid = await findPostmaster(dataDir);
  if (pid !== undefined) signal(pid, 'SIGKILL');
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true, maxRetries: 10 });
});

interface Run {
  readonly pid: number;
  readonly ended: Promise<unknown>;
  output(): string;
}

function start(program: string, args: readonly string[]): Run {
  const child = spawn(program, args, {
    cwd: ROOT,
    detached: true,
    env: {
      ...process.env,
      DATABASE_URL: '',
      EVENTSTORE_URL: '',
      MASTER_KEY: '',
      BOOTSTRAP_API_KEY: '',
      DEMO: 'false',
      SHUTDOWN_DELAY_SECONDS: '0',
      HOST: '127.0.0.1',
      PORT: String(port),
      DATA_DIR: dataDir,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)));
  if (child.pid === undefined) throw new Error(`${program} did not start`);
  return { pid: child.pid, ended: once(child, 'exit'), output: () => output };
}

async function listens(): Promise<boolean> {
  return await fetch(`http://127.0.0.1:${port}/health/live`).then(
    (answer) => answer.ok,
    () => false,
  );
}

/** All processes that one has started, by itself or through others. */
const startedBy = (pid: number): number[] => childrenOf(pid).flatMap((child) => [child, ...startedBy(child)]);

/** The server's processes are gone, in order: PostgreSQL removes its pid file last. */
async function stopped(processes: readonly number[]): Promise<void> {
  await eventually(() => !processes.some(isAlive), 30_000);
  expect(await findPostmaster(dataDir)).toBeUndefined();
  await eventually(async () => !(await listens()), 10_000);
}

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
  '%s to npm’s own process stops the server and its PostgreSQL',
  async (name) => {
    const npm = start('npm', ['start']);
    await eventually(listens, STARTED_MS);
    const processes = startedBy(npm.pid);
    // The server, its worker, and PostgreSQL, of which some have processes of their own.
    expect(processes).toContain(await findPostmaster(dataDir));
    expect(processes.length).toBeGreaterThan(3);
    process.kill(npm.pid, name);
    await npm.ended;
    await stopped(processes);
  },
  STARTED_MS + 60_000,
);

(process.platform === 'linux' ? test : test.skip)(
  'so does the end of the terminal, to which nothing can be written any more',
  async () => {
    const terminal = start('script', ['-qefc', 'npm start', '/dev/null']);
    await eventually(listens, STARTED_MS);
    const processes = startedBy(terminal.pid);
    process.kill(terminal.pid, 'SIGKILL');
    await stopped(processes);
  },
  STARTED_MS + 60_000,
);

test(
  'a signal that comes while the server starts, and a port that is taken, leave no PostgreSQL behind',
  async () => {
    const early = start('npm', ['start']);
    const postmaster = await eventually(async () => (await findEmbeddedPostgres(dataDir)) && (await findPostmaster(dataDir)), STARTED_MS);
    process.kill(early.pid, 'SIGTERM');
    await early.ended;
    await stopped([postmaster]);

    const squatter = createServer().listen(port, '127.0.0.1');
    await once(squatter, 'listening');
    const late = start('npm', ['start']);
    await late.ended;
    squatter.close();
    expect(late.output()).toContain('threadlog could not start: listen EADDRINUSE');
    expect(await findPostmaster(dataDir)).toBeUndefined();
  },
  STARTED_MS + 60_000,
);
