import type { Aggregate, Recorded } from '../event-store/aggregate.js';
import { ThreadlogError } from '../errors.js';
import { typedText } from '../texts/unseen-characters.js';
import type { Sealed } from '../security/sealing.js';
import { conversationCodec } from './conversation.codec.js';

/*
 * The whole conversation: its events, the state that follows from them, and the decisions. Pure: no I/O, no clock, no randomness. Sealed
 * values (personal fields) are compared and passed on, never read. Events are kept for ever: add new ones, never change what one means.
 */

export const STATUSES = ['open', 'pending', 'snoozed', 'resolved', 'closed'] as const;
export type Status = (typeof STATUSES)[number];

/** From most to least urgent, which is also the sort order of lists. */
export const PRIORITIES = ['urgent', 'high', 'normal', 'low'] as const;
export type Priority = (typeof PRIORITIES)[number];

export const CONTENT_TYPES = ['text', 'attachment', 'card'] as const;
export type ContentType = (typeof CONTENT_TYPES)[number];

/** Why a status changed. */
export const REASONS = ['visitor_message', 'agent', 'automation', 'snooze_elapsed', 'import'] as const;
export type Reason = (typeof REASONS)[number];

/** How a conversation came in. */
export const CHANNELS = ['api', 'widget', 'import'] as const;
export type Channel = (typeof CHANNELS)[number];

/** A person, key or rule that speaks for the team. Keeps the name from the time of the message. */
export interface Author {
  readonly type: 'agent' | 'apiKey' | 'automation';
  readonly id: string;
  readonly name: string;
}

/**
 * A message's facts; `content` and `attachments` are sealed with the visitor's key, in the context of the message's id. Content may be
 * absent when there are attachments.
 */
export interface MessageFacts<V = Sealed> {
  readonly messageId: string;
  readonly contentType: ContentType;
  readonly content?: V;
  readonly attachments?: V;
}

export interface Assignee {
  readonly id: string;
  readonly type: 'agent' | 'team';
  readonly name: string;
}

/** The team whose queue the conversation is in; independent of the agent who is assigned now. */
export interface QueueTeam {
  readonly id: string;
  readonly name: string;
}

/** Says that an inbox assigned the conversation by itself, and in which of its ways (docs/assignment.md). */
export interface AssignmentReason {
  readonly type: 'round_robin' | 'least_busy';
  readonly inboxId: string;
}

/** Why an assignee or a team was removed: on request, or because it is archived. */
export type TakenOff = 'asked' | 'archived';

/** `V` is a personal value: sealed in the log and in decisions, unsealed for readers (see conversation.sealing.ts). */
export type ConversationEvent<V = Sealed> =
  | {
      readonly type: 'ConversationOpened';
      readonly data: {
        readonly visitorId: string;
        readonly inboxId: string;
        readonly channel: Channel;
        readonly companyId?: string;
        readonly priority: Priority;
        readonly subject?: V;
        /** By key; keys and values are sealed until they are unsealed for a reader. */
        readonly customAttributes?: Readonly<Record<string, V>>;
        readonly previousConversationId?: string;
      };
    }
  | { readonly type: 'MessageReceived'; readonly data: MessageFacts<V> }
  | { readonly type: 'MessageSent'; readonly data: MessageFacts<V> & { readonly author: Author } }
  | { readonly type: 'NoteAdded'; readonly data: MessageFacts<V> & { readonly author: Author } }
  | {
      readonly type: 'ConversationStatusChanged';
      readonly data: {
        readonly from: Status;
        readonly to: Exclude<Status, 'snoozed'>;
        readonly reason: Reason;
        /** The episode that this change opened, ended or left as it was; the first is 1. */
        readonly episode: number;
      };
    }
  | {
      readonly type: 'ConversationSnoozed';
      /** `until`: ISO instant, or next_reply to wait for the visitor only. */
      readonly data: { readonly from: Status; readonly until: string; readonly reason: Reason };
    }
  | {
      readonly type: 'ConversationAssigned';
      /** `team` is the team from now on, here and below. `reason` is absent when a person or a rule assigned it. */
      readonly data: { readonly assignee: Assignee; readonly team: QueueTeam | null; readonly reason?: AssignmentReason };
    }
  | {
      readonly type: 'ConversationUnassigned';
      readonly data: { readonly previous: Assignee; readonly team: QueueTeam | null; readonly reason: TakenOff };
    }
  /** Changes only the team; the assignee stays. */
  | {
      readonly type: 'ConversationTeamChanged';
      readonly data: { readonly from: QueueTeam | null; readonly to: QueueTeam | null; readonly reason: TakenOff };
    }
  | { readonly type: 'TagsAdded'; readonly data: { readonly tags: readonly string[] } }
  | { readonly type: 'TagRemoved'; readonly data: { readonly tag: string } }
  | { readonly type: 'SubjectChanged'; readonly data: { readonly subject: V | null } }
  | { readonly type: 'PriorityChanged'; readonly data: { readonly from: Priority; readonly to: Priority } }
  | {
      readonly type: 'CustomAttributesChanged';
      readonly data: { readonly set: Readonly<Record<string, V>>; readonly removed: readonly string[] };
    }
  | { readonly type: 'InboxChanged'; readonly data: { readonly from: string; readonly to: string } }
  | { readonly type: 'ConversationRated'; readonly data: { readonly rating: number; readonly comment?: V; readonly episode: number } };

