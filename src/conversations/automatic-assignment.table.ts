import { CORE_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';

/** An assignment that an inbox made by itself: a turn of the agent in this inbox. */
export interface AutomaticAssignmentRow {
  organization_id: string;
  conversation_id: string;
  revision: number;
  position: string;
  inbox_id: string;
  agent_id: string;
}

export const automaticAssignmentsTable = readTable<AutomaticAssignmentRow>({
  name: 'automatic_assignments',
  group: CORE_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    conversation_id: 'text collate "C" not null',
    revision: 'integer not null',
    position: 'text collate "C" not null',
    inbox_id: 'text collate "C" not null',
    agent_id: 'text collate "C" not null',
  },
  key: ['organization_id', 'conversation_id', 'revision'],
  guard: 'none',
  // An agent's last turn is the end of its range.
  indexes: { turns: '(organization_id, inbox_id, agent_id, position)' },
});
