import {
  addTags,
  assign,
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  type Decision,
  ifExists,
  inTurn,
  open,
  receive,
  removeTag,
  setStatus,
} from '../../src/conversations/conversation.js';
import { metadataOf } from '../../src/event-store/aggregate.js';
import {
  appendEach,
  type Appended,
  type EventStore,
  type Expected,
  type NewEvent,
  OutcomeUnknown,
  type StoredEvent,
  StoreUnavailable,
  streamName,
  type StreamName,
} from '../../src/event-store/event-store.js';
import { CHAIN_START, verifyLink } from '../../src/event-store/hash-chain.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import type { CommandContext, RequestIdentity } from '../../src/commands/command-context.js';
import type { Decided } from '../../src/commands/encoding.js';
import { Transactor, type UnchangedAnswers } from '../../src/commands/transactor.js';
import { randomIds } from '../../src/ids.js';
import type { Sealed } from '../../src/security/sealing.js';

const STREAM = streamName('conversation', 'acme', 'c1');
const HOUR = 3_600_000;

/** What keep.idempotency does, in a map. */
class AnswersInMemory implements UnchangedAnswers {
  readonly rows = new Map<string, { requestHash: string; stream: string; revision: number }>();
  find(commandId: string) {
    return Promise.resolve(this.rows.get(commandId));
  }
  save(commandId: string, { requestHash }: RequestIdentity, { stream, revision }: { stream: string; revision: number }) {
    if (!this.rows.has(commandId)) this.rows.set(commandId, { requestHash, stream, revision });
    return Promise.resolve();
  }
}

/** An event store that does what the test says, once, before it is itself again. */
class FaultyStore implements EventStore {
  readonly log = { adapter: 'memory', id: 'faulty' } as const;
  readonly appends: { expected: Expected; events: readonly NewEvent[] }[] = [];
  reads = 0;
  #append: ((run: () => Promise<Appended>) => Promise<Appended>)[] = [];
  failReads = false;
  constructor(readonly inner: EventStore) {}

  /** The next append is handled by `how`, which may run it, fail, or both. */
  onAppend(how: (run: () => Promise<Appended>) => Promise<Appended>): void {
    this.#append.push(how);
  }
  append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    this.appends.push({ expected, events });
    const run = () => this.inner.append(stream, expected, events, deadline);
    return this.#append.shift()?.(run) ?? run();
  }
  appendInOrder: EventStore['appendInOrder'] = (appends, deadline) => appendEach(this, appends, deadline);
  read(stream: StreamName, options?: Parameters<EventStore['read']>[1]): AsyncIterable<readonly StoredEvent[]> {
    this.reads++;
    if (this.failReads) throw new StoreUnavailable('cut');
    return this.inner.read(stream, options);
  }
  head = () => this.inner.head();
  feed: EventStore['feed'] = (after, options) => this.inner.feed(after, options);
  close = () => this.inner.close();
}

/** A store, a clock, and as many processes over them as a test wants. */
class World {
  readonly inner = new MemoryEventStore();
  readonly answers = new AnswersInMemory();
  now = Date.parse('2026-01-01T00:00:00Z');
  readonly store = new FaultyStore(this.inner);

  process(store: EventStore = this.store): Transactor {
    return new Transactor(store, { now: () => this.now }, randomIds, this.answers);
  }

  async events(stream = STREAM): Promise<StoredEvent[]> {
    const found: StoredEvent[] = [];
    for await (const batch of this.inner.read(stream)) found.push(...batch);
    return found;
  }
  async types(): Promise<string[]> {
    return (await this.events()).map(({ type }) => type);
  }
}

const command = (commandId: string, more: Partial<CommandContext> = {}): CommandContext => ({
  organizationId: 'acme',
  actor: { type: 'agent', id: 'eve' },
  commandId,
  requestHash: `hash of ${commandId}`,
  correlationId: 'r1',
  ...more,
});
const run = (transactor: Transactor, context: CommandContext, decision: Decision) =>
  transactor.transact(conversationAggregate, 'c1', context, (state) => decision(state));

