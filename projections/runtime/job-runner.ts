import { describeError } from './failures.js';
import { type Job, JOB_LEASE_MS, type Jobs } from './jobs.js';
import type { RuntimeLog } from './runtime-log.js';
import { pause } from '../../src/pause.js';
import { WakeUp } from './wake-up.js';
import { workerName } from './worker-name.js';

/** How many jobs of a kind a process does at the same time, and how many it holds, waiting ones included, so that one statement takes several. */
export interface Places {
  readonly atOnce: number;
  readonly inHand: number;
}
const PLACES: Places = { atOnce: 16, inHand: 64 };
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
  /** Fewer for jobs that take long. Each kind has places of its own, so that many jobs of one kind keep no job of another kind waiting. */
  readonly places?: Places;
  /**
   * The receivers of its jobs take turns, so that none keeps the others waiting for more than the jobs in hand. All of its jobs have a
   * receiver. While more jobs are due than there is room for, each taking looks at every receiver that has jobs, due or not.
   */
  readonly fair?: true;
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

/** A kind with its jobs that this process has. */
interface Hand {
  readonly kind: JobKind;
  readonly places: Places;
  readonly waiting: Job[];
  begun: number;
}

/** Does jobs as they become due. Any number of processes may run one; a job belongs to one process at a time. */
export class JobRunner {
  readonly #owner = workerName();
  readonly #hands: ReadonlyMap<string, Hand>;
  readonly #fair: readonly string[];
  readonly #attempts = new Set<Attempt>();
  readonly #finished: Job[] = [];
  #finishing: Promise<void> | undefined;
  readonly #wakeUp = new WakeUp();
  /** Nothing is begun any more: nobody would tell it that the process ends. */
  #ending = false;

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
    this.#fair = options.kinds.flatMap(({ kind, fair }) => (fair === true ? [kind] : []));
    this.#hands = new Map(options.kinds.map((kind) => [kind.kind, { kind, places: kind.places ?? PLACES, waiting: [], begun: 0 }]));
  }

  /** Makes the runner look for jobs at once, since this process added some. */
  wake(): void {
    this.#wakeUp.call();
  }

  /** Does jobs until the signal, then finishes the jobs that it began and gives the others back. */
  async run(signal: AbortSignal): Promise<void> {
    const { jobs, log } = this.options;
    const end = () => {
      this.#ending = true;
      this.wake();
      for (const { ending } of this.#attempts) ending.abort();
    };
    signal.addEventListener('abort', end, { once: true });
    const renewing = setInterval(() => void this.#renew(), RENEW_MS);
    try {
      while (!signal.aborted) {
        this.#wakeUp.seen();
        let taken: readonly Job[] = [];
        const rooms = this.#rooms();
        if (rooms.size > 0) {
          try {
            taken = await jobs.take(
              rooms,
              this.#owner,
              this.#fair.filter((kind) => rooms.has(kind)),
            );
          } catch (error) {
            log.warn({ error: describeError(error) }, 'could not look for due jobs, trying again');
          }
        }
        for (const job of taken) {
          this.#hands.get(job.kind)?.waiting.push(job);
          rooms.set(job.kind, (rooms.get(job.kind) ?? 0) - 1);
        }
        for (const hand of this.#hands.values()) this.#begin(hand);
        // If as many jobs of a kind came as there was room for, there may be more: the next look follows as soon as there is room.
        if (![...rooms.values()].includes(0)) await this.#wakeUp.wait(POLL_MS, signal);
      }
    } finally {
      clearInterval(renewing);
      signal.removeEventListener('abort', end);
      await this.#stop();
    }
  }

  /** How many jobs of each kind may be taken; kinds that have enough are left out. */
  #rooms(): Map<string, number> {
    const rooms = new Map<string, number>();
    for (const [kind, { places, waiting, begun }] of this.#hands) {
      const room = places.inHand - waiting.length - begun;
      if (waiting.length < places.atOnce && room > 0) rooms.set(kind, room);
    }
    return rooms;
  }

  #begin(hand: Hand): void {
    const { kind, places, waiting } = hand;
    while (!this.#ending && hand.begun < places.atOnce) {
      const job = waiting.shift();
      if (job === undefined) return;
      const attempt: Attempt = { job, ending: new AbortController() };
      this.#attempts.add(attempt);
      hand.begun++;
      void this.#attempt(kind, attempt).finally(() => {
        this.#attempts.delete(attempt);
        hand.begun--;
        this.#begin(hand);
        if (waiting.length < places.atOnce) this.wake();
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
          await pause(100 * 2 ** failures);
        }
      }
    }
  }

  async #renew(): Promise<void> {
    const hands = [...this.#hands.values()];
    const held = [...this.#attempts].map(({ job }) => job).concat(hands.flatMap(({ waiting }) => waiting));
    if (held.length === 0) return;
    try {
      const kept = await this.options.jobs.renew(held);
      // A job that finished meanwhile is no longer among the attempts.
      for (const { job, ending } of this.#attempts) if (!kept.has(job.id) && held.includes(job)) ending.abort();
      for (const { waiting } of hands)
        waiting.splice(0, waiting.length, ...waiting.filter((job) => kept.has(job.id) || !held.includes(job)));
    } catch (error) {
      this.options.log.warn({ error: describeError(error) }, 'could not renew the leases of jobs');
    }
  }

  async #stop(): Promise<void> {
    const { jobs, log } = this.options;
    const unbegun = [...this.#hands.values()].flatMap(({ waiting }) => waiting.splice(0));
    try {
      await jobs.release(unbegun);
    } catch (error) {
      log.warn({ error: describeError(error) }, 'could not give jobs back; their leases run out');
    }
    while (this.#attempts.size > 0) await pause(10);
  }
}
