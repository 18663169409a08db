import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { HeadSigner } from '../../projections/head-signer.reactor.js';
import { ProjectionGroup } from '../../projections/runtime/group.js';
import { decode, metadataOf } from '../../src/event-store/aggregate.js';
import {
  type EventStore,
  type FeedBatch,
  type NewEvent,
  type Position,
  type StoredEvent,
  streamName,
  type StreamName,
} from '../../src/event-store/event-store.js';
import { chain, CHAIN_START } from '../../src/event-store/hash-chain.js';
import {
  addHead,
  headAggregate,
  HEAD_STREAM,
  HeadKey,
  type LogFold,
  type LogHead,
  LOG_START,
  nextFold,
} from '../../src/event-store/log-head.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { Transactor } from '../../src/event-store/transact.js';
import { systemClock } from '../../src/platform/clock.js';
import { randomIds } from '../../src/platform/ids.js';
import { MasterKey } from '../../src/platform/sealing.js';
import { startApi } from '../support/api.js';
import { createDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { given } from '../support/given.js';
import { seededRandom } from '../support/seeded-random.js';
import { openWorkerDatabase, tinyDecode, tinyProjections } from './tiny-group.js';

const HEADS = streamName('head', HEAD_STREAM.organizationId, HEAD_STREAM.id);
const EVERY = 10;
const masterKey = new MasterKey(randomBytes(32));

/** Writes chained events, over a few streams in turn. */
class History {
  readonly #last = new Map<StreamName, { revision: number; hash: string }>();

  constructor(private readonly store: EventStore) {}

  async write(events: number, streams = 3): Promise<void> {
    for (let i = 0; i < events; i++) {
      const stream = streamName('conversation', 'org', `c${i % streams}`);
      const { revision, hash } = this.#last.get(stream) ?? { revision: -1, hash: CHAIN_START };
      const event = { id: randomUUID(), type: 'Happened', data: JSON.stringify({ i }) };
      const next = chain(hash, stream, revision + 1, event, JSON.stringify({ organizationId: 'org', schemaVersion: 1 }));
      await append(this.store, stream, revision, next.stored);
      this.#last.set(stream, { revision: revision + 1, hash: next.hash });
    }
  }
}

async function append(store: EventStore, stream: StreamName, revision: number, event: NewEvent): Promise<void> {
  const appended = await store.append(stream, revision < 0 ? 'none' : revision, [event], AbortSignal.timeout(5_000));
  if (appended.outcome !== 'appended') throw new Error(`${stream} was written by another`);
}

async function everythingIn(store: EventStore): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  const reading = new AbortController();
  for await (const part of store.feed('start', { maxEvents: 500, signal: reading.signal })) {
    events.push(...part.events);
    if (part.caughtUp) break;
  }
  reading.abort();
  return events;
}

async function headsOf(store: EventStore): Promise<LogHead[]> {
  const heads: LogHead[] = [];
  for await (const events of store.read(HEADS)) heads.push(...events.map((event) => decode(headAggregate.codec, event).data));
  return heads;
}

/** The folds told a second time, from the metadata's own hash. */
function folds(events: readonly StoredEvent[]): string[] {
  const found = ['0'.repeat(64)];
  for (const event of events) {
    const { hash = '' } = metadataOf(event) as { hash?: string };
    found.push(
      createHash('sha256')
        .update(`${found.at(-1)}${hash}`)
        .digest('hex'),
    );
  }
  return found;
}

/** Every head that is due is there, once, in order, covers what was there, and is signed. Its own events count like all others. */
async function expectHeads(store: EventStore, every = EVERY): Promise<LogHead[]> {
  const events = await eventually(async () => {
    const all = await everythingIn(store);
    const heads = all.filter(({ stream }) => stream === HEADS).length;
    return heads >= Math.floor(all.length / every) ? all : undefined;
  });
  const heads = await headsOf(store);
  expect(heads.map(({ count }) => count)).toEqual(heads.map((_, i) => (i + 1) * every));
  expect(heads).toHaveLength(Math.floor(events.length / every));
  const expected = folds(events);
  for (const head of heads) {
    expect(head.fold).toBe(expected[head.count]);
    expect(new HeadKey(masterKey).signed(head)).toBe(true);
  }
  return heads;
}

