import { setMaxListeners } from 'node:events';
import type { Kysely } from 'kysely';
import type { CommandBus } from '@nestjs/cqrs';
import { makeAnalystViews } from '../src/analytics/analyst.views.js';
import { sweepEvaluations } from '../src/automation/evaluation.store.js';
import type { Backend } from '../src/backend.js';
import type { Metrics } from '../src/metrics/metrics.js';
import type { Database } from '../src/database/database.js';
import { INSIGHT_GROUP } from '../src/read-models/groups.js';
import { eventsTable, FEED_CHANNEL } from '../src/audit/events.table.js';
import { batchDecoder, sealedDecoder } from '../src/event-decoding.js';
import { READ_TABLES } from '../src/features.js';
import { ToldEvents } from '../src/webhooks/webhook.told-events.js';
import { assertEveryTableWritten, assertReactors, GROUPS, jobKindsOf, reactorsOf } from './registry.js';
import { ProjectionGroup } from './runtime/group.js';
import { FeedNotice } from './runtime/feed-notice.js';
import { JobRunner } from './runtime/job-runner.js';
import { JobSignal } from './runtime/job-signal.js';
import { Jobs } from './runtime/jobs.js';
import { followFor, installReactor } from './runtime/reactor.js';
import { openWorkerSessions } from './runtime/sessions.js';
import { openWebhookSender } from './webhook-sender.js';
import { ignoreFailure } from '../src/ignore-failure.js';

/**
 * How long a worker waits for one answer of the database (ms): far longer than a batch takes. Otherwise a worker whose packets are silently
 * dropped would wait for hours, until TCP gives up.
 */
export const QUERY_MS = 30_000;

/**
 * How long a worker waits for a connection (ms). No request waits for it, so on a busy machine a slow connection is better than a failed
 * batch; a lease is longer than this.
 */
const CONNECT_MS = 6_000;

/**
 * Longest pause of search and analytics under load (ms). Nobody looks at a search as at a list that one has just written to, and an event in
 * a batch of 500 costs much less than in a batch of 100.
 */
const INSIGHT_REST_MS = 400;

/** Two sessions for each follower would be more than enough: one writes, the other renews, and few followers do so at the same time. */
const POOL_SIZE = 8;

export interface LiveProjections {
  /** Finishes the batches in hand and gives the leases up. */
  stop(): Promise<void>;
  /** Rejects when a projection group cannot go on without a person. */
  readonly failed: Promise<never>;
}

/**
 * Runs the projections and reactors of this process until stop(). Any number of processes may run them: one works, the others stand by.
 * @param options.commands how reactors' jobs are done; without it there are no reactors and no jobs, and nothing is appended to the log
 * @param options.inFlight commands in flight in this process, which the cadence follows; absent in a process that takes no commands
 */
export async function startLiveProjections(
  backend: Backend,
  options: {
    readonly inFlight?: () => number;
    readonly commands?: CommandBus;
    readonly metrics?: Pick<Metrics, 'batch' | 'job' | 'webhookAttempt'>;
  },
): Promise<LiveProjections> {
  const { logger, store, keys, checkpoints } = backend;
  // They are made once: what they remember is set aside in advance, for tens of thousands of streams.
  const made = Object.fromEntries(Object.entries(GROUPS).map(([name, make]) => [name, make()]));
  assertEveryTableWritten(READ_TABLES, made);
  const sessions = openWorkerSessions(backend.databaseUrl, {
    name: 'threadlog-projections',
    poolSize: POOL_SIZE,
    connectTimeoutMs: CONNECT_MS,
    queryTimeoutMs: QUERY_MS,
    onError: (error) => logger.warn({ error: error.message }, 'a database connection of the projections broke'),
  });
  const database: Kysely<Database> = sessions.kysely;
  const stopping = new AbortController();
  // Each follower listens to it.
  setMaxListeners(0, stopping.signal);
  const surroundings = {
    store,
    database,
    log: logger,
    ...(options.inFlight === undefined ? {} : { inFlight: options.inFlight }),
  };
  const notice = new FeedNotice(database, FEED_CHANNEL);
  const groups = Object.entries(made).map(
    ([name, projections]) =>
      new ProjectionGroup({
        ...surroundings,
        name,
        projections,
        ...(name === INSIGHT_GROUP ? { longestRest: INSIGHT_REST_MS } : {}),
        makeViews: makeAnalystViews,
        decode: batchDecoder(keys),
        checkpoints,
        measure: (group, events, ms) => {
          options.metrics?.batch(group, events, ms);
          if (group === eventsTable.group && events > 0) notice.wrote();
        },
      }),
  );
  const reacting: { run(signal: AbortSignal): Promise<void> }[] = [];
  let signal: JobSignal | undefined;
  try {
    for (const group of groups) await group.prepare();
    if (options.commands !== undefined) {
      const parts = { ...backend, told: new ToldEvents() };
      const reactors = reactorsOf(parts);
      const kinds = jobKindsOf(parts, database, options.commands);
      const sender = openWebhookSender(parts, database, options.commands, options.metrics);
      assertReactors(Object.keys(GROUPS), reactors, [...kinds, sender]);
      for (const reactor of reactors) await installReactor(database, store, reactor);
      const jobs = new Jobs(database, backend.timersClock);
      const runner = new JobRunner({ jobs, kinds, log: logger, measure: (kind, outcome, ms) => options.metrics?.job(kind, outcome, ms) });
      const told = new JobSignal(backend.databaseUrl, () => {
        runner.wake();
        sender.wake();
      });
      signal = told;
      reacting.push(runner, sender);
      for (const reactor of reactors)
        reacting.push(followFor({ ...surroundings, reactor, jobs, decode: sealedDecoder, onJobs: () => told.added() }));
    }
  } catch (error) {
    await signal?.close();
    await sessions.close();
    throw error;
  }
  let sweeping: Promise<unknown> | undefined;
  const sweep = setInterval(() => {
    backend.unchangedAnswers
      .sweep()
      .catch((error: unknown) => logger.warn({ error: String(error) }, 'could not remove old idempotency rows'));
    if (options.commands === undefined) return;
    sweeping ??= sweepEvaluations(database, stopping.signal)
      .catch((error: unknown) => logger.warn({ error: String(error) }, 'could not remove old evaluations of rules'))
      .finally(() => (sweeping = undefined));
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
      await Promise.allSettled([...running, sweeping]);
      notice.stop();
      await signal?.close();
      await sessions.close();
    },
  };
}