const message = (messageId: string) => ({ messageId, contentType: 'text', content: `sealed ${messageId}` as Sealed }) as const;
const opening = inTurn(open({ visitorId: 'ada', inboxId: 'i1', channel: 'api' }), receive(message('m1')));
/** What a repeated command answers as the first one did. Of several events, an append tells the last one's position alone. */
const facts = ({ state, revision, position, events }: Awaited<ReturnType<typeof run>>) => ({
  state,
  revision,
  position,
  events: events.map(({ position: _position, ...event }) => event),
});

let world: World;
beforeEach(() => {
  world = new World();
});
afterEach(async () => {
  // Whatever a test did, the history is a chain without gaps, and time does not run backwards in it.
  let previous: string = CHAIN_START;
  let time = '';
  for (const [revision, event] of (await world.events()).entries()) {
    expect(event.revision).toBe(revision);
    const hash = verifyLink(previous, event);
    expect(hash).toBeDefined();
    previous = hash ?? '';
    const { occurredAt } = metadataOf(event);
    expect(occurredAt >= time).toBe(true);
    time = occurredAt;
  }
});

describe('a command', () => {
  test('appends what it decided, and answers the state after it', async () => {
    const done = await run(world.process(), command('open'), opening);
    expect(done).toMatchObject({ outcome: 'appended', revision: 1 });
    expect(done.events.map(({ type, revision }) => [type, revision])).toEqual([
      ['ConversationOpened', 0],
      ['MessageReceived', 1],
    ]);
    expect(done.state).toMatchObject({ exists: true, status: 'open', messageCount: 1 });
    expect(done.position).toBe((await world.events()).at(-1)?.position);
  });

  test('keeps who, why and by which request beside each event', async () => {
    await run(
      world.process(),
      command('open', { keyId: 'k', causationId: 'cause', causationDepth: 2, imported: true, correlationId: 'r9' }),
      opening,
    );
    for (const event of await world.events())
      expect(metadataOf(event)).toEqual({
        organizationId: 'acme',
        actor: { type: 'agent', id: 'eve' },
        occurredAt: '2026-01-01T00:00:00.000Z',
        commandId: 'open',
        requestHash: 'hash of open',
        correlationId: 'r9',
        causationId: 'cause',
        causationDepth: 2,
        schemaVersion: 1,
        keyId: 'k',
        imported: true,
        hash: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      });
  });

  test('takes one round trip to the log while the stream is remembered', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    world.store.reads = 0;
    await run(one, command('tag'), addTags(['a']));
    await run(one, command('say'), receive(message('m2')));
    expect(world.store.reads).toBe(0);
  });

  test('that is refused writes nothing', async () => {
    const one = world.process();
    await expect(run(one, command('tag'), addTags(['a']))).rejects.toMatchObject({ code: 'not_found' });
    expect(await world.events()).toEqual([]);
  });
});

