import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { type Rule, ruleAggregate } from './rule.js';

export interface RuleRow extends FoldRow<Rule> {
  name: string | null;
}

export const rulesTable = foldTable<Rule, RuleRow>({
  name: 'automation_rules',
  group: CORE_GROUP,
  version: 1,
  aggregate: ruleAggregate,
  columns: { name: 'text' },
  values: ({ name, archived }) => ({ name, archived }),
});