export interface LastMessage<V = Sealed> extends MessageFacts<V> {
  readonly type: 'visitor' | 'agent' | 'note' | 'automation';
  readonly author?: Author;
  readonly createdAt: string;
}

/** The whole conversation except its older messages. `V` as in ConversationEvent. */
export interface Conversation<V = Sealed> {
  readonly exists: boolean;
  readonly visitorId: string;
  /** Names the data key of the visitor. */
  readonly keyId: string;
  readonly inboxId: string;
  readonly channel: Channel;
  readonly companyId: string | null;
  readonly status: Status;
  readonly priority: Priority;
  readonly subject: V | null;
  readonly customAttributes: Readonly<Record<string, V>>;
  readonly assignee: Assignee | null;
  /** The queue's team. Where the assignee is a team, this is the same team. */
  readonly team: QueueTeam | null;
  /** The agent from whom somebody took it. Its inbox does not give it back to this agent by itself, until it is opened or moved again. */
  readonly takenFrom: string | null;
  readonly tags: readonly string[];
  readonly previousConversationId: string | null;
  /** The snooze in force; `revision` is the revision of the event that set it, which its timer names. */
  readonly snooze: { readonly until: string; readonly revision: number } | null;
  /** Number of the current or last episode; an episode runs from opening or reopening to resolving or closing. */
  readonly episode: number;
  readonly episodeEnded: boolean;
  readonly rating: { readonly rating: number; readonly comment: V | null; readonly episode: number } | null;
  readonly waitingSince: string | null;
  readonly messageCount: number;
  readonly lastMessage: LastMessage<V> | null;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly shown: ShownToVisitor<V>;
}

/**
 * What the visitor is shown beyond the fields themselves, counted only from events that change something visible to the visitor. Notes,
 * assignments, tags, priorities, attributes, inboxes and snoozes do not change it, so that it reveals nothing of the team's work.
 */
export interface ShownToVisitor<V = Sealed> {
  /** -1 before the first event. */
  readonly revision: number;
  readonly messageCount: number;
  /** The last message that is not a note. */
  readonly lastMessage: LastMessage<V> | null;
  readonly updatedAt: string;
}

/** The statuses that a visitor knows. */
export const SHOWN_STATUSES = ['open', 'pending', 'resolved', 'closed'] as const;
export type ShownStatus = (typeof SHOWN_STATUSES)[number];

/** Snoozes are internal to the team: the visitor sees an open conversation. */
export const shownStatus = (status: Status): ShownStatus => (status === 'snoozed' ? 'open' : status);

export const initialConversation: Conversation<never> = {
  exists: false,
  visitorId: '',
  keyId: '',
  inboxId: '',
  channel: 'api',
  companyId: null,
  status: 'open',
  priority: 'normal',
  subject: null,
  customAttributes: {},
  assignee: null,
  team: null,
  takenFrom: null,
  tags: [],
  previousConversationId: null,
  snooze: null,
  episode: 0,
  episodeEnded: false,
  rating: null,
  waitingSince: null,
  messageCount: 0,
  lastMessage: null,
  createdAt: '',
  updatedAt: '',
  shown: { revision: -1, messageCount: 0, lastMessage: null, updatedAt: '' },
};