describe('the same command again', () => {
  test.each(['the same process', 'another process'])('from %s is answered as of its own revision', async (who) => {
    const one = world.process();
    await run(one, command('open'), opening);
    const first = await run(one, command('tag'), addTags(['a']));
    await run(one, command('other'), addTags(['b']));
    const again = await run(who === 'another process' ? world.process() : one, command('tag'), addTags(['a']));
    expect(again.outcome).toBe('repeated');
    expect(facts(again)).toEqual(facts(first));
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived', 'TagsAdded', 'TagsAdded']);
  });

  test('is answered also when it would be refused by now', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    const first = await run(one, command('tag'), addTags(['a']));
    await run(one, command('close'), setStatus('closed', 'agent'));
    expect(facts(await run(world.process(), command('tag'), addTags(['a'])))).toEqual(facts(first));
  });

  test('with other content is refused', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    await run(one, command('tag'), addTags(['a']));
    for (const transactor of [one, world.process()])
      await expect(run(transactor, command('tag', { requestHash: 'other' }), addTags(['b']))).rejects.toMatchObject({
        code: 'idempotency_key_reused',
      });
    expect(await world.events()).toHaveLength(3);
  });

  test('is answered by the hash that an earlier build gave it', async () => {
    await run(world.process(), command('open'), opening);
    const first = await run(world.process(), command('tag', { requestHash: 'earlier' }), addTags(['a']));
    const again = await run(world.process(), command('tag', { requestHash: 'new', earlierRequestHash: 'earlier' }), addTags(['a']));
    expect(facts(again)).toEqual(facts(first));
  });

  test('fifty times at once, from two processes, is one event', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    const all = await Promise.all(
      Array.from({ length: 50 }, (_, i) => run(i % 2 === 0 ? one : two, command('say'), receive(message(`m-${i}`)))),
    );
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived', 'MessageReceived']);
    expect(all.filter(({ outcome }) => outcome === 'appended')).toHaveLength(1);
    const [first] = all as [(typeof all)[0]];
    for (const one of all) expect(facts(one)).toEqual(facts(first));
  });

  test('that makes the stream, fifty times at once, makes it once', async () => {
    const processes = [world.process(), world.process(), world.process()];
    await Promise.all(Array.from({ length: 50 }, (_, i) => run(processes[i % 3] as Transactor, command('open'), opening)));
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived']);
  });

  /*
   * Why event ids are not enough: X is appended and its answer is lost, Y comes between, X is retried at the fresh revision.
   */
  test('after a lost answer and a stranger in between is not written twice', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    world.store.onAppend(async (append) => {
      await append();
      await run(two, command('y'), addTags(['y']));
      throw new OutcomeUnknown('the answer was lost');
    });
    await expect(run(one, command('x'), receive(message('x')))).rejects.toMatchObject({ code: 'outcome_unknown' });
    const again = await run(one, command('x'), receive(message('x again')));
    expect(again).toMatchObject({ outcome: 'repeated', revision: 2 });
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived', 'MessageReceived', 'TagsAdded']);
  });

  test('is not told from a new one once a day of the stream has gone by', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    await run(one, command('x'), receive(message('x')));
    world.now += 24 * HOUR;
    await run(one, command('y'), addTags(['y']));
    // A day to the millisecond is still remembered.
    expect((await run(one, command('x'), receive(message('x')))).outcome).toBe('repeated');
    world.now += 1;
    await run(one, command('z'), addTags(['z']));
    for (const [i, transactor] of [one, world.process()].entries())
      expect((await run(transactor, command('x', { requestHash: 'any' }), receive(message(`x${i}`)))).outcome).toBe(
        i === 0 ? 'appended' : 'repeated',
      );
  });

  test('that was forgotten and came again is answered as the second time, by whoever saw the first, both or none', async () => {
    const [one, first, both] = [world.process(), world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(one, command('x'), receive(message('x')));
    for (const transactor of [first, both])
      expect((await run(transactor, command('x'), receive(message('x')))).events[0]?.data).toMatchObject({ messageId: 'x' });
    world.now += 24 * HOUR + 1;
    await run(one, command('y'), addTags(['y']));
    const again = await run(one, command('x'), inTurn(receive(message('x anew')), addTags(['x'])));
    await run(both, command('z'), addTags(['z']));
    for (const transactor of [one, first, both, world.process()])
      expect(facts(await run(transactor, command('x'), receive(message('x')))).events).toEqual(facts(again).events);
    // It is remembered for as long as any other.
    world.now += 24 * HOUR - 1;
    await run(one, command('w'), addTags(['w']));
    expect((await run(world.process(), command('x'), receive(message('x')))).events).toHaveLength(2);
    expect(await world.types()).toHaveLength(8);
  });

  test('is found however old it is, when it is looked for thoroughly', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    const first = await run(one, command('x'), receive(message('x')));
    for (let day = 0; day < 5; day++) {
      world.now += 25 * HOUR;
      await run(one, command(`y${day}`), addTags([`y${day}`]));
    }
    for (const transactor of [one, world.process()]) {
      const again = await run(transactor, command('x', { thorough: true }), receive(message('again')));
      expect(again.outcome).toBe('repeated');
      expect(facts(again)).toEqual(facts(first));
    }
    await expect(run(one, command('x', { thorough: true, requestHash: 'other' }), receive(message('again')))).rejects.toMatchObject({
      code: 'idempotency_key_reused',
    });
  });

  test('of several events is answered with all of them', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    const both = inTurn(receive(message('m2')), addTags(['a']), setStatus('pending', 'agent'));
    const first = await run(one, command('three'), both);
    await run(one, command('later'), addTags(['b']));
    for (const transactor of [one, world.process()]) {
      const again = await run(transactor, command('three'), both);
      expect(again.events.map(({ type }) => type)).toEqual(['MessageReceived', 'TagsAdded', 'ConversationStatusChanged']);
      expect(facts(again)).toEqual(facts(first));
    }
  });
});

