import type { Kysely } from 'kysely';
import type { Database } from '../database/database.js';
import { readOnly } from '../database/read-only.js';

/** How long a search may take, all its statements together (ms). */
export const SEARCH_STATEMENT_MS = 10_000;

/**
 * Statements with words ask indexes: PostgreSQL guesses how frequent a word is, and a wrong guess would read a whole table. Those of a search
 * also join row by row, since each of them is about few rows.
 */
export const LIST_PLANNING = { enable_seqscan: 'off', jit: 'off' } as const;
export const SEARCH_PLANNING = { ...LIST_PLANNING, enable_hashjoin: 'off', enable_mergejoin: 'off' } as const;

/**
 * Runs the statements of a search on one snapshot.
 * @param settings of PostgreSQL's planner, for these statements alone
 * @throws ThreadlogError limit_exceeded when it takes too long, rate_limited when too many of the organization run
 */
export const inSearch = <T>(
  database: Kysely<Database>,
  organizationId: string,
  settings: Readonly<Record<string, string>>,
  run: (session: Kysely<Database>) => Promise<T>,
): Promise<T> =>
  readOnly(
    database,
    { what: 'search', statementMs: SEARCH_STATEMENT_MS, settings, tooLong: 'add a longer word or a filter', organizationId },
    run,
  );
