import type { Kysely } from 'kysely';
import type { Database } from '../database/database.js';
import { readOnly, type StatementLimit } from '../database/read-only.js';
import { INSIGHT_GROUP } from '../read-models/groups.js';
import type { ReadModels } from '../read-models/read-models.js';

/** How long an analysis may take, all its statements together; of a stream, one statement. */
export const ANALYSIS: StatementLimit = {
  what: 'question',
  statementMs: 30_000,
  tooLong: 'choose a shorter range or a longer interval',
};

/** A view of the facts at one position, on which all statements of an answer agree. */
export interface Snapshot {
  readonly session: Kysely<Database>;
  /** The position of the last event that is counted; '' before the first. */
  readonly asOf: string;
}

/**
 * Runs an analysis on one position of the log.
 * @throws ThreadlogError limit_exceeded when it takes too long, rate_limited when too many of the organization run
 */
export const inSnapshot = <T>(
  database: Kysely<Database>,
  readModels: ReadModels,
  organizationId: string,
  analyze: (snapshot: Snapshot) => Promise<T>,
): Promise<T> =>
  readOnly(database, { ...ANALYSIS, organizationId }, async (session) => {
    const { position } = await session
      .selectFrom('read.checkpoints')
      .select('position')
      .where('group_name', '=', INSIGHT_GROUP)
      .where('shape', '=', readModels.shapes.get(INSIGHT_GROUP) ?? '')
      .where('live', '=', true)
      .executeTakeFirstOrThrow();
    return await analyze({ session, asOf: position });
  });
