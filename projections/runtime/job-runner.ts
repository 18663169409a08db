import { describeError } from './failures.js';
import { type Job, JOB_LEASE_MS, type Jobs } from './jobs.js';
import type { RuntimeLog } from './runtime-log.js';
import { pause } from '../../src/pause.js';
import { workerName } from './worker-name.js';

/** Jobs that a process does at once. */
const AT_ONCE = 16;
/** Jobs that a process holds, those that wait for their turn included: taking is worth a statement. */
const IN_HAND = 64;
/** How often due jobs are looked for while nobody tells of new ones (ms). */
const POLL_MS = 500;
/** A third of the lease: two renewals in a row may fail. */
const RENEW_MS = JOB_LEASE_MS / 3;

/** What a handler says of a job; by throwing it says that the job is to be tried again. */
export type Outcome = 'done' | { readonly gaveUp: string } | { readonly againInMs: number; readonly because: string };

/** What a kind of job is, and who does it. Jobs of a kind that a build does not know wait for one that does. */
export interface JobKind {
  readonly kind: string;
  /** Pauses between attempts (ms): the first, doubled each time up to the longest, less a random part of up to a half. */
  readonly backoff: { readonly first: number; readonly longest: number };
  /**
   * Does a job. It may be done twice, by another process at the same time too: what it does must be the same then.
   * @param signal fires when the job is not this worker's any more, or when the process ends
   */
  readonly handle: (job: Job, signal: AbortSignal) => Promise<Outcome>;
}

/** Told of every attempt. */
export type MeasureJob = (kind: string, outcome: 'done' | 'again' | 'gave up', ms: number) => void;

interface Attempt {
  readonly job: Job;
  readonly ending: AbortController;
}

/** Does jobs as they become due. Any number of processes may; each job is one's at a time. */
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
    if (twice !== undefined) throw new Error(`two handlers do jobs of the kind ${twice.kind}`);
    this.#kinds = new Map(options.kinds.map((one) => [one.kind, one]));
  }

  /** Jobs were added in this process: they are looked for at once. */
  wake(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Does jobs until the signal; then those that were begun are finished and the others are given back. */
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
            log.warn({ error: describeError(error) }, 'due jobs could not be looked for, trying again');
          }
        }
        this.#waiting.push(...taken);
        this.#begin();
        // A full hand says that there is more; the next look is then when there is room.
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
      // It comes again when its lease has run out.
      this.options.log.warn({ kind: job.kind, job: job.id, error: describeError(failed) }, 'a job could not be put off');
    }
  }

  /** Jobs that end while others are being written as ended wait for those, and then go together. */
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
            // They are done again when their leases have run out, and then end.
            log.warn({ jobs: together.length, error: describeError(error) }, 'finished jobs could not be ended');
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
      // A job that ended meanwhile is no longer among the attempts.
      for (const { job, ending } of this.#attempts) if (!kept.has(job.id) && held.includes(job)) ending.abort();
      for (const job of held) {
        const at = kept.has(job.id) ? -1 : this.#waiting.indexOf(job);
        if (at >= 0) this.#waiting.splice(at, 1);
      }
    } catch (error) {
      this.options.log.warn({ error: describeError(error) }, 'the leases of jobs could not be renewed');
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
      log.warn({ error: describeError(error) }, 'jobs could not be given back; their leases run out');
    }
    while (this.#attempts.size > 0) await pause(10, new AbortController().signal);
  }
}
