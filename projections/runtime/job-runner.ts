import { describeError } from './failures.js';
import { type Job, JOB_LEASE_MS, type Jobs } from './jobs.js';
import type { RuntimeLog } from './runtime-log.js';
import { pause } from '../../src/pause.js';
import { workerName } from './worker-name.js';

/** Number of jobs that a process does at the same time. */
const AT_ONCE = 16;
/** Number of jobs that a process holds, waiting ones included, so that one statement takes several. */
const IN_HAND = 64;
/** How often the runner looks for due jobs when no wake() reports new ones (ms). */
const POLL_MS = 500;
/** A third of the lease: two renewals in a row may fail. */
const RENEW_MS = JOB_LEASE_MS / 3;

/** A handler's answer for a job. When it throws, the job is tried again. */
export type Outcome = 'done' | { readonly gaveUp: string } | { readonly againInMs: number; readonly because: string };

/** A kind of job and its handler. Jobs of a kind that a build does not know wait for a build that knows it. */
export interface JobKind {
  readonly kind: string;
  /** Pauses between attempts (ms): the first doubles each time up to the longest; a random part of up to a half is taken off each. */
  readonly backoff: { readonly first: number; readonly longest: number };
  /**
   * Does a job. A job may be done twice, even by two processes at the same time: its effect must be the same then.
   * @param signal fires when this worker no longer has the job, or when the process ends
   */
  readonly handle: (job: Job, signal: AbortSignal) => Promise<Outcome>;
}

/** Called after every attempt. */
export type MeasureJob = (kind: string, outcome: 'done' | 'again' | 'gave up', ms: number) => void;

interface Attempt {
  readonly job: Job;
  readonly ending: AbortController;
}

/** Does jobs as they become due. Any number of processes may run one; a job belongs to one process at a time. */
export class JobRunner {
  readonly #owner = workerName();
  readonly #kinds: ReadonlyMap<string, JobKind>;
  readonly #waiting: Job[] = [];
  readonly #attempts = new Set<Attempt>();
  readonly #finished: Job[] = [];
  #finishing: Promise<void> | undefined;
  #wake: () => void = () => undefined;
  #woken = false;

  constructor(
    private readonly options: {
      readonly jobs: Jobs;
      readonly kinds: readonly JobKind[];
      readonly log: RuntimeLog;
      readonly measure?: MeasureJob;
    },
  ) {
    const twice = options.kinds.find(({ kind }, i) => options.kinds.findIndex((other) => other.kind === kind) !== i);
    if (twice !== undefined) throw new Error(`two handlers are declared for jobs of the kind ${twice.kind}`);
    this.#kinds = new Map(options.kinds.map((one) => [one.kind, one]));
  }

