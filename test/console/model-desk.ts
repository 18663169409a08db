import type { ConversationAnswer, ConversationSummary, MessageAnswer } from '../../src/conversations/conversation.answer.js';
import type { Frame, SettableStatus } from '../../console/store/conversation-store.js';

/** As many as the API answers. */
const MOST_MESSAGES = 200;

interface Stored {
  readonly position: string;
  readonly conversationId: string;
  readonly revision: number;
  readonly types: readonly string[];
  readonly message?: MessageAnswer;
  readonly after: ConversationSummary;
}

export type Said =
  | { readonly outcome: 'done'; readonly revision: number; readonly message: MessageAnswer | undefined }
  | { readonly outcome: 'refused'; readonly code: string };

/**
 * A small model of the server, for what a page must cope with: a log of events, conversations as folds of it, commands that are done once
 * for a key and refused for a stale If-Match, and frames with positions of which one event may give two.
 */
export class ModelDesk {
  readonly log: Stored[] = [];
  readonly #answered = new Map<string, Said>();
  /** By message: the key of the command that said it. */
  readonly saidBy = new Map<string, string>();

  open(id: string): void {
    const at = this.#time();
    this.#store(id, ['conversation.created'], {
      id,
      status: 'open',
      subject: null,
      inboxId: 'inbox',
      channel: 'api',
      visitor: { id: 'v', userId: null, name: 'Vera', email: null, phone: null, avatarUrl: null, plan: null, companyId: null },
      assignee: null,
      team: null,
      tags: [],
      customAttributes: {},
      priority: 'normal',
      snoozedUntil: null,
      rating: null,
      previousConversationId: null,
      revision: 0,
      createdAt: at,
      updatedAt: at,
      waitingSince: null,
      messageCount: 0,
      lastMessage: null,
    });
  }

  /** Somebody says something: the visitor, a colleague, or a command of the page. */
  say(id: string, type: MessageAnswer['type'], text: string, author?: MessageAnswer['author']): MessageAnswer {
    const before = this.summary(id);
    const message: MessageAnswer = {
      id: `m${this.log.length}`,
      type,
      contentType: 'text',
      content: text,
      createdAt: this.#time(),
      ...(author === undefined ? {} : { author }),
    };
    const frame = type === 'visitor' ? 'message.received' : type === 'note' ? 'note.added' : 'message.sent';
    this.#store(id, [frame], { ...before, messageCount: before.messageCount + 1, lastMessage: message }, message);
    return message;
  }

  tag(id: string, tag: string): void {
    const before = this.summary(id);
    this.#store(id, ['conversation.tagged', 'conversation.updated'], { ...before, tags: [...before.tags, tag] });
  }

  setStatus(id: string, status: SettableStatus): void {
    const before = this.summary(id);
    if (before.status === status || before.status === 'closed') return;
    const types = status === 'resolved' ? ['conversation.resolved', 'conversation.updated'] : ['conversation.updated'];
    this.#store(id, types, { ...before, status });
  }

  /** POST /conversations/{id}/reply, or PUT with a status. */
  do(
    key: string,
    id: string,
    given: {
      readonly say?: { readonly type: 'reply' | 'note'; readonly text: string };
      readonly status?: SettableStatus;
      readonly base: number;
      readonly author: { readonly id: string; readonly name: string };
    },
  ): Said {
    const before = this.#answered.get(key);
    if (before !== undefined) return before;
    const { say, status, base, author } = given;
    const { revision, status: now } = this.summary(id);
    // A refusal leaves the key free.
    if (now === 'closed' && (say !== undefined || status !== 'closed')) return { outcome: 'refused', code: 'conversation_closed' };
    if (say?.type === 'reply' && base !== revision) return { outcome: 'refused', code: 'revision_mismatch' };
    const message = say === undefined ? undefined : this.say(id, say.type === 'note' ? 'note' : 'agent', say.text, author);
    if (message !== undefined) this.saidBy.set(message.id, key);
    if (status !== undefined) this.setStatus(id, status);
    const answer: Said = { outcome: 'done', revision: this.summary(id).revision, message };
    this.#answered.set(key, answer);
    return answer;
  }

  summary(id: string): ConversationSummary {
    const last = this.log.findLast(({ conversationId }) => conversationId === id);
    if (last === undefined) throw new Error(`there is no ${id}`);
    return last.after;
  }

  /** GET of one conversation. */
  conversation(id: string): ConversationAnswer {
    const { lastMessage: _last, ...fields } = this.summary(id);
    const messages = this.log.flatMap(({ conversationId, message }) => (conversationId === id && message !== undefined ? [message] : []));
    return { ...fields, messages: messages.slice(-MOST_MESSAGES) };
  }

  /** The messages of others that are stored behind a revision. */
  saidByOthers(id: string, after: number, until: number, me: string): readonly MessageAnswer[] {
    return this.log.flatMap(({ conversationId, revision, message }) =>
      conversationId === id && message !== undefined && revision > after && revision <= until && message.author?.id !== me ? [message] : [],
    );
  }

  get head(): string {
    return this.log.at(-1)?.position ?? '';
  }

  /** What the feed tells after a position; everything when there is none. */
  frames(since: string): readonly Frame[] {
    return this.log
      .flatMap(({ position, types, message, after }) =>
        types.map((type, place): Frame => {
          const { visitor, lastMessage: _last, ...conversation } = after;
          return {
            type,
            position: types.length === 1 ? position : `${position}.${place + 1}`,
            data: { conversation, visitor, revision: after.revision, ...(message === undefined ? {} : { message }) },
          };
        }),
      )
      .filter(({ position }) => position > since && !position.startsWith(`${since}.`));
  }

  #store(conversationId: string, types: readonly string[], after: ConversationSummary, message?: MessageAnswer): void {
    const revision = this.log.filter((one) => one.conversationId === conversationId).length;
    const position = String(this.log.length + 1).padStart(6, '0');
    this.log.push({
      position,
      conversationId,
      revision,
      types,
      after: { ...after, revision, updatedAt: this.#time() },
      ...(message === undefined ? {} : { message }),
    });
  }

  #time(): string {
    return new Date(1_000 * (this.log.length + 1)).toISOString();
  }
}