describe('a command that changes nothing', () => {
  test('answers the state, and appends nothing', async () => {
    const one = world.process();
    const opened = await run(one, command('open'), opening);
    const done = await run(one, command('exists'), ifExists);
    expect(done).toMatchObject({ outcome: 'unchanged', revision: 1, events: [] });
    expect(done.position).toBe(opened.position);
    expect(world.answers.rows.size).toBe(0);
  });

  test('is believed only after a look at the log', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), addedBy('a'));
    await run(two, command('remove'), removeTag('a'));
    // The memory of `one` still has the tag.
    const done = await run(one, command('tag'), addTags(['a']));
    expect(done.outcome).toBe('appended');
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived', 'TagsAdded', 'TagRemoved', 'TagsAdded']);
  });

  test('is remembered when it came with a key, whatever happens after it', async () => {
    const one = world.process();
    await run(one, command('open'), addedBy('a'));
    const first = await run(one, command('tag', { keyed: true }), addTags(['a']));
    await run(one, command('remove'), removeTag('a'));
    for (const transactor of [one, world.process()]) {
      const again = await run(transactor, command('tag', { keyed: true }), addTags(['a']));
      expect(again.outcome).toBe('repeated');
      expect(facts(again)).toEqual(facts(first));
      await expect(run(transactor, command('tag', { keyed: true, requestHash: 'other' }), addTags(['b']))).rejects.toMatchObject({
        code: 'idempotency_key_reused',
      });
    }
    expect(await world.types()).toEqual(['ConversationOpened', 'MessageReceived', 'TagsAdded', 'TagRemoved']);
  });

  const addedBy = (tag: string): Decision => inTurn(opening, addTags([tag]));
});

describe('two processes on one stream', () => {
  test('a stale memory costs a second attempt, and never a wrong write', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(two, command('a'), addTags(['a']));
    const done = await run(one, command('b'), addTags(['b']));
    expect(done.state.tags).toEqual(['a', 'b']);
    expect(done.revision).toBe(3);
  });

  test('a refusal from a stale memory is looked at again', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(one, command('resolve'), setStatus('resolved', 'agent'));
    await run(two, command('reopen'), setStatus('open', 'agent'));
    const done = await run(one, command('pending'), setStatus('pending', 'agent'));
    expect(done.state.status).toBe('pending');
  });

  test('a refusal that stands is told', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(two, command('close'), setStatus('closed', 'agent'));
    await expect(run(one, command('tag'), addTags(['a']))).rejects.toMatchObject({ code: 'conversation_closed' });
  });

  test('what is prepared is prepared anew for the newer state', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(two, command('assign'), assign({ id: 'bo', type: 'agent', name: 'Bo' }));
    const prepared: (string | null)[] = [];
    await one.transact(
      conversationAggregate,
      'c1',
      command('x'),
      (state, assignee: string | null) => {
        expect(assignee).toBe(state.assignee?.id ?? null);
        return addTags(['x'])(state);
      },
      (state) => {
        prepared.push(state.assignee?.id ?? null);
        return Promise.resolve(state.assignee?.id ?? null);
      },
    );
    expect(prepared).toEqual([null, 'bo']);
  });

  test('many writers in both lose nothing', async () => {
    const processes = [world.process(), world.process()];
    await run(processes[0] as Transactor, command('open'), opening);
    const results = await Promise.allSettled(
      Array.from({ length: 60 }, (_, i) => run(processes[i % 2] as Transactor, command(`c${i}`), addTags([`t${i}`]))),
    );
    const stored = new Set((await world.events()).map((event) => metadataOf(event).commandId));
    for (const [i, result] of results.entries()) {
      if (result.status === 'fulfilled') expect(stored.has(`c${i}`)).toBe(true);
      else expect(result.reason).toMatchObject({ code: 'concurrent_changes' });
    }
    const last = await run(world.process(), command('last'), ifExists);
    expect([...last.state.tags].sort()).toEqual(results.flatMap((result, i) => (result.status === 'fulfilled' ? [`t${i}`] : [])).sort());
    expect(await world.events()).toHaveLength(stored.size + 1);
  });

  test('gives up after a bounded number of lost races, with nothing written', async () => {
    const [one, two] = [world.process(), world.process(world.inner)];
    await run(one, command('open'), opening);
    for (let i = 0; i < 20; i++)
      world.store.onAppend(async (append) => {
        await run(two, command(`other${i}`), addTags([`other${i}`]));
        return append();
      });
    await expect(run(one, command('x'), receive(message('x')))).rejects.toMatchObject({
      code: 'concurrent_changes',
      extra: { retryAfterSeconds: 1 },
    });
    expect((await world.events()).some((event) => metadataOf(event).commandId === 'x')).toBe(false);
  });
});

