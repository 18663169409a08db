import { z } from 'zod';
import { schemaCodec } from '../event-store/schema-codec.js';
import type { ConversationEvent } from './conversation.js';

const sealed = z.string().min(1);
const status = z.enum(['open', 'pending', 'snoozed', 'resolved', 'closed']);
const priority = z.enum(['urgent', 'high', 'normal', 'low']);
const reason = z.enum(['visitor_message', 'agent', 'automation', 'snooze_elapsed', 'import']);
const assignee = z.object({ id: z.string(), type: z.enum(['agent', 'team']), name: z.string() });
const team = z.object({ id: z.string(), name: z.string() }).nullable();
// Absent where a person or a rule assigns; earlier builds knew no other assignments.
const assignmentReason = z.object({ type: z.enum(['round_robin', 'least_busy']), inboxId: z.string() }).optional();
const takenOff = z.enum(['asked', 'archived']);
const author = z.object({ type: z.enum(['agent', 'apiKey', 'automation']), id: z.string(), name: z.string() });
const message = z.object({
  messageId: z.string(),
  contentType: z.enum(['text', 'attachment', 'card']),
  // Absent for attachments without a caption; earlier builds always wrote it.
  content: sealed.optional(),
  attachments: sealed.optional(),
});
const revision = z.number().int();

/** Stored JSON to event: type → stored versions. */
export const conversationCodec = schemaCodec<ConversationEvent>(
  {
    ConversationOpened: [
      z.object({
        visitorId: z.string(),
        inboxId: z.string(),
        channel: z.enum(['api', 'widget', 'import']),
        companyId: z.string().optional(),
        priority,
        subject: sealed.optional(),
        customAttributes: z.record(z.string(), sealed).optional(),
        previousConversationId: z.string().optional(),
      }),
    ],
    MessageReceived: [message],
    MessageSent: [message.extend({ author })],
    NoteAdded: [message.extend({ author })],
    ConversationStatusChanged: [z.object({ from: status, to: status.exclude(['snoozed']), reason, episode: revision })],
    ConversationSnoozed: [z.object({ from: status, until: z.string(), reason })],
    ConversationAssigned: [z.object({ assignee, team, reason: assignmentReason })],
    ConversationUnassigned: [z.object({ previous: assignee, team, reason: takenOff })],
    ConversationTeamChanged: [z.object({ from: team, to: team, reason: takenOff })],
    TagsAdded: [z.object({ tags: z.array(z.string()) })],
    TagRemoved: [z.object({ tag: z.string() })],
    SubjectChanged: [z.object({ subject: sealed.nullable() })],
    PriorityChanged: [z.object({ from: priority, to: priority })],
    CustomAttributesChanged: [z.object({ set: z.record(z.string(), sealed), removed: z.array(z.string()) })],
    InboxChanged: [z.object({ from: z.string(), to: z.string() })],
    ConversationRated: [z.object({ rating: z.number().int(), comment: sealed.optional(), episode: revision })],
  },
  {
    ConversationOpened: ['subject', 'customAttributes'],
    MessageReceived: ['content', 'attachments'],
    MessageSent: ['content', 'attachments'],
    NoteAdded: ['content', 'attachments'],
    SubjectChanged: ['subject'],
    CustomAttributesChanged: ['set'],
    ConversationRated: ['comment'],
  },
);
