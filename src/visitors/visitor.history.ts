import { auditedResource } from '../read-models/audited-resource.js';
import { visitorAnswer } from './visitor.answer.js';
import { visitorAggregate } from './visitor.js';
import { unsealVisitor, unsealVisitorEvent } from './visitor.sealing.js';

export const visitorHistory = auditedResource({
  path: 'visitors',
  called: 'a visitor',
  events:
    'Who made, changed and archived the visitor, oldest first. Personal fields are in plain text, and `[erased]` once the visitor was erased.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: visitorAggregate,
  unseal: unsealVisitorEvent,
  answer: ({ id, state, revision, key }) => visitorAnswer(id, unsealVisitor(state, key), revision),
});
