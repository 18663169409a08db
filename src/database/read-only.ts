import { type Kysely, sql } from 'kysely';
import { ThreadlogError } from '../errors.js';
import type { Database } from './database.js';

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

/**
 * Runs statements that write nothing on one snapshot, and ends each that takes too long.
 * @param options.settings of PostgreSQL, for these statements alone
 * @throws ThreadlogError limit_exceeded when a statement takes too long
 */
export async function readOnly<T>(
  database: Kysely<Database>,
  options: StatementLimit & { readonly settings?: Readonly<Record<string, string>> },
  run: (session: Kysely<Database>) => Promise<T>,
): Promise<T> {
  try {
    return await database
      .transaction()
      .setIsolationLevel('repeatable read')
      .setAccessMode('read only')
      .execute(async (session) => {
        await set(session, { statement_timeout: String(options.statementMs), ...options.settings });
        return await run(session);
      });
  } catch (error) {
    throw told(error, options);
  }
}

/**
 * As readOnly(), for rows that are read in batches as somebody takes them. The session is kept until then.
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

function told(error: unknown, { what, statementMs, tooLong }: StatementLimit): unknown {
  if (!(error instanceof Error && (error as { code?: unknown }).code === CANCELLED)) return error;
  return new ThreadlogError('limit_exceeded', `the ${what} took longer than ${statementMs / 1_000} s: ${tooLong}`, {}, { cause: error });
}
