import { type Kysely, type KyselyPlugin, sql } from 'kysely';
import { ThreadlogError } from '../errors.js';
import { ignoreFailure } from '../ignore-failure.js';
import type { Database } from './database.js';
import { QuestionTurns } from './question-turns.js';

/** PostgreSQL's code for a statement that was cancelled. */
const CANCELLED = '57014';

/** How long statements that only read may take. */
export interface StatementLimit {
  /** What a client is told of: `the search took longer than …`. */
  readonly what: string;
  readonly statementMs: number;
  /** What a client should do when a statement took `statementMs`. */
  readonly tooLong: string;
}

/** A question of an organization: statements that write nothing, and together take no longer than one may. */
export interface QuestionLimit extends StatementLimit {
  readonly organizationId: string;
  /** Settings of PostgreSQL, for these statements alone. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** By the pool whose sessions they share out. */
const turns = new WeakMap<Kysely<Database>, QuestionTurns>();

function turnsOf(database: Kysely<Database>): QuestionTurns {
  const known = turns.get(database) ?? new QuestionTurns();
  turns.set(database, known);
  return known;
}

/**
 * Runs statements that write nothing on one snapshot when it is the organization's turn, and ends them when all of them together take too long.
 * @throws ThreadlogError limit_exceeded when they take too long, rate_limited when the organization has to wait too long for its turn
 */
export async function readOnly<T>(
  database: Kysely<Database>,
  options: QuestionLimit,
  run: (session: Kysely<Database>) => Promise<T>,
): Promise<T> {
  return await turnsOf(database).inTurn(options.organizationId, async () => {
    try {
      return await database
        .transaction()
        .setIsolationLevel('repeatable read')
        .setAccessMode('read only')
        .execute(async (session) => {
          const begin = performance.now();
          await set(session, { statement_timeout: String(options.statementMs), ...options.settings });
          return await run(session.withPlugin(new Deadline(session, options, begin)));
        });
    } catch (error) {
      throw told(error, options);
    }
  });
}

/** Ends a transaction whose statements take too long together, each of which may be quick enough. */
class Deadline implements KyselyPlugin {
  /** When the time that is left was last told to PostgreSQL (ms). */
  #setAt: number;

  constructor(
    private readonly session: Kysely<Database>,
    private readonly limit: StatementLimit,
    private readonly begin: number,
  ) {
    this.#setAt = begin;
  }

  /**
   * Called as a statement is made, whose place among those of the session comes after what is asked here. Quick statements do not pay for
   * another one: together they are over by a twentieth at most.
   */
  transformQuery({ node }: Parameters<KyselyPlugin['transformQuery']>[0]): ReturnType<KyselyPlugin['transformQuery']> {
    const now = performance.now();
    const left = this.begin + this.limit.statementMs - now;
    if (left <= 0) throw tooLong(this.limit);
    if (now - this.#setAt > this.limit.statementMs / 20) {
      this.#setAt = now;
      const told = set(this.session, { statement_timeout: String(Math.ceil(left)) });
      void ignoreFailure(told, 'the statement after it fails for the same reason');
    }
    return node;
  }

  transformResult({ result }: Parameters<KyselyPlugin['transformResult']>[0]): ReturnType<KyselyPlugin['transformResult']> {
    return Promise.resolve(result);
  }
}

/**
 * As readOnly(), for rows that are read in batches as somebody takes them, which may be for minutes. The session is kept until then. Such
 * readers take no turns of the questions: whoever calls this bounds them, and the pool has sessions for them besides.
 * @param run gives the batches; its statements are ended alike
 */
export async function* readOnlyBatches<T>(
  database: Kysely<Database>,
  options: StatementLimit,
  run: (session: Kysely<Database>) => AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  const tx = await database.startTransaction().setIsolationLevel('repeatable read').setAccessMode('read only').execute();
  try {
    await set(tx, { statement_timeout: String(options.statementMs) });
    yield* run(tx);
  } catch (error) {
    throw told(error, options);
  } finally {
    await tx.rollback().execute();
  }
}

/** For the transaction alone. */
async function set(session: Kysely<Database>, settings: Readonly<Record<string, string>>): Promise<void> {
  await sql`select set_config(name, value, true)
    from unnest(${Object.keys(settings)}::text[], ${Object.values(settings)}::text[]) as settings(name, value)`.execute(session);
}

function told(error: unknown, limit: StatementLimit): unknown {
  return error instanceof Error && (error as { code?: unknown }).code === CANCELLED ? tooLong(limit, error) : error;
}

const tooLong = ({ what, statementMs, tooLong: advice }: StatementLimit, cause?: Error) =>
  new ThreadlogError('limit_exceeded', `the ${what} took longer than ${statementMs / 1_000} s: ${advice}`, {}, { cause });
