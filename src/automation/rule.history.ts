import { auditedResource } from '../read-models/audited-resource.js';
import { ruleAnswer } from './rule.answer.js';
import { ruleAggregate } from './rule.js';

export const ruleHistory = auditedResource({
  path: 'automation-rules',
  called: 'an automation rule',
  events: 'Who made, changed and archived the rule, oldest first.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: ruleAggregate,
  shows: ({ exists }) => exists,
  answer: ({ id, state, revision }) => ruleAnswer(id, state, revision),
});
