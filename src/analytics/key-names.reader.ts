import { type Kysely, type RawBuilder, sql } from 'kysely';
import { apiKeysTable } from '../api-keys/api-key.table.js';
import type { Database } from '../database/database.js';
import { inboxesTable } from '../inboxes/inbox.table.js';
import type { ReadModels } from '../read-models/read-models.js';
import { assigneesTable } from '../team/assignee.table.js';
import type { Dimension } from './metrics.js';

/**
 * The current names of keys, for people. Numbers belong to ids, so a new name changes none.
 * @param keys values of the dimension
 */
export async function namesOf(
  session: Kysely<Database>,
  readModels: ReadModels,
  organizationId: string,
  by: Dimension | undefined,
  keys: readonly (string | null)[],
): Promise<ReadonlyMap<string, string>> {
  const tables = tablesOf(readModels, by);
  const ids = [...new Set(keys)].filter((key) => key !== null);
  if (tables.length === 0 || ids.length === 0) return new Map();
  const each = tables.map(
    (table) => sql`select id, name from ${table} where organization_id = ${organizationId} and id = any(${ids}::text[])`,
  );
  const { rows } = await sql<{ id: string; name: string }>`${sql.join(each, sql` union all `)}`.execute(session);
  return new Map(rows.map(({ id, name }) => [id, name]));
}

function tablesOf(readModels: ReadModels, by: Dimension | undefined): readonly RawBuilder<unknown>[] {
  switch (by) {
    case 'inbox':
      return [readModels.view(inboxesTable)];
    case 'agent':
      return [readModels.view(assigneesTable), readModels.view(apiKeysTable)];
    case 'team':
      return [readModels.view(assigneesTable)];
    case 'tag':
    case 'channel':
    case 'priority':
    case 'status':
    case undefined:
      return [];
  }
}
