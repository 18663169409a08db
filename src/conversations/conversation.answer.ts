import { z } from 'zod';
import type { DataKey } from '../security/sealing.js';
import type { Visitor } from '../visitors/visitor.js';
import { type Author, CHANNELS, CONTENT_TYPES, type Conversation, type LastMessage, PRIORITIES, STATUSES } from './conversation.js';
import { type Unsealed, unsealConversation, unsealedText } from './conversation.sealing.js';

/*
 * How the API answers a conversation: the conversation itself, commands and lists share these shapes. The tests check every answer
 * against these schemas, which refuse additional properties.
 */

const instant = z.iso.datetime({ precision: 3 });
export const statusSchema = z.enum(STATUSES).meta({ id: 'ConversationStatus' });
export const prioritySchema = z.enum(PRIORITIES).meta({ id: 'Priority' });
export const channelSchema = z.enum(CHANNELS).meta({ id: 'Channel' });
const named = z.strictObject({ id: z.string(), name: z.string() });

export const visitorBriefSchema = z
  .strictObject({
    id: z.string(),
    userId: z.string().nullable(),
    name: z.string().nullable(),
    email: z.string().nullable(),
    phone: z.string().nullable(),
    avatarUrl: z.string().nullable(),
    plan: z.string().nullable(),
    companyId: z.string().nullable(),
  })
  .meta({ id: 'VisitorBrief' });
export type VisitorBrief = z.infer<typeof visitorBriefSchema>;

/** The content of a card. */
export const cardSchema = z.strictObject({
  title: z.string(),
  description: z.string().optional(),
  actions: z.array(z.strictObject({ label: z.string(), url: z.string().optional(), action: z.string().optional() })).optional(),
});

export const messageSchema = z
  .strictObject({
    id: z.string(),
    /** Who spoke. */
    type: z.enum(['visitor', 'agent', 'note', 'automation']),
    /** The type of the message. */
    contentType: z.enum(CONTENT_TYPES),
    /** A text, or a card's {title, description?, actions?}; null for attachments without a caption, and for roles that may not read it. */
    content: z.union([z.string(), cardSchema, z.null()]),
    attachments: z.array(z.strictObject({ name: z.string(), url: z.string(), type: z.string(), size: z.number().int() })).optional(),
    createdAt: instant,
    author: named.optional(),
  })
  .meta({ id: 'Message' });
export type MessageAnswer = z.infer<typeof messageSchema>;

const base = {
  id: z.string(),
  status: statusSchema,
  subject: z.string().nullable(),
  inboxId: z.string(),
  channel: channelSchema,
  visitor: visitorBriefSchema,
  assignee: z.strictObject({ id: z.string(), type: z.enum(['agent', 'team']), name: z.string() }).nullable(),
  team: named.nullable(),
  tags: z.array(z.string()),
  customAttributes: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  priority: prioritySchema,
  /** An instant, or next_reply. */
  snoozedUntil: z.union([instant, z.literal('next_reply')]).nullable(),
  rating: z.strictObject({ rating: z.number().int(), comment: z.string().nullable() }).nullable(),
  previousConversationId: z.string().nullable(),
  revision: z.number().int(),
  createdAt: instant,
  updatedAt: instant,
  waitingSince: instant.nullable(),
  messageCount: z.number().int(),
};

/** In lists, and in the answers of commands. */
export const conversationSummarySchema = z
  .strictObject({ ...base, lastMessage: messageSchema.nullable() })
  .meta({ id: 'ConversationSummary' });
export type ConversationSummary = z.infer<typeof conversationSummarySchema>;

/** GET of one conversation, with its last messages, oldest first. */
export const conversationSchema = z.strictObject({ ...base, messages: z.array(messageSchema) }).meta({ id: 'Conversation' });
export type ConversationAnswer = z.infer<typeof conversationSchema>;

/** What an answer shows from other streams, as it is now. */
export interface Joined {
  readonly visitor: VisitorBrief;
  readonly assigneeName: string | undefined;
  readonly teamName: string | undefined;
}