/**
 * The state after one more event; read models of conversations fold with it too. New fields stand before a spread here and below: V8 adds
 * fields that follow a spread on a slow path, which doubles the cost of a fold.
 */
export function evolveConversation<V>(before: Conversation<V>, event: Recorded<ConversationEvent<V>>): Conversation<V> {
  const at = event.metadata.occurredAt;
  // The copy that is answered. Messages, of which most events are, change it in place: another copy would cost more than the rest of the fold.
  const c: Changing<Conversation<V>> = { ...before, updatedAt: at };
  switch (event.type) {
    case 'ConversationOpened': {
      const { visitorId, inboxId, channel, companyId, priority, subject, customAttributes, previousConversationId } = event.data;
      return {
        ...c,
        exists: true,
        visitorId,
        keyId: event.metadata.keyId ?? '',
        inboxId,
        channel,
        companyId: companyId ?? null,
        priority,
        subject: subject ?? null,
        customAttributes: customAttributes ?? {},
        previousConversationId: previousConversationId ?? null,
        episode: 1,
        createdAt: at,
        shown: shownChange(c),
      };
    }
    case 'MessageReceived':
      addMessage(c, { type: 'visitor', createdAt: at, ...event.data });
      c.waitingSince ??= at;
      return c;
    case 'MessageSent': {
      const { author } = event.data;
      const type = author.type === 'automation' ? 'automation' : 'agent';
      // Only a person ends the wait; an automatic answer leaves the visitor waiting.
      addMessage(c, { type, createdAt: at, ...event.data });
      if (type === 'agent') c.waitingSince = null;
      return c;
    }
    case 'NoteAdded':
      addMessage(c, { type: 'note', createdAt: at, ...event.data });
      return c;
    case 'ConversationStatusChanged': {
      const { to, episode } = event.data;
      const ended = to === 'resolved' || to === 'closed';
      const shown = shownStatus(c.status) === shownStatus(to) ? c.shown : shownChange(c);
      const waitingSince = ended ? null : c.waitingSince;
      return { ...c, status: to, snooze: null, episode, episodeEnded: ended, waitingSince, takenFrom: null, shown };
    }
    case 'ConversationSnoozed': {
      const shown = shownStatus(c.status) === shownStatus('snoozed') ? c.shown : shownChange(c);
      return { ...c, status: 'snoozed', snooze: { until: event.data.until, revision: event.revision }, shown };
    }
    case 'ConversationAssigned':
      return { ...c, assignee: event.data.assignee, team: event.data.team, takenFrom: null };
    case 'ConversationUnassigned': {
      const { previous, team, reason } = event.data;
      return { ...c, assignee: null, team, takenFrom: reason === 'asked' && previous.type === 'agent' ? previous.id : null };
    }
    case 'ConversationTeamChanged':
      return { ...c, team: event.data.to };
    case 'TagsAdded':
      return { ...c, tags: [...c.tags, ...event.data.tags] };
    case 'TagRemoved':
      return { ...c, tags: c.tags.filter((tag) => tag !== event.data.tag) };
    case 'SubjectChanged':
      return { ...c, subject: event.data.subject, shown: shownChange(c) };
    case 'PriorityChanged':
      return { ...c, priority: event.data.to };
    case 'CustomAttributesChanged': {
      const customAttributes: Record<string, V> = { ...c.customAttributes, ...event.data.set };
      for (const key of event.data.removed) delete customAttributes[key];
      return { ...c, customAttributes };
    }
    case 'InboxChanged':
      return { ...c, inboxId: event.data.to, takenFrom: null };
    case 'ConversationRated':
      return {
        ...c,
        rating: { rating: event.data.rating, comment: event.data.comment ?? null, episode: event.data.episode },
        shown: shownChange(c),
      };
  }
}

type Changing<T> = { -readonly [F in keyof T]: T[F] };

