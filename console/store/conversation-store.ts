import type { ConversationAnswer, ConversationSummary, MessageAnswer } from '../../src/conversations/conversation.answer.js';
import type { PublicEventBody } from '../../src/conversations/public-event.answer.js';

/*
 * What the console knows of conversations: what the server has confirmed, each by its revision, and over it the commands that are not
 * answered yet. Pure: every function takes a state and gives the next one, so that it can be tested without a browser.
 *
 * Answers of REST may come late and out of order; frames come in order, and by their position none is missed. So whichever is newer wins.
 */

/** How many messages of a conversation are kept; the API answers as many. */
const MOST_MESSAGES = 200;

/** A frame of the live feed about a conversation. */
export interface Frame {
  readonly type: string;
  readonly position: string;
  readonly data: Pick<PublicEventBody, 'conversation' | 'visitor' | 'message' | 'revision'>;
}

/** A message with the revision that it gave its conversation; an answer names the last one of its append, which nothing divides. */
interface Told {
  readonly revision: number;
  readonly message: MessageAnswer;
}

interface Known {
  readonly summary: ConversationSummary;
  /** The last messages as the API answered them. */
  readonly thread: { readonly revision: number; readonly messages: readonly MessageAnswer[] } | null;
  /** The messages that the feed and our commands' answers have told since `after`, and that the thread does not hold. */
  readonly told: { readonly after: number; readonly messages: readonly Told[] };
}

export type SettableStatus = 'open' | 'pending' | 'resolved' | 'closed';

/** What somebody asked for: a message, a status, or both. */
export interface Command {
  /** The Idempotency-Key: however often it is sent, it is done once. */
  readonly key: string;
  readonly conversationId: string;
  readonly say?: { readonly type: 'reply' | 'note'; readonly text: string };
  readonly status?: SettableStatus;
  readonly at: string;
  readonly author: { readonly id: string; readonly name: string };
}

interface Pending extends Command {
  /** The revision that its writer saw (If-Match). */
  readonly base: number;
  /** Since the answer has come: the revision after it. */
  readonly revision: number | null;
  /** How many messages the conversation had when the command was given, as far as was known. */
  readonly count: number;
  /** The message of the feed that is taken for this command's: it is shown once. */
  readonly matched: string | null;
}

/** A command that the server refused, to be told to its writer. */
export interface Refusal {
  readonly command: Command;
  readonly code: string;
  readonly title: string;
  /** The revision that its writer saw. */
  readonly base: number;
}

export interface Store {
  /** The position up to which frames are applied; undefined before the first. */
  readonly position: string | undefined;
  readonly known: ReadonlyMap<string, Known>;
  readonly pending: readonly Pending[];
  readonly refused: readonly Refusal[];
  /** By conversation: the revision that the writer of a draft has seen. */
  readonly seen: ReadonlyMap<string, number>;
  /** Conversations to be read, since what came of them does not make a whole, each with the revision that the answer must have reached. */
  readonly wanted: ReadonlyMap<string, number>;
}

export const EMPTY: Store = {
  position: undefined,
  known: new Map(),
  pending: [],
  refused: [],
  seen: new Map(),
  wanted: new Map(),
};

/** Takes the answer of a list, or of a command that answers the conversation. */
export function takeSummary(store: Store, summary: ConversationSummary): Store {
  const before = store.known.get(summary.id);
  if (before === undefined) return put(store, { summary, thread: null, told: { after: summary.revision, messages: [] } });
  // An answer of the same revision may still be fresher: names of agents and visitors change without the conversation.
  if (summary.revision < before.summary.revision) return store;
  const said = summary.messageCount === before.summary.messageCount ? 'nothing' : 'perhaps by others';
  return put(advanceSeen(store, before.summary, summary.revision, said), { ...before, summary });
}

/**
 * Takes the answer of GET of one conversation.
 * @param me the id under which this person's messages stand
 */
export function takeConversation(store: Store, { messages, ...fields }: ConversationAnswer, me: string): Store {
  const { id, revision } = fields;
  const taken = takeSummary(store, { ...fields, lastMessage: messages.at(-1) ?? null });
  const known = taken.known.get(id);
  if (known === undefined) return taken;
  if (known.thread !== null && known.thread.revision > revision) return taken;
  // What came between this answer and the first thing that we were told is missing: only a later answer has it.
  if (revision < known.told.after) return want(taken, id, known.told.after);
  const told = { after: known.told.after, messages: known.told.messages.filter((one) => one.revision > revision) };
  const whole = without(put(taken, { ...known, thread: { revision, messages }, told }), id, revision);
  return messages.reduce((next, message, place) => match(next, id, message, me, fields.messageCount - messages.length + place), whole);
}

