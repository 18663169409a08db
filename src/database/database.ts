import { Kysely, PostgresDialect, type ColumnType, type Generated, type PostgresPool, type PostgresPoolClient } from 'kysely';
import pg from 'pg';
import type { Role } from '../security/roles.js';

/**
 * The tables that cannot be derived from the log (schema `keep`, migrations/), and the checkpoints of the read models. Features declare the
 * rows of read models; queries read them through ReadModels.
 */
export interface Database {
  'keep.visitor_keys': { organization_id: string; key_id: string; visitor_id: string; wrapped: Buffer | null; created_at: Generated<Date> };
  'keep.organization_secrets': { organization_id: string; name: string; wrapped: Buffer; created_at: Generated<Date> };
  'keep.api_keys': {
    organization_id: string;
    id: string;
    /** SHA-256 of the whole key. */
    hash: Buffer;
    role: Role;
    name: string;
    agent_id: string | null;
    /** null: RATE_LIMIT_PER_MINUTE applies. */
    rate_limit_per_minute: number | null;
    expires_at: Date | null;
    revoked_at: Date | null;
    created_at: Generated<Date>;
  };
  /** Answers of keyed requests that the log does not remember, since the request appended nothing or the answer holds a secret. */
  'keep.idempotency': {
    command_id: string;
    request_hash: string;
    answer: ColumnType<unknown, string, string>;
    created_at: Generated<Date>;
  };
  /** Tickets with which a socket is opened once. migrations/0008_live_tickets.ts */
  'keep.live_tickets': {
    organization_id: string;
    id: string;
    /** SHA-256 of the ticket. */
    hash: Buffer;
    /** The API key that asked for it; null for a visitor. */
    key_id: string | null;
    acting_for: string | null;
    visitor_id: string | null;
    token_generation: number | null;
    token_expires_at: Date | null;
    expires_at: Date;
    used_at: Date | null;
  };
  /** Sessions of the console, and the links that begin one. migrations/0012_console_sessions.ts */
  'keep.console_sessions': {
    /** SHA-256 of the token. */
    hash: Buffer;
    kind: 'session' | 'link';
    organization_id: string;
    /** The API key whose rights the session has. */
    key_id: string;
    expires_at: Date;
  };
  /** Streams with an event that a projection group or reactor could not handle. Their later events wait in the log. */
  'keep.parked': {
    group_name: string;
    generation: number;
    stream: string;
    revision: number;
    position: string;
    event_id: string;
    type: string;
    error: string;
    at: Generated<Date>;
  };
  /** Events that an operator has skipped. No generation of the group handles them. */
  'keep.skipped': {
    group_name: string;
    stream: string;
    revision: number;
    event_id: string;
    type: string;
    error: string;
    at: Generated<Date>;
  };
  /** The checkpoint and the lease of each reactor. */
  'keep.reactors': {
    name: string;
    log_id: string;
    /** '' before the first event. */
    position: string;
    events: Generated<number>;
    epoch: Generated<number>;
    owner: string | null;
    lease_until: Generated<Date>;
    progress_at: Generated<Date>;
    stopped: string | null;
    paused: Generated<boolean>;
    state: ColumnType<unknown, string | null, string | null>;
    installed_at: Generated<Date>;
  };
  /** Work to be done outside. Written by the functions of migrations/0007_reactors.ts, which keep `head` correct. */
  'keep.jobs': {
    id: Generated<number>;
    kind: string;
    key: string;
    lane: string | null;
    receiver: string | null;
    /** A resend was asked for while the job was under way. */
    resend: Generated<boolean>;
    head: boolean;
    organization_id: string;
    payload: ColumnType<unknown, string, never>;
    due_at: Date;
    attempt: Generated<number>;
    owner: string | null;
    leased_until: Date | null;
    error: string | null;
    created_at: Generated<Date>;
  };
  /** The secrets that sign an endpoint's deliveries, wrapped. */
  'keep.webhook_secrets': {
    organization_id: string;
    webhook_id: string;
    id: string;
    wrapped: Buffer;
    /** The revision of the event that made the secret. */
    revision: number;
    /** Until when the secrets of lower revisions sign. */
    earlier_until: Date;
  };
  /** Events on their way to endpoints, and their attempts. Bodies are made from the log when they are sent; answers are sealed. */
  'keep.webhook_deliveries': {
    /** Order of making. */
    seq: Generated<number>;
    /** The receiver's webhook-id, too. */
    id: string;
    organization_id: string;
    webhook_id: string;
    /** The event's public name. */
    event: string;
    /** The stream that the body is made from, and the revision of its event; -1 for a ping. */
    kind: string;
    stream_id: string;
    revision: number;
    /** The number of the public event among those of the stored event. */
    index: number;
    /** publicPosition() */
    position: string;
    status: 'pending' | 'delivered' | 'failed' | 'given_up';
    /** The attempts since it was last made or resent, by which its next pause is chosen. */
    tries: Generated<number>;
    attempts: Generated<number>;
    next_attempt_at: Date | null;
    last_status: number | null;
    last_error: string | null;
    created_at: Date;
    delivered_at: Date | null;
    /** The latest attempts, oldest first. */
    log: ColumnType<unknown, never, never>;
  };
  /** Since when every attempt at an endpoint has failed; no row while they succeed. */
  'keep.webhook_health': { organization_id: string; webhook_id: string; failing_since: Date };
  /** What rules were asked about events, and what they did. `conditions` holds personal values sealed. */
  'keep.rule_evaluations': {
    nr: Generated<number>;
    organization_id: string;
    id: string;
    rule_id: string;
    rule_revision: number;
    rule_name: string | null;
    conversation_id: string;
    key_id: string;
    trigger: string;
    event_id: string;
    position: string;
    revision: number;
    at: Date;
    outcome: string;
    reason: string | null;
    by_rules: readonly string[] | null;
    conditions: ColumnType<unknown, string | null, never>;
    actions: ColumnType<unknown, string, string>;
    created_at: Generated<Date>;
  };
  /** The organization that each database role of analysts sees. migrations/0011_analysts.ts */
  'keep.analyst_roles': { role: string; organization_id: string };
  'keep.rule_back_tests': {
    organization_id: string;
    id: string;
    rule_id: string | null;
    rule: ColumnType<unknown, string, never>;
    from_ms: number | null;
    to_ms: number;
    until: string;
    status: Generated<string>;
    looked: Generated<number>;
    matched: Generated<number>;
    actions: ColumnType<unknown, string | undefined, string>;
    matches: ColumnType<unknown, string | undefined, string>;
    error: string | null;
    created_at: Generated<Date>;
  };
  /** The checkpoint and the lease of each generation of a projection group. migrations/0003_projections.ts gives the reasons. */
  'read.checkpoints': {
    generation: number;
    group_name: string;
    /** 0; another number in rows of builds that numbered their read models. */
    version: Generated<number>;
    live: boolean;
    /** ReadGroup.shape */
    shape: string;
    log_id: string;
    /** '' before the first event. */
    position: Generated<string>;
    events: Generated<number>;
    epoch: Generated<number>;
    owner: string | null;
    lease_until: Generated<Date>;
    progress_at: Generated<Date>;
    stopped: string | null;
    /** An operator has paused the group. */
    paused: Generated<boolean>;
    /** Set while a generation is being made, or is live and has not yet caught up with the log for the first time; otherwise null. */
    phase: 'filling' | 'indexing' | 'catching up' | null;
  };
}

