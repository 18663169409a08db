import { foldTable, type FoldRow } from '../read-models/fold-table.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { assigneeAggregate, type AssigneeState } from './assignee.js';

/** Agents and teams. */
export interface AssigneeRow extends FoldRow<AssigneeState> {
  type: 'agent' | 'team';
  name: string;
}

export const assigneesTable = foldTable<AssigneeState, AssigneeRow>({
  name: 'assignees',
  group: CORE_GROUP,
  version: 1,
  aggregate: assigneeAggregate,
  columns: { name: 'text not null', type: 'text not null' },
  values: ({ name, archived, type }) => ({ name, archived, type }),
  filters: ['type'],
});
