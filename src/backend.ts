import type { Kysely } from 'kysely';
import type pg from 'pg';
import type { Logger } from 'pino';
import type { Config } from './config.js';
import type { EventStore } from './event-store/event-store.js';
import { openEventStore } from './event-store/open-event-store.js';
import { Transactor } from './commands/transactor.js';
import { type Clock, systemClock } from './clock.js';
import { type Database, type OpenDatabase, openDatabase } from './database/database.js';
import { UnchangedAnswerRows } from './commands/idempotency.js';
import { type Ids, randomIds } from './ids.js';
import { openMasterKey } from './security/master-key.js';
import { migrateToLatest } from './database/migrate.js';
import type { MasterKey } from './security/sealing.js';
import { VisitorKeys } from './security/visitor-keys.js';
import { Checkpoints } from './read-models/checkpoints.js';
import { ReadModels } from './read-models/read-models.js';
import { READ_TABLES } from './features.js';
import { Cursors } from './read-models/paging.js';
import { Reachable } from './http-out/reachable.js';

/**
 * Sessions for questions. More questions wait for a session, so that they leave the database to the commands. Six let three organizations ask
 * all that one may at once (QUESTIONS_OF_ORGANIZATION); three are for those streams of analyses that a process serves at once, which keep
 * theirs as long as somebody reads.
 */
const QUESTIONS_POOL_SIZE = 6 + 3;
/** How long a question waits for a session (ms). */
const QUESTIONS_CONNECT_MS = 10_000;
/** How long a question waits for an answer (ms): longer than any statement of a question may take, which PostgreSQL ends with a reason. */
const QUESTIONS_QUERY_MS = 40_000;

/** The parts that every process of Threadlog uses: the database, the log, the keys, and the command protocol over them. */
export interface Backend {
  readonly config: Config;
  readonly logger: Logger;
  readonly databaseUrl: string;
  readonly database: Kysely<Database>;
  /** The sessions of searches and analyses: few, and more patient. */
  readonly questions: Kysely<Database>;
  /** The connection pool of `database`. */
  readonly pool: pg.Pool;
  readonly store: EventStore;
  readonly transactor: Transactor;
  readonly masterKey: MasterKey;
  readonly keys: VisitorKeys;
  readonly readModels: ReadModels;
  readonly checkpoints: Checkpoints;
  readonly cursors: Cursors;
  readonly unchangedAnswers: UnchangedAnswerRows;
  readonly clock: Clock;
  /** The clock that decides when jobs are due (ms); when absent, the database's, which all processes share. Set if a clock is injected. */
  readonly timersClock: (() => number) | undefined;
  readonly ids: Ids;
  /** Where requests to others may go. */
  readonly reachable: Reachable;
  /** Closes the parts in reverse order of opening; the embedded server last. */
  close(): Promise<void>;
}

/**
 * Opens everything that the configuration names: starts or finds the embedded PostgreSQL when there is no DATABASE_URL, migrates, opens
 * the log.
 * @throws Error with a message for people when something cannot be reached or started
 */
export async function openBackend(
  config: Config,
  logger: Logger,
  options: {
    readonly name: string;
    readonly clock?: Clock;
    readonly ids?: Ids;
    readonly connectTimeoutMs?: number;
    readonly queryTimeoutMs?: number;
  } = {
    name: 'threadlog',
  },
): Promise<Backend> {
  const closing: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const step of closing.splice(0).reverse()) await step();
  };
  try {
    let databaseUrl = config.DATABASE_URL;
    if (databaseUrl === undefined) {
      const { startEmbeddedPostgres } = await import('./embedded-postgres/embedded-postgres.js');
      const embedded = await startEmbeddedPostgres({
        dataDir: config.DATA_DIR,
        log: (line) => logger.info({ component: 'postgres' }, line),
      });
      closing.push(() => embedded.stop());
      databaseUrl = embedded.url;
    }
    await migrateToLatest(databaseUrl);
    const database: OpenDatabase = openDatabase({
      url: databaseUrl,
      poolSize: config.POOL_SIZE,
      name: options.name,
      onError: (error) => logger.warn({ error: error.message }, 'a database connection broke'),
      ...(options.connectTimeoutMs === undefined ? {} : { connectTimeoutMs: options.connectTimeoutMs }),
      ...(options.queryTimeoutMs === undefined ? {} : { queryTimeoutMs: options.queryTimeoutMs }),
    });
    closing.push(() => database.close());
    const questions = openDatabase({
      url: databaseUrl,
      poolSize: QUESTIONS_POOL_SIZE,
      name: `${options.name}-questions`,
      onError: (error) => logger.warn({ error: error.message }, 'a database connection broke'),
      connectTimeoutMs: QUESTIONS_CONNECT_MS,
      queryTimeoutMs: QUESTIONS_QUERY_MS,
    });
    closing.push(() => questions.close());
    const masterKey = await openMasterKey(config.MASTER_KEY, config.DATA_DIR);
    const keys = new VisitorKeys(database.kysely, masterKey);
    await keys.assertMasterKey();
    const store = await openEventStore({
      databaseUrl,
      eventstoreUrl: config.EVENTSTORE_URL,
      name: options.name,
      onWarning: (warning) => logger.warn(warning),
    });
    closing.push(() => store.close());
    const clock = options.clock ?? systemClock;
    const ids = options.ids ?? randomIds;
    const unchangedAnswers = new UnchangedAnswerRows(database.kysely);
    const readModels = new ReadModels(READ_TABLES);
    return {
      config,
      logger,
      databaseUrl,
      database: database.kysely,
      questions: questions.kysely,
      pool: database.pool,
      store,
      transactor: new Transactor(store, clock, ids, unchangedAnswers),
      masterKey,
      keys,
      readModels,
      checkpoints: new Checkpoints(database.kysely, readModels.shapes),
      cursors: new Cursors(masterKey.derive('cursors')),
      unchangedAnswers,
      clock,
      timersClock: options.clock === undefined ? undefined : () => clock.now(),
      ids,
      reachable: new Reachable(config.WEBHOOK_ALLOWED_NETWORKS),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
