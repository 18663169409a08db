import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import { signHeadJobs } from '../../projections/head-signer.jobs.js';
import { HEAD_SIGNER, headSigner } from '../../projections/head-signer.reactor.js';
import { JobRunner } from '../../projections/runtime/job-runner.js';
import { type Job, Jobs, type NewJob } from '../../projections/runtime/jobs.js';
import { type Consequences, followFor } from '../../projections/runtime/reactor.js';
import { decode, metadataOf } from '../../src/event-store/aggregate.js';
import {
  type EventStore,
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
  HistoryChanged,
  type LogFold,
  type LogHead,
  LOG_START,
  nextFold,
} from '../../src/event-store/log-head.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { Transactor } from '../../src/commands/transactor.js';
import { systemClock } from '../../src/clock.js';
import type { Database } from '../../src/database/database.js';
import { randomIds } from '../../src/ids.js';
import { MasterKey } from '../../src/security/sealing.js';
import { startApi } from '../support/api.js';
import { createDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { given } from '../support/given.js';
import { seededRandom } from '../support/seeded-random.js';
import { openWorkerDatabase, tinyDecode } from './tiny-group.js';

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
  /** What it ended with by itself. */
  readonly failed: Promise<unknown>;
  stop(): Promise<void>;
}

/** A process of its own, as far as the log can tell: installed anew, it reads on from the last head, and signs at once what is due. */
function sign(store: EventStore, size: () => number = () => 500, key = masterKey): Signing {
  const { reactor, kind } = signerOf(store, key);
  const { reaction } = reactor;
  const ending = new AbortController();
  const follow = async () => {
    if (reaction.reads !== 'stored' || typeof reactor.begins === 'string') throw new Error('the signer reads what is stored');
    const { position, state } = await reactor.begins();
    let kept = state;
    const jobs: NewJob[] = [];
    const consequences: Consequences = {
      add: (job) => void jobs.push(job),
      remove: () => undefined,
      keep: (now) => void (kept = JSON.parse(JSON.stringify(now))),
      transaction: () => Promise.reject(new Error('it has no rows')),
      rest: () => Promise.resolve(),
    };
    for await (const part of store.feed(position, { maxEvents: 500, signal: ending.signal }))
      for (let from = 0; from < part.events.length;) {
        const events = part.events.slice(from, from + size());
        from += events.length;
        await reaction.handle(events, consequences, kept);
        for (const { payload } of jobs.splice(0)) expect(await kind.handle({ payload } as Job, ending.signal)).toBe('done');
      }
  };
  const ended = follow().then(
    () => undefined,
    (error: unknown) => error,
  );
  return {
    failed: ended,
    async stop() {
      ending.abort();
      expect(await ended).toBeUndefined();
    },
  };
}

function signerOf(store: EventStore, key = masterKey, database?: Kysely<Database>) {
  const none = { find: () => Promise.resolve(undefined), save: () => Promise.resolve() };
  const parts = { store, transactor: new Transactor(store, systemClock, randomIds, none), masterKey: key, every: EVERY };
  return {
    reactor: headSigner(parts),
    kind: signHeadJobs({ ...parts, database: database as Kysely<Database>, log: quiet, reactor: HEAD_SIGNER }),
  };
}

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

