import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { findEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { eventually } from './eventually.js';
import { findPostmaster, servesConnection } from './postgres-server.js';
import { childrenOf, freePort, isAlive, signal } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** A start may compile first, and the machine may be busy. */
const STARTED_MS = 90_000;

/**
 * Threadlog as a newcomer runs it: bin/start.js with nothing configured but a folder and a port, with its embedded PostgreSQL, in processes
 * that a test may kill. The folder outlives every kill until dispose().
 */
export interface ServerProcess {
  readonly url: string;
  /** The admin key that the first start printed. */
  readonly key: string;
  readonly dataDir: string;
  /** Of the node process; undefined while it does not run. */
  readonly pid: number | undefined;
  /** Of the embedded PostgreSQL, as last seen. */
  readonly postmasterPid: number | undefined;
  /** Starts it again on the same folder and port; returns when it said where it listens. */
  start(): Promise<void>;
  /** Waits until /health/ready says so. */
  ready(): Promise<void>;
  /** kill -9 of node, the postmaster and every process of the database, in the order that `shuffle` makes of them. */
  killTree(shuffle: (pids: number[]) => number[]): Promise<void>;
  /** kill -9 of node alone: its PostgreSQL is left an orphan. */
  killNode(): Promise<void>;
  /** kill -9 of the postmaster and every process of the database. */
  killPostgres(shuffle: (pids: number[]) => number[]): Promise<void>;
  /** kill -9 of one process that serves a connection; PostgreSQL then ends and recovers all of them by itself. */
  killBackend(choose: (pids: number[]) => number | undefined): Promise<void>;
  /** Address of the embedded PostgreSQL. */
  databaseUrl(): Promise<string>;
  /** Runs `threadlog` on the same folder and gives what it printed. */
  threadlog(...given: string[]): Promise<string>;
  /** Ends everything, orphans too, and removes the folder. */
  dispose(): Promise<void>;
}

/** @param environment settings over those of a bare start, such as EVENTSTORE_URL */
export async function startServerProcess(environment: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'threadlog-server-')));
  // PostgreSQL runs as another user where the tests run as root, and that user must get in.
  await chmod(folder, 0o755);
  const dataDir = join(folder, 'data');
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ...process.env,
    // An empty variable counts as absent, so nothing of the test run's own configuration gets in.
    DATABASE_URL: '',
    EVENTSTORE_URL: '',
    MASTER_KEY: '',
    BOOTSTRAP_API_KEY: '',
    DEMO: 'false',
    RATE_LIMIT_PER_MINUTE: '0',
    LOG_LEVEL: 'warn',
    HOST: '127.0.0.1',
    PORT: String(port),
    DATA_DIR: dataDir,
    ...environment,
  };
  let child: ChildProcess | undefined;
  let output = '';
  let key: string | undefined;
  let postmaster: number | undefined;

  const started = () => {
    if (child?.pid === undefined) throw new Error('the server does not run');
    return child.pid;
  };

  async function start(): Promise<void> {
    if (child !== undefined) throw new Error('the server runs already');
    const mine = spawn(process.execPath, ['--enable-source-maps', '--disable-warning=ExperimentalWarning', join(ROOT, 'bin', 'start.js')], {
      cwd: folder,
      env,
      // A group of its own, so that a kill takes along what node started itself, such as a compiler.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child = mine;
    output = '';
    const keep = (chunk: Buffer) => void (output = (output + chunk.toString()).slice(-20_000));
    mine.stdout.on('data', keep);
    mine.stderr.on('data', keep);
    mine.once('exit', () => {
      if (child === mine) child = undefined;
    });
    await eventually(() => {
      if (child !== mine) return 'ended';
      return output.includes(`Threadlog listens on ${url}`) && output.includes('Ctrl-C');
    }, STARTED_MS).then((answer) => {
      if (answer === 'ended') throw new Error(`the server ended while starting:\n${output}`);
    });
    key ??= /API key {2}(\S+) {3}\(shown once\)/.exec(output)?.[1];
    postmaster = await findPostmaster(dataDir);
  }

  async function killNode(): Promise<void> {
    const mine = child;
    const pid = started();
    if (mine === undefined) return;
    const exited = once(mine, 'exit');
    signal(-pid, 'SIGKILL');
    await exited;
  }

  async function postgres(): Promise<number[]> {
    postmaster = (await findPostmaster(dataDir)) ?? postmaster;
    return postmaster === undefined ? [] : [postmaster, ...childrenOf(postmaster)];
  }

  // A test run that ends in the middle takes its server with it.
  const reap = () => {
    if (child?.pid !== undefined) signal(-child.pid, 'SIGKILL');
    if (postmaster !== undefined) for (const pid of childrenOf(postmaster).concat(postmaster)) signal(pid, 'SIGKILL');
  };
  process.on('exit', reap);

  async function dispose(): Promise<void> {
    process.off('exit', reap);
    if (child !== undefined) await killNode();
    for (const pid of await postgres()) signal(pid, 'SIGKILL');
    await eventually(() => postmaster === undefined || !isAlive(postmaster), 20_000);
    const elsewhere = await readFile(join(dataDir, 'postgres-is-elsewhere.txt'), 'utf8').catch(() => '');
    // The last processes of a killed PostgreSQL may still write while they notice.
    for (const path of [elsewhere.split('\n')[0], folder]) if (path) await rm(path, { recursive: true, force: true, maxRetries: 10 });
  }

  try {
    await start();
    if (key === undefined) throw new Error(`the first start printed no key:\n${output}`);
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    url,
    key,
    dataDir,
    get pid() {
      return child?.pid;
    },
    get postmasterPid() {
      return postmaster;
    },
    start,
    async ready() {
      await eventually(async () => {
        if (child === undefined) throw new Error(`the server ended:\n${output}`);
        const answer = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5_000) });
        if (!answer.ok) throw new Error(`not ready: ${await answer.text()}`);
        return true;
      }, 60_000);
    },
    async killTree(shuffle) {
      const exited = once(child ?? process, 'exit');
      for (const pid of shuffle([-started(), ...(await postgres())])) signal(pid, 'SIGKILL');
      await exited;
    },
    killNode,
    async killPostgres(shuffle) {
      for (const pid of shuffle(await postgres())) signal(pid, 'SIGKILL');
    },
    async killBackend(choose) {
      const [, ...children] = await postgres();
      const pid = choose(children.filter(servesConnection));
      if (pid !== undefined) signal(pid, 'SIGKILL');
    },
    async databaseUrl() {
      return (await eventually(() => findEmbeddedPostgres(dataDir), 30_000)).url;
    },
    async threadlog(...given) {
      const { stdout } = await promisify(execFile)(process.execPath, [join(ROOT, 'bin', 'threadlog.js'), ...given], {
        cwd: folder,
        env,
        maxBuffer: 64 * 1024 * 1024,
      });
      return stdout;
    },
    dispose,
  };
}
