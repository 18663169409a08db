import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { type Config, environmentWith } from './config.js';
import type { Measured } from './metrics/metrics.js';
import { pause } from './pause.js';

/**
 * What the API says to its worker: a question for what it has measured, whose answer carries the number, or how many commands are in flight,
 * in steps of LOAD.step. Otherwise the worker is told to end, by the end of the channel.
 */
export type ToOwnWorker = { readonly measuredAs: number } | { readonly inFlight: number };

/** What the worker says to the API that has started it. */
export type FromOwnWorker = 'ready' | { readonly number: number; readonly measured: Measured };

const WORKER = fileURLToPath(new URL('../projections/own-worker.main.js', import.meta.url));

/** Database connections of the worker for queries: its commands and lookups are few, and beside these it has those of the projections. */
const POOL_SIZE = 5;
/** Pause before a worker that has ended is started again (ms). It doubles from one to the next. */
const PAUSES = { first: 250, longest: 30_000 } as const;
/** A worker that has worked for this long (ms) has ended for another reason than the one before. */
const SETTLED_MS = 60_000;
/** How long the worker may take for its batch in hand and the rest of its end (ms). After that it is killed, and the batch is rolled back. */
const ENDING_MS = 5_000;
/** How long it may take to tell what it has measured (ms). */
const PATIENCE_MS = 2_000;
/** How often the worker is told of another load (ms), and how coarsely (commands in flight): each message costs both processes a system call. */
const LOAD = { everyMs: 20, step: 8 } as const;

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly error?: string;
}

/**
 * The worker of an API process: projections and reactors in a child process, so that they and the API have a core each. It writes its log
 * where the API does, is started again when it ends by itself, and ends with the API, however that ends: it sees the channel between the
 * two close. Signals to it are ignored, since Ctrl-C and service managers send them to both, and the API ends first.
 */
export class OwnWorker {
  readonly #stopping = new AbortController();
  readonly #asked = new Map<number, (measured: Measured) => void>();
  #questions = 0;
  #child: ChildProcess | undefined;
  #awaySince: number | undefined;
  #load: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  /**
   * @param options.program the worker's program, if not the usual one
   * @param options.now milliseconds of a clock that never goes back
   */
  constructor(
    private readonly logger: Pick<Logger, 'info' | 'error'>,
    private readonly options: { readonly program?: string; readonly now?: () => number } = {},
  ) {}

  /**
   * Starts the worker, and again whenever it ends, until stop(). Call it once.
   * @param backend the stores are open, so that a server that this process has started is the worker's too
   * @returns when the worker works for the first time
   * @throws Error when it ends before; its own words are on standard error
   */
  start(backend: { readonly config: Config; readonly databaseUrl: string }): Promise<void> {
    const environment = environmentWith({
      DATABASE_URL: backend.databaseUrl,
      POOL_SIZE: String(Math.min(backend.config.POOL_SIZE, POOL_SIZE)),
      // The API tells its worker's measurements beside its own.
      METRICS_PORT: '',
    });
    return new Promise((ready, failed) => {
      this.#running = this.#run(environment, ready, failed);
    });
  }

  /** Time since it ended, or was started for the first time, without being ready (ms); 0 while it works. */
  get awayMs(): number {
    return this.#awaySince === undefined ? 0 : this.#now() - this.#awaySince;
  }

  /** What the worker has measured; nothing while it is away. */
  async measured(): Promise<Measured> {
    const child = this.#child;
    if (child === undefined || this.#awaySince !== undefined) return [];
    const number = this.#questions++;
    try {
      return await new Promise<Measured>((resolve) => {
        this.#asked.set(number, resolve);
        // As long as a store may take to tell the rest.
        setTimeout(() => resolve([]), PATIENCE_MS).unref();
        child.send({ measuredAs: number } satisfies ToOwnWorker, (error) => {
          if (error !== null) resolve([]);
        });
      });
    } finally {
      this.#asked.delete(number);
    }
  }

  /**
   * Tells the worker from now on how many commands are in flight here, so that under load it makes fewer and larger batches (cadence.ts):
   * alone it sees the rate of events only, and a batch for every few of them costs both processes and PostgreSQL more than the replies.
   */
  tellLoad(inFlight: () => number): void {
    let told: { readonly child: ChildProcess; readonly load: number } | undefined;
    this.#load = setInterval(() => {
      const child = this.#child;
      if (child?.connected !== true || this.#awaySince !== undefined) return;
      const load = Math.ceil(inFlight() / LOAD.step) * LOAD.step;
      if (told?.child === child && told.load === load) return;
      told = { child, load };
      // A worker that has just ended is told by its exit.
      child.send({ inFlight: load } satisfies ToOwnWorker, () => undefined);
    }, LOAD.everyMs);
    this.#load.unref();
  }

  /** Lets the worker finish its batch and ends it. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearInterval(this.#load);
    const child = this.#child;
    if (child?.connected === true) child.disconnect();
    const late = setTimeout(() => child?.kill('SIGKILL'), ENDING_MS);
    await this.#running;
    clearTimeout(late);
  }

  async #run(environment: Record<string, string | undefined>, ready: () => void, failed: (error: Error) => void): Promise<void> {
    const { signal: stopping } = this.#stopping;
    let hasWorked = false;
    let againInMs: number = PAUSES.first;
    while (!stopping.aborted) {
      this.#awaySince ??= this.#now();
      let readyAt: number | undefined;
      const { code, signal, error } = await this.#once(environment, () => {
        readyAt = this.#now();
        this.#awaySince = undefined;
        hasWorked = true;
        ready();
      });
      this.#awaySince ??= this.#now();
      const how = error ?? (signal === null ? `with code ${code}` : `by ${signal}`);
      if (!hasWorked) return failed(new Error(`the worker ended before it worked: ${how}`));
      if (stopping.aborted) return;
      if (readyAt !== undefined && this.#now() - readyAt > SETTLED_MS) againInMs = PAUSES.first;
      this.logger.error({ how, againInMs }, 'the worker ended, starting it again');
      await pause(againInMs, stopping);
      againInMs = Math.min(againInMs * 2, PAUSES.longest);
    }
  }

  /** One life of the worker. */
  #once(environment: Record<string, string | undefined>, ready: () => void): Promise<Ended> {
    return new Promise((ended) => {
      // Not JSON, which has no NaN: a measurement may be one.
      const child = fork(this.options.program ?? WORKER, {
        env: environment,
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        serialization: 'advanced',
      });
      this.#child = child;
      child.on('message', (said: FromOwnWorker) => {
        if (said !== 'ready') return this.#asked.get(said.number)?.(said.measured);
        this.logger.info({ pid: child.pid }, 'the worker works');
        ready();
      });
      const end = (how: Ended) => {
        if (this.#child === child) this.#child = undefined;
        for (const answer of this.#asked.values()) answer([]);
        ended(how);
      };
      child.on('error', (error) => {
        // A message that could not be sent is an error too, and the worker that it was for goes on or ends by itself.
        if (child.pid === undefined) end({ code: null, signal: null, error: error.message });
      });
      child.on('exit', (code, signal) => end({ code, signal }));
    });
  }

  #now(): number {
    return (this.options.now ?? (() => performance.now()))();
  }
}
