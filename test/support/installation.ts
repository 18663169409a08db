import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Backend, openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { eventually } from './eventually.js';
import { freePort, signal } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SKEWED_CLOCK = new URL('skewed-clock.mjs', import.meta.url).href;
/** The machine may be busy. */
const STARTED_MS = 60_000;

/** One process of an installation, an API or a worker, which a test may kill, freeze and start again on the same port. */
export interface ThreadlogProcess {
  readonly name: string;
  /** Of an API; a worker listens nowhere. */
  readonly url: string;
  /** The installation's admin key. */
  readonly key: string;
  readonly pid: number | undefined;
  /** Its last lines. */
  readonly output: string;
  /** Starts it, over and over as a service manager does where it ends by itself, and returns when it works. */
  start(): Promise<void>;
  /** kill -9. */
  kill(): Promise<void>;
  /** Asks it to end, by SIGTERM unless another signal is named, and gives its exit code. */
  stop(signal?: 'SIGTERM' | 'SIGINT'): Promise<number | null>;
  freeze(): void;
  resume(): void;
  /** Sets its machine's clock: the true time and so many milliseconds. */
  setClock(skewMs: number): Promise<void>;
  /** Waits until /health/ready says so. */
  ready(): Promise<void>;
}

/** Threadlog as an operator runs it: any number of API and worker processes over stores that it does not start itself. */
export interface Installation {
  readonly key: string;
  readonly organizationId: string;
  /**
   * Starts another process.
   * @param settings.databaseUrl a way to the same PostgreSQL, such as through a proxy; likewise eventstoreUrl
   * @param settings.ownWorker the API starts a worker of its own
   */
  start(
    kind: 'api' | 'worker',
    settings?: { readonly databaseUrl?: string; readonly eventstoreUrl?: string; readonly ownWorker?: boolean },
  ): Promise<ThreadlogProcess>;
  /** The stores, to look into them past every process. */
  openBackend(): Promise<Backend>;
  /** Kills every process of it. The stores go on. */
  dispose(): Promise<void>;
}

export async function makeInstallation(stores: { readonly databaseUrl: string; readonly eventstoreUrl?: string }): Promise<Installation> {
  const { ensureBuilt } = (await import(join(ROOT, 'bin', 'build.js'))) as { ensureBuilt: () => Promise<void> };
  await ensureBuilt();
  const folder = await mkdtemp(join(tmpdir(), 'threadlog-installation-'));
  const key = `tl_${randomBytes(24).toString('hex')}`;
  const settings = { MASTER_KEY: randomBytes(32).toString('base64'), DATA_DIR: folder, BOOTSTRAP_API_KEY: key };
  const processes: (ThreadlogProcess & { dispose(): Promise<void> })[] = [];
  return {
    key,
    // What the first start calls the organization that it makes.
    organizationId: 'main',
    async start(kind, given = {}) {
      const { databaseUrl, eventstoreUrl, ownWorker = false } = { ...stores, ...given };
      const port = await freePort();
      const name = `${kind}-${processes.length}`;
      const clock = join(folder, `${name}.clock`);
      await writeFile(clock, '0');
      const made = processOf({
        name,
        key,
        clock,
        url: `http://127.0.0.1:${port}`,
        script: join(ROOT, 'dist', kind === 'api' ? 'src/main.js' : 'projections/main.js'),
        started: kind === 'api' ? 'Threadlog listens on' : 'worker ready',
        env: {
          ...process.env,
          ...settings,
          DATABASE_URL: databaseUrl,
          // An empty variable counts as absent, so nothing of the test run's own configuration gets in.
          EVENTSTORE_URL: eventstoreUrl ?? '',
          DEMO: 'false',
          LOG_LEVEL: kind === 'api' ? 'warn' : 'info',
          HOST: '127.0.0.1',
          PORT: String(port),
          // By default the API has one.
          PROJECTIONS: ownWorker ? '' : 'off',
          RATE_LIMIT_PER_MINUTE: '0',
          NODE_OPTIONS: `--import ${SKEWED_CLOCK}`,
          CLOCK_SKEW_FILE: clock,
        },
      });
      processes.push(made);
      await made.start();
      return made;
    },
    openBackend() {
      const { databaseUrl, eventstoreUrl } = stores;
      const config = readConfig({
        ...settings,
        DATABASE_URL: databaseUrl,
        ...(eventstoreUrl === undefined ? {} : { EVENTSTORE_URL: eventstoreUrl }),
      });
      return openBackend(config, createLogger('warn', process.stderr), { name: 'threadlog-test' });
    },
    async dispose() {
      await Promise.all(processes.map((one) => one.dispose()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function processOf(options: {
  readonly name: string;
  readonly key: string;
  readonly clock: string;
  readonly url: string;
  readonly script: string;
  readonly started: string;
  readonly env: NodeJS.ProcessEnv;
}): ThreadlogProcess & { dispose(): Promise<void> } {
  const { name, key, clock, url, script, started, env } = options;
  let child: ChildProcess | undefined;
  let output = '';
  // A test run that ends in the middle takes its processes with it.
  const reap = () => {
    if (child?.pid !== undefined) signal(child.pid, 'SIGKILL');
  };
  process.on('exit', reap);

  async function end(how: NodeJS.Signals): Promise<number | null> {
    const mine = child;
    if (mine === undefined) return null;
    const exited = once(mine, 'exit') as Promise<[number | null]>;
    mine.kill(how);
    // A frozen process cannot obey anything but SIGKILL.
    if (how === 'SIGKILL') mine.kill('SIGCONT');
    return (await exited)[0];
  }

  function spawned(): ChildProcess {
    // Without source maps, whose reading takes a sixth of a start: these processes start more than a hundred times in a run.
    const mine = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    output = '';
    const keep = (chunk: Buffer) => void (output = (output + chunk.toString()).slice(-20_000));
    mine.stdout.on('data', keep);
    mine.stderr.on('data', keep);
    mine.once('exit', () => {
      if (child === mine) child = undefined;
    });
    return mine;
  }

  return {
    name,
    key,
    url,
    get pid() {
      return child?.pid;
    },
    get output() {
      return output;
    },
    async start() {
      if (child !== undefined) throw new Error(`${name} runs already`);
      child = spawned();
      await eventually(() => {
        // It ends by itself where a store is away.
        child ??= spawned();
        if (!output.includes(started)) throw new Error(`${name} did not start:\n${output}`);
        return true;
      }, STARTED_MS);
    },
    async kill() {
      await end('SIGKILL');
    },
    stop: (signal = 'SIGTERM') => end(signal),
    freeze: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
    async setClock(skewMs) {
      await writeFile(clock, String(skewMs));
      child?.kill('SIGUSR2');
    },
    async ready() {
      await eventually(async () => {
        const answer = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(5_000) });
        if (!answer.ok) throw new Error(`${name} is not ready: ${await answer.text()}`);
        return true;
      }, 60_000);
    },
    async dispose() {
      process.off('exit', reap);
      await end('SIGKILL');
    },
  };
}