function addMessage<V>(c: Changing<Conversation<V>>, message: LastMessage<V>): void {
  c.messageCount += 1;
  c.lastMessage = message;
  if (message.type === 'note') return;
  const { revision, messageCount } = c.shown;
  c.shown = { revision: revision + 1, messageCount: messageCount + 1, lastMessage: message, updatedAt: message.createdAt };
}

/** The event that updated `c` changed something visible to the visitor. */
function shownChange<V>(c: Conversation<V>): ShownToVisitor<V> {
  return { ...c.shown, revision: c.shown.revision + 1, updatedAt: c.updatedAt };
}

/** The message in an event; undefined for events without a message. */
export function messageOfEvent<V>(event: Recorded<ConversationEvent<V>>): LastMessage<V> | undefined {
  const createdAt = event.metadata.occurredAt;
  // New names stand before the spread: V8 adds names that follow a spread by a slow path.
  switch (event.type) {
    case 'MessageReceived':
      return { type: 'visitor', createdAt, ...event.data };
    case 'MessageSent':
      return { type: event.data.author.type === 'automation' ? 'automation' : 'agent', createdAt, ...event.data };
    case 'NoteAdded':
      return { type: 'note', createdAt, ...event.data };
    case 'ConversationOpened':
    case 'ConversationStatusChanged':
    case 'ConversationSnoozed':
    case 'ConversationAssigned':
    case 'ConversationUnassigned':
    case 'ConversationTeamChanged':
    case 'TagsAdded':
    case 'TagRemoved':
    case 'SubjectChanged':
    case 'PriorityChanged':
    case 'CustomAttributesChanged':
    case 'InboxChanged':
    case 'ConversationRated':
      return undefined;
  }
}

export const conversationAggregate: Aggregate<Conversation, ConversationEvent> = {
  kind: 'conversation',
  codec: conversationCodec,
  initial: initialConversation,
  evolve: evolveConversation,
};

/** A decision returns the next events, or refuses with a ThreadlogError. On its own result it returns []. */
export type Decision = (c: Conversation) => readonly ConversationEvent[];

/** The statuses that an agent may set by PUT; `snoozed` has its own command. */
export type SettableStatus = Exclude<Status, 'snoozed'>;

const MOVES: { readonly [S in Status]: readonly string[] } = {
  open: ['message', 'reply', 'note', 'assign', 'tag', 'pending', 'resolved', 'closed', 'snooze'],
  pending: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'resolved', 'closed', 'snooze'],
  snoozed: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'pending', 'resolved', 'closed', 'snooze'],
  resolved: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'closed'],
  closed: [],
};

function notClosed(c: Conversation): void {
  if (c.status === 'closed')
    throw new ThreadlogError('conversation_closed', 'a new conversation may name it as previousConversationId', { allowed: MOVES.closed });
}

function notAllowed(c: Conversation, move: string): ThreadlogError {
  return new ThreadlogError('transition_not_allowed', `${move} is not allowed while the conversation is ${c.status}`, {
    allowed: MOVES[c.status],
  });
}

const existing =
  (decision: Decision): Decision =>
  (c) => {
    if (!c.exists) throw new ThreadlogError('not_found');
    return decision(c);
  };

/** Decides nothing, but requires that the conversation exists. */
export const ifExists: Decision = existing(() => []);

/** Several decisions in one, each on the state that the one before leaves. */
export function inTurn(...decisions: readonly Decision[]): Decision {
  return (c) => {
    const events: ConversationEvent[] = [];
    let state = c;
    for (const decision of decisions)
      for (const event of decision(state)) {
        events.push(event);
        state = evolveConversation(state, foreseen(state, event));
      }
    return events;
  };
}

/** An event as it will be recorded, as far as later decisions of the same append look at it. */
function foreseen(c: Conversation, event: ConversationEvent): Recorded<ConversationEvent> {
  return { revision: -1, metadata: { occurredAt: c.updatedAt, keyId: c.keyId }, ...event } as Recorded<ConversationEvent>;
}

const isLast = (c: Conversation, message: MessageFacts) => c.lastMessage?.messageId === message.messageId;

