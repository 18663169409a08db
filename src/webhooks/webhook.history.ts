import { auditedResource } from '../read-models/audited-resource.js';
import { webhookAnswer } from './webhook.answer.js';
import { webhookAggregate } from './webhook.js';

export const webhookHistory = auditedResource({
  path: 'webhooks',
  called: 'a webhook',
  events: 'Who made, changed, disabled and enabled it and rotated its secret, oldest first.',
  roles: ['admin', 'auditor'],
  aggregate: webhookAggregate,
  answer: ({ id, state, revision }) => webhookAnswer(id, state, revision),
});
