import type { Kysely } from 'kysely';
import type { CommandBus } from '@nestjs/cqrs';
import type { Backend } from '../src/backend.js';
import type { Metrics } from '../src/metrics/metrics.js';
import type { Database } from '../src/platform/database.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import { ConversationListProjection } from './conversation-list.projection.js';
import { batchDecoder } from './decode.js';
import { HeadSigner } from './head-signer.reactor.js';
import { PeopleProjection } from './people.projection.js';
import { ProjectionGroup } from './runtime/group.js';
import type { Projection } from './runtime/projection.js';
import { openWorkerSessions } from './runtime/sessions.js';
import { SnoozeTimer } from './snooze-timer.reactor.js';

/** The groups of this build by name, each with a maker of its projections. */
export const GROUPS: Readonly<Record<string, () => Projection[]>> = { [CORE_GROUP]: () => coreProjections() };

/** Every projection of the group that lists, people and settings are read from. */
export const coreProjections = (): Projection[] => [new ConversationListProjection(), new PeopleProjection()];

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
  const { reactors = true } = options;
  const sessions = openWorkerSessions(backend.databaseUrl, {
    name: 'threadlog-projections',
    poolSize: 3,
    queryTimeoutMs: QUERY_MS,
    onError: (error) => logger.warn({ error: error.message }, 'a database connection of the projections broke'),
  });
  const database: Kysely<Database> = sessions.kysely;
  const stopping = new AbortController();
  const signer = new HeadSigner({ store, transactor: backend.transactor, masterKey: backend.masterKey, log: logger });
  const core = new ProjectionGroup({
    name: CORE_GROUP,
    projections: coreProjections(),
    decode: batchDecoder(keys),
    store,
    database,
    log: logger,
    checkpoints,
    ...(reactors ? { follower: signer } : {}),
    ...(options.inFlight === undefined ? {} : { inFlight: options.inFlight }),
    measure: (group, events, ms) => options.metrics?.batch(group, events, ms),
  });
  try {
    await core.prepare();
  } catch (error) {
    await sessions.close();
    throw error;
  }
  const timer = new SnoozeTimer({ database: backend.database, commands: options.commands, now: backend.timersNow, log: logger });
  const sweep = setInterval(() => {
    backend.unchangedAnswers
      .sweep()
      .catch((error: unknown) => logger.warn({ error: String(error) }, 'old idempotency rows could not be removed'));
  }, 10 * 60_000);
  sweep.unref();
  const reacting = reactors ? [timer, signer] : [];
  const running = [core, ...reacting].map((one) => one.run(stopping.signal));
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
