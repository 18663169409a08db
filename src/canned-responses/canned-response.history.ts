import { auditedResource } from '../read-models/audited-resource.js';
import { cannedResponseAnswer } from './canned-response.answer.js';
import { cannedResponseAggregate } from './canned-response.js';

export const cannedResponseHistory = auditedResource({
  path: 'canned-responses',
  called: 'a canned response',
  events: 'Who made, changed and archived the response, oldest first.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: cannedResponseAggregate,
  shows: ({ exists }) => exists,
  answer: ({ id, state, revision }) => cannedResponseAnswer(id, state, revision),
});
