import { auditedResource } from '../read-models/audited-resource.js';
import { inboxAnswer } from './inbox.answer.js';
import { inboxAggregate } from './inbox.js';

export const inboxHistory = auditedResource({
  path: 'inboxes',
  called: 'an inbox',
  events: "Who made, changed and archived the inbox, oldest first. The organization's events tell which inbox is the default.",
  roles: ['admin', 'agent', 'auditor'],
  aggregate: inboxAggregate,
  answer: ({ id, state, revision }) => {
    // The organization decides which inbox is the default, so no event of the inbox changes it.
    const { isDefault: _isDefault, ...fields } = inboxAnswer(id, state, revision, false);
    return fields;
  },
});
