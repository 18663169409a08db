import { sql, type SqlBool } from 'kysely';
import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type CannedResponseAnswer, cannedResponseAnswer } from './canned-response.answer.js';
import { searchedShortcut } from './canned-response.js';
import { type CannedResponseRow, cannedResponsesTable } from './canned-response.table.js';

/** Also filters by shortcut (in any spelling, ignoring case). */
export const cannedResponseList: FoldList<CannedResponseRow, CannedResponseAnswer> = {
  name: 'canned-responses',
  table: cannedResponsesTable,
  select: wholeFold,
  answer: (row) => cannedResponseAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.shortcut is not null`,
  filters: { shortcut: (value) => sql<SqlBool>`t.shortcut = ${searchedShortcut(value)}` },
  named: 'title',
};
