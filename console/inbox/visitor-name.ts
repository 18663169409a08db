import type { ConversationSummary } from '../../src/conversations/conversation.answer.js';

/** What a visitor is called, whatever is known of it. */
export const visitorName = ({ visitor }: ConversationSummary) => visitor.name ?? visitor.email ?? visitor.userId ?? 'Somebody';
