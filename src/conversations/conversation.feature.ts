import { type Feature, streamOf } from '../feature.js';
import { automaticAssignmentsTable } from './automatic-assignment.table.js';
import { conversationAggregate } from './conversation.js';
import { unsealConversationEvent } from './conversation.sealing.js';
import { conversationsTable } from './conversation.table.js';

export const conversationsFeature: Feature = {
  streams: [streamOf(conversationAggregate, { toldAs: 'conversation', unreadable: 'parks', unseal: unsealConversationEvent })],
  tables: [conversationsTable, automaticAssignmentsTable],
  histories: async () => [(await import('./conversation.history.js')).conversationHistory],
  api: async () => (await import('./conversation.module.js')).ConversationsModule,
};