describe('signed heads of the log', () => {
  it.each([1, 7, 500, 'random'] as const)('are the same whatever the batches: %s', async (size) => {
    const store = new MemoryEventStore();
    const random = seededRandom(4711);
    await new History(store).write(95);
    const signing = sign(store, size === 'random' ? () => random.pick([1, 2, 3, 9, 10, 11, 60]) : () => size);
    // 95 events have 9 heads, which make them 104 and have a tenth.
    expect(await expectHeads(store)).toHaveLength(10);
    await signing.stop();
  });

  it('go on in an installation that has lost its place from the last of them, and read no more than what came after it', async () => {
    const log = new MemoryEventStore();
    const history = new History(log);
    await history.write(57);
    const first = sign(log);
    const before = await expectHeads(log);
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
    const after = await expectHeads(log);
    expect(after.length).toBeGreaterThan(before.length + 150);
    expect(asked).toEqual([before.at(-1)?.position]);
    await second.stop();
  });

  it('are one each when several processes sign at once', async () => {
    const store = new MemoryEventStore();
    const signing = [3, 7, 5].map((size) => sign(store, () => size));
    await new History(store).write(120);
    await expectHeads(store);
    for (const one of signing) await one.stop();
    await expectHeads(store);
  });

  it('go on in a copy of the log, whose positions are others, from its own beginning', async () => {
    const original = new MemoryEventStore();
    await new History(original).write(35);
    const first = sign(original);
    const heads = await expectHeads(original);
    await first.stop();

    const copy = new MemoryEventStore();
    const last = new Map<string, number>();
    for (const event of await everythingIn(original)) {
      await append(copy, event.stream, last.get(event.stream) ?? -1, event);
      last.set(event.stream, event.revision);
    }
    for (let i = 0; i < 30; i++) await append(copy, streamName('visitor', 'org', `v${i}`), -1, chained(`v${i}`));
    const second = sign(copy, () => 4);
    const all = await expectHeads(copy);
    expect(all.slice(0, heads.length)).toEqual(heads);
    expect(all.at(-1)?.log).toBe(copy.log.id);
    await second.stop();
  });

  it('are signed no more over a beginning that changed since', async () => {
    const store = new MemoryEventStore();
    await new History(store).write(12);
    // A head with a fold of other events, by the same key: what is left of a log whose events were exchanged.
    const forged = new HeadKey(masterKey).sign({ ...LOG_START, count: 10, fold: 'f'.repeat(64) }, 'another log');
    await append(store, HEADS, -1, { ...chained('head'), type: 'HeadSigned', data: JSON.stringify(forged) });
    for (let i = 0; i < 20; i++) await append(store, streamName('visitor', 'org', `v${i}`), -1, chained(`v${i}`));
    expect(await sign(store, () => 5).failed).toBeInstanceOf(HistoryChanged);
    expect(await headsOf(store)).toHaveLength(1);
  });

  it('fold what no projection can read or wants; and once the log holds another head than was folded, the reactor stops for a person', async () => {
    const created = await createDatabase();
    const database = openWorkerDatabase(created.url);
    const store = await openPostgresEventStore({ url: created.url });
    const { reactor, kind } = signerOf(store, masterKey, database.kysely);
    const ending = new AbortController();
    const jobs = new Jobs(database.kysely, undefined);
    const runner = new JobRunner({ jobs, kinds: [kind], log: quiet });
    const follower = followFor({
      reactor,
      jobs,
      store,
      database: database.kysely,
      decode: tinyDecode(),
      log: quiet,
      maxEvents: 7,
      onJobs: () => runner.wake(),
    });
    const running = [follower.run(ending.signal), runner.run(ending.signal)];
    try {
      const history = new History(store);
      await append(store, streamName('claim', 'org', 'x'), -1, chained('claimed'));
      await history.write(13);
      await append(store, streamName('conversation', 'org', 'bad'), -1, { ...chained('bad'), type: 'Unreadable' });
      await history.write(30);
      const heads = await expectHeads(store);
      expect(heads.length).toBeGreaterThanOrEqual(4);

      const count = heads.length * EVERY + EVERY;
      const forged = new HeadKey(masterKey).sign({ ...LOG_START, count, fold: 'f'.repeat(64) }, store.log.id);
      await append(store, HEADS, heads.length - 1, { ...chained('head'), type: 'HeadSigned', data: JSON.stringify(forged) });
      await history.write(EVERY);
      const row = await eventually(async () => {
        const found = await database.kysely.selectFrom('keep.reactors').select(['stopped', 'paused']).executeTakeFirst();
        return found?.stopped === null ? undefined : found;
      });
      expect(row).toEqual({ stopped: expect.stringContaining(`the first ${count} events`), paused: true });
      expect(await headsOf(store)).toHaveLength(heads.length + 1);
    } finally {
      ending.abort();
      await Promise.all(running);
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