export interface Opening {
  readonly visitorId: string;
  readonly inboxId: string;
  readonly channel: Channel;
  readonly companyId?: string;
  readonly priority?: Priority;
  readonly subject?: Sealed;
  /** `null` removes an attribute; a new conversation has none to remove. */
  readonly customAttributes?: Readonly<Record<string, Sealed | null>>;
  readonly previousConversationId?: string;
}

export function open({ customAttributes, ...opening }: Opening): Decision {
  return (c) => {
    if (c.exists) return [];
    const set = Object.fromEntries(Object.entries(customAttributes ?? {}).filter((entry): entry is [string, Sealed] => entry[1] !== null));
    const some = Object.keys(set).length === 0 ? {} : { customAttributes: set };
    return [{ type: 'ConversationOpened', data: { priority: 'normal', ...opening, ...some } }];
  };
}

const NOBODY: ReadonlySet<string> = new Set();

/**
 * The visitor writes a message, which opens a pending, snoozed or resolved conversation.
 * @param archived ids of archived agents and teams, here and below: they lose a conversation that becomes open
 */
export function receive(message: MessageFacts, archived = NOBODY): Decision {
  return existing((c) => {
    if (isLast(c, message)) return [];
    notClosed(c);
    const received: ConversationEvent = { type: 'MessageReceived', data: message };
    return c.status === 'open' ? [received] : [received, ...toStatus(c, 'open', 'visitor_message', archived)];
  });
}

/** The team writes to the visitor, and may set a status in the same append. A reply alone reopens nothing. */
export function reply(message: MessageFacts, author: Author, status?: SettableStatus, archived = NOBODY): Decision {
  const send: Decision = existing((c) => {
    if (isLast(c, message)) return [];
    notClosed(c);
    return [{ type: 'MessageSent', data: { author, ...message } }];
  });
  return status === undefined ? send : inTurn(send, setStatus(status, author.type === 'automation' ? 'automation' : 'agent', archived));
}

/**
 * An inbox answers its visitor by itself, where a person could reply: still in the episode of the visitor's message, and still in this inbox.
 */
export function answerVisitor(message: MessageFacts, author: Author, episode: number): Decision {
  return existing((c) => (c.episode !== episode || c.episodeEnded || c.inboxId !== author.id ? [] : reply(message, author)(c)));
}

/** An internal note of the team. */
export function addNote(message: MessageFacts, author: Author, status?: SettableStatus, archived = NOBODY): Decision {
  const add: Decision = existing((c) => {
    if (isLast(c, message)) return [];
    notClosed(c);
    return [{ type: 'NoteAdded', data: { author, ...message } }];
  });
  return status === undefined ? add : inTurn(add, setStatus(status, author.type === 'automation' ? 'automation' : 'agent', archived));
}

export function setStatus(to: SettableStatus, reason: Reason, archived = NOBODY): Decision {
  return existing((c) => {
    if (c.status === to) return [];
    notClosed(c);
    if (c.status === 'resolved' && to === 'pending') throw notAllowed(c, to);
    return toStatus(c, to, reason, archived);
  });
}

function toStatus(c: Conversation, to: SettableStatus, reason: Reason, archived: ReadonlySet<string>): ConversationEvent[] {
  const reopens = c.status === 'resolved' && to === 'open';
  const changed: ConversationEvent = {
    type: 'ConversationStatusChanged',
    data: { from: c.status, to, reason, episode: reopens ? c.episode + 1 : c.episode },
  };
  return to === 'open' ? [changed, ...archivedTakenOff(c, archived)] : [changed];
}

/** The same day and time of the next year. */
const yearAfter = (now: number) => new Date(now).setUTCFullYear(new Date(now).getUTCFullYear() + 1);

/** @param until ISO instant, or next_reply; @param now ms */
export function snooze(until: string, now: number, reason: Reason = 'agent'): Decision {
  return existing((c) => {
    notClosed(c);
    if (c.status === 'resolved') throw notAllowed(c, 'snooze');
    const normal = until === 'next_reply' ? until : new Date(until).toISOString();
    if (c.status === 'snoozed' && c.snooze?.until === normal) return [];
    if (until !== 'next_reply') {
      const at = Date.parse(until);
      if (at <= now) throw new ThreadlogError('snooze_in_past', `${normal} is not after ${new Date(now).toISOString()}`);
      if (at > yearAfter(now)) throw new ThreadlogError('snooze_too_far', `${normal} is more than a year ahead`);
    }
    return [{ type: 'ConversationSnoozed', data: { from: c.status, until: normal, reason } }];
  });
}

