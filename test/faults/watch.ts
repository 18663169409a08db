import { readFile } from 'node:fs/promises';
import { ask } from '../support/ask.js';
import type { Server } from './writers.js';

/**
 * No request takes longer, whatever is away (ms): the deadline of a command, what comes before it, and what a busy machine adds. One that
 * hangs takes longer than any of it.
 */
export const ANSWERED_MS = 15_000;
/**
 * How long a process may be asleep over /health/live (ms), for which it asks no store: less than a store is away in these tests (4 s), so that a
 * process that waits for one is seen. Time in which it worked, or wanted to and got no processor, is not counted, since a crowded machine
 * draws that out at will: it took 5.4 s once with nothing wrong. ANSWERED_MS holds for all of it.
 */
const ASLEEP_MS = 3_000;
/** How often the watcher looks whether it is late itself (ms). */
const BEAT_MS = 100;

/** Readers that ask without a pause, and keep what no client should ever get: a request that hangs, a 5xx other than 503, a 503 that says not when to come again. */
export class Watch {
  /** The answers since the last start that no client should get. */
  readonly scandals: string[] = [];
  /** Answers by path and status. */
  readonly answers = new Map<string, number>();
  slowestMs = 0;
  #watching = false;
  /** By how much the watcher's own process has been late since it started (ms): an answer that lay there then was not late. */
  #late = 0;
  #beating: NodeJS.Timeout | undefined;
  #running: Promise<unknown> = Promise.resolve();

  constructor(private readonly conversation: string) {}

  /** @param servers processes that no test kills meanwhile: each must answer every request */
  start(servers: readonly Server[]): void {
    this.#watching = true;
    this.scandals.length = 0;
    const paths = [
      '/health/live',
      '/health/ready',
      '/api/support/conversations?limit=5',
      `/api/support/conversations/${this.conversation}`,
    ];
    let beat = performance.now();
    this.#beating = setInterval(() => {
      const now = performance.now();
      this.#late += Math.max(now - beat - BEAT_MS, 0);
      beat = now;
    }, BEAT_MS);
    this.#running = Promise.all(
      servers.flatMap((server) =>
        paths.map(async (path) => {
          while (this.#watching) {
            await this.#ask(server, path);
            // A reader's pause, so that there is a machine left for the writers.
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
        }),
      ),
    );
  }

  async stop(): Promise<void> {
    this.#watching = false;
    await this.#running;
    clearInterval(this.#beating);
  }

  async #ask(server: Server, path: string): Promise<void> {
    const live = path === '/health/live';
    const awake = live ? await awakeMs(server) : undefined;
    const late = this.#late;
    const began = performance.now();
    const named = path.split('?', 1)[0]?.replace(this.conversation, '{id}') ?? '';
    try {
      const answer = await ask(`${server.url}${path}`, {
        method: 'GET',
        headers: { 'x-api-key': server.key },
        signal: AbortSignal.timeout(30_000),
      });
      const told = `${named} ${answer.status}`;
      this.answers.set(told, (this.answers.get(told) ?? 0) + 1);
      if (answer.status !== 200 && (answer.status !== 503 || live)) this.scandals.push(told);
      if (answer.status === 503 && answer.headers.get('retry-after') === null) this.scandals.push(`${told} without Retry-After`);
    } catch (error) {
      this.scandals.push(`${named}: ${String(error)}`);
    }
    const took = performance.now() - began;
    this.slowestMs = Math.max(this.slowestMs, took);
    if (took > ANSWERED_MS) this.scandals.push(`${named} took ${took.toFixed(0)} ms`);
    const awakeSince = awake === undefined ? undefined : await awakeMs(server);
    if (awake === undefined || awakeSince === undefined) return;
    const asleep = took - (awakeSince - awake) - (this.#late - late);
    if (asleep > ASLEEP_MS) this.scandals.push(`${named} took ${took.toFixed(0)} ms, and slept ${asleep.toFixed(0)} ms of them`);
  }
}

/**
 * How long a process's main thread, which answers its requests, has run or waited for a processor so far (ms). Undefined where the system does
 * not tell: then only ANSWERED_MS holds.
 */
async function awakeMs({ pid }: Server): Promise<number | undefined> {
  const told = await readFile(`/proc/${pid}/schedstat`, 'utf8').catch(() => '');
  const [ran, waited] = told.split(' ').map((nanoseconds) => Number(nanoseconds) / 1e6);
  return ran === undefined || waited === undefined ? undefined : ran + waited;
}
