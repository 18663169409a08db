import { randomUUID } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { InvalidAppend, LIMITS, OutcomeUnknown, StoreUnavailable, streamName } from '../../src/event-store/event-store.js';
import type {
  Append,
  Appended,
  EventStore,
  Expected,
  NewEvent,
  Position,
  StoredEvent,
  StreamName,
} from '../../src/event-store/event-store.js';
import { startTcpProxy } from '../support/tcp-proxy.js';
import type { TcpProxy } from '../support/tcp-proxy.js';

/** What an adapter may be unable to do, with the reason. Each such test is shown by name as skipped, and said on the console. */
export type Capability =
  /** Another client, as another process would be, sees the same log. */
  | 'second client'
  /** There is a server, so the suite can put a proxy in between. */
  | 'server'
  /** What a consumer has not pulled is not in this process. */
  | 'bounded memory';

export interface ContractSubject {
  readonly name: string;
  /** Opens a client of the log that this subject is about; each call gives another client of the same log. */
  open(): Promise<EventStore>;
  /** The address of the server, and how to open a client of the same log through another address. */
  readonly server?: { address(): Promise<{ host: string; port: number }>; openAt(host: string, port: number): Promise<EventStore> };
  readonly cannot?: Partial<Record<Capability, string>>;
  /** Ends what the subject started. */
  stop?(): Promise<void>;
}