/**
 * The timer's command. Names the snooze that set the timer, and does nothing when another snooze or none is in force.
 * @param firedAt ms by the clock of all timers, not by the stream's time: an event from a process whose clock ran ahead must not end a
 *   snooze early
 */
export function wake(snoozeRevision: number, firedAt: number, archived = NOBODY): Decision {
  return existing((c) =>
    c.snooze === null || c.snooze.revision !== snoozeRevision || c.snooze.until === 'next_reply' || Date.parse(c.snooze.until) > firedAt
      ? []
      : toStatus(c, 'open', 'snooze_elapsed', archived),
  );
}

/**
 * Sets the assignee, the team's queue, or both; an undefined field stays as it is, with one exception: an assigned team holds the
 * conversation in its own queue. So assigning a team also sets the queue, removing an assigned team also clears the queue, and while a team
 * is assigned, another queue assigns the conversation to that queue's team.
 * @param team must not differ from an assignee that is a team
 */
export function assign(assignee: Assignee | null | undefined, team?: QueueTeam | null): Decision {
  return existing((c) => {
    notClosed(c);
    const who = assignee === undefined ? assigneeInQueue(c, team) : assignee;
    const queue = queueBeside(c, assignee, team);
    const sameQueue = c.team?.id === queue?.id;
    // A team that stays keeps the name under which it was recorded.
    const kept = sameQueue ? c.team : queue;
    if (c.assignee?.id === who?.id)
      return sameQueue ? [] : [{ type: 'ConversationTeamChanged', data: { from: c.team, to: kept, reason: 'asked' } }];
    if (who !== null) return [{ type: 'ConversationAssigned', data: { assignee: who, team: kept } }];
    return c.assignee === null ? [] : [{ type: 'ConversationUnassigned', data: { previous: c.assignee, team: kept, reason: 'asked' } }];
  });
}

/**
 * The inbox assigns by itself: only a conversation that is still open, still in this inbox and still unassigned, whatever was true when the
 * agent was chosen.
 * @param agent undefined when nobody is free
 */
export function assignAutomatically(agent: Pick<Assignee, 'id' | 'name'> | undefined, reason: AssignmentReason): Decision {
  return existing((c) => {
    if (agent === undefined || c.status !== 'open' || c.assignee !== null || c.inboxId !== reason.inboxId) return [];
    const { id, name } = agent;
    return [{ type: 'ConversationAssigned', data: { assignee: { id, type: 'agent', name }, team: c.team, reason } }];
  });
}

/** The assignee once a conversation enters a queue: an agent keeps it, a team keeps it only in its own queue. */
function assigneeInQueue({ assignee }: Conversation, team: QueueTeam | null | undefined): Assignee | null {
  if (team === undefined || assignee?.type !== 'team' || assignee.id === team?.id) return assignee;
  return team === null ? null : { id: team.id, type: 'team', name: team.name };
}

function queueBeside(c: Conversation, assignee: Assignee | null | undefined, team: QueueTeam | null | undefined): QueueTeam | null {
  if (assignee?.type === 'team') return { id: assignee.id, name: assignee.name };
  if (team !== undefined) return team;
  return assignee === null ? queueWithout(c) : c.team;
}

/** The queue once nobody is assigned: the queue of an assigned team is cleared. */
const queueWithout = ({ assignee, team }: Conversation): QueueTeam | null => (assignee?.type === 'team' ? null : team);

/** Removes archived agents and teams from a conversation that has not ended. An ended conversation loses them when it is reopened. */
export function takeOffArchived(archived: ReadonlySet<string>): Decision {
  return existing((c) => (c.episodeEnded ? [] : archivedTakenOff(c, archived)));
}

