import { type FoldList, wholeFold } from '../read-models/fold-list.js';
import { type RuleAnswer, ruleAnswer } from './rule.answer.js';
import { type RuleRow, rulesTable } from './rule.table.js';

export const ruleList: FoldList<RuleRow, RuleAnswer> = {
  name: 'automation-rules',
  table: rulesTable,
  select: wholeFold,
  answer: (row) => ruleAnswer(row.id, row.state, row.revision),
};