describe('If-Match', () => {
  test('lets the named revision pass and no other', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    await expect(run(one, command('a', { ifMatch: 0 }), addTags(['a']))).rejects.toMatchObject({ code: 'revision_mismatch' });
    await expect(run(one, command('a', { ifMatch: 2 }), addTags(['a']))).rejects.toMatchObject({ code: 'revision_mismatch' });
    expect((await run(one, command('a', { ifMatch: 1 }), addTags(['a']))).revision).toBe(2);
  });

  test('is compared with the log and not with what is remembered', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(two, command('a'), addTags(['a']));
    await expect(run(one, command('b', { ifMatch: 1 }), addTags(['b']))).rejects.toMatchObject({ code: 'revision_mismatch' });
    await run(two, command('c'), addTags(['c']));
    expect((await run(one, command('b', { ifMatch: 3 }), addTags(['b']))).state.tags).toEqual(['a', 'c', 'b']);
  });

  test('holds also for what would change nothing', async () => {
    const [one, two] = [world.process(), world.process()];
    await run(one, command('open'), opening);
    await run(two, command('a'), addTags(['a']));
    await expect(run(one, command('none', { ifMatch: 1 }), ifExists)).rejects.toMatchObject({ code: 'revision_mismatch' });
  });

  test('does not keep a repeated command from its answer', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    await run(one, command('a', { ifMatch: 1 }), addTags(['a']));
    expect((await run(world.process(), command('a', { ifMatch: 1 }), addTags(['a']))).outcome).toBe('repeated');
  });
});

describe('time', () => {
  test('never runs backwards in a stream', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    world.now -= 5 * HOUR;
    const back = await run(one, command('a'), addTags(['a']));
    expect(back.events[0]?.metadata.occurredAt).toBe('2026-01-01T00:00:00.000Z');
    world.now += 6 * HOUR;
    const on = await run(world.process(), command('b'), addTags(['b']));
    expect(on.events[0]?.metadata.occurredAt).toBe('2026-01-01T01:00:00.000Z');
  });

  test('is told to decisions as it will be recorded', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    const told: number[] = [];
    world.now -= HOUR;
    await one.transact(conversationAggregate, 'c1', command('a'), (state, _, now) => {
      told.push(now);
      return addTags(['a'])(state);
    });
    expect(told).toEqual([world.now + HOUR]);
  });

  test('may be given with history, and is put right where it runs backwards', async () => {
    const one = world.process();
    const at = (instant: string) => Date.parse(instant);
    const past = (state: Conversation): Decided<ConversationEvent>[] =>
      inTurn(
        opening,
        receive(message('m2')),
      )(state).map((event, i) => ({
        ...event,
        at: [at('2020-05-01T10:00:00Z'), at('2020-05-01T10:00:05Z'), at('2020-05-01T10:00:02Z')][i] ?? 0,
      }));
    const done = await one.transact(conversationAggregate, 'c1', command('import', { imported: true }), past);
    expect(done.events.map(({ metadata }) => metadata.occurredAt)).toEqual([
      '2020-05-01T10:00:00.000Z',
      '2020-05-01T10:00:05.000Z',
      '2020-05-01T10:00:05.000Z',
    ]);
    expect(done.state).toMatchObject({ createdAt: '2020-05-01T10:00:00.000Z', waitingSince: '2020-05-01T10:00:05.000Z' });
    expect(JSON.parse((await world.events())[0]?.data ?? '')).not.toHaveProperty('at');
  });
});