function archivedTakenOff(c: Conversation, archived: ReadonlySet<string>): ConversationEvent[] {
  const { assignee } = c;
  const left = assignee !== null && archived.has(assignee.id) ? assignee : null;
  const queue = left === null ? c.team : queueWithout(c);
  return [
    ...(left === null
      ? []
      : [{ type: 'ConversationUnassigned', data: { previous: left, team: queue, reason: 'archived' } } satisfies ConversationEvent]),
    ...(queue === null || !archived.has(queue.id)
      ? []
      : [{ type: 'ConversationTeamChanged', data: { from: queue, to: null, reason: 'archived' } } satisfies ConversationEvent]),
  ];
}

export const MAX_TAGS = 100;

/** Adds tags in their typed form, except those that are there already, in whatever form older builds stored them. */
export function addTags(tags: readonly string[]): Decision {
  return existing((c) => {
    notClosed(c);
    const known = new Set(c.tags.map(typedText));
    const fresh = [...new Set(tags.map(typedText))].filter((tag) => !known.has(tag));
    if (c.tags.length + fresh.length > MAX_TAGS) throw new ThreadlogError('limit_exceeded', `a conversation has at most ${MAX_TAGS} tags`);
    return fresh.length === 0 ? [] : [{ type: 'TagsAdded', data: { tags: fresh } }];
  });
}

/** Removes every tag with this typed form: older builds stored several spellings of a tag beside each other. */
export function removeTag(tag: string): Decision {
  const typed = typedText(tag);
  return existing((c) => {
    notClosed(c);
    return c.tags.filter((stored) => typedText(stored) === typed).map((stored) => ({ type: 'TagRemoved', data: { tag: stored } }));
  });
}

/*
 * The fields that one request may change together with the status. A change to the value that is already there is not refused, so that a
 * request that closes and changes a conversation can be repeated.
 */

export function changeSubject(subject: Sealed | null): Decision {
  return existing((c) => {
    if (c.subject === subject) return [];
    notClosed(c);
    return [{ type: 'SubjectChanged', data: { subject } }];
  });
}

export function changePriority(to: Priority): Decision {
  return existing((c) => {
    if (c.priority === to) return [];
    notClosed(c);
    return [{ type: 'PriorityChanged', data: { from: c.priority, to } }];
  });
}

export const MAX_ATTRIBUTES = 100;

/** Merges: a value sets its key, `null` removes it. Keys and values are sealed. */
export function changeCustomAttributes(changes: Readonly<Record<string, Sealed | null>>): Decision {
  return existing((c) => {
    const set: Record<string, Sealed> = {};
    const removed: string[] = [];
    for (const [key, value] of Object.entries(changes)) {
      if (value === null) {
        if (c.customAttributes[key] !== undefined) removed.push(key);
      } else if (c.customAttributes[key] !== value) set[key] = value;
    }
    if (removed.length === 0 && Object.keys(set).length === 0) return [];
    notClosed(c);
    const count = new Set([...Object.keys(c.customAttributes), ...Object.keys(set)]).size - removed.length;
    if (count > MAX_ATTRIBUTES)
      throw new ThreadlogError('limit_exceeded', `a conversation has at most ${MAX_ATTRIBUTES} custom attributes`);
    return [{ type: 'CustomAttributesChanged', data: { set, removed } }];
  });
}

export function changeInbox(inboxId: string): Decision {
  return existing((c) => {
    if (c.inboxId === inboxId) return [];
    notClosed(c);
    return [{ type: 'InboxChanged', data: { from: c.inboxId, to: inboxId } }];
  });
}

/**
 * Rates the latest ended episode, in any status. Rating it again changes the rating.
 * @param comment undefined keeps the episode's comment, null removes it
 */
export function rate(rating: number, comment?: Sealed | null): Decision {
  return existing((c) => {
    const episode = c.episodeEnded ? c.episode : c.episode - 1;
    if (episode < 1) throw new ThreadlogError('no_ended_episode');
    const before = c.rating?.episode === episode ? c.rating : null;
    const said = comment === undefined ? (before?.comment ?? null) : comment;
    if (before !== null && before.rating === rating && before.comment === said) return [];
    return [{ type: 'ConversationRated', data: { rating, ...(said === null ? {} : { comment: said }), episode } }];
  });
}
