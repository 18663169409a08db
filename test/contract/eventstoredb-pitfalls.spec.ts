import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { EventStoreDBClient, jsonEvent } from '@eventstore/db-client';
import streams from '@eventstore/db-client/generated/streams_pb.js';
import { InvalidAppend, LIMITS, OutcomeUnknown, StoreUnavailable, streamName } from '../../src/event-store/event-store.js';
import type { Appended, EventStore, Expected, NewEvent, Position, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import { openEventStoreDbEventStore } from '../../src/event-store/eventstoredb/eventstoredb-event-store.js';
import { startEventStoreDb } from '../support/eventstoredb-server.js';
import type { EventStoreDbServer } from '../support/eventstoredb-server.js';
import { startGrpcProxy } from '../support/grpc-proxy.js';
import type { Fate, GrpcCall, GrpcProxy } from '../support/grpc-proxy.js';

/*
 * What is known to go wrong with EventStoreDB and its client, one case each. The numbers are those of the list that the adapter was built
 * from: 6.1 is what their sources and issues say, 6.5 what was measured. Missing numbers concern what the adapter does not use: persistent
 * subscriptions, links, readAll, per-call credentials, the client's own checkpoint callback.
 */

const given = process.env['EVENTSTORE_URL'];
const executable = process.env['EVENTSTORE_BIN'];

if (given || executable) {
  describe('EventStoreDB pitfalls', pitfalls);
  if (executable) describe('EventStoreDB killed, frozen, restarted', () => faults(executable));
  else
    it('EventStoreDB faults: NOT RUN, because EVENTSTORE_BIN is not set', () => {
      process.stderr.write('EventStoreDB: faults NOT RUN (kill, freeze and restart need EVENTSTORE_BIN)\n');
      expect(executable).toBeFalsy();
    });
} else {
  it('EventStoreDB: NOT RUN, because neither EVENTSTORE_URL nor EVENTSTORE_BIN is set', () => {
    process.stderr.write('EventStoreDB: NOT RUN (test/contract/eventstoredb-pitfalls.spec.ts needs EVENTSTORE_URL or EVENTSTORE_BIN)\n');
    expect(given ?? executable).toBeFalsy();
  });
}

function pitfalls(): void {
  let own: EventStoreDbServer | undefined;
  let url: string;
  let store: EventStore;
  const toClose: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    if (!given && executable) own = await startEventStoreDb(executable);
    url = given ?? own?.url ?? '';
    store = await openEventStoreDbEventStore({ url });
  }, 90_000);
  afterEach(async () => {
    for (const close of toClose.splice(0).reverse()) await close();
  });
  afterAll(async () => {
    await store.close();
    await own?.dispose();
  });

  /** A client of the same log whose calls are decided about, once it is open. */
  async function through(decide: (call: GrpcCall) => Fate | Promise<Fate>): Promise<EventStore> {
    let open = false;
    const counts = new Map<string, number>();
    const proxy = await proxied((call) => {
      if (!open) return 'forward';
      const number = counts.get(call.method) ?? 0;
      counts.set(call.method, number + 1);
      return decide({ ...call, number });
    });
    const far = await openEventStoreDbEventStore({ url: `esdb://127.0.0.1:${proxy.port}?tls=false` });
    toClose.push(() => far.close());
    open = true;
    return far;
  }

  async function proxied(decide: (call: GrpcCall) => Fate | Promise<Fate>): Promise<GrpcProxy> {
    const { hostname, port } = new URL(url);
    const proxy = await startGrpcProxy({ host: hostname, port: Number(port) || 2113 }, decide);
    toClose.push(() => proxy.close());
    return proxy;
  }

  function foreignClient(): EventStoreDBClient {
    const client = EventStoreDBClient.connectionString(url);
    toClose.push(async () => {
      await client.dispose();
      (await client['getChannel']()).close();
    });
    return client;
  }

  /** 40 events that are not Threadlog's, at the end of the log. @returns the commit position of the last */
  async function foreignEvents(): Promise<string> {
    const events = Array.from({ length: 40 }, () => jsonEvent({ type: 'Foreign', data: {} }));
    const { position } = await foreignClient().appendToStream(`foreign-${randomUUID()}`, events);
    return String(position?.commit);
  }

  it('6.1.1, 6.5.9: a feed subscribes again after every kind of drop, without a hole or a double', async () => {
    const after = await store.head();
    const statuses = [10, 14, 2, 13, 15, 1, 4];
    // An event takes about 300 bytes; 30 are there.
    const cuts = [900, 2_000, 1_500];
    const far = await through(async (call) => {
      if (!(await subscriptionIn(call))) return 'forward';
      const status = statuses.shift();
      if (status !== undefined) return { status, message: 'dropped' };
      const cutAfterBytes = cuts.shift();
      return cutAfterBytes === undefined ? 'forward' : { cutAfterBytes };
    });
    const stream = newStream();
    const first = many(30);
    await append(store, stream, 'none', first);
    const seen = await collect(far, after, stream, 30);
    expect([...statuses, ...cuts]).toEqual([]);
    expect(ids(seen)).toEqual(ids(first));
  });

  it.each([
    [2, 'client error (Connect)'],
    [13, 'Received RST_STREAM with code 2'],
    [14, 'No connection established'],
    [15, 'data loss'],
    [1, 'Call cancelled'],
  ])('6.1.2, 6.5.10: an append and a read survive a connection that fails with code %i', async (status, message) => {
    const failed = new Set<string>();
    const far = await through(({ method }) => {
      if (failed.has(method)) return 'forward';
      failed.add(method);
      return { status, message };
    });
    const stream = newStream();
    const events = many(2);
    await append(store, stream, 'none', events);
    expect(ids(await readAll(far, stream))).toEqual(ids(events));
    expect(await append(far, stream, 1, many(1))).toMatchObject({ outcome: 'appended', revision: 2 });
    expect([...failed].sort()).toEqual(['BatchAppend', 'Read']);
    // The connection that replaced the failed one is a good one.
    expect(await append(far, stream, 2, many(1), 1_000)).toMatchObject({ revision: 3 });
  });

  it('6.1.3, 6.5.10: nodes that cannot be discovered, a closed port and a forgotten tls=false are all StoreUnavailable', async () => {
    const { host } = new URL(url);
    const urls = ['esdb://127.0.0.1:1,127.0.0.1:2?tls=false&maxDiscoverAttempts=2', 'esdb://127.0.0.1:1?tls=false', `esdb://${host}`];
    const outcomes = await Promise.all(urls.map((each) => openEventStoreDbEventStore({ url: each }).catch((error: unknown) => error)));
    for (const outcome of outcomes) expect(outcome).toBeInstanceOf(StoreUnavailable);
  }, 30_000);

  it.each([
    ['several names to discover', 'esdb+discover://admin:s3cret@a:2113,b:2113', /one name/],
    ['tlsVerifyCert=false', 'esdb://admin:s3cret@a:2113?tls=true&tlsVerifyCert=false', /tlsCAFile/],
    ['what is no connection string', 'esdb://admin:s3cret@a:port', /cannot be read/],
    ['another scheme', 'http://admin:s3cret@a:2113', /cannot be read/],
  ])('6.1.4: %s is refused at once, and no password is told', async (_, bad, reason) => {
    const error = await openEventStoreDbEventStore({ url: bad }).then(
      () => new Error('opened'),
      (thrown: Error) => thrown,
    );
    expect(error.message).toMatch(reason);
    expect(`${error.message} ${error.stack}`).not.toContain('s3cret');
  });

  it('6.1.5, 6.5.4: another client that breaks in the same process takes nobody with it', async () => {
    const far = await through(({ method, number }) => (method === 'BatchAppend' && number === 0 ? 'lose the answer' : 'forward'));
    const poisoned = foreignClient();
    const answers: Promise<Appended>[] = [];
    const unlucky: Promise<Appended>[] = [];
    for (let i = 0; i < 100; i += 1) {
      answers.push(append(store, newStream(), 'none', many(1)));
      unlucky.push(append(far, newStream(), 'none', many(1)));
    }
    // This breaks the call that all of the client's appends share; some of them never settle.
    const poison = poisoned.appendToStream(`foreign-${randomUUID()}`, jsonEvent({ type: 'Foreign', data: {} }), { expectedRevision: -1n });
    await expect(poison).rejects.toThrow();
    for (const answer of await Promise.all(answers)) expect(answer).toMatchObject({ outcome: 'appended', revision: 0 });
    // Those whose answers were lost were looked for, and found.
    for (const answer of await Promise.all(unlucky)) expect(answer).toMatchObject({ outcome: 'appended', revision: 0 });
  });

  it('6.1.6: throwOnAppendFailure=false in the connection string changes no answer', async () => {
    const quiet = await openEventStoreDbEventStore({ url: `${url}${url.includes('?') ? '&' : '?'}throwOnAppendFailure=false` });
    toClose.push(() => quiet.close());
    const stream = newStream();
    expect(await append(quiet, stream, 'none', many(4))).toMatchObject({ outcome: 'appended', revision: 3 });
    expect(await append(quiet, stream, 'none', many(1))).toEqual({ outcome: 'conflict', actual: 3 });
    expect(await append(quiet, stream, 1, many(1))).toEqual({ outcome: 'conflict', actual: 3 });
  });

  it('6.1.8, 6.5.7: a conflict with a stream that does not exist says none, and otherwise the revision as a number', async () => {
    const stream = newStream();
    expect(await append(store, stream, 5, many(1))).toEqual({ outcome: 'conflict', actual: 'none' });
    await append(store, stream, 'none', many(2));
    expect(await append(store, stream, 5, many(1))).toEqual({ outcome: 'conflict', actual: 1 });
  });

  it('6.1.9, 6.5.3: an append that is never answered ends at its deadline, and the watchdog finds another connection', async () => {
    const far = await through(({ method, number }) => (method === 'BatchAppend' && number === 0 ? 'hang' : 'forward'));
    const [short, long] = [newStream(), newStream()];
    const started = performance.now();
    const patient = append(far, long, 'none', many(1), 15_000);
    await expect(append(far, short, 'none', many(1), 1_000)).rejects.toThrow(OutcomeUnknown);
    expect(performance.now() - started).toBeLessThan(2_000);
    expect(await patient).toMatchObject({ outcome: 'appended', revision: 0 });
    expect(performance.now() - started).toBeLessThan(9_000);
    // Reads go on the same connection; they noticed nothing.
    expect(await readAll(far, short)).toEqual([]);
  }, 30_000);

  it('6.1.10: a missing stream is no events, and a read that is never answered is an error within its own limit', async () => {
    const far = await through(({ method }) => (method === 'Read' ? 'hang' : 'forward'));
    expect(await readAll(store, newStream())).toEqual([]);
    const started = performance.now();
    await expect(readAll(far, newStream())).rejects.toThrow(StoreUnavailable);
    expect(performance.now() - started).toBeLessThan(8_000);
  }, 30_000);

  it('6.1.12, 6.1.13, 6.5.12: only checkpoints that advance and can exist are believed, and no feed tells one', async () => {
    const after = await store.head();
    if (after === 'start') throw new Error('the log has events by now');
    const valid = await foreignEvents();
    const asked: string[] = [];
    const far = await through(async (call) => {
      const position = await subscriptionIn(call);
      if (!position) return 'forward';
      asked.push(position);
      switch (asked.length) {
        case 1:
          return { messages: [checkpoint('18446744073709551615', '18446744073709551615')], status: 10 };
        case 2:
          return { messages: [checkpoint('9223372036854775808', '0'), checkpoint('1', '1')], status: 10 };
        case 3:
          return { messages: [checkpoint(valid, '0')], status: 10 };
        default:
          return 'forward';
      }
    });
    const stream = newStream();
    const control = new AbortController();
    const told: Position[] = [];
    for await (const batch of far.feed(after, { maxEvents: 10, signal: control.signal })) {
      told.push(batch.through);
      if (batch.caughtUp && batch.events.length === 0) await append(store, stream, 'none', many(1));
      if (batch.events.some((e) => e.stream === stream)) control.abort();
    }
    const plainAfter = after.split('-').map(BigInt).join('/');
    expect(asked.slice(0, 4)).toEqual([plainAfter, plainAfter, plainAfter, `${valid}/0`]);
    expect(told[0]).toBe(after);
    expect(told.every((position) => position <= told.at(-1)!)).toBe(true);
  });

  it('6.1.14, 6.1.15, 6.5.8: readers that are slow or dropped under load get everything once and in order', async () => {
    const after = await store.head();
    const organization = randomUUID();
    const mine = (e: StoredEvent) => e.stream.includes(organization);
    const total = 12_000;
    let first = 0;
    const live = new Set<number>();
    const feeds = [0, 1, 2].map(async (kind) => {
      const control = new AbortController();
      const seen: StoredEvent[] = [];
      for await (const batch of store.feed(after, { maxEvents: 1_000, signal: control.signal })) {
        if (batch.caughtUp) live.add(kind);
        seen.push(...batch.events.filter(mine));
        if (kind === 0) first = seen.length;
        if (seen.length >= total) control.abort();
        // One keeps up, one pauses at every batch, and one looks away until the first has all: the window has moved on by then.
        if (kind === 1) await new Promise((resolve) => setTimeout(resolve, 30));
        if (kind === 2 && seen.length > 0 && seen.length < total) await eventually(() => first === total, 60_000);
      }
      return seen;
    });
    await eventually(() => live.size === 3, 20_000);
    await Promise.all(
      Array.from({ length: 8 }, async (_, writer) => {
        const stream = streamName('conversation', organization, String(writer));
        for (let revision = -1; revision < total / 8 - 1; revision += 100)
          await append(store, stream, revision < 0 ? 'none' : revision, many(100), 30_000);
      }),
    );
    for (const seen of await Promise.all(feeds)) {
      expect(seen.length).toBe(total);
      expect(new Set(seen.map((e) => e.id)).size).toBe(total);
      expect(seen.filter((e, i) => i > 0 && !(seen[i - 1]!.position < e.position))).toEqual([]);
    }
  }, 120_000);

  it('6.1.16: positions are exclusive for feeds and inclusive for reads', async () => {
    const after = await store.head();
    const stream = newStream();
    await append(store, stream, 'none', many(3));
    const [first, , third] = await readAll(store, stream);
    expect(ids(await collect(store, after, stream, 3))[0]).toBe(first!.id);
    expect(ids(await collect(store, first!.position, stream, 2))[1]).toBe(third!.id);
    expect((await readAll(store, stream, { from: 1, to: 1 })).map((e) => e.revision)).toEqual([1]);
  });

  it('6.1.17: a position is commit and prepare in one width, the same in answer, read and feed, also for a resend', async () => {
    const after = await store.head();
    const stream = newStream();
    const events = many(3);
    const answer = await append(store, stream, 'none', events);
    const stored = await readAll(store, stream);
    for (const { position } of stored) expect(position).toMatch(/^\d{19}-\d{19}$/);
    expect(answer).toMatchObject({ position: stored[2]!.position });
    expect(await append(store, stream, 'none', events)).toEqual(answer);
    expect(await collect(store, after, stream, 3)).toEqual(stored);
    await expect(collect(store, '42' as Position, stream, 1)).rejects.toThrow(TypeError);
  });

  it('6.1.18: a feed whose log ends with foreign events says that it has caught up, at head', async () => {
    const { position } = appended(await append(store, newStream(), 'none', many(1)));
    await foreignEvents();
    const head = await store.head();
    expect(head >= position).toBe(true);
    for (const after of [head, position] as const)
      for await (const batch of store.feed(after, { maxEvents: 10, signal: AbortSignal.timeout(10_000) }))
        if (batch.caughtUp) {
          expect(batch.through >= head).toBe(true);
          break;
        }
    expect.assertions(3);
  });

  it('6.1.21, 6.5.1: data and metadata come back byte for byte, and as JSON for other tools', async () => {
    const stream = newStream();
    const sent = { ...event(), data: '{"a":1.0,"b":"\\u00e9"}', metadata: '{ "m": 1.0, "n": 12345678901234567890 }' };
    await append(store, stream, 'none', [sent]);
    const [stored] = await readAll(store, stream);
    expect([stored?.data, stored?.metadata]).toEqual([sent.data, sent.metadata]);
    for await (const { event: seen } of foreignClient().readStream(`threadlog.${stream}`))
      expect(seen).toMatchObject({ isJson: true, data: { a: 1, b: 'é' }, metadata: { m: 1 } });
    expect.assertions(2);
  });

  it('6.1.22, 6.5.5: the largest append passes, a larger one is refused before it is sent and harms nobody', async () => {
    const bytes = LIMITS.bytes - event().id.length - 'ReplySent'.length - 2 - 2;
    const largest = { ...event(), data: `"${'x'.repeat(bytes)}"` };
    expect(await append(store, newStream(), 'none', [largest])).toMatchObject({ outcome: 'appended' });
    await expect(append(store, newStream(), 'none', [{ ...largest, data: `${largest.data} ` }])).rejects.toThrow(InvalidAppend);
    await expect(append(store, newStream(), 'none', [{ ...largest, data: `"${'x'.repeat(18_000_000)}"` }])).rejects.toThrow(InvalidAppend);
    await expect(append(store, newStream(), -1, many(1))).rejects.toThrow(InvalidAppend);
    expect(await append(store, newStream(), 'none', many(1), 2_000)).toMatchObject({ outcome: 'appended' });
  });

  it('6.1.23: a subscription that has fallen silent is found and replaced', async () => {
    let silenced = 0;
    const far = await through(async (call) => {
      if (!(await subscriptionIn(call)) || silenced === 2) return 'forward';
      silenced += 1;
      // The first for catching up, the second is the shared one.
      return { messages: [confirmation(), caughtUp()] };
    });
    const stream = newStream();
    const after = await store.head();
    await append(store, stream, 'none', many(2));
    expect(await collect(far, after, stream, 2)).toHaveLength(2);
    expect(silenced).toBe(2);
  }, 40_000);

  it('6.1.24: missing rights are told when the log is opened, not hidden by a feed', async () => {
    const proxy = await proxied(({ method }) => (method === 'Read' ? { status: 7, message: 'Access Denied' } : 'forward'));
    const started = performance.now();
    await expect(openEventStoreDbEventStore({ url: `esdb://127.0.0.1:${proxy.port}?tls=false` })).rejects.toThrow(StoreUnavailable);
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  it('6.1.25: after close() nothing keeps the process alive', async () => {
    const script = `
      import { openEventStoreDbEventStore } from './src/event-store/eventstoredb/eventstoredb-event-store.ts';
      const store = await openEventStoreDbEventStore({ url: process.argv[1] });
      const id = crypto.randomUUID();
      const event = { id, type: 'ReplySent', data: '{}', metadata: '{}' };
      await store.append('conversation-' + id + '.a', 'none', [event], AbortSignal.timeout(60_000));
      const head = await store.head();
      await new Promise((resolve) => {
        // Left open on purpose: closing the store has to end it.
        void (async () => {
          for await (const batch of store.feed(head, { maxEvents: 1, signal: new AbortController().signal })) if (batch.caughtUp) resolve();
          console.log('feed ended');
        })();
      });
      for await (const batch of store.read('conversation-' + id + '.a')) console.log('read', batch.length);
      await store.close();`;
    const args = ['--import', './test/support/typescript.mjs', '--input-type=module', '--eval', script, url];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 15_000 });
    expect(stdout).toBe('read 1\nfeed ended\n');
  }, 30_000);

  it('6.5.2: a bad id or type is refused before it can poison the client', async () => {
    for (const bad of [
      { ...event(), id: 'not-a-uuid' },
      { ...event(), type: '' },
    ])
      await expect(append(store, newStream(), 'none', [bad])).rejects.toThrow(InvalidAppend);
    const answers = await Promise.all(Array.from({ length: 20 }, () => append(store, newStream(), 'none', many(1), 3_000)));
    expect(answers.every((answer) => answer.outcome === 'appended')).toBe(true);
  });

  it('6.5.6: appends to one stream keep the order of their calls, also when one before gives up', async () => {
    const far = await through(({ method, number }) => (method === 'BatchAppend' && number === 0 ? 'hang' : 'forward'));
    const stream = newStream();
    const lost = many(1);
    const first = append(far, stream, 'none', lost, 12_000);
    // It gives up while it waits for its turn: certainly nothing of it was sent.
    await expect(append(far, stream, 0, many(1), 300)).rejects.toThrow(StoreUnavailable);
    const third = append(far, stream, 0, many(1), 12_000);
    expect(await first).toMatchObject({ outcome: 'appended', revision: 0 });
    expect(await third).toMatchObject({ outcome: 'appended', revision: 1 });
  }, 30_000);

  it('6.5.11: ids alone decide what is a resend, as on the server', async () => {
    const stream = newStream();
    const [a, b, c] = many(3) as [NewEvent, NewEvent, NewEvent];
    const answer = await append(store, stream, 'none', [a, b, c]);
    expect(await append(store, stream, 'none', [{ ...a, data: '{"other":1}' }, b, c])).toEqual(answer);
    expect(await append(store, stream, 'none', [a, b])).toMatchObject({ outcome: 'appended', revision: 1 });
    for (const events of [
      [a, b, c, event()],
      [b, a, c],
      [a, event(), c],
    ])
      expect(await append(store, stream, 'none', events)).toEqual({ outcome: 'conflict', actual: 2 });
    await expect(append(store, stream, 2, [a, a])).rejects.toThrow(InvalidAppend);
    expect((await readAll(store, stream)).map((e) => e.data)).toEqual([a, b, c].map((e) => e.data));
  });
}

