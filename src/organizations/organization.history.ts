import { auditedResource } from '../read-models/audited-resource.js';
import { organizationAnswer } from './organization.answer.js';
import { organizationAggregate } from './organization.js';

export const organizationHistory = auditedResource({
  path: 'organization',
  called: "the caller's organization",
  events: "Tells who made which inbox the default one, which no inbox's own history does. Oldest first.",
  roles: ['admin', 'agent', 'auditor'],
  aggregate: organizationAggregate,
  isSingle: true,
  answer: ({ id, state, revision }) => organizationAnswer(id, state, revision),
});
