import { sql, type SqlBool } from 'kysely';
import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type AgentAnswer, agentAnswer } from './assignee.answer.js';
import { type AssigneeRow, assigneesTable } from './assignee.table.js';

export const agentList: FoldList<AssigneeRow, AgentAnswer> = {
  name: 'agents',
  table: assigneesTable,
  select: wholeFold,
  answer: (row) => agentAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.type = 'agent'`,
};