/** Registers the cases that every adapter of the event store port passes. */
export function eventStoreContract(subject: ContractSubject): void {
  const able = (capability: Capability, title: string, test: () => Promise<void>, timeoutMs?: number): void => {
    const reason = subject.cannot?.[capability];
    if (reason === undefined) it(title, test, timeoutMs);
    else it.skip(`${title} — NOT SUPPORTED by ${subject.name}: ${reason}`, test);
  };

  describe(`event store contract: ${subject.name}`, () => {
    let store: EventStore;
    /** Another client of the same log where the adapter can have one. */
    let other: EventStore;

    beforeAll(async () => {
      for (const [capability, reason] of Object.entries(subject.cannot ?? {}))
        process.stderr.write(`event store contract: ${subject.name} NOT SUPPORTED: ${capability}: ${reason}\n`);
      store = await subject.open();
      other = subject.cannot?.['second client'] === undefined ? await subject.open() : store;
    });

    afterAll(async () => {
      await store.close();
      await other.close();
      await subject.stop?.();
    });

    describe('append and revision', () => {
      it('starts a stream at revision 0 and answers the revision of the last event', async () => {
        const stream = newStream();
        expect(await append(store, stream, 'none', [event()])).toMatchObject({ outcome: 'appended', revision: 0 });
        expect(await append(store, stream, 0, [event(), event(), event()])).toMatchObject({ outcome: 'appended', revision: 3 });
        expect(revisions(await readAll(store, stream))).toEqual([0, 1, 2, 3]);
      });

      it('answers a conflict with the actual revision for every expectation that does not hold', async () => {
        const stream = newStream();
        expect(await append(store, stream, 0, [event()])).toEqual({ outcome: 'conflict', actual: 'none' });
        expect(await append(store, stream, 7, [event()])).toEqual({ outcome: 'conflict', actual: 'none' });
        await append(store, stream, 'none', [event(), event()]);
        expect(await append(store, stream, 'none', [event()])).toEqual({ outcome: 'conflict', actual: 1 });
        expect(await append(store, stream, 0, [event()])).toEqual({ outcome: 'conflict', actual: 1 });
        expect(await append(store, stream, 2, [event()])).toEqual({ outcome: 'conflict', actual: 1 });
        expect(await append(store, stream, 1, [event()])).toMatchObject({ outcome: 'appended', revision: 2 });
        expect(await readAll(store, stream)).toHaveLength(3);
      });

      it('writes all events of an append or none', async () => {
        const stream = newStream();
        const rounds = Array.from({ length: 12 }, (_, writer) => Array.from({ length: 5 }, () => event({ writer })));
        const answers = await Promise.all(rounds.map((events) => append(store, stream, 'none', events)));
        const winner = answers.findIndex((answer) => answer.outcome === 'appended');
        expect((await readAll(store, stream)).map((stored) => stored.id)).toEqual(rounds[winner]!.map((e) => e.id));
      });

      it('lets exactly one of 100 racing appends win, and tells the others', async () => {
        const stream = newStream();
        const answers = await Promise.all(
          Array.from({ length: 100 }, (_, i) => append(i % 2 ? store : other, stream, 'none', [event({ i })])),
        );
        expect(answers.filter((answer) => answer.outcome === 'appended')).toHaveLength(1);
        expect(answers.filter((answer) => answer.outcome === 'conflict' && answer.actual === 0)).toHaveLength(99);
        expect(await readAll(store, stream)).toHaveLength(1);
      });

      it('keeps the order of calls on one stream, also when nobody waits', async () => {
        const stream = newStream();
        const events = Array.from({ length: 60 }, (_, i) => event({ i }));
        const answers = await Promise.all(events.map((e, i) => append(store, stream, i === 0 ? 'none' : i - 1, [e])));
        expect(answers.map((answer) => answer.outcome === 'appended' && answer.revision)).toEqual(events.map((_, i) => i));
        expect((await readAll(store, stream)).map((e) => e.id)).toEqual(events.map((e) => e.id));
      });

      it('goes on after conflicts: a loser blocks nobody behind it', async () => {
        const stream = newStream();
        const [first, second, third] = await Promise.all([
          append(store, stream, 'none', [event()]),
          append(store, stream, 'none', [event()]),
          append(store, stream, 0, [event()]),
        ]);
        expect([first.outcome, second.outcome, third.outcome]).toEqual(['appended', 'conflict', 'appended']);
      });

      it('answers each of many concurrent appends by itself, conflicts among them', async () => {
        const taken = newStream();
        await append(store, taken, 'none', [event()]);
        const answers = await Promise.all(
          Array.from({ length: 40 }, (_, i) => append(store, i % 4 === 3 ? taken : newStream(), 'none', [event(), event()])),
        );
        expect(answers.map((answer) => answer.outcome)).toEqual(answers.map((_, i) => (i % 4 === 3 ? 'conflict' : 'appended')));
        const positions = answers.flatMap((answer) => (answer.outcome === 'appended' ? [answer.position] : []));
        expect(new Set(positions).size).toBe(30);
      });

      it('keeps streams apart whose names differ by case, normal form, or a trailing character only', async () => {
        const organization = randomUUID();
        const names = ['Zoë', 'Zoe\u0308', 'zoë', 'Zoë ', 'Zoë.'].map((id) => streamName('visitor', organization, id));
        for (const [i, name] of names.entries()) expect(await append(store, name, 'none', [event({ i })])).toMatchObject({ revision: 0 });
        for (const [i, name] of names.entries()) expect((await readAll(store, name)).map((e) => e.data)).toEqual([JSON.stringify({ i })]);
      });

      it.each([
        ['percent', '100%25 %2F'],
        ['slashes', 'a/b\\c/../d'],
        ['at and dots', '@x.y@z..'],
        ['quotes', `'"\`;--$1`],
        ['dashes and dollar', '$-$$-a-b'],
        ['commas and pipes', 'a,b|c!d'],
        ['emoji', '👩‍👩‍👧 𝕏'],
        ['right to left', 'שלום عليكم'],
        ['the longest name', 'x'.repeat(LIMITS.stream - `conversation-${randomUUID()}.`.length)],
      ])('accepts %s in the name of a stream', async (_, id) => {
        const stream = streamName('conversation', randomUUID(), id);
        expect(await append(store, stream, 'none', [event(), event()])).toMatchObject({ outcome: 'appended', revision: 1 });
        expect((await readAll(other, stream)).map((e) => e.stream)).toEqual([stream, stream]);
      });

      it('writes nothing for a caller whose deadline has passed already', async () => {
        const stream = newStream();
        await expect(store.append(stream, 'none', [event()], AbortSignal.abort())).rejects.toThrow(StoreUnavailable);
        expect(await readAll(store, stream)).toEqual([]);
      });
    });

    describe('appends in order', () => {
      /** Every stream at its next revision: a history in which streams are mixed. */
      const history = (streams: readonly StreamName[], n: number, size: number): Append[] => {
        const revisions = new Map<StreamName, number>();
        return Array.from({ length: n }, (_, i) => {
          const stream = streams[(i * 7 + (i >> 3)) % streams.length]!;
          const expected = revisions.get(stream) ?? 'none';
          const events = Array.from({ length: 1 + (i % 3) }, () => event({ i, text: 'x'.repeat(size) }));
          revisions.set(stream, (expected === 'none' ? -1 : expected) + events.length);
          return { stream, expected, events };
        });
      };

      it('stand in the log as they were given, streams mixed and coming again', async () => {
        const before = await store.head();
        const streams = Array.from({ length: 9 }, newStream);
        // Some of them in one call of any store, some in several.
        const appends = history(streams, 120, 5_000);
        const answers = await store.appendInOrder(appends, AbortSignal.timeout(20_000));
        expect(answers.map(({ outcome }) => outcome)).toEqual(appends.map(() => 'appended'));
        const sent = appends.flatMap(({ events }) => events);
        const found = await collect(store, before, ({ stream }) => streams.includes(stream), sent.length);
        expect(found.map(plain)).toEqual(sent);
        const ends = appends.map(({ events }) => found.find(({ id }) => id === events.at(-1)?.id));
        expect(answers).toEqual(ends.map((end) => ({ outcome: 'appended', revision: end?.revision, position: end?.position })));
      });

      it('are answered each by itself, conflicts among them', async () => {
        const [first, taken, last] = [newStream(), newStream(), newStream()];
        await append(store, taken, 'none', [event()]);
        const answers = await store.appendInOrder(
          [first, taken, last].map((stream) => ({ stream, expected: 'none', events: [event()] })),
          AbortSignal.timeout(10_000),
        );
        expect(answers).toMatchObject([{ outcome: 'appended' }, { outcome: 'conflict', actual: 0 }, { outcome: 'appended' }]);
      });

      it('given again, whole or begun, are completed and stored once', async () => {
        const streams = Array.from({ length: 4 }, newStream);
        const appends = history(streams, 20, 10);
        await store.appendInOrder(appends.slice(0, 7), AbortSignal.timeout(10_000));
        const answers = await other.appendInOrder(appends, AbortSignal.timeout(10_000));
        expect(await store.appendInOrder(appends, AbortSignal.timeout(10_000))).toEqual(answers);
        for (const stream of streams)
          expect((await readAll(store, stream)).map(plain)).toEqual(
            appends.filter((one) => one.stream === stream).flatMap(({ events }) => events),
          );
      });

      it('are refused together, before any of them is written, when one is not valid', async () => {
        const stream = newStream();
        const appends: Append[] = [
          { stream, expected: 'none', events: [event()] },
          { stream, expected: 0, events: [] },
        ];
        await expect((async () => store.appendInOrder(appends, AbortSignal.timeout(5_000)))()).rejects.toThrow(InvalidAppend);
        expect(await readAll(store, stream)).toEqual([]);
      });
    });

    describe('limits, refused before any I/O', () => {
      const duplicate = event();
      const cases: [string, Expected, readonly NewEvent[]][] = [
        ['no events', 'none', []],
        ['one event too many', 'none', Array.from({ length: LIMITS.events + 1 }, () => event())],
        ['an id twice', 'none', [duplicate, event(), duplicate]],
        ['an id that is no UUID', 'none', [{ ...event(), id: 'one' }]],
        ['an id in upper case', 'none', [{ ...event(), id: randomUUID().toUpperCase() }]],
        ['an empty type', 'none', [{ ...event(), type: '' }]],
        ['a type with a space', 'none', [{ ...event(), type: 'Reply Sent' }]],
        ['a type of 101 characters', 'none', [{ ...event(), type: 'A'.repeat(101) }]],
        ['empty data', 'none', [{ ...event(), data: '' }]],
        ['a raw control character', 'none', [{ ...event(), data: '"\u001e"' }]],
        ['a lone surrogate', 'none', [{ ...event(), metadata: '"\ud800"' }]],
        ['a negative revision', -1, [event()]],
        ['half a revision', 0.5, [event()]],
        ['one byte too many', 'none', [sized(LIMITS.bytes + 1)]],
        ['one byte too many in three-byte characters', 'none', [sized(LIMITS.bytes + 1, '€')]],
      ];
      it.each(cases)('refuses %s', async (_, expected, events) => {
        const stream = newStream();
        await expect(append(store, stream, expected, events)).rejects.toThrow(InvalidAppend);
        expect(await readAll(store, stream)).toEqual([]);
      });

      it('refuses a name that is one byte too long', async () => {
        const stream = streamName('conversation', 'o', 'x'.repeat(LIMITS.stream - 'conversation-o.'.length + 1));
        await expect(append(store, stream, 'none', [event()])).rejects.toThrow(InvalidAppend);
      });

      it.each([
        ['the most events', Array.from({ length: LIMITS.events }, (_, i) => event({ i }))],
        ['the longest type', [{ ...event(), type: 'A'.repeat(100) }]],
        ['the most bytes in one event', [sized(LIMITS.bytes)]],
        ['the most bytes in three-byte characters', [sized(LIMITS.bytes, '€')]],
        ['the most events and bytes at once', Array.from({ length: LIMITS.events }, () => sized(LIMITS.bytes / LIMITS.events))],
      ])('accepts %s', async (_, events: readonly NewEvent[]) => {
        const stream = newStream();
        expect(await append(store, stream, 'none', events)).toMatchObject({ outcome: 'appended', revision: events.length - 1 });
        expect((await readAll(other, stream)).map(plain)).toEqual(events);
      });

      it('lets large and small appends share the way', async () => {
        const sizes = [200, 300_000, 200, 60_000, 899_000, 200, 65_000, 200];
        const answers = await Promise.all(sizes.map((size) => append(store, newStream(), 'none', [sized(size)])));
        expect(answers.map((answer) => answer.outcome)).toEqual(sizes.map(() => 'appended'));
      });
    });

    describe('the same append again', () => {
      it('is answered as the first time and stored once, also later and by another client', async () => {
        const stream = newStream();
        const events = [event(), event()];
        const first = await append(store, stream, 'none', events);
        expect(await append(store, stream, 'none', events)).toEqual(first);
        const second = [event()];
        const answer = await append(store, stream, 1, second);
        await append(store, stream, 2, [event()]);
        expect(await append(other, stream, 'none', events)).toEqual(first);
        expect(await append(other, stream, 1, second)).toEqual(answer);
        expect(await readAll(store, stream)).toHaveLength(4);
      });

      it('is stored once when both are under way', async () => {
        const stream = newStream();
        const events = [event(), event()];
        const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => append(i % 2 ? store : other, stream, 'none', events)));
        expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
        expect(answers[0]).toMatchObject({ outcome: 'appended', revision: 1 });
        expect(await readAll(store, stream)).toHaveLength(2);
      });

      // The stream holds a, b, c, appended as [a], [b, c]. What is sent again, at which expectation, and what is answered.
      const again: [string, string, Expected, string, Appended['outcome']][] = [
        ['the first append', 'a', 'none', '', 'appended'],
        ['the second append', 'bc', 0, '', 'appended'],
        ['the end of an append', 'c', 1, '', 'appended'],
        // No store remembers where an append ended, so a part of one is as good as the whole of a smaller one.
        ['the beginning of an append', 'b', 0, '', 'appended'],
        ['both appends as one', 'abc', 'none', '', 'appended'],
        ['another order', 'cb', 0, '', 'conflict'],
        ['another order over both', 'bac', 'none', '', 'conflict'],
        ['the same and one more at the end', 'abc+', 'none', '', 'conflict'],
        ['the end and one more', 'c+', 1, '', 'conflict'],
        ['one more in between', 'b+c', 0, '', 'conflict'],
        ['another first event', '+bc', 'none', '', 'conflict'],
        ['another last event', 'b+', 0, '', 'conflict'],
        ['only other events', '++', 'none', '', 'conflict'],
        ['the right ids one revision too early', 'bc', 'none', '', 'conflict'],
        ['the right ids one revision too late', 'bc', 1, '', 'conflict'],
        ['known ids ahead of the end', 'a', 3, '', 'conflict'],
      ];
      it.each(again)('%s (%s at %s)', async (_, sent, expected, __, outcome) => {
        const stream = newStream();
        const known: Record<string, NewEvent> = { a: event(), b: event(), c: event() };
        await append(store, stream, 'none', [known['a']!]);
        await append(store, stream, 0, [known['b']!, known['c']!]);
        const before = await readAll(store, stream);
        const answer = await append(
          store,
          stream,
          expected,
          sent.split('').map((name) => known[name] ?? event()),
        );
        if (outcome === 'conflict') {
          expect(answer).toEqual({ outcome, actual: 2 });
        } else {
          const last = before.find((stored) => stored.id === known[sent.at(-1)!]!.id)!;
          expect(answer).toEqual({ outcome, revision: last.revision, position: last.position });
        }
        expect(await readAll(store, stream)).toEqual(before);
      });

      it('gives ids no other meaning: they may occur in two streams, and again at the end of one', async () => {
        const [one, two] = [newStream(), newStream()];
        const events = [event()];
        expect(await append(store, one, 'none', events)).toMatchObject({ revision: 0 });
        expect(await append(store, two, 'none', events)).toMatchObject({ revision: 0 });
        expect(await append(store, one, 0, events)).toMatchObject({ outcome: 'appended', revision: 1 });
        expect((await readAll(store, one)).map((e) => e.id)).toEqual([events[0]!.id, events[0]!.id]);
      });
    });

    describe('what is kept', () => {
      it.each([
        ['white space and the order of keys', '{ "b" : 1,\t"a":\r\n2 }'],
        ['numbers beyond a double', '{"n":12345678901234567890,"e":1e400,"z":-0,"d":0.10000000000000000000000001}'],
        ['numbers as strings', '{"n":"00012","m":"9007199254740993"}'],
        ['a key twice', '{"a":1,"a":2}'],
        ['escapes', String.raw`{"nul":"\u0000","sep":"\u001e","nl":"\n","q":"\"","b":"\\","s":"\/","lone":"\ud800"}`],
        ['unicode', JSON.stringify({ text: 'Grüße 👋🏽 \u2028\u2029 שלום \u0300e\u0301 𝔘𝔫𝔦 \ufeff\uffff' })],
        ['markup and templates', JSON.stringify({ text: `<script>'";--</script> ${'$'}{x} $1 %s {{y}} \\x1e` })],
        ['a bare null', 'null'],
        ['a bare number', '0'],
        ['an empty text', '""'],
        ['100 kB', JSON.stringify({ text: 'ä𝕏 '.repeat(15_000) })],
        ['400 kB that do not compress', JSON.stringify({ text: Array.from({ length: 11_000 }, () => randomUUID()).join('') })],
      ])('keeps %s byte for byte, in data and in metadata', async (_, text) => {
        const stream = newStream();
        const events = [
          { ...event(), data: text },
          { ...event(), metadata: text },
        ];
        await append(store, stream, 'none', events);
        expect((await readAll(other, stream)).map(plain)).toEqual(events);
      });

      it('gives every event its stream, revision and position as the append answered them', async () => {
        const stream = newStream();
        const after = await store.head();
        const events = [event(), event(), event()];
        const answer = await append(store, stream, 'none', events);
        const stored = await readAll(other, stream);
        expect(stored.map(({ stream: name, revision }) => [name, revision])).toEqual([0, 1, 2].map((revision) => [stream, revision]));
        expect(answer).toEqual({ outcome: 'appended', revision: 2, position: stored[2]!.position });
        expect(await collect(other, after, (e) => e.stream === stream, 3)).toEqual(stored);
      });
    });

    describe('read', () => {
      const stream = newStream();
      const all = Array.from({ length: 1_203 }, (_, i) => event({ i }));
      beforeAll(async () => {
        for (let i = 0; i < all.length; i += 401) await append(store, stream, i === 0 ? 'none' : i - 1, all.slice(i, i + 401));
      });

      it.each([
        [{}, 0, 1_202],
        [{ from: 0 }, 0, 1_202],
        [{ from: 1_200 }, 1_200, 1_202],
        [{ to: 3 }, 0, 3],
        [{ from: 2, to: 2 }, 2, 2],
        [{ from: 499, to: 1_001 }, 499, 1_001],
        [{ limit: 1 }, 0, 0],
        [{ limit: 500 }, 0, 499],
        [{ limit: 501, from: 100 }, 100, 600],
        [{ limit: 5_000, from: 1_100 }, 1_100, 1_202],
        [{ to: 5_000_000_000, from: 1_201 }, 1_201, 1_202],
        [{ backwards: true }, 1_202, 0],
        [{ backwards: true, limit: 1 }, 1_202, 1_202],
        [{ backwards: true, to: 5, from: 3 }, 5, 3],
        [{ backwards: true, to: 0 }, 0, 0],
        [{ backwards: true, limit: 700 }, 1_202, 503],
        [{ backwards: true, from: 1_000 }, 1_202, 1_000],
        [{ backwards: true, to: 5_000, limit: 2 }, 1_202, 1_201],
      ])('reads %j', async (options, first, last) => {
        const found = await readAll(store, stream, options);
        const length = Math.abs(last - first) + 1;
        expect(revisions(found)).toEqual(Array.from({ length }, (_, i) => (first <= last ? first + i : first - i)));
        expect(found.map(plain)).toEqual(found.map((stored) => all[stored.revision]));
      });

      it.each([{ from: 1_203 }, { from: 5, to: 4 }, { limit: 0 }, { backwards: true, limit: 0 }, { backwards: true, from: 1_203 }])(
        'reads nothing for %j',
        async (options) => {
          expect(await readAll(store, stream, options)).toEqual([]);
        },
      );

      it('gives a missing stream as no events, not as an error', async () => {
        expect(await readAll(store, newStream())).toEqual([]);
        expect(await readAll(store, newStream(), { backwards: true, limit: 1 })).toEqual([]);
        expect(await readAll(store, streamName('conversation', randomUUID(), 'a\u0000b'))).toEqual([]);
      });

      it('gives no empty batches, and may be left early', async () => {
        let batches = 0;
        for await (const batch of store.read(stream)) {
          expect(batch.length).toBeGreaterThan(0);
          batches += 1;
          if (batches === 2) break;
        }
        expect(batches).toBe(2);
        expect(await readAll(store, stream)).toHaveLength(all.length);
      });
    });

    describe('positions and head', () => {
      it('rise strictly, have one width, and are the same in read and feed', async () => {
        const after = await store.head();
        const streams = Array.from({ length: 8 }, newStream);
        await Promise.all(streams.map((name, i) => append(i % 2 ? store : other, name, 'none', [event(), event(), event()])));
        const mine = (e: StoredEvent) => streams.includes(e.stream);
        const feed = await collect(store, after, mine, 24);
        expectRising(feed);
        expect(new Set(feed.map((e) => e.position.length)).size).toBe(1);
        for (const name of streams) expect(feed.filter((e) => e.stream === name)).toEqual(await readAll(store, name));
        // The same order when read again, by another client.
        expect(await collect(other, after, mine, 24)).toEqual(feed);
      });

      it('has every acknowledged append at or before head', async () => {
        for (let i = 0; i < 10; i += 1) {
          const answer = await append(store, newStream(), 'none', [event(), event()]);
          const head = await other.head();
          expect(answer.outcome === 'appended' && answer.position <= head).toBe(true);
        }
      });

      it('names the log the same for every client', async () => {
        expect(other.log).toEqual(store.log);
        expect(store.log.id.length).toBeGreaterThan(0);
      });
    });

    describe('feed', () => {
      it('begins after the given position, exclusively', async () => {
        const after = await store.head();
        const stream = newStream();
        await append(store, stream, 'none', [event(), event(), event(), event()]);
        const stored = await readAll(store, stream);
        for (const [i, from] of [after, stored[0]!.position, stored[2]!.position].entries()) {
          const expected = stored.slice([0, 1, 3][i]);
          expect(await collect(store, from, (e) => e.stream === stream, expected.length)).toEqual(expected);
        }
      });

      it('begins with the first event of the log', async () => {
        await append(store, newStream(), 'none', [event()]);
        const control = new AbortController();
        for await (const batch of store.feed('start', { maxEvents: 3, signal: control.signal })) {
          const first = batch.events[0];
          if (first === undefined) continue;
          expect(first.revision).toBe(0);
          const again = await firstBatch(other, 'start');
          expect(again.events[0]).toEqual(first);
          control.abort();
        }
      });

      it('says that it has caught up, once, with a position that a later feed can begin at', async () => {
        const { position } = appended(await append(store, newStream(), 'none', [event()]));
        const control = new AbortController();
        const stream = newStream();
        let saidEmpty = 0;
        let through: Position = position;
        for await (const batch of store.feed(position, { maxEvents: 10, signal: control.signal })) {
          expect(batch.through >= through).toBe(true);
          through = batch.through;
          if (batch.events.length === 0) saidEmpty += 1;
          if (batch.caughtUp && saidEmpty === 1 && batch.events.length === 0) await append(other, stream, 'none', [event()]);
          if (batch.events.some((e) => e.stream === stream)) {
            expect(batch.through >= batch.events.at(-1)!.position).toBe(true);
            control.abort();
          }
        }
        expect(saidEmpty).toBeGreaterThan(0);
        await append(store, stream, 0, [event()]);
        expect(revisions(await collect(store, through, (e) => e.stream === stream, 1))).toEqual([1]);
      });

      it('says caughtUp only when nothing more was there, and gives at most maxEvents', async () => {
        const after = await store.head();
        const stream = newStream();
        await append(
          store,
          stream,
          'none',
          Array.from({ length: 25 }, () => event()),
        );
        const control = new AbortController();
        let seen = 0;
        for await (const batch of store.feed(after, { maxEvents: 10, signal: control.signal })) {
          expect(batch.events.length).toBeLessThanOrEqual(10);
          seen += batch.events.filter((e) => e.stream === stream).length;
          if (seen < 25) expect(batch.caughtUp).toBe(false);
          if (batch.caughtUp) control.abort();
        }
        expect(seen).toBe(25);
      });

      it('wakes for appends of its own client and of others', async () => {
        const stream = newStream();
        const arrived: { revision: number; at: number }[] = [];
        const control = new AbortController();
        const done = consume(store, await store.head(), control, (e) => {
          if (e.stream === stream) arrived.push({ revision: e.revision, at: performance.now() });
        });
        for (let revision = 0; revision < 10; revision += 1) {
          const sent = performance.now();
          await append(revision % 2 ? store : other, stream, revision === 0 ? 'none' : revision - 1, [event()]);
          await eventually(() => arrived.length === revision + 1, 3_000);
          expect(arrived.at(-1)!.at - sent).toBeLessThan(2_000);
        }
        control.abort();
        await done;
      });

      it('goes from catching up to live without hole or double while 16 writers write at full rate', async () => {
        const after = await store.head();
        const organization = randomUUID();
        const acknowledged = new Map<string, Position>();
        let writing = true;
        let last: Position | 'still writing' = 'still writing';
        const writers = Promise.all(
          Array.from({ length: 16 }, async (_, writer) => {
            const name = streamName('conversation', organization, `w${writer}`);
            let revision = -1;
            while (writing) {
              const events = Array.from({ length: 1 + (revision & 1) }, () => event({ writer }));
              const answer = appended(await append(writer % 2 ? store : other, name, revision < 0 ? 'none' : revision, events));
              revision = answer.revision;
              acknowledged.set(events.at(-1)!.id, answer.position);
            }
          }),
        );
        await eventually(() => acknowledged.size > 300, 10_000);
        // Both begin with a backlog; the one with small batches meets the live end again and again.
        const feeds = [7, 500].map(async (maxEvents) => {
          const seen: StoredEvent[] = [];
          const control = new AbortController();
          for await (const batch of store.feed(after, { maxEvents, signal: control.signal })) {
            seen.push(...batch.events.filter((e) => e.stream.startsWith(`conversation-${organization}.`)));
            // Not at the first batch that has caught up: it may have been read before the last appends, and come after their answers.
            if (last !== 'still writing' && batch.through >= last) control.abort();
          }
          return seen;
        });
        const until = acknowledged.size + 1_500;
        await eventually(() => acknowledged.size > until, 20_000);
        writing = false;
        await writers;
        last = [...acknowledged.values()].sort().at(-1)!;
        // Wakes a feed that had caught up by then.
        await append(store, newStream(), 'none', [event()]);
        for (const seen of await Promise.all(feeds)) {
          expectRising(seen);
          expectStreamOrder(seen);
          const positions = new Map(seen.map((e) => [e.id, e.position]));
          expect([...acknowledged].filter(([id, position]) => positions.get(id) !== position)).toEqual([]);
        }
      }, 60_000);

      it('resumes from the last handled event, again and again, and misses nothing', async () => {
        const start = await store.head();
        const stream = newStream();
        await append(
          store,
          stream,
          'none',
          Array.from({ length: 40 }, () => event()),
        );
        const seen: number[] = [];
        for (let after = start; seen.length < 40;) {
          for await (const batch of store.feed(after, { maxEvents: 7, signal: new AbortController().signal })) {
            // Only a part of the batch is handled before the consumer dies.
            const handled = batch.events.slice(0, 3);
            seen.push(...handled.filter((e) => e.stream === stream).map((e) => e.revision));
            after = handled.at(-1)?.position ?? after;
            break;
          }
        }
        expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => i));
      });

      it('serves two feeds independently, a slow one and a fast one', async () => {
        const after = await store.head();
        const stream = newStream();
        let release: () => void = () => undefined;
        const held = new Promise<void>((resolve) => (release = resolve));
        const slow: number[] = [];
        const slowControl = new AbortController();
        const slowDone = (async () => {
          for await (const batch of store.feed(after, { maxEvents: 5, signal: slowControl.signal })) {
            await held;
            slow.push(...batch.events.filter((e) => e.stream === stream).map((e) => e.revision));
            if (slow.length === 60) slowControl.abort();
          }
        })();
        await append(
          store,
          stream,
          'none',
          Array.from({ length: 60 }, () => event()),
        );
        expect(await collect(store, after, (e) => e.stream === stream, 60)).toHaveLength(60);
        expect(slow).toEqual([]);
        release();
        await slowDone;
        expect(slow).toEqual(Array.from({ length: 60 }, (_, i) => i));
      });

      able(
        'bounded memory',
        'is pulled: what a slow consumer has not asked for is not held in memory',
        async () => {
          const after = await store.head();
          const stream = newStream();
          const control = new AbortController();
          let release: () => void = () => undefined;
          const held = new Promise<void>((resolve) => (release = resolve));
          let seen = 0;
          const done = (async () => {
            for await (const batch of store.feed(after, { maxEvents: 10, signal: control.signal })) {
              await held;
              seen += batch.events.filter((e) => e.stream === stream).length;
              if (seen === 1_000) control.abort();
            }
          })();
          const before = memory();
          for (let i = 0; i < 100; i += 1)
            await append(
              other,
              stream,
              i === 0 ? 'none' : i * 10 - 1,
              Array.from({ length: 10 }, () => sized(80_000)),
            );
          // 80 MB are in the log by now.
          await eventually(() => memory() - before < 24_000_000, 5_000);
          release();
          await done;
          expect(seen).toBe(1_000);
        },
        60_000,
      );

      it('ends at once by its signal: before, while it waits, and while the consumer works', async () => {
        for await (const batch of store.feed('start', { maxEvents: 1, signal: AbortSignal.abort() }))
          throw new Error(`got ${batch.through}`);

        const waiting = new AbortController();
        let caughtUp = false;
        const waits = (async () => {
          for await (const batch of store.feed(await store.head(), { maxEvents: 10, signal: waiting.signal })) caughtUp ||= batch.caughtUp;
        })();
        await eventually(() => caughtUp, 5_000);
        const started = performance.now();
        waiting.abort();
        await waits;
        expect(performance.now() - started).toBeLessThan(200);

        const working = new AbortController();
        let batches = 0;
        for await (const batch of store.feed('start', { maxEvents: 1, signal: working.signal })) {
          expect(batch.events).toHaveLength(1);
          batches += 1;
          working.abort();
        }
        expect(batches).toBe(1);
      });
    });

    describe('close', () => {
      it('ends feeds, refuses what comes later, may be called twice, and leaves no handle', async () => {
        const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
        const before = sockets();
        const closing = await subject.open();
        const stream = newStream();
        await append(closing, stream, 'none', [event()]);
        expect(await readAll(closing, stream)).toHaveLength(1);
        let caughtUp = false;
        const feed = (async () => {
          for await (const batch of closing.feed(await closing.head(), { maxEvents: 1, signal: new AbortController().signal }))
            caughtUp ||= batch.caughtUp;
        })();
        await eventually(() => caughtUp, 5_000);
        await closing.close();
        await closing.close();
        await feed;
        await expect(append(closing, stream, 0, [event()])).rejects.toThrow(StoreUnavailable);
        await expect(readAll(closing, stream)).rejects.toThrow(StoreUnavailable);
        await expect(closing.head()).rejects.toThrow(StoreUnavailable);
        await eventually(() => sockets() <= before, 5_000);
      });
    });

    describe('with a bad network', () => {
      let proxy: TcpProxy;
      let far: EventStore;

      beforeAll(async () => {
        if (subject.server === undefined) return;
        proxy = await startTcpProxy(await subject.server.address());
        far = await subject.server.openAt(proxy.host, proxy.port);
      });
      afterEach(async () => {
        if (subject.server === undefined) return;
        proxy.uncut();
        proxy.delay(0);
        proxy.heal();
        await proxy.accept().catch(() => undefined);
      });
      afterAll(async () => {
        if (subject.server === undefined) return;
        await far.close();
        await proxy.close();
      });

      /** What the log says about an append, whatever its caller was told. */
      async function expectHonest(stream: StreamName, events: readonly NewEvent[], answer: Appended | Error): Promise<void> {
        const stored = (await readAll(store, stream)).filter((e) => events.some((sent) => sent.id === e.id));
        if (answer instanceof OutcomeUnknown) {
          expect([0, events.length]).toContain(stored.length);
        } else if (answer instanceof Error) {
          expect(answer).toBeInstanceOf(StoreUnavailable);
          expect(stored).toEqual([]);
        } else if (answer.outcome === 'conflict') {
          expect(stored).toEqual([]);
        } else {
          expect(stored.map(plain)).toEqual(events);
          expect(answer).toEqual({ outcome: 'appended', revision: stored.at(-1)!.revision, position: stored.at(-1)!.position });
        }
      }

      able(
        'server',
        'settles an append whose reply is cut at any byte: stored once, answered as it is',
        async () => {
          await append(far, newStream(), 'none', [event()]);
          let cuts = 0;
          // Until the reply is shorter than what is let through.
          for (let bytes = 0, whole = false; !whole && bytes < 1_000; bytes += 3) {
            const stream = newStream();
            const events = [event({ bytes }), event({ bytes })];
            proxy.cutReplyAfter(bytes, stream);
            const answer = await append(far, stream, 'none', events, 8_000);
            whole = proxy.uncut();
            cuts += 1;
            expect(answer).toMatchObject({ outcome: 'appended', revision: 1 });
            await expectHonest(stream, events, answer);
          }
          expect(cuts).toBeGreaterThan(10);
        },
        120_000,
      );

      able(
        'server',
        'settles appends in order whose reply is cut at any byte: in order, and stored once',
        async () => {
          for (let bytes = 0, whole = false; !whole && bytes < 1_000; bytes += 29) {
            const before = await store.head();
            const streams = [newStream(), newStream()];
            const appends = [0, 1, 2, 3].map((i) => ({
              stream: streams[i % 2]!,
              expected: i < 2 ? ('none' as const) : 0,
              events: [event({ bytes })],
            }));
            proxy.cutReplyAfter(bytes, streams[1]!);
            const answers = await far.appendInOrder(appends, AbortSignal.timeout(8_000));
            whole = proxy.uncut();
            expect(answers.map(({ outcome }) => outcome)).toEqual(['appended', 'appended', 'appended', 'appended']);
            const found = await collect(store, before, ({ stream }) => streams.includes(stream), 4);
            expect(found.map(plain)).toEqual(appends.flatMap(({ events }) => events));
            for (const stream of streams) expect(await readAll(store, stream)).toHaveLength(2);
          }
        },
        120_000,
      );

      able(
        'server',
        'settles an append that is cut on the way there, at any byte',
        async () => {
          for (let bytes = 0; bytes <= 700; bytes += 23) {
            const stream = newStream();
            const events = [event({ bytes })];
            proxy.cutRequestAfter(bytes, stream);
            const answer = await append(far, stream, 'none', events, 8_000);
            proxy.uncut();
            expect(answer).toMatchObject({ outcome: 'appended', revision: 0 });
            await expectHonest(stream, events, answer);
          }
        },
        120_000,
      );

      able(
        'server',
        'never writes twice and never calls its own append a conflict while a second writer interleaves',
        async () => {
          let conflicts = 0;
          let won = 0;
          for (let round = 0; round < 60; round += 1) {
            const stream = newStream();
            await append(store, stream, 'none', [event()]);
            const events = [event({ round }), event({ round })];
            const seen = performance.now();
            if (round % 3 === 0) proxy.kill();
            else proxy.cutReplyAfter(round, stream);
            let racing = true;
            const rival = (async () => {
              // A rival that always starts first would always win against a store that is slower behind the proxy.
              if (round % 2) await new Promise((resolve) => setTimeout(resolve, round % 12));
              // Always at the end of the stream: right behind the append when it was written, in its place when not.
              for (let revision = 0; racing && performance.now() - seen < 8_000;) {
                const answer = await append(other, stream, revision, [event({ rival: true })]);
                revision = answer.outcome === 'appended' ? answer.revision : Number(answer.actual);
                if (round % 2) await new Promise((resolve) => setImmediate(resolve));
              }
            })();
            const answer = await append(far, stream, 0, events, 8_000).catch((error: Error) => error);
            racing = false;
            proxy.uncut();
            await rival;
            expect(answer).not.toBeInstanceOf(Error);
            if (!(answer instanceof Error) && answer.outcome === 'conflict') conflicts += 1;
            else won += 1;
            await expectHonest(stream, events, answer);
          }
          // Both ends of the race were met, or the case has proved nothing.
          expect(conflicts).toBeGreaterThan(0);
          expect(won).toBeGreaterThan(0);
        },
        180_000,
      );

      able(
        'server',
        'settles each of many concurrent appends by itself when their connections are killed again and again',
        async () => {
          const streams = Array.from({ length: 8 }, newStream);
          const sent = new Map<string, Appended | Error>();
          let writing = true;
          // Before the first append: a head that is read beside them may be past some of them.
          const after = await store.head();
          const writers = streams.map(async (stream, writer) => {
            for (let revision = -1; writing;) {
              const one = event({ writer });
              const answer = await append(far, stream, revision < 0 ? 'none' : revision, [one], 8_000).catch((error: Error) => error);
              sent.set(one.id, answer);
              if (answer instanceof Error) throw answer;
              // Nobody else writes here, so a conflict would be with oneself.
              expect(answer.outcome).toBe('appended');
              if (answer.outcome === 'appended') revision = answer.revision;
            }
          });
          const control = new AbortController();
          const seen: StoredEvent[] = [];
          const feed = consume(far, after, control, (e) => void (streams.includes(e.stream) && seen.push(e)));
          for (let kill = 0; kill < 12; kill += 1) {
            const size = sent.size;
            await eventually(() => sent.size >= size + 20, 10_000);
            proxy.kill();
          }
          writing = false;
          await Promise.all(writers);
          for (const stream of streams) {
            const stored = await readAll(store, stream);
            expect(new Set(stored.map((e) => e.id)).size).toBe(stored.length);
            expect(stored.every((e) => sent.has(e.id))).toBe(true);
          }
          // The feed went through the same kills.
          const last = await store.head();
          const missing = (await collect(store, after, (e) => streams.includes(e.stream) && e.position <= last, sent.size)).map(
            (e) => e.id,
          );
          await eventually(() => seen.length >= missing.length, 20_000);
          control.abort();
          await feed;
          expectRising(seen);
          expect(seen.map((e) => e.id)).toEqual(missing);
        },
        120_000,
      );

      able('server', 'is unchanged by a slow network', async () => {
        proxy.delay(30);
        const stream = newStream();
        const events = [event(), event()];
        const answers = await Promise.all([append(far, stream, 'none', events), append(far, stream, 1, [event()])]);
        expect(answers).toMatchObject([
          { outcome: 'appended', revision: 1 },
          { outcome: 'appended', revision: 2 },
        ]);
        expect((await readAll(far, stream)).map((e) => e.revision)).toEqual([0, 1, 2]);
      });

      able(
        'server',
        'tells the truth at the deadline when the network swallows everything, and recovers',
        async () => {
          await append(far, newStream(), 'none', [event()]);
          proxy.blackhole();
          const stream = newStream();
          const events = [event()];
          const started = performance.now();
          const answer = await append(far, stream, 'none', events, 700).catch((error: Error) => error);
          expect(performance.now() - started).toBeLessThan(1_500);
          expect(answer).toBeInstanceOf(OutcomeUnknown);
          proxy.heal();
          // The same bytes again give the one true answer, whether or not the first attempt arrives late.
          const settled = await append(far, stream, 'none', events, 10_000);
          expect(settled).toMatchObject({ outcome: 'appended', revision: 0 });
          await expectHonest(stream, events, settled);
        },
        60_000,
      );

      able(
        'server',
        'leaves connections that went dead without a word: appends, reads and feeds go on over new ones',
        async () => {
          const after = await store.head();
          const stream = newStream();
          const seen: StoredEvent[] = [];
          const control = new AbortController();
          const feed = consume(far, after, control, (e) => void (e.stream === stream && seen.push(e)));
          await append(far, stream, 'none', [event()]);
          await eventually(() => seen.length === 1, 5_000);
          proxy.blackhole('old');
          const events = [event(), event()];
          const answer = await append(far, stream, 0, events, 20_000);
          expect(answer).toMatchObject({ outcome: 'appended', revision: 2 });
          await expectHonest(stream, events, answer);
          await eventually(() => seen.length === 3, 30_000);
          await eventually(async () => (await readAll(far, stream).catch(() => [])).length === 3, 30_000);
          control.abort();
          await feed;
          expect(revisions(seen)).toEqual([0, 1, 2]);
        },
        90_000,
      );

      able(
        'server',
        'never says that nothing was written when the reply was lost and the server stays away',
        async () => {
          await append(far, newStream(), 'none', [event()]);
          const stream = newStream();
          const events = [event()];
          await proxy.refuse({ keep: true });
          proxy.cutReplyAfter(0, stream);
          const answer = await append(far, stream, 'none', events, 1_000).catch((error: Error) => error);
          expect(answer).toBeInstanceOf(OutcomeUnknown);
          expect(await readAll(store, stream)).toHaveLength(1);
          proxy.kill();
          await proxy.accept();
          expect(await append(far, stream, 'none', events, 10_000)).toMatchObject({ outcome: 'appended', revision: 0 });
          expect(await readAll(store, stream)).toHaveLength(1);
        },
        60_000,
      );

      able(
        'server',
        'rejects reads, and appends as certainly not written, while the server is away; nothing reads as empty',
        async () => {
          const stream = newStream();
          await append(far, stream, 'none', [event()]);
          await proxy.refuse();
          // One that was on its way when the connection broke may have been written; from then on the client knows better.
          const late = event();
          const fails = () => append(far, stream, 0, [late], 400).catch((error: Error) => error);
          await eventually(async () => (await fails()) instanceof StoreUnavailable, 10_000);
          await expect(readAll(far, stream)).rejects.toThrow(StoreUnavailable);
          await expect(far.head()).rejects.toThrow(StoreUnavailable);
          await proxy.accept();
          expect(await append(far, stream, 0, [event()], 10_000)).toMatchObject({ outcome: 'appended', revision: 1 });
          expect((await readAll(far, stream)).map((e) => e.id)).not.toContain(late.id);
        },
        60_000,
      );

      able(
        'server',
        'keeps a feed alive across cuts: no event twice, none missed, live again by itself',
        async () => {
          const stream = newStream();
          const seen: StoredEvent[] = [];
          const control = new AbortController();
          const feed = consume(far, await store.head(), control, (e) => void (e.stream === stream && seen.push(e)));
          for (let revision = 0; revision < 60; revision += 1) {
            if (revision % 4 === 0) proxy.cutReplyAfter(revision * 17);
            if (revision === 30) await proxy.refuse();
            if (revision === 40) await proxy.accept();
            await append(store, stream, revision === 0 ? 'none' : revision - 1, [event()]);
            if (revision % 10 === 9 && (revision < 30 || revision > 40)) await eventually(() => seen.length === revision + 1, 20_000);
          }
          await eventually(() => seen.length === 60, 20_000);
          control.abort();
          await feed;
          expect(revisions(seen)).toEqual(Array.from({ length: 60 }, (_, i) => i));
        },
        120_000,
      );
    });
  });
}