/** Nest's injection token for the Kysely<Database> of this process. */
export const DATABASE = Symbol('Database');
/**
 * Nest's injection token for the Kysely<Database> of questions: searches and analyses, which may take longer than the pool of requests waits
 * for an answer, and must not keep its sessions from commands.
 */
export const QUESTIONS = Symbol('Questions');
/** Nest's injection token for the address of that database, for connections outside its pool. */
export const DATABASE_URL = Symbol('DatabaseUrl');

/** bigint columns are parsed as numbers: they hold milliseconds, counts and revisions, all far below 2^53. */
const INT8 = 20;
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === INT8 && format !== 'binary' ? Number : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
};

export interface OpenDatabase {
  readonly pool: pg.Pool;
  readonly kysely: Kysely<Database>;
  close(): Promise<void>;
}

/**
 * Opens a pool, and the typed query builder over it.
 * @param onError called when an idle connection broke; the pool replaces it by itself
 * @param settings settings of every session of the pool, such as lock_timeout
 * @param connectTimeoutMs how long a caller waits for a connection
 * @param queryTimeoutMs how long a caller waits for an answer, since a frozen server or a broken network never answers. Without limit when
 *   absent, for work of any length
 */
export function openDatabase(options: {
  url: string;
  poolSize: number;
  name: string;
  onError: (error: Error) => void;
  settings?: Readonly<Record<string, string | number>>;
  connectTimeoutMs?: number;
  queryTimeoutMs?: number;
}): OpenDatabase {
  const { queryTimeoutMs } = options;
  const settings = Object.entries(options.settings ?? {}).map(([name, value]) => `-c ${name}=${value}`);
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.poolSize,
    application_name: options.name,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 2_000,
    keepAlive: true,
    types,
    // The server must give the statement up as well; otherwise statements that nobody waits for would pile up there.
    ...(queryTimeoutMs !== undefined && { query_timeout: queryTimeoutMs, statement_timeout: queryTimeoutMs }),
    // Sent when the session starts, since a separate statement could be missed and costs a round trip.
    ...(settings.length > 0 && { options: settings.join(' ') }),
  });
  pool.on('error', options.onError);
  // When the server ends a session between two statements of a transaction, only the client's own listeners get the error; without one the
  // process would end. The session's next statement fails and says why.
  pool.on('connect', (client) => client.on('error', () => undefined));
  const kysely = new Kysely<Database>({ dialect: new PostgresDialect({ pool: withoutHung(pool) }) });
  return { pool, kysely, close: () => kysely.destroy() };
}

/** The message of node-postgres when `query_timeout` has passed. */
const GAVE_UP = 'Query read timeout';

/**
 * After a query timeout a connection still waits for the old answer, and every later query waits behind it. It must not be used again, not
 * even for its own transaction's `rollback`. Kysely would give it back to the pool as a good one.
 */
function withoutHung(pool: pg.Pool): PostgresPool {
  const known = new WeakMap<pg.PoolClient, PostgresPoolClient>();
  return {
    end: () => pool.end(),
    async connect() {
      const client = await pool.connect();
      const before = known.get(client);
      if (before !== undefined) return before;
      let hung: Error | undefined;
      const query = async (sql: string, parameters: readonly unknown[]) => {
        if (hung !== undefined) throw hung;
        try {
          return await client.query(sql, [...parameters]);
        } catch (error) {
          if (!(error instanceof Error) || error.message !== GAVE_UP) throw error;
          // Code that judges errors of the database uses their codes.
          hung = Object.assign(new Error('the database did not answer in time', { cause: error }), { code: 'ETIMEDOUT' });
          throw hung;
        }
      };
      // No code here uses the other form of query, a cursor.
      const guarded: PostgresPoolClient = { query: query as unknown as PostgresPoolClient['query'], release: () => client.release(hung) };
      known.set(client, guarded);
      return guarded;
    },
  };
}
