import { auditedResource } from '../read-models/audited-resource.js';
import { apiKeyAnswer } from './api-key.answer.js';
import { apiKeyAggregate } from './api-key.js';

export const apiKeyHistory = auditedResource({
  path: 'api-keys',
  called: 'an API key',
  events: 'Who made, renamed, limited and revoked the key, oldest first.',
  roles: ['admin', 'auditor'],
  aggregate: apiKeyAggregate,
  answer: ({ id, state, revision }) => apiKeyAnswer(id, state, revision),
});
