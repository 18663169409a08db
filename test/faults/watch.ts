import type { Server } from './writers.js';

/**
 * No request takes longer, whatever is away (ms): the deadline of a command, what comes before it, and what a busy machine adds. One that
 * hangs takes longer than any of it.
 */
export const ANSWERED_MS = 15_000;
/** Of a process that is alive: it asks no store (ms). */
const ALIVE_MS = 5_000;

/** Readers that ask without a pause, and keep what no client should ever get: a request that hangs, a 5xx other than 503, a 503 that says not when to come again. */
export class Watch {
  readonly scandals: string[] = [];
  /** Answers by path and status. */
  readonly answers = new Map<string, number>();
  slowestMs = 0;
  #watching = false;
  #running: Promise<unknown> = Promise.resolve();

  constructor(private readonly conversation: string) {}

  /** @param servers processes that no test kills meanwhile: each must answer every request */
  start(servers: readonly Server[]): void {
    this.#watching = true;
    const paths = [
      '/health/live',
      '/health/ready',
      '/api/support/conversations?limit=5',
      `/api/support/conversations/${this.conversation}`,
    ];
    this.#running = Promise.all(
      servers.flatMap((server) =>
        paths.map(async (path) => {
          while (this.#watching) {
            await this.#ask(server, path);
            // A reader's pause, so that there is a machine left for the writers.
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        }),
      ),
    );
  }

  async stop(): Promise<void> {
    this.#watching = false;
    await this.#running;
  }

  async #ask(server: Server, path: string): Promise<void> {
    const began = performance.now();
    const named = path.split('?', 1)[0]?.replace(this.conversation, '{id}') ?? '';
    try {
      const answer = await fetch(`${server.url}${path}`, { headers: { 'x-api-key': server.key }, signal: AbortSignal.timeout(30_000) });
      await answer.text();
      const told = `${named} ${answer.status}`;
      this.answers.set(told, (this.answers.get(told) ?? 0) + 1);
      if (answer.status !== 200 && (answer.status !== 503 || path === '/health/live')) this.scandals.push(told);
      if (answer.status === 503 && answer.headers.get('retry-after') === null) this.scandals.push(`${told} without Retry-After`);
    } catch (error) {
      this.scandals.push(`${named}: ${String(error)}`);
    }
    const took = performance.now() - began;
    this.slowestMs = Math.max(this.slowestMs, took);
    if (took > (path === '/health/live' ? ALIVE_MS : ANSWERED_MS)) this.scandals.push(`${named} took ${took.toFixed(0)} ms`);
  }
}
