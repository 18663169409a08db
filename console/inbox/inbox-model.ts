import { computed, effect, signal, untracked } from '@preact/signals';
import type { ConversationAnswer, ConversationSummary, MessageAnswer } from '../../src/conversations/conversation.answer.js';
import { LiveFeed, type FeedState } from '../api/live-feed.js';
import { ask, NoAnswer, Refused } from '../api/request.js';
import { addressOf, type Place, placeOf } from '../routes.js';
import { authorOf, mayWrite, signOut, type Who } from '../session.js';
import {
  begin,
  beginAt,
  beginDraft,
  type Command,
  dismiss,
  done,
  EMPTY,
  forgetDraft,
  refuse,
  saidSince,
  type SettableStatus,
  show,
  type Store,
  takeConversation,
  takeFrame,
  takeSummary,
  toSend,
} from '../store/conversation-store.js';
import { heldOrder, type Order, orderOf, type ReadUpTo } from '../store/list-order.js';
import { type Draft, Drafts } from './drafts.js';
import { type View, type ViewId, viewOf, VIEWS } from './views.js';

/** Rows of one answer of the list. */
const PAGE = 100;
/** Counts are asked for again this long after a change (ms): many changes at once cost one question. */
const COUNT_MS = 600;
/** How long to wait before a command without an answer is sent again (ms). */
const RETRY_MS = [1_000, 2_000, 5_000] as const;

interface Reading {
  readonly upTo: ReadUpTo;
  readonly cursor: string | null;
  readonly isUnderWay: boolean;
}
const UNREAD: Reading = { upTo: 'nothing', cursor: null, isUnderWay: false };

export interface Agent {
  readonly id: string;
  readonly name: string;
}

/** The inbox of one person: the store, what is read into it, and what is sent from it. */
export class InboxModel {
  readonly place = signal<Place>(placeOf(new URL(location.href)));
  readonly feed = signal<FeedState>('connecting');
  readonly counts = signal<ReadonlyMap<ViewId, number>>(new Map());
  readonly agents = signal<readonly Agent[]>([]);
  /** The row that the keys go from. */
  readonly cursor = signal<string | null>(null);
  /** Pointer or keyboard is in the list. */
  readonly isHeld = signal(false);
  readonly order = signal<Order>({ ids: [], moved: 0 });
  readonly unknownId = signal<string | null>(null);
  /** The row that is to have the focus: a new object each time. */
  readonly focusOn = signal<{ readonly id: string } | null>(null);
  /** Somebody asked for the composer, and may have typed since, before it was there. */
  readonly writing = signal<{ readonly type: Draft['type']; readonly typed: string } | null>(null);
  readonly drafts: Drafts;
  readonly author: Agent;
  readonly mayWrite: boolean;

