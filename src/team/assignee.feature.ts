import { type Feature, streamOf } from '../feature.js';
import { assigneeAggregate } from './assignee.js';
import { assigneesTable } from './assignee.table.js';

export const teamFeature: Feature = {
  streams: [streamOf(assigneeAggregate, { toldAs: 'assignee', unreadable: 'stops' })],
  tables: [assigneesTable],
  histories: async () => {
    const { agentHistory, teamHistory } = await import('./assignee.history.js');
    return [agentHistory, teamHistory];
  },
  api: async () => (await import('./team.module.js')).TeamModule,
};
