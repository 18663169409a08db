import { type Kysely, sql } from 'kysely';
import { ThreadlogError } from '../errors.js';
import type { Database } from './database.js';

/** PostgreSQL's code for a statement that was cancelled. */
const CANCELLED = '57014';

/**
 * Runs statements that write nothing on one snapshot, and ends each that takes too long.
 * @param options.settings of PostgreSQL, for these statements alone
 * @param options.tooLong what a client should do when a statement took `statementMs`
 * @throws ThreadlogError limit_exceeded when a statement takes too long
 */
export async function readOnly<T>(
  database: Kysely<Database>,
  options: {
    readonly what: string;
    readonly statementMs: number;
    readonly settings?: Readonly<Record<string, string>>;
    readonly tooLong: string;
  },
  run: (session: Kysely<Database>) => Promise<T>,
): Promise<T> {
  const { what, statementMs, settings, tooLong } = options;
  try {
    return await database
      .transaction()
      .setIsolationLevel('repeatable read')
      .setAccessMode('read only')
      .execute(async (session) => {
        const all = Object.entries({ statement_timeout: String(statementMs), ...settings });
        await sql`select set_config(name, value, true)
          from unnest(${all.map(([name]) => name)}::text[], ${all.map(([, value]) => value)}::text[]) as settings(name, value)`.execute(
          session,
        );
        return await run(session);
      });
  } catch (error) {
    if (error instanceof Error && (error as { code?: unknown }).code === CANCELLED)
      throw new ThreadlogError('limit_exceeded', `the ${what} took longer than ${statementMs / 1_000} s: ${tooLong}`, {}, { cause: error });
    throw error;
  }
}
