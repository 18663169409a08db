import type { Kysely } from 'kysely';
import type { CommandBus } from '@nestjs/cqrs';
import type { Backend } from '../src/backend.js';
import type { Metrics } from '../src/metrics/metrics.js';
import type { Database } from '../src/database/database.js';
import { batchDecoder, sealedDecoder } from '../src/event-decoding.js';
import { READ_TABLES } from '../src/features.js';
import { assertEveryTableWritten, assertReactors, GROUPS, jobKindsOf, reactorsOf } from './registry.js';
import { ProjectionGroup } from './runtime/group.js';
import { JobRunner } from './runtime/job-runner.js';
import { JobSignal } from './runtime/job-signal.js';
import { Jobs } from './runtime/jobs.js';
import { followFor, installReactor } from './runtime/reactor.js';
import { openWorkerSessions } from './runtime/sessions.js';
import { ignoreFailure } from '../src/ignore-failure.js';

/**
 * How long a worker waits for one answer of the database (ms): far longer than a batch takes. Otherwise a worker whose packets are silently
 * dropped would wait for hours, until TCP gives up.
 */
export const QUERY_MS = 30_000;

/** Two sessions for each follower would be more than enough: one writes, the other renews, and few followers do so at the same time. */
const POOL_SIZE = 6;

export interface LiveProjections {
  /** Finishes the batches in hand and gives the leases up. */
  stop(): Promise<void>;
  /** Rejects when a projection group cannot go on without a person. */
  readonly failed: Promise<never>;
}

/**
 * Runs the projections and reactors of this process until stop(). Any number of processes may run them: one works, the others stand by.
 * @param options.reactors false: no reactors and no jobs, so that nothing is appended to the log while a history is imported
 * @param options.inFlight commands in flight in this process, which the cadence follows; absent in a process that takes no commands
 */
export async function startLiveProjections(
  backend: Backend,
  options: {
    readonly inFlight?: () => number;
    readonly commands: CommandBus;
    readonly reactors?: boolean;
    readonly metrics?: Pick<Metrics, 'batch' | 'job'>;
  },
): Promise<LiveProjections> {
  const { logger, store, keys, checkpoints } = backend;
  assertEveryTableWritten(READ_TABLES);
  const sessions = openWorkerSessions(backend.databaseUrl, {
    name: 'threadlog-projections',
    poolSize: POOL_SIZE,
    queryTimeoutMs: QUERY_MS,
    onError: (error) => logger.warn({ error: error.message }, 'a database connection of the projections broke'),
  });
  const database: Kysely<Database> = sessions.kysely;
  const stopping = new AbortController();
  const surroundings = {
    store,
    database,
    log: logger,
    ...(options.inFlight === undefined ? {} : { inFlight: options.inFlight }),
  };
  const groups = Object.entries(GROUPS).map(
    ([name, make]) =>
      new ProjectionGroup({
        ...surroundings,
        name,
        projections: make(),
        decode: batchDecoder(keys),
        checkpoints,
        measure: (group, events, ms) => options.metrics?.batch(group, events, ms),
      }),
  );
  const reacting: { run(signal: AbortSignal): Promise<void> }[] = [];
  let signal: JobSignal | undefined;
  try {
    for (const group of groups) await group.prepare();
    if (options.reactors !== false) {
      const reactors = reactorsOf(backend);
      const kinds = jobKindsOf(backend, database, options.commands);
      assertReactors(Object.keys(GROUPS), reactors, kinds);
      for (const reactor of reactors) await installReactor(database, store, reactor);
      const jobs = new Jobs(database, backend.timersClock);
      const runner = new JobRunner({ jobs, kinds, log: logger, measure: (kind, outcome, ms) => options.metrics?.job(kind, outcome, ms) });
      const told = new JobSignal(backend.databaseUrl, () => runner.wake());
      signal = told;
      reacting.push(runner);
      for (const reactor of reactors)
        reacting.push(followFor({ ...surroundings, reactor, jobs, decode: sealedDecoder, onJobs: () => told.added() }));
    }
  } catch (error) {
    await signal?.close();
    await sessions.close();
    throw error;
  }
  const sweep = setInterval(() => {
    backend.unchangedAnswers
      .sweep()
      .catch((error: unknown) => logger.warn({ error: String(error) }, 'could not remove old idempotency rows'));
  }, 10 * 60_000);
  sweep.unref();
  const projecting = groups.map((one) => one.run(stopping.signal));
  // A reactor that stops reports this itself, to the log and to readiness. The worker must not end, since the read models go on.
  const running = [
    ...projecting,
    ...reacting.map((one) => ignoreFailure(one.run(stopping.signal), 'its row and the log say why it stopped, and the read models go on')),
  ];
  const failed = new Promise<never>((_, reject) => {
    for (const one of projecting) one.catch(reject);
  });
  void ignoreFailure(failed, 'the caller decides what a stopped group means, and may ignore the promise');
  return {
    failed,
    async stop() {
      clearInterval(sweep);
      stopping.abort();
      await Promise.allSettled(running);
      await signal?.close();
      await sessions.close();
    },
  };
}