function faults(bin: string): void {
  let server: EventStoreDbServer;
  let store: EventStore;
  let going = false;

  // A test that failed half-way leaves no writer behind, and no frozen server.
  afterEach(() => {
    going = false;
    server.resume();
  });
  beforeAll(async () => {
    server = await startEventStoreDb(bin);
  }, 90_000);
  afterAll(async () => {
    await store?.close();
    await server?.dispose();
  });

  it('gives a new log one identity, however many open it at once', async () => {
    const opened = await Promise.all(Array.from({ length: 6 }, () => openEventStoreDbEventStore({ url: server.url })));
    expect(new Set(opened.map((each) => each.log.id)).size).toBe(1);
    expect(await opened[0]!.head()).toBe('start');
    store = opened[0]!;
    await Promise.all(opened.slice(1).map((each) => each.close()));
  });

  /** Appends to a stream of its own until told to stop; keeps what was acknowledged and what was left open. */
  function writer(acknowledged: Map<string, Position>, unclear: Set<string>, deadlineMs: number) {
    const stream = newStream();
    return {
      stream,
      done: (async () => {
        for (let revision = -1; going;) {
          const one = event();
          const expected = revision < 0 ? 'none' : revision;
          // An append that is left open is asked again with the same bytes, as its command would be.
          for (let answer: Appended | undefined; !answer;) {
            answer = await append(store, stream, expected, [one], deadlineMs).catch((error: unknown) => {
              if (!(error instanceof StoreUnavailable || error instanceof OutcomeUnknown)) throw error;
              unclear.add(one.id);
              return undefined;
            });
            if (!answer && !going) return;
            if (answer) {
              // Nobody else writes to this stream: a conflict would be with its own append.
              revision = appended(answer).revision;
              acknowledged.set(one.id, appended(answer).position);
            }
          }
        }
      })(),
    };
  }

  async function expectNothingLostOrDoubled(
    writers: readonly StreamName[],
    acknowledged: Map<string, Position>,
    unclear: Set<string>,
  ): Promise<void> {
    const found = new Map<string, Position>();
    for (const stream of writers) {
      const stored = await readAll(store, stream);
      expect(stored.map((e) => e.revision)).toEqual(stored.map((_, i) => i));
      expect(new Set(ids(stored)).size).toBe(stored.length);
      for (const each of stored) found.set(each.id, each.position);
    }
    expect([...acknowledged].filter(([id, position]) => found.get(id) !== position)).toEqual([]);
    expect([...found.keys()].filter((id) => !acknowledged.has(id) && !unclear.has(id))).toEqual([]);
  }

  it('kill -9 under 16 writers, four rounds: nothing acknowledged is lost, nothing is doubled, feeds go on by themselves', async () => {
    const acknowledged = new Map<string, Position>();
    const unclear = new Set<string>();
    going = true;
    const after = await store.head();
    const control = new AbortController();
    const seen: StoredEvent[] = [];
    const feed = (async () => {
      for await (const batch of store.feed(after, { maxEvents: 100, signal: control.signal })) seen.push(...batch.events);
    })();
    const writers = Array.from({ length: 16 }, () => writer(acknowledged, unclear, 20_000));
    for (let round = 0; round < 4; round += 1) {
      const size = acknowledged.size;
      await eventually(() => acknowledged.size > size + 200, 30_000);
      await server.kill();
      await server.start();
    }
    const size = acknowledged.size;
    await eventually(() => acknowledged.size > size + 200, 30_000);
    going = false;
    await Promise.all(writers.map((each) => each.done));
    const names = writers.map((each) => each.stream);
    await expectNothingLostOrDoubled(names, acknowledged, unclear);
    // The same feed lived through all of it.
    const head = await store.head();
    await eventually(() => (seen.at(-1)?.position ?? '') >= head, 20_000);
    control.abort();
    await feed;
    expect(new Set(ids(seen)).size).toBe(seen.length);
    expect(seen.filter((e, i) => i > 0 && !(seen[i - 1]!.position < e.position))).toEqual([]);
    const stored = (await Promise.all(names.map((name) => readAll(store, name)))).flat();
    expect(new Set(ids(seen))).toEqual(new Set(ids(stored)));
  }, 180_000);

  it('6.1.9, 6.5.3: a frozen server holds nobody beyond his deadline, and what it took counts once when it thaws', async () => {
    const acknowledged = new Map<string, Position>();
    const unclear = new Set<string>();
    going = true;
    const writers = Array.from({ length: 16 }, () => writer(acknowledged, unclear, 1_000));
    await eventually(() => acknowledged.size > 200, 30_000);
    server.freeze();
    const started = performance.now();
    const failure = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        (error: unknown) => ({ error, ms: performance.now() - started }),
      );
    const [appending, reading, heading] = await Promise.all([
      failure(append(store, newStream(), 'none', many(1), 1_500)),
      failure(readAll(store, writers[0]!.stream)),
      failure(store.head()),
    ]);
    expect(appending?.error).toBeInstanceOf(OutcomeUnknown);
    expect(appending?.ms).toBeLessThan(2_500);
    for (const each of [reading, heading]) {
      expect(each?.error).toBeInstanceOf(StoreUnavailable);
      expect(each?.ms).toBeLessThan(12_000);
    }
    await eventually(() => unclear.size >= 16, 20_000);
    server.resume();
    const size = acknowledged.size;
    await eventually(() => acknowledged.size > size + 200, 30_000);
    going = false;
    await Promise.all(writers.map((each) => each.done));
    await expectNothingLostOrDoubled(
      writers.map((each) => each.stream),
      acknowledged,
      unclear,
    );
  }, 120_000);

  it('6.1.2, 6.5.10: a server that is away for seconds is told as such, and is used again as soon as it is back', async () => {
    const stream = newStream();
    await append(store, stream, 'none', many(1));
    const live: StoredEvent[] = [];
    const control = new AbortController();
    const feed = (async () => {
      for await (const batch of store.feed(await store.head(), { maxEvents: 10, signal: control.signal })) live.push(...batch.events);
    })();
    await server.stop();
    const never = event();
    const outcomes: unknown[] = [];
    for (let i = 0; i < 8; i += 1) outcomes.push(await append(store, stream, 0, [never], 500).catch((error: unknown) => error));
    // Nothing was connected, so nothing was sent: not even a doubt is left.
    for (const outcome of outcomes) expect(outcome).toBeInstanceOf(StoreUnavailable);
    await expect(readAll(store, stream)).rejects.toThrow(StoreUnavailable);
    await server.start();
    const started = performance.now();
    expect(await append(store, stream, 0, many(1), 10_000)).toMatchObject({ outcome: 'appended', revision: 1 });
    expect(performance.now() - started).toBeLessThan(5_000);
    await eventually(() => live.some((e) => e.stream === stream && e.revision === 1), 10_000);
    control.abort();
    await feed;
    expect(ids(await readAll(store, stream))).not.toContain(never.id);
  }, 120_000);

  it('a resend after a restart is answered with the position of the first time', async () => {
    const stream = newStream();
    const events = many(3);
    const answer = await append(store, stream, 'none', events);
    await append(store, stream, 2, many(1));
    await server.kill();
    await server.start();
    expect(await append(store, stream, 'none', events)).toEqual(answer);
  }, 60_000);

  it('6.1.22: an append that the server finds too large is told at once as not written', async () => {
    const small = await startEventStoreDb(bin, ['--max-append-size=10000']);
    const its = await openEventStoreDbEventStore({ url: small.url });
    try {
      const stream = newStream();
      const large = { ...event(), data: `"${'x'.repeat(50_000)}"` };
      await expect(append(its, stream, 'none', [large], 10_000)).rejects.toThrow(/MaxAppendSize/);
      expect(await append(its, stream, 'none', many(1), 2_000)).toMatchObject({ outcome: 'appended', revision: 0 });
    } finally {
      await its.close();
      await small.dispose();
    }
  }, 60_000);
}

