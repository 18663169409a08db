import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './processes.js';

/** An EventStoreDB of the test's own, which it may kill and freeze. Its data outlives every kill until dispose(). */
export interface EventStoreDbServer {
  readonly url: string;
  readonly port: number;
  /** kill -9. */
  kill(): Promise<void>;
  /** Asks it to end, as an operator would. */
  stop(): Promise<void>;
  /** Starts it again on the same port and data; returns when it leads and takes writes. */
  start(): Promise<void>;
  /** It keeps its sockets and answers nothing. */
  freeze(): void;
  resume(): void;
  /** Ends it and removes its data. */
  dispose(): Promise<void>;
}

const STARTED_MS = 60_000;

/** @param options further command-line options, such as `--max-append-size=1000` */
export async function startEventStoreDb(executable: string, options: readonly string[] = []): Promise<EventStoreDbServer> {
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), 'threadlog-eventstoredb-'));
  let child: ChildProcess | undefined;
  let output = '';
  // A test run that ends by itself or by a signal takes its server with it.
  const reap = () => void child?.kill('SIGKILL');
  process.on('exit', reap);

  async function start(): Promise<void> {
    if (child) throw new Error('it runs already');
    const started = spawn(executable, [...FLAGS, `--node-port=${port}`, `--db=${folder}/db`, `--log=${folder}/log`, ...options], {
      env: environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child = started;
    output = '';
    const keep = (chunk: Buffer) => void (output = (output + chunk.toString()).slice(-4_000));
    started.stdout.on('data', keep);
    started.stderr.on('data', keep);
    started.once('exit', () => {
      if (child === started) child = undefined;
    });
    for (const until = performance.now() + STARTED_MS; !(await leads(port)); await new Promise((resolve) => setTimeout(resolve, 50))) {
      if (child !== started) throw new Error(`EventStoreDB ended while starting:\n${output}`);
      if (performance.now() > until) throw new Error(`EventStoreDB did not start within ${STARTED_MS} ms:\n${output}`);
    }
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const running = child;
    if (!running) return;
    const exited = once(running, 'exit');
    running.kill(signal);
    // A frozen process cannot obey anything but SIGKILL.
    running.kill('SIGCONT');
    await exited;
    child = undefined;
  }

  await start();
  return {
    url: `esdb://127.0.0.1:${port}?tls=false`,
    port,
    start,
    kill: () => end('SIGKILL'),
    stop: () => end('SIGTERM'),
    freeze: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
    dispose: async () => {
      await end('SIGKILL');
      process.off('exit', reap);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Small caches, so that a test machine can hold several. */
const FLAGS = [
  '--insecure',
  '--run-projections=None',
  '--node-ip=127.0.0.1',
  '--replication-ip=127.0.0.1',
  '--disable-log-file=true',
  '--stream-info-cache-capacity=10000',
  '--cached-chunks=0',
  '--chunks-cache-size=0',
  '--max-mem-table-size=10000',
  '--stream-existence-filter-size=1000000',
  '--index-cache-depth=8',
  '--chunk-initial-reader-count=2',
  '--reader-threads-count=2',
  '--worker-threads=2',
  '--initialization-threads=1',
  '--skip-db-verify=true',
  '--skip-index-verify=true',
  '--stats-period-sec=300',
  '--stats-storage=None',
];

function environment(): NodeJS.ProcessEnv {
  // The server takes every EVENTSTORE_… variable for an option of its own and refuses those that it does not know.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('EVENTSTORE_')));
  return {
    // Settings of the runtime that keep it small; whoever needs others sets them.
    DOTNET_gcServer: '0',
    DOTNET_gcConcurrent: '0',
    DOTNET_GCConserveMemory: '5',
    DOTNET_GCHeapHardLimit: '0x40000000',
    ...env,
    EVENTSTORE_TELEMETRY_OPTOUT: 'true',
  };
}

async function leads(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/info`, { signal: AbortSignal.timeout(1_000) });
    return ((await answer.json()) as { state?: string }).state === 'leader';
  } catch {
    return false;
  }
}