  readonly store = signal<Store>(EMPTY);
  readonly view = computed(() => viewOf(this.place.value.view));
  readonly isReading = computed(() => (this.#readings.value.get(this.view.value.id) ?? UNREAD).upTo === 'nothing');

  readonly #readings = signal<ReadonlyMap<ViewId, Reading>>(new Map());
  readonly #now = computed(() => {
    const view = this.view.value;
    const { upTo } = this.#readings.value.get(view.id) ?? UNREAD;
    return orderOf(view, this.#summaries.value, this.#me, upTo);
  });
  readonly #summaries = computed(() => [...this.store.value.known.values()].map(({ summary }) => summary));
  readonly #underWay = new Set<string>();
  readonly #reading = new Set<string>();
  readonly #me: string | null;
  readonly #ends: (() => void)[] = [];
  #counting: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(
    readonly who: Who,
    private readonly outside: { signedOut(says: string | null): void; actFor(agentId: string | null): void },
  ) {
    this.author = authorOf(who);
    this.#me = who.me.agent?.id ?? null;
    this.mayWrite = mayWrite(who);
    this.drafts = new Drafts(this.author.id);
    const moved = () => {
      this.writing.value = null;
      this.place.value = placeOf(new URL(location.href));
    };
    addEventListener('popstate', moved);
    this.#ends.push(() => removeEventListener('popstate', moved));
    const leaves = () => this.#keepUnsent(() => true);
    addEventListener('pagehide', leaves);
    this.#ends.push(() => removeEventListener('pagehide', leaves));
    // The rows that are shown follow the order as it is now, except while somebody is about to choose one.
    this.#ends.push(
      effect(() => {
        const view = this.view.value.id;
        const now = this.#now.value;
        const isHeld = this.isHeld.value && view === this.#orderedFor;
        this.#orderedFor = view;
        this.order.value = heldOrder(
          untracked(() => this.order.value.ids),
          now,
          isHeld,
        );
      }),
      effect(() => {
        const { conversationId } = this.place.value;
        if (conversationId !== null && this.feed.value !== 'connecting') untracked(() => this.#open(conversationId));
      }),
      effect(() => {
        for (const id of this.store.value.wanted.keys()) this.#read(id);
      }),
      effect(() => {
        const view = this.view.value;
        if (this.feed.value !== 'live') return;
        untracked(() => {
          if (!this.#readings.value.has(view.id)) void this.#readPage(view);
        });
      }),
    );
    const feed = new LiveFeed({
      since: () => this.store.value.position,
      actingFor: () => who.actingFor,
      // Before the first list is read: whatever happens from here on, the feed tells.
      began: (position) => (this.store.value = beginAt(this.store.value, position)),
      take: (frames) => {
        this.store.value = frames.reduce((store, frame) => takeFrame(store, frame, this.author.id), this.store.value);
        this.#countSoon();
      },
      became: (state) => {
        if (state === 'signed out') return this.#signedOut();
        this.feed.value = state;
        if (state === 'live') this.#countSoon(0);
      },
    });
    this.#ends.push(() => feed.close());
    if (who.me.mayActFor || who.actingFor !== null) void this.#readAgents();
  }

  #orderedFor: ViewId | undefined;

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#counting);
    for (const end of this.#ends) end();
  }

  /** Goes to a place; the browser's "back" comes back. */
  go(place: Partial<Place>): void {
    const next = { ...this.place.value, ...place };
    const address = addressOf(next);
    if (address !== location.pathname + location.search) history.pushState(null, '', address);
    this.writing.value = null;
    this.place.value = next;
  }

  addressOf(place: Partial<Place>): string {
    return addressOf({ ...this.place.value, ...place });
  }

  /** The order as it is now, whoever points where. */
  apply(): void {
    this.order.value = { ids: this.#now.value, moved: 0 };
  }

  /** Reads the next rows of the view, when its end comes into sight. */
  readMore(): void {
    const reading = this.#readings.value.get(this.view.value.id) ?? UNREAD;
    if (!reading.isUnderWay && typeof reading.upTo === 'object') void this.#readPage(this.view.value);
  }

  actFor(agentId: string | null): void {
    this.outside.actFor(agentId);
  }

  async signOut(): Promise<void> {
    await signOut();
    this.#signedOut(null);
  }

  draftOf(conversationId: string): Draft {
    return this.drafts.read(conversationId);
  }

  /** Keeps what was typed, with what its writer had seen when it was begun. */
  write(conversationId: string, text: string, type: Draft['type']): void {
    if (text === '') this.store.value = forgetDraft(this.store.value, conversationId);
    else this.store.value = beginDraft(this.store.value, conversationId, this.draftOf(conversationId).seen ?? undefined);
    this.drafts.write(conversationId, { text, type, seen: this.store.value.seen.get(conversationId) ?? null });
  }

  /** The writer has read what came while the draft was written. */
  haveRead(conversationId: string): void {
    const { text, type } = this.draftOf(conversationId);
    this.store.value = beginDraft(forgetDraft(this.store.value, conversationId), conversationId);
    this.drafts.write(conversationId, { text, type, seen: this.store.value.seen.get(conversationId) ?? null });
    for (const { command } of this.store.value.refused)
      if (command.conversationId === conversationId) this.store.value = dismiss(this.store.value, command.key);
  }

  /** Sends what was written. Everything is fixed here, at the press of the key, whatever is opened afterwards. */
  say(conversationId: string, text: string, type: Draft['type'], status: SettableStatus | undefined): void {
    if (text.trim() === '' || !this.mayWrite) return;
    this.drafts.write(conversationId, { text: '', type, seen: null });
    this.#do({ conversationId, say: { type, text }, ...(status === undefined ? {} : { status }) });
  }

  setStatus(conversationId: string, status: SettableStatus): void {
    if (!this.mayWrite || show(this.store.value, conversationId)?.summary.status === status) return;
    this.#do({ conversationId, status });
  }

  dismiss(key: string): void {
    this.store.value = dismiss(this.store.value, key);
  }

  /** What others have said since the draft was begun. */
  saidMeanwhile(conversationId: string): readonly MessageAnswer[] {
    const store = this.store.value;
    const seen = store.seen.get(conversationId);
    return seen === undefined ? [] : saidSince(store, conversationId, seen, this.author.id);
  }

  #do(command: Pick<Command, 'conversationId' | 'say' | 'status'>): void {
    const key = crypto.randomUUID();
    this.store.value = begin(this.store.value, { ...command, key, at: new Date().toISOString(), author: this.author });
    this.#send();
  }

  #send(): void {
    for (;;) {
      const next = toSend(this.store.value, (key) => this.#underWay.has(key));
      if (next === undefined) return;
      this.#underWay.add(next.key);
      void this.#sendOne(next.key, 0);
    }
  }

  async #sendOne(key: string, tries: number): Promise<void> {
    const { conversationId, say, status, base } = this.#pending(key);
    const path = `/conversations/${encodeURIComponent(conversationId)}`;
    const { actingFor } = this.who;
    try {
      if (say !== undefined) {
        const { data, revision } = await ask<MessageAnswer>(`${path}/reply`, {
          method: 'POST',
          body: { type: say.type, message: say.text, ...(status === undefined ? {} : { status }) },
          idempotencyKey: key,
          actingFor,
          // A note is for the team, and says nothing that a newer message could make wrong.
          ...(say.type === 'reply' ? { ifMatch: base } : {}),
        });
        this.store.value = done(this.store.value, key, revision ?? base, data);
      } else {
        const { data } = await ask<ConversationSummary>(path, { method: 'PUT', body: { status }, actingFor });
        this.store.value = takeSummary(done(this.store.value, key, data.revision, undefined), data);
      }
    } catch (error) {
      // Also when another person has signed in meanwhile: what was sent is still this one's.
      if (error instanceof NoAnswer) return this.#sendLater(key, tries);
      if (!(error instanceof Refused)) throw error;
      if (error.problem.code === 'revision_mismatch' && (await this.#nothingWasSaid(conversationId, key, base)))
        return this.#sendOne(key, tries);
      this.store.value = refuse(this.store.value, key, error.problem);
      this.#giveBack(conversationId, say, base);
      if (error.problem.code === 'unauthenticated') {
        this.#keepUnsent((one) => !this.#underWay.has(one));
        return this.#signedOut();
      }
    }
    this.#underWay.delete(key);
    this.#send();
  }

  /** With the same key: if it was done after all, it is answered and not done again. */
  #sendLater(key: string, tries: number): void {
    setTimeout(() => void this.#sendOne(key, tries + 1), RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]);
  }

  /** Whether the conversation changed without a word since its writer saw it, so that the answer still fits. */
  async #nothingWasSaid(conversationId: string, key: string, base: number): Promise<boolean> {
    try {
      const { data } = await ask<ConversationAnswer>(`/conversations/${encodeURIComponent(conversationId)}`);
      const { messages, ...fields } = data;
      this.store.value = takeSummary(this.store.value, { ...fields, lastMessage: messages.at(-1) ?? null });
    } catch (error) {
      if (!(error instanceof NoAnswer) && !(error instanceof Refused)) throw error;
    }
    return this.#pending(key).base > base;
  }

  #pending(key: string): Command & { readonly base: number } {
    const found = this.store.value.pending.find((one) => one.key === key);
    if (found === undefined) throw new Error('a command was forgotten before its answer');
    return found;
  }