function newStream(): StreamName {
  return streamName('conversation', randomUUID(), randomUUID());
}

function event(data: unknown = {}): NewEvent {
  return { id: randomUUID(), type: 'ReplySent', data: JSON.stringify(data), metadata: '{"schemaVersion":1}' };
}

/** An event whose id, type, data and metadata have exactly `bytes` bytes in UTF-8. */
function sized(bytes: number, filler = 'x'): NewEvent {
  const one = event();
  const rest = bytes - one.id.length - one.type.length - one.metadata.length - 2;
  const width = Buffer.byteLength(filler);
  return { ...one, data: `"${filler.repeat(Math.floor(rest / width))}${'x'.repeat(rest % width)}"` };
}

function append(store: EventStore, stream: StreamName, expected: Expected, events: readonly NewEvent[], ms = 10_000): Promise<Appended> {
  return store.append(stream, expected, events, AbortSignal.timeout(ms));
}

function appended(answer: Appended): Extract<Appended, { outcome: 'appended' }> {
  if (answer.outcome !== 'appended') throw new Error(`a conflict with ${answer.actual}`);
  return answer;
}

async function readAll(store: EventStore, stream: StreamName, options?: Parameters<EventStore['read']>[1]): Promise<StoredEvent[]> {
  const found: StoredEvent[] = [];
  for await (const batch of store.read(stream, options)) found.push(...batch);
  return found;
}

