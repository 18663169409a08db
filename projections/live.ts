import type { Kysely } from 'kysely';
import type { CommandBus } from '@nestjs/cqrs';
import type { Backend } from '../src/backend.js';
import type { Metrics } from '../src/metrics/metrics.js';
import type { Database } from '../src/platform/database.js';
import { READ_TABLES } from '../src/read-tables.js';
import { batchDecoder } from '../src/event-decoding.js';
import { HeadSigner } from './head-signer.reactor.js';
import { assertEveryTableWritten, GROUPS } from './registry.js';
import { ProjectionGroup } from './runtime/group.js';
import { openWorkerSessions } from './runtime/sessions.js';
import { SnoozeTimer } from './snooze-timer.reactor.js';

/**
 * How long a worker waits for one answer of the database (ms): far longer than a batch takes. Without it a worker whose connection is
 * swallowed would stand by for hours, until TCP finds out.
 */
export const QUERY_MS = 30_000;

export interface LiveProjections {
  /** Finishes the batch in hand and gives the leases up. */
  stop(): Promise<void>;
  /** Rejects when a group cannot go on without a person. */
  readonly failed: Promise<never>;
}

/**
 * Runs the projections and reactors of this process until stop(). Any number of processes may do so: one works, the others stand by.
 * @param options.reactors false: nothing is appended to the log, which gets a history just now
 * @param options.inFlight commands in flight in this process, which the cadence follows; absent in a process that takes none
 */
export async function startLiveProjections(
  backend: Backend,
  options: {
    readonly inFlight?: () => number;
    readonly commands: CommandBus;
    readonly reactors?: boolean;
    readonly metrics?: Pick<Metrics, 'batch'>;
  },
): Promise<LiveProjections> {
  const { logger, store, keys, checkpoints } = backend;
  assertEveryTableWritten(READ_TABLES);
  const { reactors = true } = options;
  const sessions = openWorkerSessions(backend.databaseUrl, {
    name: 'threadlog-projections',
    poolSize: 1 + 2 * Object.keys(GROUPS).length,
    queryTimeoutMs: QUERY_MS,
    onError: (error) => logger.warn({ error: error.message }, 'a database connection of the projections broke'),
  });
  const database: Kysely<Database> = sessions.kysely;
  const stopping = new AbortController();
  const signer = new HeadSigner({ store, transactor: backend.transactor, masterKey: backend.masterKey, log: logger });
  const groups = Object.entries(GROUPS).map(
    ([name, make], i) =>
      new ProjectionGroup({
        name,
        projections: make(),
        decode: batchDecoder(keys),
        store,
        database,
        log: logger,
        checkpoints,
        // One group is enough to show it the whole log.
        ...(reactors && i === 0 ? { follower: signer } : {}),
        ...(options.inFlight === undefined ? {} : { inFlight: options.inFlight }),
        measure: (group, events, ms) => options.metrics?.batch(group, events, ms),
      }),
  );
  try {
    for (const group of groups) await group.prepare();
  } catch (error) {
    await sessions.close();
    throw error;
  }
  const timer = new SnoozeTimer({
    database: backend.database,
    readModels: backend.readModels,
    commands: options.commands,
    now: backend.timersNow,
    log: logger,
  });
  const sweep = setInterval(() => {
    backend.unchangedAnswers
      .sweep()
      .catch((error: unknown) => logger.warn({ error: String(error) }, 'old idempotency rows could not be removed'));
  }, 10 * 60_000);
  sweep.unref();
  const reacting = reactors ? [timer, signer] : [];
  const running = [...groups, ...reacting].map((one) => one.run(stopping.signal));
  const failed = new Promise<never>((_, reject) => {
    for (const one of running) one.catch(reject);
  });
  // Whoever starts the projections decides what a stopped group means; nobody listening must not end the process.
  failed.catch(() => undefined);
  return {
    failed,
    async stop() {
      clearInterval(sweep);
      stopping.abort();
      await Promise.allSettled(running);
      await sessions.close();
    },
  };
}
