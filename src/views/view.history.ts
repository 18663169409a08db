import { auditedResource } from '../read-models/audited-resource.js';
import { viewAnswer } from './view.answer.js';
import { isVisible, viewAggregate } from './view.js';

export const viewHistory = auditedResource({
  path: 'views',
  called: 'a view',
  events: 'Who made, changed and archived the view, oldest first, for those who see it now.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: viewAggregate,
  shows: isVisible,
  answer: ({ id, state, revision }) => viewAnswer(id, state, revision),
});