async function firstBatch(store: EventStore, after: Position | 'start') {
  for await (const batch of store.feed(after, { maxEvents: 3, signal: new AbortController().signal }))
    if (batch.events.length > 0) return batch;
  throw new Error('the feed ended');
}

/** The first `count` events after a position that match, in feed order; fails when they have not come within 30 s. */
async function collect(
  store: EventStore,
  after: Position | 'start',
  matches: (e: StoredEvent) => boolean,
  count: number,
): Promise<StoredEvent[]> {
  const found: StoredEvent[] = [];
  const control = new AbortController();
  const giveUp = setTimeout(() => control.abort(), 30_000);
  for await (const batch of store.feed(after, { maxEvents: 200, signal: control.signal })) {
    found.push(...batch.events.filter(matches));
    if (found.length >= count) control.abort();
  }
  clearTimeout(giveUp);
  if (found.length < count) throw new Error(`the feed gave ${found.length} of ${count} events within 30 s`);
  return found;
}

async function consume(
  store: EventStore,
  after: Position | 'start',
  control: AbortController,
  each: (e: StoredEvent) => void,
): Promise<void> {
  for await (const batch of store.feed(after, { maxEvents: 50, signal: control.signal })) batch.events.forEach(each);
}

function plain({ id, type, data, metadata }: NewEvent): NewEvent {
  return { id, type, data, metadata };
}

function revisions(events: readonly StoredEvent[]): number[] {
  return events.map((e) => e.revision);
}

function expectRising(events: readonly StoredEvent[]): void {
  const falls = events.filter((e, i) => i > 0 && !(events[i - 1]!.position < e.position));
  expect(falls).toEqual([]);
}

function expectStreamOrder(events: readonly StoredEvent[]): void {
  const next = new Map<string, number>();
  for (const e of events) {
    expect(e.revision).toBe(next.get(e.stream) ?? 0);
    next.set(e.stream, e.revision + 1);
  }
}

async function eventually(holds: () => boolean | Promise<boolean>, ms: number): Promise<void> {
  for (const until = performance.now() + ms; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 5))) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${holds.toString()}`);
  }
}

/** Bytes in use after a collection. */
function memory(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