/** Takes a frame of the feed. A frame that came before changes nothing. */
export function takeFrame(store: Store, frame: Frame, me: string): Store {
  if (store.position !== undefined && frame.position <= store.position) return store;
  const { conversation, visitor, message } = frame.data;
  const { id, revision } = conversation;
  const at: Store = { ...store, position: frame.position };
  const before = at.known.get(id);
  if (before === undefined) {
    // From here on the feed tells everything; of a conversation that began earlier, the rest must be read.
    const summary = { ...conversation, visitor, lastMessage: message ?? null };
    if (message === undefined && frame.type !== 'conversation.created') return want(at, id, revision);
    const told = { after: revision - 1, messages: message === undefined ? [] : [{ revision, message }] };
    return put(at, { summary, thread: null, told });
  }
  const isNewer = revision > before.summary.revision;
  const summary = isNewer ? { ...conversation, visitor, lastMessage: message ?? before.summary.lastMessage } : before.summary;
  const said = message === undefined ? 'nothing' : message.author?.id === me ? 'by me' : 'by others';
  const next = isNewer ? advanceSeen(at, before.summary, revision, said) : at;
  const told = message === undefined ? before : tell(before, { revision, message });
  return settle(put(message === undefined ? next : match(next, id, message, me, conversation.messageCount - 1), { ...told, summary }), id);
}

/** Remembers where the feed begins, so that a cut before the first frame loses nothing. */
export function beginAt(store: Store, position: string): Store {
  return store.position === undefined ? { ...store, position } : store;
}

/** Somebody begins to write: what is there now is what this person has seen. @param seen of a draft that was begun before a reload */
export function beginDraft(store: Store, id: string, seen?: number): Store {
  const known = store.known.get(id);
  if (known === undefined || store.seen.has(id)) return store;
  return { ...store, seen: new Map(store.seen).set(id, Math.min(seen ?? Infinity, known.summary.revision)) };
}

/** The draft is gone, or its writer has read what came since. */
export function forgetDraft(store: Store, id: string): Store {
  const seen = new Map(store.seen);
  seen.delete(id);
  return { ...store, seen };
}

/** Shows a command as done from now on. Ends the draft that it was. */
export function begin(store: Store, command: Command): Store {
  const known = store.known.get(command.conversationId);
  if (known === undefined || store.pending.some(({ key }) => key === command.key)) return store;
  const base = store.seen.get(command.conversationId) ?? known.summary.revision;
  const next = command.say === undefined ? store : forgetDraft(store, command.conversationId);
  return { ...next, pending: [...next.pending, { ...command, base, revision: null, count: known.summary.messageCount, matched: null }] };
}

/** The next command to be sent: of each conversation one at a time, in the order in which they were given. */
export function toSend(store: Store, isUnderWay: (key: string) => boolean): Pending | undefined {
  const waiting = new Set<string>();
  for (const one of store.pending) {
    if (one.revision !== null) continue;
    if (!waiting.has(one.conversationId) && !isUnderWay(one.key)) return one;
    waiting.add(one.conversationId);
  }
  return undefined;
}

/** The server has done the command. @param revision of the conversation after it @param message what was said by it */
export function done(store: Store, key: string, revision: number, message: MessageAnswer | undefined): Store {
  const command = store.pending.find((one) => one.key === key);
  if (command === undefined) return store;
  const { conversationId: id, base, say } = command;
  // Only a reply carries If-Match: by it the server found nothing between what this writer saw and the reply itself.
  const isProof = say?.type === 'reply';
  const isSame = (other: number) => isProof && other === base;
  const pending = store.pending.map((one) =>
    one.key === key ? { ...one, revision } : one.conversationId === id && isSame(one.base) ? { ...one, base: revision } : one,
  );
  const seen = isSame(store.seen.get(id) ?? -1) ? new Map(store.seen).set(id, revision) : store.seen;
  const known = store.known.get(id);
  const next = { ...store, pending, seen };
  return settle(known === undefined || message === undefined ? next : put(next, tell(known, { revision, message })), id);
}

/** The server has refused the command, and did nothing. */
export function refuse(store: Store, key: string, { code, title }: Pick<Refusal, 'code' | 'title'>): Store {
  const command = store.pending.find((one) => one.key === key);
  if (command === undefined) return store;
  return {
    ...store,
    pending: store.pending.filter((one) => one.key !== key),
    refused: [...store.refused, { command, code, title, base: command.base }],
  };
}

/** The writer has seen the refusal. */
export function dismiss(store: Store, key: string): Store {
  return { ...store, refused: store.refused.filter(({ command }) => command.key !== key) };
}

/** A message as it is shown. */
export interface ShownMessage {
  readonly message: MessageAnswer;
  /** It is on its way to the server. */
  readonly isPending: boolean;
}

/** A conversation as it is shown: what is confirmed, and over it what is on its way. */
export interface ShownConversation {
  readonly summary: ConversationSummary;
  readonly messages: readonly ShownMessage[];
  /** The messages that were there before it was opened have been read. */
  readonly isWhole: boolean;
  readonly hasPending: boolean;
}

