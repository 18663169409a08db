import { auditedResource } from '../read-models/audited-resource.js';
import { summaryOfSealed } from './conversation.answer.js';
import { joinedNow } from './conversation.joined.js';
import { conversationAggregate } from './conversation.js';
import { unsealConversationEvent } from './conversation.sealing.js';

/** Compared without its messages: their number and the last one tell that some were added, and the events which. */
export const conversationHistory = auditedResource({
  path: 'conversations',
  called: 'a conversation',
  events:
    'Every event of the stream from a revision on, oldest first, each with its actor, its cause and its hash in the chain. Personal fields are in plain text, and `[erased]` once the visitor was erased.',
  roles: ['admin', 'agent', 'auditor'],
  aggregate: conversationAggregate,
  unseal: unsealConversationEvent,
  answer: async ({ organizationId, id, state, revision, key }, others) =>
    summaryOfSealed(id, state, revision, key, await joinedNow(others, organizationId, state, key, 0)),
});
