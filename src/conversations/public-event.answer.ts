import { z } from 'zod';
import { derivedId } from '../ids.js';
import {
  conversationFields,
  conversationFieldsSchema,
  messageAnswer,
  messageSchema,
  type VisitorBrief,
  visitorBriefSchema,
} from './conversation.answer.js';
import { messageOfEvent, shownStatus } from './conversation.js';
import { unsealedText } from './conversation.sealing.js';
import { type Change, CHANGING_FIELDS, changesBetween, type PublicEventType } from './public-event.js';
import type { PublicEvent } from './public-events.reader.js';
import {
  visitorConversationSummary,
  visitorConversationSummarySchema,
  visitorMessageAnswer,
  visitorMessageSchema,
} from './visitor-conversation.answer.js';

/** Raised when a field of a body changes its meaning. */
export const BODY_VERSION = 1;

const changeSchema = z.strictObject({ field: z.enum(CHANGING_FIELDS), before: z.unknown(), after: z.unknown() });

/** What the team's live frames and webhooks say of a public event. */
export const publicEventBodySchema = z
  .strictObject({
    /** The same for every copy of this public event. */
    id: z.string(),
    /** When the event happened. */
    timestamp: z.iso.datetime({ precision: 3 }),
    /** The conversation after the event. */
    conversation: conversationFieldsSchema,
    /** The visitor as it is when the body is made. */
    visitor: visitorBriefSchema,
    /** On message.received, message.sent and note.added. */
    message: messageSchema.optional(),
    /** Opaque. Positions compare as texts. */
    position: z.string(),
    /** The conversation's revision after the event. */
    revision: z.number().int(),
    actor: z.strictObject({ type: z.enum(['agent', 'apiKey', 'visitor', 'automation', 'system']), id: z.string() }),
    /** What the event changed; empty for messages and for a new conversation. */
    changes: z.array(changeSchema),
    schemaVersion: z.literal(BODY_VERSION),
  })
  .meta({ id: 'PublicEventBody' });
export type PublicEventBody = z.infer<typeof publicEventBodySchema>;

/** @param withhold true for roles that may not read message contents */
export function publicEventBody(told: PublicEvent, visitor: VisitorBrief, withhold = false): PublicEventBody {
  const { conversationId, event, before, after, position } = told;
  const message = messageOfEvent(event);
  return {
    id: idOf(told),
    timestamp: event.metadata.occurredAt,
    conversation: conversationFields(conversationId, after, event.revision),
    visitor,
    ...(message === undefined ? {} : { message: messageAnswer(message, withhold) }),
    position,
    revision: event.revision,
    actor: { type: event.metadata.actor.type, id: event.metadata.actor.id },
    changes: event.type === 'ConversationOpened' ? [] : changesBetween(before, after),
    schemaVersion: BODY_VERSION,
  };
}

/** An id of its own for each of the public events of one stored event. */
const idOf = ({ event, index }: PublicEvent) => (index === 0 ? event.id : derivedId('public-event', event.id, String(index)));

/**
 * What a visitor's live frames say. The visitor's own fields are left out, and so are the event's id and actor: whatever depends on the
 * team's internal work must not change a byte.
 */
export const visitorEventBodySchema = z
  .strictObject({
    timestamp: z.iso.datetime({ precision: 3 }),
    conversation: visitorConversationSummarySchema.omit({ lastMessage: true }).meta({ id: 'VisitorConversationFields' }),
    message: visitorMessageSchema.optional(),
    /** Opaque, and without an order. */
    position: z.string(),
    changes: z.array(z.strictObject({ field: z.enum(['status', 'subject', 'rating']), before: z.unknown(), after: z.unknown() })),
    schemaVersion: z.literal(BODY_VERSION),
  })
  .meta({ id: 'VisitorEventBody' });
export type VisitorEventBody = z.infer<typeof visitorEventBodySchema>;

/**
 * What of an event a visitor is told: its type and body; undefined for the team's internal work.
 * @param position the event's, as the visitor is told it
 */
export function visitorEvent(
  told: PublicEvent,
  position: string,
): { readonly type: PublicEventType; readonly body: VisitorEventBody } | undefined {
  const { conversationId, event, before, after, type } = told;
  if (!isForVisitors(told)) return undefined;
  const message = messageOfEvent(event);
  const { lastMessage: _lastMessage, ...conversation } = visitorConversationSummary(conversationId, after);
  return {
    type,
    body: {
      timestamp: event.metadata.occurredAt,
      conversation,
      ...(message === undefined ? {} : { message: visitorMessageAnswer(message) }),
      position,
      changes: event.type === 'ConversationOpened' ? [] : visibleChanges(before, after),
      schemaVersion: BODY_VERSION,
    },
  };
}

/** Whether the event changed something that the visitor is shown, and whether a visitor knows this type of event. */
function isForVisitors({ type, before, after }: PublicEvent): boolean {
  if (after.shown.revision === before.shown.revision) return false;
  switch (type) {
    case 'conversation.created':
    case 'conversation.updated':
    case 'conversation.reopened':
    case 'conversation.resolved':
    case 'conversation.closed':
    case 'conversation.rated':
    case 'message.received':
    case 'message.sent':
      return true;
    case 'conversation.assigned':
    case 'conversation.unassigned':
    case 'conversation.snoozed':
    case 'conversation.tagged':
    case 'note.added':
      return false;
  }
}

function visibleChanges(before: PublicEvent['before'], after: PublicEvent['after']): VisitorEventBody['changes'] {
  const changes: { field: 'status' | 'subject' | 'rating'; before: unknown; after: unknown }[] = [];
  const [was, is] = [shownStatus(before.status), shownStatus(after.status)];
  if (was !== is) changes.push({ field: 'status', before: was, after: is });
  const [said, says] = [unsealedText(before.subject), unsealedText(after.subject)];
  if (said !== says) changes.push({ field: 'subject', before: said, after: says });
  const rating: Change | undefined = changesBetween(before, after).find(({ field }) => field === 'rating');
  if (rating !== undefined) changes.push({ field: 'rating', before: rating.before, after: rating.after });
  return changes;
}
