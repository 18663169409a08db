import { auditedResource } from '../read-models/audited-resource.js';
import { agentAnswer, teamAnswer } from './assignee.answer.js';
import { assigneeAggregate } from './assignee.js';

export const agentHistory = auditedResource({
  path: 'agents',
  called: 'an agent',
  events: 'Who made, changed and archived the agent, oldest first.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: assigneeAggregate,
  shows: ({ type }) => type === 'agent',
  answer: ({ id, state, revision }) => agentAnswer(id, state, revision),
});

export const teamHistory = auditedResource({
  path: 'teams',
  called: 'a team',
  events: 'Who made, changed and archived the team, oldest first.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: assigneeAggregate,
  shows: ({ type }) => type === 'team',
  answer: ({ id, state, revision }) => teamAnswer(id, state, revision),
});
