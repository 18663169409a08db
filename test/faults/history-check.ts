import type { ConversationAnswer, ConversationSummary } from '../../src/conversations/conversation.answer.js';
import type { EventAnswer } from '../../src/read-models/history.js';
import { ask } from '../support/ask.js';
import type { Server, Wish, Writers } from './writers.js';

/** What a history and a log have to do with each other; empty lists when all is well. */
export interface Findings {
  /** Acknowledged, and not in the log. */
  readonly lost: string[];
  /** In the log more than once. */
  readonly doubled: string[];
  /** Refused as "nothing was written", and in the log. */
  readonly ghosts: string[];
  /** In the log in another place or under another id than was acknowledged. */
  readonly misplaced: string[];
  /** Streams with a gap or whose time runs backwards, and commands that are in more than one append. */
  readonly broken: string[];
  /** Rows that are not what their stream says. */
  readonly stale: string[];
}

interface Found {
  readonly conversationId: string;
  readonly messageId: string | undefined;
}

/** Holds all that clients were told against all that the server has, in the log and in its lists. Keeps what it read, so that each look is cheap. */
export class HistoryCheck {
  readonly #server: Server;
  /** Conversations and their number of events. */
  readonly #read = new Map<string, number>();
  readonly #found = new Map<string, Found[]>();
  /** commandId → where its last event is. */
  readonly #commands = new Map<string, string>();

  constructor(server: Server) {
    this.#server = server;
  }

  /** Events that it has read. */
  get events(): number {
    return [...this.#read.values()].reduce((sum, events) => sum + events, 0);
  }

  /** @param writers at rest */
  async look(writers: Writers): Promise<Findings> {
    const findings: Findings = { lost: [], doubled: [], ghosts: [], misplaced: [], broken: [], stale: [] };
    const rows = await this.#list<ConversationSummary>('/conversations', writers.position);
    const listed = new Map(rows.map((row) => [row.id, row]));
    if (listed.size !== rows.length) findings.stale.push('a conversation is listed twice');
    for (const row of rows) await this.#readOn(row, findings);
    for (const wish of writers.history) judge(wish, this.#found.get(wish.marker) ?? [], findings);
    await this.#judgeVisitors(writers, findings);
    return findings;
  }

  async #readOn(row: ConversationSummary, findings: Findings): Promise<void> {
    const known = this.#read.get(row.id) ?? 0;
    if (row.revision + 1 === known) return;
    const answer = await this.#get<{ data: ConversationAnswer }>(`/conversations/${row.id}`);
    const { messages, ...summary } = answer.data;
    const { lastMessage, ...rest } = row;
    if (JSON.stringify(sorted(summary)) !== JSON.stringify(sorted(rest)))
      findings.stale.push(`${row.id}: listed as ${JSON.stringify(rest)}, is ${JSON.stringify(summary)}`);
    // Notes count as messages of a conversation, but what a list shows last is for the server to say: it must be one of them.
    if (lastMessage !== null && !messages.some((message) => message.id === lastMessage.id)) findings.stale.push(`${row.id}: last message`);
    let next = known;
    let last = '';
    for (let more = true; more;) {
      const page = await this.#get<{ data: EventAnswer[]; meta: { hasMore: boolean } }>(
        `/conversations/${row.id}/events?from=${next}&limit=1000`,
      );
      for (const event of page.data) {
        if (event.occurredAt < last) findings.broken.push(`${row.id}: revision ${event.revision} before the one before it`);
        last = event.occurredAt;
        if (event.revision !== next) findings.broken.push(`${row.id}: revision ${event.revision} where ${next} should be`);
        next += 1;
        this.#note(row.id, event, findings);
      }
      more = page.meta.hasMore;
    }
    if (next !== row.revision + 1) findings.broken.push(`${row.id}: ${next} events, listed at revision ${row.revision}`);
    this.#read.set(row.id, next);
  }

  #note(conversationId: string, event: EventAnswer, findings: Findings): void {
    const before = this.#commands.get(event.commandId);
    if (before !== undefined && before !== `${conversationId} ${event.revision - 1}`)
      findings.broken.push(`${conversationId}: command ${event.commandId} at ${before} and at revision ${event.revision}`);
    this.#commands.set(event.commandId, `${conversationId} ${event.revision}`);
    const { content, messageId, tags } = event.data as { content?: unknown; messageId?: string; tags?: readonly string[] };
    for (const marker of [...(typeof content === 'string' ? [content] : []), ...(tags ?? [])])
      this.#found.set(marker, [...(this.#found.get(marker) ?? []), { conversationId, messageId }]);
  }

  /** Opening a conversation makes its visitor, whose name is the marker too. */
  async #judgeVisitors(writers: Writers, findings: Findings): Promise<void> {
    const visitors = await this.#list<{ name: string | null; email: string | null }>('/visitors', writers.position);
    const named = new Map<string, number>();
    for (const { name } of visitors) if (name !== null) named.set(name, (named.get(name) ?? 0) + 1);
    for (const { kind, marker, outcome } of writers.history) {
      if (kind !== 'open') continue;
      const count = named.get(marker) ?? 0;
      if (count > 1) findings.doubled.push(`visitor ${marker}`);
      if (count === 0 && outcome === 'acknowledged') findings.lost.push(`visitor ${marker}`);
    }
    const emails = visitors.flatMap(({ email }) => (email === null ? [] : [email]));
    if (new Set(emails).size !== emails.length) findings.doubled.push('an e-mail address names two visitors');
  }

  async #list<Row>(path: string, position: string): Promise<Row[]> {
    const rows: Row[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page: { data: Row[]; meta: { nextCursor: string | null } } = await this.#get(
        `${path}?limit=100&total=none${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
        position === '' ? {} : { 'x-min-position': position },
      );
      rows.push(...page.data);
      cursor = page.meta.nextCursor;
    }
    return rows;
  }

  async #get<T>(path: string, headers: Record<string, string> = {}): Promise<T> {
    // A projection that has to start over after a kill may need longer than one request waits.
    for (const until = performance.now() + 60_000; ;) {
      const response = await ask(`${this.#server.url}/api/support${path}`, {
        method: 'GET',
        headers: { 'x-api-key': this.#server.key, ...headers },
      });
      const { text } = response;
      if (response.status === 200) return JSON.parse(text) as T;
      if (response.status !== 503 || performance.now() > until) throw new Error(`GET ${path}: ${response.status} ${text}`);
    }
  }
}

function judge(wish: Wish, found: readonly Found[], findings: Findings): void {
  const name = `${wish.kind} ${wish.marker} (${wish.outcome} after ${wish.attempts}${wish.idempotencyKey === undefined ? '' : ', keyed'})`;
  const [first, second] = found;
  if (second !== undefined) findings.doubled.push(name);
  switch (wish.outcome) {
    case 'acknowledged':
      if (first === undefined) findings.lost.push(name);
      else if (first.conversationId !== wish.conversationId || first.messageId !== wish.messageId) findings.misplaced.push(name);
      return;
    case 'refused':
      if (first !== undefined) findings.ghosts.push(name);
      return;
    case 'unknown':
      return;
  }
}

function sorted(value: object): [string, unknown][] {
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
}
