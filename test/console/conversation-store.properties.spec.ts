import fc from 'fast-check';
import type { MessageAnswer } from '../../src/conversations/conversation.answer.js';
import {
  begin,
  beginAt,
  beginDraft,
  done,
  EMPTY,
  forgetDraft,
  type Frame,
  refuse,
  show,
  type Store,
  takeConversation,
  takeFrame,
  takeSummary,
  toSend,
} from '../../console/store/conversation-store.js';
import { ModelDesk, type Said } from './model-desk.js';

/*
 * A page under everything that a network does to it: answers come late, out of order or never, the feed is cut and goes on by position,
 * commands are refused or done without the page being told. However it goes, in the end the page shows what REST answers.
 */

const ME = { id: 'agent-me', name: 'Me' };
const COLLEAGUE = { id: 'agent-other', name: 'Other' };
const IDS = ['a', 'b', 'c'] as const;
/** Few texts, so that two messages often read the same. */
const TEXTS = ['yes', 'no'] as const;

const id = fc.constantFrom(...IDS);
const text = fc.constantFrom(...TEXTS);
const status = fc.constantFrom('open' as const, 'pending' as const, 'resolved' as const, 'closed' as const);
const step = fc.oneof(
  // What happens at the desk.
  { weight: 3, arbitrary: fc.record({ do: fc.constant('visitor writes' as const), id, text }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('colleague writes' as const), id, text, note: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('I write elsewhere' as const), id, text }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('tag' as const), id }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('status' as const), id, status: fc.constantFrom('open' as const, 'pending' as const) }),
  },
  // What the page asks, and when it is answered.
  { weight: 2, arbitrary: fc.record({ do: fc.constant('read one' as const), id }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('read the list' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer comes' as const), which: fc.nat(9) }) },
  // The feed.
  { weight: 5, arbitrary: fc.record({ do: fc.constant('frames come' as const), many: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('the feed is cut' as const), back: fc.nat(3) }) },
  // What the person at the page does.
  { weight: 3, arbitrary: fc.record({ do: fc.constant('begin a draft' as const), id }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('give the draft up' as const), id }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('send' as const), id, text, note: fc.boolean(), status: fc.option(status, { nil: undefined }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('set' as const), id, status }) },
  // What becomes of a command on its way.
  { weight: 5, arbitrary: fc.record({ do: fc.constant('command arrives' as const), isAnswered: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('command is lost' as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

class Page {
  store: Store = EMPTY;
  readonly desk = new ModelDesk();
  /** Answers of reads that are under way, each as of when it was asked. */
  readonly #reads: (() => void)[] = [];
  /** Commands that the page has sent and heard nothing of. */
  readonly #underWay = new Set<string>();
  /** By conversation with a draft: the messages that its writer could see when it was begun. */
  readonly #couldSee = new Map<string, ReadonlySet<string>>();
  readonly #drafted = new Map<string, ReadonlySet<string>>();
  #feed: readonly Frame[] | undefined;
  #keys = 0;

  constructor() {
    for (const one of IDS) this.desk.open(one);
    // As the page does: first the feed, then the first read.
    this.store = beginAt(this.store, this.desk.head);
    this.store = IDS.slice(0, 2).reduce((store, one) => takeSummary(store, this.desk.summary(one)), this.store);
  }

  step(one: Step): void {
    const before = IDS.map((each) => this.#revision(each));
    this.#happen(one);
    for (const each of IDS) this.#assertNoneTwice(each);
    // What is shown never goes back.
    for (const [place, each] of IDS.entries()) expect(this.#revision(each)).toBeGreaterThanOrEqual(before[place]!);
  }

  #revision(conversationId: string): number {
    return show(this.store, conversationId)?.summary.revision ?? -1;
  }

  #happen(one: Step): void {
    const { desk } = this;
    switch (one.do) {
      case 'visitor writes':
        if (desk.summary(one.id).status !== 'closed') desk.say(one.id, 'visitor', one.text);
        return;
      case 'colleague writes':
        if (desk.summary(one.id).status !== 'closed') desk.say(one.id, one.note ? 'note' : 'agent', one.text, COLLEAGUE);
        return;
      case 'I write elsewhere':
        if (desk.summary(one.id).status !== 'closed') desk.say(one.id, 'agent', one.text, ME);
        return;
      case 'tag':
        return desk.tag(one.id, `t${desk.log.length}`);
      case 'status':
        return desk.setStatus(one.id, one.status);
      case 'read one':
        return this.#readOne(one.id);
      case 'read the list': {
        const rows = IDS.map((each) => desk.summary(each));
        this.#reads.push(() => (this.store = rows.reduce(takeSummary, this.store)));
        return;
      }
      case 'answer comes': {
        const [read] = this.#reads.splice(one.which % Math.max(1, this.#reads.length), 1);
        return read?.();
      }
      case 'frames come':
        return this.#frames(one.many);
      case 'the feed is cut':
        // It goes on behind the last frame, or a little before it where the page asks with an older position.
        this.#feed = desk
          .frames(this.store.position ?? '')
          .slice(0, 0)
          .concat(this.#replay(one.back));
        return;
      case 'begin a draft':
        if (this.store.known.has(one.id) && !this.store.seen.has(one.id)) this.#couldSee.set(one.id, this.#visible(one.id));
        this.store = beginDraft(this.store, one.id);
        return;
      case 'give the draft up':
        this.store = forgetDraft(this.store, one.id);
        this.#couldSee.delete(one.id);
        return;
      case 'send':
        return this.#begin(one.id, {
          say: { type: one.note ? 'note' : 'reply', text: one.text },
          ...(one.status === undefined ? {} : { status: one.status }),
        });
      case 'set':
        return this.#begin(one.id, { status: one.status });
      case 'command arrives':
        return this.#send(one.isAnswered);
      case 'command is lost':
        this.#underWay.clear();
        return;
    }
  }

  /** Everything that is under way arrives, and the page does what it does by itself. */
  settle(): void {
    this.#underWay.clear();
    while (this.#reads.length > 0) this.#reads.shift()?.();
    for (let round = 0; round < 200; round += 1) {
      this.#feed = undefined;
      this.#frames(Infinity);
      this.#send(true);
      this.#underWay.clear();
      for (const one of this.store.wanted.keys()) this.#readOne(one);
      while (this.#reads.length > 0) this.#reads.shift()?.();
    }
  }

  /** As the page does: what it has whole, it does not read again. */
  open(conversationId: string): void {
    if (show(this.store, conversationId)?.isWhole === true) return;
    this.#readOne(conversationId);
    this.#reads.pop()?.();
  }

  #readOne(conversationId: string): void {
    const answer = this.desk.conversation(conversationId);
    this.#reads.push(() => (this.store = takeConversation(this.store, answer, ME.id)));
  }

  #replay(back: number): readonly Frame[] {
    const position = this.store.position ?? '';
    const told = this.desk.frames('').filter((one) => one.position <= position);
    return [...told.slice(told.length - back), ...this.desk.frames(position)];
  }

  #frames(many: number): void {
    // A feed that was asked for earlier still tells what has happened since.
    const waiting = this.#feed ?? [];
    const last = waiting.at(-1)?.position ?? this.store.position ?? '';
    const all = [...waiting, ...this.desk.frames(last > (this.store.position ?? '') ? last : (this.store.position ?? ''))];
    for (const frame of all.slice(0, many)) this.store = takeFrame(this.store, frame, ME.id);
    this.#feed = all.slice(many);
  }

  #begin(
    conversationId: string,
    command: { say?: { type: 'reply' | 'note'; text: string }; status?: 'open' | 'pending' | 'resolved' | 'closed' },
  ): void {
    if (!this.store.known.has(conversationId)) return;
    const key = `k${++this.#keys}`;
    if (command.say !== undefined) {
      this.#drafted.set(key, this.#couldSee.get(conversationId) ?? this.#visible(conversationId));
      this.#couldSee.delete(conversationId);
    }
    const before = show(this.store, conversationId);
    this.store = begin(this.store, { ...command, key, conversationId, at: new Date(0).toISOString(), author: ME });
    const after = show(this.store, conversationId);
    // At once, and once.
    expect(after?.messages.length).toBe(Math.min(200, (before?.messages.length ?? 0) + (command.say === undefined ? 0 : 1)));
    if (command.status !== undefined) expect(after?.summary.status).toBe(command.status);
  }

  #send(isAnswered: boolean): void {
    const next = toSend(this.store, (key) => this.#underWay.has(key));
    if (next === undefined) return;
    this.#underWay.add(next.key);
    const { key, conversationId, say } = next;
    const known = this.desk.saidBy.size;
    const answer: Said = this.desk.do(key, conversationId, next);
    if (answer.outcome === 'done' && say?.type === 'reply' && this.desk.saidBy.size > known)
      this.#assertNothingCrossed(key, conversationId, answer.message?.id);
    if (!isAnswered) return;
    this.#underWay.delete(key);
    if (answer.outcome === 'refused') this.store = refuse(this.store, key, { code: answer.code, title: answer.code });
    else {
      this.store = done(this.store, key, answer.revision, answer.message);
      // It does not vanish until its frame comes.
      const shown = show(this.store, conversationId)?.messages.filter(({ message }) => message.id === answer.message?.id);
      expect(shown?.length).toBe(answer.message === undefined ? 0 : 1);
    }
  }

  /** What I wrote is never shown twice, not even while its answer and its frame are on their ways. */
  #assertNoneTwice(conversationId: string): void {
    const isMine = ({ author }: MessageAnswer) => author?.id === ME.id;
    const shown = (show(this.store, conversationId)?.messages ?? []).filter(({ message }) => isMine(message));
    const stored = this.desk.conversation(conversationId).messages.filter(isMine);
    const done = new Set(this.desk.saidBy.values());
    const notDone = this.store.pending.filter(
      (one) => one.conversationId === conversationId && one.say !== undefined && !done.has(one.key),
    );
    expect(shown.length).toBeLessThanOrEqual(stored.length + notDone.length);
    expect(new Set(shown.map(({ message }) => message.id)).size).toBe(shown.length);
  }

  /** Whatever others said before a reply was stored, its writer could see when the reply was begun. */
  #assertNothingCrossed(key: string, conversationId: string, messageId: string | undefined): void {
    const couldSee = this.#drafted.get(key) ?? new Set();
    const reply = this.desk.log.find(({ message }) => message?.id === messageId);
    const others = this.desk.saidByOthers(conversationId, -1, (reply?.revision ?? 0) - 1, ME.id);
    expect(others.filter((one) => !couldSee.has(one.id))).toEqual([]);
  }

  /** A page that shows messages counts those above as seen too: it says how many there are. */
  #visible(conversationId: string): ReadonlySet<string> {
    const revision = this.store.known.get(conversationId)?.summary.revision ?? -1;
    return new Set(this.desk.saidByOthers(conversationId, -1, revision, ME.id).map((one) => one.id));
  }
}

