import { z } from 'zod';
import { type Conversation, type LastMessage, SHOWN_STATUSES, shownStatus } from './conversation.js';
import { channelSchema, messageAnswer, messageSchema } from './conversation.answer.js';
import { type Unsealed, unsealedText } from './conversation.sealing.js';

/*
 * What a visitor may read of its own conversations: its messages, the replies, its rating, and whether the matter is settled. Internal
 * fields are left out: notes, assignee, team, tags, priority, custom attributes, inbox, snoozes, and since when somebody waits.
 * Revision, counts and times come from `Conversation.shown`, so that no byte of an answer hints at internal changes.
 */

const instant = z.iso.datetime({ precision: 3 });

export const visitorMessageSchema = z
  .strictObject({
    id: z.string(),
    /** Who spoke. */
    type: z.enum(['visitor', 'agent', 'automation']),
    contentType: messageSchema.shape.contentType,
    content: messageSchema.shape.content,
    attachments: messageSchema.shape.attachments,
    createdAt: instant,
    /** The agent's name at the time of the message. Absent for messages of a rule or of a key that is bound to no agent. */
    author: z.strictObject({ name: z.string() }).optional(),
  })
  .meta({ id: 'VisitorMessage' });
export type VisitorMessageAnswer = z.infer<typeof visitorMessageSchema>;

const base = {
  id: z.string(),
  /** `open` while it is snoozed, too. */
  status: z.enum(SHOWN_STATUSES),
  subject: z.string().nullable(),
  channel: channelSchema,
  rating: z.strictObject({ rating: z.number().int(), comment: z.string().nullable() }).nullable(),
  /** Counts the changes that the visitor sees, from 0. */
  revision: z.number().int(),
  createdAt: instant,
  updatedAt: instant,
  messageCount: z.number().int(),
};

/** In a visitor's list, and in the answer to its rating. */
export const visitorConversationSummarySchema = z
  .strictObject({ ...base, lastMessage: visitorMessageSchema.nullable() })
  .meta({ id: 'VisitorConversationSummary' });
export type VisitorConversationSummary = z.infer<typeof visitorConversationSummarySchema>;

/** One conversation, with its last messages, oldest first. */
export const visitorConversationSchema = z
  .strictObject({ ...base, messages: z.array(visitorMessageSchema) })
  .meta({ id: 'VisitorConversation' });
export type VisitorConversationAnswer = z.infer<typeof visitorConversationSchema>;

/** The parts of a conversation from which these answers are made. */
export type Shown = Pick<Conversation<Unsealed>, 'status' | 'subject' | 'channel' | 'rating' | 'createdAt' | 'shown'>;

/** Every message except notes. */
export const isShown = (message: LastMessage<unknown>) => message.type !== 'note';

/** @throws Error for a note, which must never reach a visitor: the caller has a bug */
export function visitorMessageAnswer(message: LastMessage<Unsealed>): VisitorMessageAnswer {
  const { id, type, contentType, content, attachments, createdAt } = messageAnswer(message, false);
  if (type === 'note') throw new Error('a note is not for visitors');
  return {
    id,
    type,
    contentType,
    content,
    ...(attachments === undefined ? {} : { attachments }),
    createdAt,
    ...(message.author?.type === 'agent' ? { author: { name: message.author.name } } : {}),
  };
}

function baseAnswer(id: string, c: Shown): Omit<VisitorConversationSummary, 'lastMessage'> {
  return {
    id,
    status: shownStatus(c.status),
    subject: unsealedText(c.subject),
    channel: c.channel,
    rating: c.rating === null ? null : { rating: c.rating.rating, comment: unsealedText(c.rating.comment) },
    revision: c.shown.revision,
    createdAt: c.createdAt,
    updatedAt: c.shown.updatedAt,
    messageCount: c.shown.messageCount,
  };
}

export function visitorConversationSummary(id: string, c: Shown): VisitorConversationSummary {
  return { ...baseAnswer(id, c), lastMessage: c.shown.lastMessage === null ? null : visitorMessageAnswer(c.shown.lastMessage) };
}

/** @param messages without notes */
export function visitorConversationAnswer(id: string, c: Shown, messages: readonly LastMessage<Unsealed>[]): VisitorConversationAnswer {
  return { ...baseAnswer(id, c), messages: messages.map(visitorMessageAnswer) };
}