  /** What was refused is in the composer again, unless something else is there by now. */
  #giveBack(conversationId: string, say: Command['say'], seen: number): void {
    if (say === undefined || this.draftOf(conversationId).text !== '') return;
    this.drafts.write(conversationId, { ...say, seen });
    this.store.value = beginDraft(this.store.value, conversationId, seen);
    this.givenBack.value += 1;
  }

  /** Makes drafts of what waits for its answer: the page may be gone before it comes. */
  #keepUnsent(isMeant: (key: string) => boolean): void {
    for (const { key, conversationId, say, base, revision } of this.store.value.pending)
      if (revision === null && isMeant(key)) this.#giveBack(conversationId, say, base);
  }

  /** Rises when a draft was changed by something else than typing. */
  readonly givenBack = signal(0);

  #open(id: string): void {
    this.cursor.value = id;
    const known = this.store.value.known.get(id);
    if (known === undefined || known.thread === null) this.#read(id);
  }

  #read(id: string): void {
    if (this.#reading.has(id)) return;
    this.#reading.add(id);
    void (async () => {
      let isStale = false;
      try {
        const { data } = await ask<ConversationAnswer>(`/conversations/${encodeURIComponent(id)}`);
        this.store.value = takeConversation(this.store.value, data, this.author.id);
        const { text, seen } = this.draftOf(id);
        if (text !== '') this.store.value = beginDraft(this.store.value, id, seen ?? undefined);
        // Something happened while the answer was under way.
        isStale = this.store.value.wanted.has(id);
      } catch (error) {
        if (error instanceof Refused && error.problem.code === 'unauthenticated') this.#signedOut();
        else if (error instanceof Refused) this.unknownId.value = id;
        else if (!this.#isClosed) setTimeout(() => this.#read(id), RETRY_MS[0]);
      } finally {
        this.#reading.delete(id);
      }
      if (isStale && !this.#isClosed) this.#read(id);
    })();
  }

  async #readPage(view: View): Promise<void> {
    const before = this.#readings.value.get(view.id) ?? UNREAD;
    this.#readings.value = new Map(this.#readings.value).set(view.id, { ...before, isUnderWay: true });
    try {
      const { data, meta } = await ask<ConversationSummary[]>('/conversations', {
        query: {
          ...view.query(this.#me),
          sort: view.sort,
          order: view.sort === 'waitingSince' ? 'asc' : 'desc',
          limit: String(PAGE),
          total: 'none',
          ...(before.cursor === null ? {} : { cursor: before.cursor }),
        },
      });
      const last = data.at(-1);
      const upTo: ReadUpTo = meta?.hasMore === true && last !== undefined ? { last } : 'the end';
      this.store.value = data.reduce(takeSummary, this.store.value);
      this.#readings.value = new Map(this.#readings.value).set(view.id, { upTo, cursor: meta?.nextCursor ?? null, isUnderWay: false });
    } catch (error) {
      this.#readings.value = new Map(this.#readings.value).set(view.id, { ...before, isUnderWay: false });
      if (error instanceof Refused && error.problem.code === 'unauthenticated') return this.#signedOut();
      if (!this.#isClosed) setTimeout(() => void this.#readPage(view), RETRY_MS[2]);
    }
  }

  #countSoon(inMs: number = COUNT_MS): void {
    clearTimeout(this.#counting);
    this.#counting = setTimeout(() => void this.#count(), inMs);
  }

  /** The API counts; the page knows only the rows that it has read. */
  async #count(): Promise<void> {
    try {
      const counted = await Promise.all(
        VIEWS.map(async (view): Promise<[ViewId, number]> => {
          if (view.id === 'mine' && this.#me === null) return [view.id, 0];
          const { meta, data } = await ask<ConversationSummary[]>('/conversations', {
            query: {
              ...view.query(this.#me),
              sort: view.sort,
              order: view.sort === 'waitingSince' ? 'asc' : 'desc',
              limit: view.id === 'waiting' ? '100' : '1',
            },
          });
          // The list has no filter for those who wait; it sorts them first.
          return [view.id, view.id === 'waiting' ? data.filter(({ waitingSince }) => waitingSince !== null).length : (meta?.total ?? 0)];
        }),
      );
      this.counts.value = new Map(counted);
    } catch (error) {
      if (error instanceof Refused && error.problem.code === 'unauthenticated') this.#signedOut();
      else if (!(error instanceof NoAnswer) && !(error instanceof Refused)) throw error;
    }
  }

  async #readAgents(): Promise<void> {
    try {
      this.agents.value = (await ask<Agent[]>('/agents', { query: { limit: '100' } })).data;
    } catch (error) {
      // The choice is missing, and everything else is there.
      if (!(error instanceof NoAnswer) && !(error instanceof Refused)) throw error;
    }
  }

  #signedOut(says: string | null = 'The session is over. What you wrote is kept.'): void {
    if (!this.#isClosed) this.outside.signedOut(says);
  }
}