test('however answers, frames, cuts, refusals and retries fall, the page ends with what REST answers', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const page = new Page();
      for (const one of steps) page.step(one);
      page.settle();
      for (const one of IDS) page.open(one);
      const { store, desk } = page;
      expect([store.pending, [...store.wanted]]).toEqual([[], []]);
      for (const one of IDS) {
        const { messages, ...fields } = desk.conversation(one);
        const shown = show(store, one);
        expect(shown?.summary).toEqual({ ...fields, lastMessage: messages.at(-1) ?? null });
        expect(shown?.messages).toEqual(messages.map((message) => ({ message, isPending: false })));
      }
    }),
    {
      numRuns: 1_500,
      // Seldom met by chance: an answer that is older than what the feed has told of a conversation that the page did not know.
      examples: [
        [
          [
            { do: 'read one', id: 'c' },
            { do: 'tag', id: 'c' },
            { do: 'frames come', many: 2 },
          ],
        ],
      ],
    },
  );
});

test('a conversation that was opened once stays whole by the feed alone', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const page = new Page();
      for (const one of IDS) page.open(one);
      for (const one of steps) page.step(one);
      page.settle();
      for (const one of IDS) {
        const { messages, ...fields } = page.desk.conversation(one);
        const shown = show(page.store, one);
        expect(shown?.summary).toEqual({ ...fields, lastMessage: messages.at(-1) ?? null });
        expect(shown?.messages.map(({ message }) => message)).toEqual(messages);
      }
    }),
    { numRuns: 1_500 },
  );
});

test('what was sent is said once or refused, and never both', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const page = new Page();
      for (const one of steps) page.step(one);
      page.settle();
      const said = [...page.desk.saidBy.values()];
      const refused = page.store.refused.map(({ command }) => command.key);
      expect(new Set(said).size).toBe(said.length);
      expect(said.filter((key) => refused.includes(key))).toEqual([]);
    }),
    { numRuns: 500 },
  );
});
