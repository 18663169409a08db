import type { Recorded } from '../event-store/aggregate.js';
import type { Conversation, ConversationEvent } from './conversation.js';

/*
 * The public events: what the live feed sends, what webhooks are told, and what triggers rules. They follow from the stored events alone,
 * so that live, replayed and resent copies are the same.
 */

/** Every public event, in the order of the documentation. */
export const PUBLIC_EVENTS = [
  'conversation.created',
  'conversation.updated',
  'conversation.assigned',
  'conversation.unassigned',
  'conversation.snoozed',
  'conversation.reopened',
  'conversation.resolved',
  'conversation.closed',
  'conversation.tagged',
  'conversation.rated',
  'message.received',
  'message.sent',
  'note.added',
] as const;
export type PublicEventType = (typeof PUBLIC_EVENTS)[number];

const UPDATED = 'conversation.updated';

/** The public events of a stored event, in the order in which they are told: the specific event first, then the general one. */
export function publicEventsOf<V>(event: Recorded<ConversationEvent<V>>): readonly PublicEventType[] {
  switch (event.type) {
    case 'ConversationOpened':
      return ['conversation.created'];
    case 'MessageReceived':
      return ['message.received'];
    case 'MessageSent':
      return ['message.sent'];
    case 'NoteAdded':
      return ['note.added'];
    case 'ConversationStatusChanged': {
      const { from, to } = event.data;
      if (to === 'resolved') return ['conversation.resolved', UPDATED];
      if (to === 'closed') return ['conversation.closed', UPDATED];
      return from === 'resolved' ? ['conversation.reopened', UPDATED] : [UPDATED];
    }
    case 'ConversationSnoozed':
      return ['conversation.snoozed', UPDATED];
    case 'ConversationAssigned':
      return ['conversation.assigned', UPDATED];
    case 'ConversationUnassigned':
      return ['conversation.unassigned', UPDATED];
    case 'TagsAdded':
    case 'TagRemoved':
      return ['conversation.tagged', UPDATED];
    case 'ConversationTeamChanged':
    case 'SubjectChanged':
    case 'PriorityChanged':
    case 'CustomAttributesChanged':
    case 'InboxChanged':
      return [UPDATED];
    case 'ConversationRated':
      return ['conversation.rated'];
  }
}

/** The fields of a conversation whose changes are told. */
export const CHANGING_FIELDS = [
  'status',
  'snoozedUntil',
  'assignee',
  'team',
  'tags',
  'subject',
  'priority',
  'customAttributes',
  'inboxId',
  'rating',
] as const;
export type ChangingField = (typeof CHANGING_FIELDS)[number];

/** A field's value as answers show it. */
export function valueOf<V>(c: Conversation<V>, field: ChangingField): unknown {
  switch (field) {
    case 'snoozedUntil':
      return c.status === 'snoozed' ? (c.snooze?.until ?? null) : null;
    case 'rating':
      return c.rating === null ? null : { rating: c.rating.rating, comment: c.rating.comment };
    case 'status':
    case 'assignee':
    case 'team':
    case 'tags':
    case 'subject':
    case 'priority':
    case 'customAttributes':
    case 'inboxId':
      return c[field];
  }
}

export interface Change {
  readonly field: ChangingField;
  readonly before: unknown;
  readonly after: unknown;
}

/** The fields that differ between two states of a conversation. */
export function changesBetween<V>(before: Conversation<V>, after: Conversation<V>): Change[] {
  return CHANGING_FIELDS.flatMap((field) => {
    const [was, is] = [valueOf(before, field), valueOf(after, field)];
    return JSON.stringify(was) === JSON.stringify(is) ? [] : [{ field, before: was, after: is }];
  });
}

/**
 * The position of a public event. Where a stored event gives several, each has its number after a dot, so that a client that was cut off
 * between them gets the rest. The positions compare as texts; the stored event's own position stands for all of them.
 * @param index from 0
 */
export function publicPosition(position: string, index: number, count: number): string {
  return count === 1 ? position : `${position}.${index + 1}`;
}

/** A stored event's position, and the number of its public events that the position includes; all by default. */
export function parsePublicPosition(text: string): { readonly position: string; readonly told: number } {
  const [position = '', index] = text.split('.');
  return { position, told: index === undefined ? Infinity : Number(index) };
}
