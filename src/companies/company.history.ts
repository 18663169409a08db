import { auditedResource } from '../read-models/audited-resource.js';
import { companyAnswer } from './company.answer.js';
import { companyAggregate } from './company.js';

export const companyHistory = auditedResource({
  path: 'companies',
  called: 'a company',
  events: 'Who made, changed and archived the company, oldest first.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: companyAggregate,
  answer: ({ id, state, revision }) => companyAnswer(id, state, revision),
});