describe('a store that fails', () => {
  test('before it wrote: told as unavailable, and the next attempt is a first one', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    world.store.onAppend(() => Promise.reject(new StoreUnavailable('refused')));
    await expect(run(one, command('a'), addTags(['a']))).rejects.toMatchObject({
      code: 'store_unavailable',
      extra: { retryAfterSeconds: 1 },
    });
    expect((await run(one, command('a'), addTags(['a']))).outcome).toBe('appended');
  });

  test.each([true, false])('without telling whether it wrote (it did: %s): what is remembered is dropped', async (wrote) => {
    const one = world.process();
    await run(one, command('open'), opening);
    world.store.onAppend(async (append) => {
      if (wrote) await append();
      throw new OutcomeUnknown('no answer');
    });
    await expect(run(one, command('a'), addTags(['a']))).rejects.toMatchObject({
      code: 'outcome_unknown',
      extra: { retryAfterSeconds: 1 },
    });
    world.store.reads = 0;
    const again = await run(one, command('a'), addTags(['a']));
    expect(world.store.reads).toBeGreaterThan(0);
    expect(again.outcome).toBe(wrote ? 'repeated' : 'appended');
    expect(again.state.tags).toEqual(['a']);
    expect(await world.events()).toHaveLength(3);
  });

  test('to read: told as unavailable', async () => {
    const one = world.process();
    world.store.failReads = true;
    await expect(run(one, command('open'), opening)).rejects.toMatchObject({ code: 'store_unavailable' });
    await expect(one.load(conversationAggregate, 'acme', 'c1')).rejects.toMatchObject({ code: 'store_unavailable' });
    const history = one.history(conversationAggregate, 'acme', 'c1')[Symbol.asyncIterator]();
    await expect(history.next()).rejects.toMatchObject({ code: 'store_unavailable' });
  });

  test('keeps nobody waiting behind others beyond the deadline, and lets nobody pass them', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    let answer: () => void = () => undefined;
    world.store.onAppend(async (append) => {
      await new Promise<void>((resolve) => (answer = resolve));
      return append();
    });
    const slow = run(one, command('a'), addTags(['a']));
    const appends = world.store.appends.length;
    const deadline = AbortSignal.timeout(20);
    await expect(run(one, command('b', { deadline }), addTags(['b']))).rejects.toMatchObject({ code: 'store_unavailable' });
    await expect(run(one, command('b', { deadline }), addTags(['b']))).rejects.toMatchObject({ code: 'store_unavailable' });
    // The one before is still on its way: whoever comes now is third.
    const third = run(one, command('c'), addTags(['c']));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(world.store.appends.length).toBe(appends);
    answer();
    expect((await slow).state.tags).toEqual(['a']);
    expect((await third).state.tags).toEqual(['a', 'c']);
    expect(one.inFlight).toBe(0);
  });

  test('leaves the queue of the stream open for the next command', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    world.store.onAppend(() => Promise.reject(new StoreUnavailable('refused')));
    const results = await Promise.allSettled([
      run(one, command('a'), addTags(['a'])),
      run(one, command('b'), addTags(['b'])),
      run(one, command('c'), addTags(['c'])),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    expect(one.inFlight).toBe(0);
  });

  test('a lost race sends the events anew, with new ids and the hash of the newer history', async () => {
    const [one, two] = [world.process(), world.process(world.inner)];
    await run(one, command('open'), opening);
    world.store.onAppend(async (append) => {
      await run(two, command('other'), addTags(['other']));
      return append();
    });
    world.store.appends.length = 0;
    await run(one, command('a'), addTags(['a']));
    const [first, second] = world.store.appends;
    expect([first?.expected, second?.expected]).toEqual([1, 2]);
    expect(first?.events[0]?.id).not.toBe(second?.events[0]?.id);
  });
});