  /** Makes the runner look for jobs at once, since this process added some. */
  wake(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Does jobs until the signal, then finishes the jobs that it began and gives the others back. */
  async run(signal: AbortSignal): Promise<void> {
    const { jobs, log } = this.options;
    const kinds = [...this.#kinds.keys()];
    const end = () => {
      this.wake();
      for (const { ending } of this.#attempts) ending.abort();
    };
    signal.addEventListener('abort', end, { once: true });
    const renewing = setInterval(() => void this.#renew(), RENEW_MS);
    try {
      while (!signal.aborted) {
        this.#woken = false;
        let taken: readonly Job[] = [];
        const most = IN_HAND - this.#waiting.length - this.#attempts.size;
        const wanted = this.#waiting.length < AT_ONCE ? most : 0;
        if (wanted > 0) {
          try {
            taken = await jobs.take(kinds, wanted, this.#owner);
          } catch (error) {
            log.warn({ error: describeError(error) }, 'could not look for due jobs, trying again');
          }
        }
        this.#waiting.push(...taken);
        this.#begin();
        // If as many jobs came as were wanted, there may be more: the next look follows as soon as there is room.
        if (taken.length < wanted || wanted === 0) await this.#untilWoken(signal);
      }
    } finally {
      clearInterval(renewing);
      signal.removeEventListener('abort', end);
      await this.#stop();
    }
  }

  #begin(): void {
    while (this.#attempts.size < AT_ONCE) {
      const job = this.#waiting.shift();
      const kind = job === undefined ? undefined : this.#kinds.get(job.kind);
      if (job === undefined || kind === undefined) return;
      const attempt: Attempt = { job, ending: new AbortController() };
      this.#attempts.add(attempt);
      void this.#attempt(kind, attempt).finally(() => {
        this.#attempts.delete(attempt);
        this.#begin();
        if (this.#waiting.length < AT_ONCE) this.wake();
      });
    }
  }

  async #attempt({ kind, backoff, handle }: JobKind, { job, ending }: Attempt): Promise<void> {
    const { log, measure } = this.options;
    const began = performance.now();
    const ms = () => performance.now() - began;
    const facts = { kind, job: job.id, key: job.key, attempt: job.attempt };
    try {
      const outcome = await handle(job, ending.signal);
      if (outcome === 'done') {
        measure?.(kind, 'done', ms());
        await this.#finish(job);
      } else if ('gaveUp' in outcome) {
        measure?.(kind, 'gave up', ms());
        log.error({ ...facts, error: outcome.gaveUp }, 'job given up');
        await this.#finish(job);
      } else {
        measure?.(kind, 'again', ms());
        await this.#again(job, outcome.againInMs, outcome.because);
      }
    } catch (error) {
      const againInMs = Math.min(backoff.first * 2 ** (job.attempt - 1), backoff.longest) * (0.5 + Math.random() / 2);
      measure?.(kind, 'again', ms());
      log.warn({ ...facts, error: describeError(error), againInMs: Math.round(againInMs) }, 'job failed, trying again');
      await this.#again(job, againInMs, describeError(error));
    }
  }

  async #again(job: Job, inMs: number, error: string): Promise<void> {
    try {
      await this.options.jobs.again(job, inMs, error);
    } catch (failed) {
      // The job comes again when its lease has run out.
      this.options.log.warn({ kind: job.kind, job: job.id, error: describeError(failed) }, 'could not put off a job');
    }
  }

  /** Writes finished jobs. Jobs that finish during a write wait for its end and are then written together. */
  async #finish(job: Job): Promise<void> {
    this.#finished.push(job);
    await (this.#finishing ??= this.#writeFinished().finally(() => (this.#finishing = undefined)));
  }

  async #writeFinished(): Promise<void> {
    const { jobs, log } = this.options;
    while (this.#finished.length > 0) {
      const together = this.#finished.splice(0);
      for (let failures = 0; ; failures++) {
        try {
          await jobs.finish(together);
          if (together.some(({ lane }) => lane !== null)) this.wake();
          break;
        } catch (error) {
          if (failures >= 3) {
            // The jobs are done again when their leases have run out.
            log.warn({ jobs: together.length, error: describeError(error) }, 'could not record finished jobs; they are done again');
            break;
          }
          await pause(100 * 2 ** failures, new AbortController().signal);
        }
      }
    }
  }

  async #renew(): Promise<void> {
    const held = [...this.#attempts].map(({ job }) => job).concat(this.#waiting);
    if (held.length === 0) return;
    try {
      const kept = await this.options.jobs.renew(held);
      // A job that finished meanwhile is no longer among the attempts.
      for (const { job, ending } of this.#attempts) if (!kept.has(job.id) && held.includes(job)) ending.abort();
      for (const job of held) {
        const at = kept.has(job.id) ? -1 : this.#waiting.indexOf(job);
        if (at >= 0) this.#waiting.splice(at, 1);
      }
    } catch (error) {
      this.options.log.warn({ error: describeError(error) }, 'could not renew the leases of jobs');
    }
  }

  async #untilWoken(signal: AbortSignal): Promise<void> {
    if (this.#woken) return;
    const waiting = new AbortController();
    this.#wake = () => waiting.abort();
    await pause(POLL_MS, AbortSignal.any([signal, waiting.signal]));
    this.#wake = () => undefined;
  }

  async #stop(): Promise<void> {
    const { jobs, log } = this.options;
    const unbegun = this.#waiting.splice(0);
    try {
      await jobs.release(unbegun);
    } catch (error) {
      log.warn({ error: describeError(error) }, 'could not give jobs back; their leases run out');
    }
    while (this.#attempts.size > 0) await pause(10, new AbortController().signal);
  }
}