/** The visitor's fields that conversations show. */
export type VisitorJoined = Pick<Visitor<unknown>, 'userId' | 'name' | 'email' | 'phone' | 'avatarUrl' | 'plan' | 'companyId'>;

export function visitorBrief(id: string, visitor: VisitorJoined | undefined): VisitorBrief {
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return {
    id,
    userId: visitor?.userId ?? null,
    name: text(visitor?.name),
    email: text(visitor?.email),
    phone: text(visitor?.phone),
    avatarUrl: text(visitor?.avatarUrl),
    plan: visitor?.plan ?? null,
    companyId: visitor?.companyId ?? null,
  };
}

/** @param withhold true for roles that may not read message contents */
export function messageAnswer(message: LastMessage<Unsealed>, withhold: boolean): MessageAnswer {
  return {
    id: message.messageId,
    type: message.type,
    contentType: message.contentType,
    content: withhold ? null : ((message.content ?? null) as MessageAnswer['content']),
    ...(message.attachments === undefined || withhold
      ? {}
      : { attachments: message.attachments as NonNullable<MessageAnswer['attachments']> }),
    createdAt: message.createdAt,
    ...(message.author === undefined ? {} : { author: authorAnswer(message.author) }),
  };
}

const authorAnswer = ({ id, name }: Author) => ({ id, name });

function baseAnswer(
  id: string,
  c: Conversation<Unsealed>,
  revision: number,
  joined: Joined,
  withhold: boolean,
): Omit<ConversationSummary, 'lastMessage'> {
  return {
    id,
    status: c.status,
    subject: unsealedText(c.subject),
    inboxId: c.inboxId,
    channel: c.channel,
    visitor: joined.visitor,
    assignee: c.assignee === null ? null : { ...c.assignee, name: joined.assigneeName ?? c.assignee.name },
    team: c.team === null ? null : { id: c.team.id, name: joined.teamName ?? c.team.name },
    tags: [...c.tags],
    customAttributes: c.customAttributes as ConversationSummary['customAttributes'],
    priority: c.priority,
    snoozedUntil: c.status === 'snoozed' ? (c.snooze?.until ?? null) : null,
    rating: c.rating === null ? null : { rating: c.rating.rating, comment: withhold ? null : unsealedText(c.rating.comment) },
    previousConversationId: c.previousConversationId,
    revision,
    createdAt: c.createdAt,
    updatedAt: c.updatedAt,
    waitingSince: c.waitingSince,
    messageCount: c.messageCount,
  };
}

export function conversationSummary(
  id: string,
  c: Conversation<Unsealed>,
  revision: number,
  joined: Joined,
  withhold: boolean,
): ConversationSummary {
  return {
    ...baseAnswer(id, c, revision, joined, withhold),
    lastMessage: c.lastMessage === null ? null : messageAnswer(c.lastMessage, withhold),
  };
}

export function conversationAnswer(
  id: string,
  c: Conversation<Unsealed>,
  revision: number,
  joined: Joined,
  messages: readonly LastMessage<Unsealed>[],
  withhold: boolean,
): ConversationAnswer {
  return { ...baseAnswer(id, c, revision, joined, withhold), messages: messages.map((message) => messageAnswer(message, withhold)) };
}

/** A conversation's own fields, without its visitor and its messages, with the names of its agent and team as the events recorded them. */
export const conversationFieldsSchema = conversationSummarySchema
  .omit({ visitor: true, lastMessage: true })
  .meta({ id: 'ConversationFields' });
export type ConversationFields = z.infer<typeof conversationFieldsSchema>;

export function conversationFields(id: string, c: Conversation<Unsealed>, revision: number): ConversationFields {
  const asRecorded = { visitor: visitorBrief(c.visitorId, undefined), assigneeName: undefined, teamName: undefined };
  const { visitor: _visitor, ...fields } = baseAnswer(id, c, revision, asRecorded, false);
  return fields;
}

/** The summary from decision state, in which personal values are sealed. */
export function summaryOfSealed(
  id: string,
  state: Conversation,
  revision: number,
  key: DataKey | undefined,
  joined: Joined,
): ConversationSummary {
  return conversationSummary(id, unsealConversation(state, key), revision, joined, false);
}