interface Signing {
  readonly signer: HeadSigner;
  readonly errors: string[];
  stop(): Promise<void>;
}

/** A process of its own, as far as the log can tell: its own memory of streams. */
function sign(store: EventStore, key = masterKey): Signing {
  const errors: string[] = [];
  const log = { info: () => undefined, warn: () => undefined, error: (_: object, message: string) => void errors.push(message) };
  const none = { find: () => Promise.resolve(undefined), save: () => Promise.resolve() };
  const signer = new HeadSigner({
    store,
    transactor: new Transactor(store, systemClock, randomIds, none),
    masterKey: key,
    log,
    every: EVERY,
  });
  const ending = new AbortController();
  const ended = signer.run(ending.signal);
  return {
    signer,
    errors,
    async stop() {
      ending.abort();
      await ended;
    },
  };
}

/** Reads the log as a group does and tells the signers, in parts of `size()` events, from `after` on. Answers how to end it. */
function tell(store: EventStore, signers: readonly Signing[], size: () => number, after: Position | 'start' = 'start'): () => void {
  const reading = new AbortController();
  void (async () => {
    let read = after;
    for await (const part of store.feed(after, { maxEvents: 500, signal: reading.signal }))
      for (let from = 0; from === 0 || from < part.events.length;) {
        const events = part.events.slice(from, from + size());
        from += Math.max(events.length, 1);
        const whole: FeedBatch = {
          ...part,
          events,
          through: from >= part.events.length ? part.through : (events.at(-1) as StoredEvent).position,
        };
        for (const { signer } of signers) signer.follow(read, whole);
        read = whole.through;
        await new Promise((resolve) => setImmediate(resolve));
      }
  })();
  return () => reading.abort();
}

