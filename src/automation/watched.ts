import {
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  evolveConversation,
  initialConversation,
} from '../conversations/conversation.js';
import type { Actor, Aggregate, Recorded } from '../event-store/aggregate.js';
import type { TimeTriggerType } from './rule-fields.js';
import type { TimeTrigger } from './rule.js';

/*
 * A conversation as rules watch it: its state, and since when it waits for what. Both follow from its events alone.
 */

/** A wait in force, named by the event that began it. */
export interface Wait {
  readonly eventId: string;
  readonly revision: number;
  readonly position: string;
  /** ISO */
  readonly since: string;
  /** Who began it, for the field actor.type and for what a rule then causes. */
  readonly actorType: Actor['type'];
  readonly causationDepth: number;
  readonly correlationId: string;
  /** An import began it: it triggers nothing. */
  readonly imported: boolean;
}

export type Waits = { readonly [T in TimeTriggerType]: Wait | null };

export interface Watched {
  readonly conversation: Conversation;
  readonly waits: Waits;
  /** Events since a person or an application last did something here: all of them were reactions of rules, inboxes and snoozes. */
  readonly reactions: number;
}

const NO_WAITS: Waits = { unassigned_for: null, no_agent_reply_for: null, no_visitor_reply_for: null, in_status_for: null };

/** The conversation's own events and codec. */
export const watchedAggregate: Aggregate<Watched, ConversationEvent> = {
  kind: conversationAggregate.kind,
  codec: conversationAggregate.codec,
  initial: { conversation: initialConversation, waits: NO_WAITS, reactions: 0 },
  evolve: (before, event) => {
    const conversation = evolveConversation(before.conversation, event);
    const reactions = event.metadata.causationDepth > 0 ? before.reactions + 1 : 0;
    return { conversation, waits: waitsAfter(before, conversation, event), reactions };
  },
};

function waitsAfter(before: Watched, after: Conversation, event: Recorded<ConversationEvent>): Waits {
  const { waits } = before;
  const begins = (): Wait => {
    const { occurredAt, actor, causationDepth, correlationId, imported } = event.metadata;
    return {
      eventId: event.id,
      revision: event.revision,
      position: event.position,
      since: occurredAt,
      actorType: actor.type,
      causationDepth,
      correlationId,
      imported: imported === true,
    };
  };
  /** Begins as its condition becomes true, and ends as it becomes false. */
  const while_ = (wait: Wait | null, holds: boolean) => (holds ? (wait ?? begins()) : null);
  const next: Waits = {
    unassigned_for: while_(waits.unassigned_for, !after.episodeEnded && after.assignee === null),
    no_agent_reply_for: while_(waits.no_agent_reply_for, after.waitingSince !== null),
    no_visitor_reply_for: visitorReply(waits.no_visitor_reply_for, after, event, begins),
    in_status_for: waits.in_status_for === null || before.conversation.status !== after.status ? begins() : waits.in_status_for,
  };
  return sameWaits(waits, next) ? waits : next;
}

/** Every public reply of a person begins the wait anew; the visitor's answer and the end of the episode end it. */
function visitorReply(wait: Wait | null, after: Conversation, event: Recorded<ConversationEvent>, begins: () => Wait): Wait | null {
  if (after.episodeEnded || event.type === 'MessageReceived') return null;
  return event.type === 'MessageSent' && event.data.author.type !== 'automation' ? begins() : wait;
}

const sameWaits = (a: Waits, b: Waits) =>
  a.unassigned_for === b.unassigned_for &&
  a.no_agent_reply_for === b.no_agent_reply_for &&
  a.no_visitor_reply_for === b.no_visitor_reply_for &&
  a.in_status_for === b.in_status_for;

/** The wait that a time trigger is about; null while there is none. */
export function waitOf({ conversation, waits }: Watched, { type, status }: TimeTrigger): Wait | null {
  if (type === 'in_status_for' && status !== undefined && conversation.status !== status) return null;
  return waits[type];
}

/** When a wait has lasted long enough (ms). */
export const dueAt = ({ since }: Wait, { seconds }: TimeTrigger): number => Date.parse(since) + seconds * 1_000;
