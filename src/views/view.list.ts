import { sql, type SqlBool } from 'kysely';
import type { QueryParameter } from '../http/answers.js';
import { type FoldList, parametersOf, wholeFold } from '../read-models/fold-list.js';
import { type ViewAnswer, viewAnswer } from './view.answer.js';
import type { ViewCaller } from './view.js';
import { EVERYONE, ownerKey, type ViewRow, viewsTable } from './view.table.js';

/** The views that a caller may see. */
export function viewList({ self, role }: ViewCaller): FoldList<ViewRow, ViewAnswer> {
  const seesAll = role === 'auditor';
  return {
    // A cursor is valid only for callers who see the same views.
    name: `views of ${seesAll ? EVERYONE : ownerKey(self)}`,
    table: viewsTable,
    select: wholeFold,
    answer: (row) => viewAnswer(row.id, row.state, row.revision),
    ...(seesAll ? {} : { always: sql<SqlBool>`t.visible_to in (${EVERYONE}, ${ownerKey(self)})` }),
    filters: {
      // Known to the list, and answered by its caller.
      counts: () => sql<SqlBool>`true`,
      shared: (value) => (value === 'true' ? sql<SqlBool>`t.visible_to = ${EVERYONE}` : sql<SqlBool>`t.visible_to <> ${EVERYONE}`),
    },
    faults: { shared: trueOrFalse, counts: trueOrFalse },
  };
}

const trueOrFalse = (value: string) => (value === 'true' || value === 'false' ? undefined : 'must be true or false');

const TRUE_OR_FALSE = { type: 'string', enum: ['true', 'false'] } as const;

/** The query parameters of the list. */
export const VIEW_LIST_PARAMETERS: readonly QueryParameter[] = [
  { name: 'shared', schema: { ...TRUE_OR_FALSE, description: 'true lists only shared views, false only private ones.' } },
  { name: 'counts', schema: { ...TRUE_OR_FALSE, default: 'false', description: 'true adds how many conversations each view finds.' } },
  ...parametersOf({}),
];