describe('signed heads of the log', () => {
  it.each([1, 7, 500, 'random'] as const)('are the same whatever the batches: %s', async (size) => {
    const store = new MemoryEventStore();
    const random = seededRandom(4711);
    await new History(store).write(95);
    const signing = sign(store);
    const end = tell(store, [signing], size === 'random' ? () => random.pick([1, 2, 3, 9, 10, 11, 60]) : () => size);
    // 95 events have 9 heads, which make them 104 and have a tenth.
    expect(await expectHeads(store)).toHaveLength(10);
    end();
    await signing.stop();
  });

  it('go on after a restart from the last of them, and read no more than what came after it', async () => {
    const log = new MemoryEventStore();
    const history = new History(log);
    await history.write(57);
    const first = sign(log);
    const endFirst = tell(log, [first], () => 500);
    const before = await expectHeads(log);
    endFirst();
    await first.stop();
    await history.write(1_500);

    const asked: (Position | 'start')[] = [];
    const store = new Proxy(log, {
      get(target, name: keyof EventStore) {
        if (name === 'feed')
          return (after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }) => {
            asked.push(after);
            return target.feed(after, options);
          };
        const value = target[name];
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const second = sign(store);
    // The group's checkpoint is far ahead of the last head, so that everything between the two is seen by nobody else.
    const endSecond = tell(log, [second], () => 500, (await log.head()) as Position);
    const after = await expectHeads(log);
    expect(after.length).toBeGreaterThan(before.length + 150);
    expect(asked).toEqual([before.at(-1)?.position]);
    endSecond();
    await second.stop();
  });

  it('are one each when two processes sign at once, and when what was read is read again', async () => {
    const store = new MemoryEventStore();
    const history = new History(store);
    const [one, two] = [sign(store), sign(store)];
    const endBoth = tell(store, [one, two], () => 3);
    await history.write(120);
    await expectHeads(store);
    // Another group's beginning, and a lease that was lost: from the start and from the middle.
    const endAgain = tell(store, [one], () => 7);
    const endMiddle = tell(store, [two], () => 5, (await everythingIn(store))[50]?.position);
    const third = sign(store);
    const endThird = tell(store, [third], () => 11);
    await expectHeads(store);
    for (const end of [endBoth, endAgain, endMiddle, endThird]) end();
    await Promise.all([one, two, third].map((signing) => signing.stop()));
    await expectHeads(store);
  });

  it('cover what another process handled between two leases of this one', async () => {
    const store = new MemoryEventStore();
    const history = new History(store);
    await history.write(25);
    const signing = sign(store);
    const endFirst = tell(store, [signing], () => 500);
    await expectHeads(store);
    endFirst();
    await history.write(33);
    const checkpoint = (await store.head()) as Position;
    await history.write(31);
    const endSecond = tell(store, [signing], () => 2, checkpoint);
    expect((await expectHeads(store)).length).toBeGreaterThan(8);
    endSecond();
    await signing.stop();
  });

  it('cover events while they are being read from the log to close a gap', async () => {
    const store = new MemoryEventStore();
    const history = new History(store);
    await history.write(2_500);
    const signing = sign(store);
    // Everything before this place must be read by the signer itself, while the group goes on and more is written.
    const end = tell(store, [signing], () => 1, (await everythingIn(store))[1_200]?.position);
    for (let i = 0; i < 100; i++) await append(store, streamName('visitor', 'org', `v${i}`), -1, chained(`v${i}`));
    expect((await expectHeads(store)).length).toBeGreaterThan(280);
    end();
    await signing.stop();
  });

  it('go on in a copy of the log, whose positions are others, from its own beginning', async () => {
    const original = new MemoryEventStore();
    await new History(original).write(35);
    const first = sign(original);
    const endFirst = tell(original, [first], () => 500);
    const heads = await expectHeads(original);
    endFirst();
    await first.stop();

    const copy = new MemoryEventStore();
    const last = new Map<string, number>();
    for (const event of await everythingIn(original)) {
      await append(copy, event.stream, last.get(event.stream) ?? -1, event);
      last.set(event.stream, event.revision);
    }
    for (let i = 0; i < 30; i++) await append(copy, streamName('visitor', 'org', `v${i}`), -1, chained(`v${i}`));
    const second = sign(copy);
    const endSecond = tell(copy, [second], () => 4);
    const all = await expectHeads(copy);
    expect(all.slice(0, heads.length)).toEqual(heads);
    expect(all.at(-1)?.log).toBe(copy.log.id);
    expect(second.errors).toEqual([]);
    endSecond();
    await second.stop();
  });

  it('are signed no more over a beginning that changed since', async () => {
    const store = new MemoryEventStore();
    await new History(store).write(12);
    // A head with a fold of other events, by the same key: what is left of a log whose events were exchanged.
    const forged = new HeadKey(masterKey).sign({ ...LOG_START, count: 10, fold: 'f'.repeat(64) }, 'another log');
    await append(store, HEADS, -1, { ...chained('head'), type: 'HeadSigned', data: JSON.stringify(forged) });
    for (let i = 0; i < 20; i++) await append(store, streamName('visitor', 'org', `v${i}`), -1, chained(`v${i}`));
    const signing = sign(store);
    const end = tell(store, [signing], () => 5);
    await eventually(() => signing.errors.length > 0);
    expect(signing.errors).toEqual(['no more heads of the log are signed; threadlog verify tells more']);
    expect(await headsOf(store)).toHaveLength(1);
    end();
    await signing.stop();
  });

  it('fold what a projection cannot read, and what none wants', async () => {
    const created = await createDatabase();
    const database = openWorkerDatabase(created.url);
    const store = await openPostgresEventStore({ url: created.url });
    const signing = sign(store);
    const ending = new AbortController();
    const parked: string[] = [];
    const log = { info: () => undefined, warn: () => undefined, error: (_: object, message: string) => void parked.push(message) };
    const running = new ProjectionGroup({
      name: 'heads',
      projections: tinyProjections('_heads'),
      decode: tinyDecode(),
      store,
      database: database.kysely,
      log,
      follower: signing.signer,
      maxEvents: 7,
    }).run(ending.signal);
    try {
      const history = new History(store);
      await append(store, streamName('claim', 'org', 'x'), -1, chained('claimed'));
      await history.write(13);
      await append(store, streamName('conversation', 'org', 'bad'), -1, { ...chained('bad'), type: 'Unreadable' });
      await append(store, streamName('conversation', 'org', 'bad'), 0, chained('waits'));
      await history.write(30);
      await eventually(() => parked.length > 0);
      expect(parked).toEqual(['stream parked']);
      expect((await expectHeads(store)).length).toBeGreaterThanOrEqual(4);
    } finally {
      ending.abort();
      await running;
      await signing.stop();
      await store.close();
      await database.close();
      await created.drop();
    }
  });

  it('come at every 10,000th event of a log that a running Threadlog projects', async () => {
    const api = await startApi({ environment: { EVENTSTORE_URL: '' } });
    try {
      const before = (await everythingIn(api.backend.store)).length;
      // Claims, which no projection wants; only their hash is looked at.
      await sql`
        insert into log.events (position, stream, revision, id, type, data, metadata)
        select ${before}::bigint + n, 'claim-org.' || n, 0, gen_random_uuid(), 'Claimed', '{}', '{"hash":"' || repeat('0', 64) || '"}'
        from generate_series(1, ${10_000 - before}::bigint) n`.execute(api.backend.database);
      const [head] = await eventually(async () => {
        const heads = await headsOf(api.backend.store);
        return heads.length > 0 ? heads : undefined;
      });
      const at = (await everythingIn(api.backend.store)).slice(0, 10_000).reduce(nextFold, LOG_START);
      expect(head).toEqual(new HeadKey(api.backend.masterKey).sign(at, api.backend.store.log.id));
    } finally {
      await api.stop();
    }
  });
});

describe('adding a head', () => {
  const key = new HeadKey(masterKey);
  const at = (count: number, fold = 'a'): LogFold => ({ count, fold: fold.repeat(64), position: String(count) as Position });
  const signed = (count: number, fold?: string) => ({ type: 'HeadSigned', data: key.sign(at(count, fold), 'log') }) as const;

  it('covers more than the one before', () => {
    given(headAggregate)
      .when(addHead(signed(10).data))
      .thenEvents(signed(10));
    given(headAggregate, signed(10))
      .when(addHead(signed(20).data))
      .thenEvents(signed(20));
    given(headAggregate, signed(10), signed(20))
      .when(addHead(signed(10).data))
      .thenNothing();
  });

  it('refuses another history over as many events', () => {
    expect(() =>
      given(headAggregate, signed(10))
        .when(addHead(signed(10, 'b').data))
        .thenNothing(),
    ).toThrow('are not those');
  });

  it('knows a signature of all that it says', () => {
    const { data } = signed(10);
    expect(key.signed(data)).toBe(true);
    for (const changed of [{ count: 11 }, { fold: 'b'.repeat(64) }, { log: 'other' }, { position: '11' }])
      expect(key.signed({ ...data, ...changed })).toBe(false);
    expect(new HeadKey(new MasterKey(randomBytes(32))).signed(data)).toBe(false);
  });
});

/** An event with a hash, which the fold takes as it is. */
function chained(name: string): NewEvent {
  return chain(
    CHAIN_START,
    streamName('visitor', 'org', name),
    0,
    { id: randomUUID(), type: 'Happened', data: '{}' },
    '{"schemaVersion":1}',
  ).stored;
}
