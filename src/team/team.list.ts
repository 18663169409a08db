import { sql, type SqlBool } from 'kysely';
import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type TeamAnswer, teamAnswer } from './assignee.answer.js';
import { type AssigneeRow, assigneesTable } from './assignee.table.js';

export const teamList: FoldList<AssigneeRow, TeamAnswer> = {
  name: 'teams',
  table: assigneesTable,
  select: wholeFold,
  answer: (row) => teamAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.type = 'team'`,
};