function newStream(): StreamName {
  return streamName('conversation', randomUUID(), randomUUID());
}

function event(): NewEvent {
  return { id: randomUUID(), type: 'ReplySent', data: '{"text":"hello"}', metadata: '{}' };
}

function many(count: number): NewEvent[] {
  return Array.from({ length: count }, event);
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

/** The first `count` events of a stream after a position. */
async function collect(store: EventStore, after: Position | 'start', stream: StreamName, count: number): Promise<StoredEvent[]> {
  const found: StoredEvent[] = [];
  for await (const batch of store.feed(after, { maxEvents: 100, signal: new AbortController().signal })) {
    found.push(...batch.events.filter((e) => e.stream === stream));
    if (found.length >= count) break;
  }
  return found;
}

function ids(events: readonly { id: string }[]): string[] {
  return events.map((e) => e.id);
}

/** Where a call wants to subscribe from, as `commit/prepare`; undefined for other reads and appends. */
async function subscriptionIn(call: GrpcCall): Promise<string | undefined> {
  if (call.method !== 'Read') return undefined;
  const options = streams.ReadReq.deserializeBinary(await call.request).getOptions();
  if (!options?.hasSubscription()) return undefined;
  const position = options.getAll()?.getPosition();
  return position ? `${position.getCommitPosition()}/${position.getPreparePosition()}` : 'start';
}

function checkpoint(commit: string, prepare: string): Uint8Array {
  const message = new streams.ReadResp.Checkpoint();
  message.setCommitPosition(commit);
  message.setPreparePosition(prepare);
  const response = new streams.ReadResp();
  response.setCheckpoint(message);
  return response.serializeBinary();
}

function confirmation(): Uint8Array {
  const response = new streams.ReadResp();
  response.setConfirmation(new streams.ReadResp.SubscriptionConfirmation());
  return response.serializeBinary();
}

function caughtUp(): Uint8Array {
  const response = new streams.ReadResp();
  response.setCaughtUp(new streams.ReadResp.CaughtUp());
  return response.serializeBinary();
}

async function eventually(holds: () => boolean | Promise<boolean>, ms: number): Promise<void> {
  for (const until = performance.now() + ms; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 10))) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${holds.toString()}`);
  }
}