test('an event that this build does not know stops commands on its stream', async () => {
  const one = world.process();
  await run(one, command('open'), opening);
  const [, last] = await world.events();
  const metadata = JSON.stringify({ ...metadataOf(last as StoredEvent), commandId: 'newer', schemaVersion: 2, hash: undefined });
  const { createHash } = await import('node:crypto');
  const data = '{"newer":true}';
  const id = randomIds.next();
  // Chained as a newer build would have chained it.
  const hash = createHash('sha256')
    .update(
      `${metadataOf(last as StoredEvent).hash}\n${STREAM}\n2\n${id}\nMessageReceived\n${data.length}\n${data}\n${metadata.length}\n${metadata}`,
    )
    .digest('hex');
  await world.inner.append(
    STREAM,
    1,
    [{ id, type: 'MessageReceived', data, metadata: `${metadata.slice(0, -1)},"hash":"${hash}"}` }],
    AbortSignal.timeout(5_000),
  );
  for (const transactor of [one, world.process()])
    await expect(run(transactor, command('a'), addTags(['a']))).rejects.toMatchObject({ code: 'internal_error' });
  expect(await world.events()).toHaveLength(3);
});

describe('load', () => {
  test('answers what is remembered only while it is young enough', async () => {
    const [one, two] = [world.process(), world.process()];
    expect(await one.load(conversationAggregate, 'acme', 'c1', Infinity)).toBeUndefined();
    await run(two, command('open'), opening);
    // A stream that was not there is looked for again at any age.
    expect((await one.load(conversationAggregate, 'acme', 'c1', Infinity))?.revision).toBe(1);
    await run(two, command('a'), addTags(['a']));
    expect((await one.load(conversationAggregate, 'acme', 'c1', Infinity))?.revision).toBe(1);
    expect((await one.load(conversationAggregate, 'acme', 'c1'))?.revision).toBe(2);
  });

  test('sees no other organization', async () => {
    const one = world.process();
    await run(one, command('open'), opening);
    expect(await one.load(conversationAggregate, 'other', 'c1')).toBeUndefined();
  });
});

describe('what is remembered', () => {
  const CHARACTERS = 49_000;
  const said = (messageId: string, characters: number) =>
    receive({ messageId, contentType: 'text', content: 'x'.repeat(characters) as Sealed });
  const openIn = (transactor: Transactor, id: string, characters: number) =>
    transactor.transact(conversationAggregate, id, command(id), (state) =>
      inTurn(open({ visitorId: 'ada', inboxId: 'i1', channel: 'api' }), said(id, characters))(state),
    );

  test('is bounded by what it holds, also when it was only written and never read', async () => {
    const one = world.process();
    for (let i = 0; i < 800; i++) await openIn(one, `large-${i}`, CHARACTERS);
    const { bytes, streams } = one.cached;
    expect(bytes).toBeGreaterThan(streams * CHARACTERS);
    expect(bytes).toBeLessThanOrEqual(64 * 1024 * 1024);
    expect(streams).toBeLessThan(800);
    // Not by more than it could take: two bytes a character, and the last message may be there as the visitor's too.
    expect(streams).toBeGreaterThan(300);
  });

  test('is weighed again when a large message is followed by small ones', async () => {
    const one = world.process();
    await openIn(one, 'c1', CHARACTERS);
    const heavy = one.cached.bytes;
    expect(heavy).toBeGreaterThan(CHARACTERS);
    for (let i = 0; i < 40; i++) await run(one, command(`m${i}`), said(`n${i}`, 10));
    expect(one.cached.bytes).toBeLessThan(heavy / 3);
  });
});

test('a history of many batches is read whole, remembered and continued', async () => {
  const one = world.process();
  await run(one, command('open'), opening);
  for (let i = 0; i < 600; i++) await run(one, command(`m${i}`), receive(message(`n${i}`)));
  const fresh = world.process();
  expect((await fresh.load(conversationAggregate, 'acme', 'c1'))?.state.messageCount).toBe(601);
  const history: number[] = [];
  for await (const event of fresh.history(conversationAggregate, 'acme', 'c1', { from: 100, limit: 550 })) history.push(event.revision);
  expect(history).toEqual(Array.from({ length: 502 }, (_, i) => 100 + i));
  expect((await run(fresh, command('last'), addTags(['z']))).revision).toBe(602);
});