export function show(store: Store, id: string): ShownConversation | undefined {
  const known = store.known.get(id);
  if (known === undefined) return undefined;
  const pending = store.pending.filter(({ conversationId }) => conversationId === id);
  const confirmed = messagesOf(known);
  const messages = [
    ...confirmed.map((message) => ({ message, isPending: false })),
    ...pending.flatMap((one) => (isUnseen(one) ? [{ message: messageOf(one), isPending: true }] : [])),
  ];
  let { summary } = known;
  for (const one of pending) {
    if (one.status !== undefined) summary = { ...summary, status: one.status };
    if (isUnseen(one)) summary = { ...summary, lastMessage: messageOf(one), messageCount: summary.messageCount + 1 };
  }
  return { summary, messages, isWhole: known.thread !== null, hasPending: pending.some(({ revision }) => revision === null) };
}

/** The messages that came after a revision and are not by this person, as far as they are known. */
export function saidSince(store: Store, id: string, revision: number, me: string): readonly MessageAnswer[] {
  const known = store.known.get(id);
  return (known?.told.messages ?? [])
    .filter((one) => one.revision > revision && one.message.author?.id !== me)
    .map(({ message }) => message);
}

/** The messages of the last answer, and those that came after it; by id, since an answer and the feed may tell the same one. */
function messagesOf({ thread, told }: Known): readonly MessageAnswer[] {
  const first = thread?.messages ?? [];
  const ids = new Set(first.map(({ id }) => id));
  return [...first, ...told.messages.map(({ message }) => message).filter(({ id }) => !ids.has(id))].slice(-MOST_MESSAGES);
}

const isUnseen = ({ say, revision, matched }: Pending) => say !== undefined && revision === null && matched === null;

function messageOf({ key, say, at, author }: Pending): MessageAnswer {
  return {
    id: key,
    type: say?.type === 'note' ? 'note' : 'agent',
    contentType: 'text',
    content: say?.text ?? '',
    createdAt: at,
    author: { ...author },
  };
}

/** Adds a message in its order, unless it is there. */
function tell(known: Known, told: Told): Known {
  const { messages, after } = known.told;
  if (known.thread !== null && told.revision <= known.thread.revision) return known;
  const others = messages.filter(({ message }) => message.id !== told.message.id);
  const index = others.findLastIndex(({ revision }) => revision < told.revision) + 1;
  const all = [...others.slice(0, index), told, ...others.slice(index)];
  const dropped = all.at(-MOST_MESSAGES - 1);
  return { ...known, told: { after: Math.max(after, dropped?.revision ?? after), messages: all.slice(-MOST_MESSAGES) } };
}

/**
 * A message may come before the answer of the command that said it: it is then shown once, as the confirmed one.
 * @param before how many messages the conversation had before it; a command says nothing that was there when it was given
 */
function match(store: Store, id: string, message: MessageAnswer, me: string, before: number): Store {
  if (message.author?.id !== me || store.pending.some(({ matched }) => matched === message.id)) return store;
  const kind = message.type === 'note' ? 'note' : 'reply';
  const one = store.pending.find(
    ({ conversationId, say, matched, revision, count }) =>
      conversationId === id &&
      before >= count &&
      revision === null &&
      matched === null &&
      say?.type === kind &&
      say.text === message.content,
  );
  if (one === undefined) return store;
  return { ...store, pending: store.pending.map((other) => (other === one ? { ...one, matched: message.id } : other)) };
}

/** Drops the answered commands whose outcome the confirmed state shows. */
function settle(store: Store, id: string): Store {
  const reached = store.known.get(id)?.summary.revision ?? -1;
  const pending = store.pending.filter(({ conversationId, revision }) => conversationId !== id || revision === null || revision > reached);
  return pending.length === store.pending.length ? store : { ...store, pending };
}

/** What a writer saw goes along with the conversation as long as nobody else has said anything. */
function advanceSeen(
  store: Store,
  before: ConversationSummary,
  revision: number,
  said: 'nothing' | 'by me' | 'by others' | 'perhaps by others',
): Store {
  if (said === 'by others' || said === 'perhaps by others') return store;
  const id = before.id;
  const pending = store.pending.map((one) =>
    one.conversationId === id && one.revision === null && one.base === before.revision ? { ...one, base: revision } : one,
  );
  const seen = store.seen.get(id) === before.revision ? new Map(store.seen).set(id, revision) : store.seen;
  return { ...store, pending, seen };
}

function put(store: Store, known: Known): Store {
  const next = { ...store, known: new Map(store.known).set(known.summary.id, known) };
  return settle(next, known.summary.id);
}

function want(store: Store, id: string, revision: number): Store {
  if ((store.wanted.get(id) ?? -1) >= revision) return store;
  return { ...store, wanted: new Map(store.wanted).set(id, revision) };
}

/** An answer that was under way when something happened may not have it. */
function without(store: Store, id: string, revision: number): Store {
  const wanted = new Map(store.wanted);
  if (revision < (wanted.get(id) ?? Infinity) || !wanted.delete(id)) return store;
  return { ...store, wanted };
}
