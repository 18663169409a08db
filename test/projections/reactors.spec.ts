import { type Kysely, type KyselyPlugin, sql } from 'kysely';
import { GroupStopped } from '../../projections/runtime/failures.js';
import { Jobs } from '../../projections/runtime/jobs.js';
import { pauseWork } from '../../projections/runtime/lease.js';
import { followFor, installReactor, type Reactor } from '../../projections/runtime/reactor.js';
import { replayParkedOfReactor } from '../../projections/runtime/unparking.js';
import { ActingInboxes } from '../../projections/acting-inboxes.js';
import { assertReactors } from '../../projections/registry.js';
import { ruleIdsOf } from '../../projections/rule-ids.js';
import { type EventStore, type Position, StoreUnavailable, streamName } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { WORKER_SESSION } from '../../projections/runtime/lease.js';
import { Checkpoints } from '../../src/read-models/checkpoints.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { readModels } from '../support/read-schema.js';
import { eventually } from '../support/eventually.js';
import { conversation, openWorkerDatabase, tinyDecode, Writer } from './tiny-group.js';

let created: TestDatabase;
let database: OpenDatabase;
let store: EventStore;
let writer: Writer;
let number = 0;
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  created = await createDatabase();
  database = openWorkerDatabase(created.url);
  store = await openPostgresEventStore({ url: created.url });
  writer = new Writer(store);
});
afterEach(async () => {
  await Promise.all(ends.splice(0).map((end) => end()));
});
afterAll(async () => {
  await store.close();
  await database.close();
  await created.drop();
});

/** A job for each event, and a count of them as its state. An event with `poison` in its data fails while `bad` is true. */
function tinyReactor(begins: Reactor['begins'] = 'head', order: 'within streams' | 'of the log' = 'within streams') {
  const name = `reactor-${++number}`;
  const control = { bad: true };
  const reactor: Reactor = {
    name,
    begins,
    jobs: [name],
    reaction: {
      reads: 'decoded',
      events: { conversation: ['Happened'] },
      order,
      handle(events, consequences, state) {
        for (const { event } of events) {
          const data = event.data as { poison?: boolean; quiet?: boolean };
          if (data.poison && control.bad) throw new Error('cannot take it');
          if (!data.quiet)
            consequences.add({
              kind: name,
              key: event.id,
              organizationId: 'org',
              payload: { stream: event.stream, revision: event.revision },
            });
        }
        consequences.keep(((state as number | null) ?? 0) + events.length);
      },
    },
  };
  return { reactor, control };
}

function follow(reactor: Reactor, kysely: Kysely<Database> = database.kysely, log: EventStore = store) {
  const ending = new AbortController();
  const lines: string[] = [];
  const note = (_: object, message: string) => void lines.push(message);
  const jobs = new Jobs(kysely, undefined);
  const follower = followFor({
    reactor,
    jobs,
    store: log,
    database: kysely,
    decode: tinyDecode(),
    log: { info: note, warn: note, error: note },
  });
  const ended = follower.run(ending.signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  const stop = () => {
    ending.abort();
    return ended;
  };
  ends.push(stop);
  return { lines, ended, stop };
}

const rowOf = async ({ name }: Reactor, kysely: Kysely<Database> = database.kysely) =>
  await kysely
    .selectFrom('keep.reactors')
    .select(['position', 'events', 'epoch', 'owner', 'state', 'stopped'])
    .where('name', '=', name)
    .executeTakeFirst();
const jobsOf = async ({ name }: Reactor, kysely: Kysely<Database> = database.kysely) =>
  (await kysely.selectFrom('keep.jobs').select('payload').where('kind', '=', name).orderBy('id').execute()).map(({ payload }) => {
    const { stream, revision } = payload as { stream: string; revision: number };
    return `${stream.split('.')[1]}@${revision}`;
  });
const reached = (reactor: Reactor, position: string, kysely?: Kysely<Database>) =>
  eventually(async () => ((await rowOf(reactor, kysely))?.position ?? '') >= position);

it('goes along with a log that holds nothing for it, and is not taken for one that stands still', async () => {
  const { reactor } = tinyReactor('start');
  const nobody: Reactor = {
    ...reactor,
    reaction: { ...reactor.reaction, reads: 'decoded', order: 'within streams', events: {}, handle: () => undefined },
  };
  await installReactor(database.kysely, store, nobody);
  follow(nobody);
  await reached(nobody, await writer.write({ stream: conversation('for others') }));
});

it('begins where it says, sees everything from there once, and goes on after a restart, whoever works', async () => {
  await writer.write({ stream: conversation('before') });
  const [atHead, atStart] = [tinyReactor('head').reactor, tinyReactor('start').reactor];
  for (const one of [atHead, atStart]) await installReactor(database.kysely, store, one);
  await writer.write({ stream: conversation('a') });
  const workers = [follow(atHead), follow(atHead), follow(atStart)];
  // Nobody wants it; the checkpoint passes it all the same.
  await reached(atHead, await writer.write({ stream: streamName('visitor', 'org', 'v') }));
  expect(workers.slice(0, 2).filter(({ lines }) => lines.includes('reactor working'))).toHaveLength(1);
  for (const { stop } of workers) expect(await stop()).toBeUndefined();
  await writer.write({ stream: conversation('a') });
  follow(atHead);
  follow(atStart);
  const end = await writer.write({ stream: conversation('quiet'), data: { quiet: true } });
  for (const one of [atHead, atStart]) await reached(one, end);
  expect(await jobsOf(atHead)).toEqual(['a@0', 'a@1']);
  expect(await jobsOf(atStart)).toEqual(['for others@0', 'before@0', 'a@0', 'a@1']);
  expect(await rowOf(atHead)).toMatchObject({ state: 3, events: 3 });
  // A second installation changes nothing.
  await installReactor(database.kysely, store, atStart);
  expect((await rowOf(atStart))?.position).toBe(end);
});

it('loses and repeats nothing when its sessions are ended after any statement', async () => {
  // Later statements are those of standing for the lease again and of renewing it, which take seconds to come: so each has a log of its own.
  await Promise.all(Array.from({ length: 8 }, (_, before) => endSessionsAfter(before + 1)));
}, 60_000);

/** @param statement counted from the moment at which an event is about to come */
async function endSessionsAfter(statement: number): Promise<void> {
  const own = await createDatabase();
  const name = 'doomed-worker';
  const watching = openWorkerDatabase(own.url);
  const doomed = openDatabase({ url: own.url, poolSize: 4, name, settings: WORKER_SESSION, onError: () => undefined });
  const log = await openPostgresEventStore({ url: own.url });
  const { reactor } = tinyReactor();
  let left = Infinity;
  let killed = 0;
  const killing: KyselyPlugin = {
    transformQuery: ({ node }) => node,
    transformResult: async ({ result }) => {
      if (--left === 0) {
        killed++;
        await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${name} and datname = current_database()`.execute(
          watching.kysely,
        );
      }
      return result;
    },
  };
  const written: string[] = [];
  const events = new Writer(log);
  await installReactor(watching.kysely, log, reactor);
  const { lines, stop } = follow(reactor, doomed.kysely.withPlugin(killing), log);
  try {
    await eventually(() => lines.includes('reactor working'));
    for (let round = 1; round <= 3; round++) {
      const at = killed;
      // The last one is met by no kill.
      left = round < 3 ? statement : Infinity;
      written.push(`k${round}@0`);
      await reached(reactor, await events.write({ stream: conversation(`k${round}`) }), watching.kysely);
      if (round < 3) await eventually(() => killed > at, 20_000);
    }
    await eventually(async () => (await jobsOf(reactor, watching.kysely)).length >= written.length);
    await stop();
    expect(killed).toBe(2);
    expect(await jobsOf(reactor, watching.kysely)).toEqual(written);
    expect((await rowOf(reactor, watching.kysely))?.state).toBe(written.length);
  } finally {
    await stop();
    await log.close();
    await doomed.close();
    await watching.close();
    await own.drop();
  }
}

it('parks the stream of an event that it cannot handle, and takes it up again in order when that is retried', async () => {
  const { reactor, control } = tinyReactor();
  await installReactor(database.kysely, store, reactor);
  const { lines } = follow(reactor);
  const [bad, good] = [conversation('bad'), conversation('good')];
  await writer.write({ stream: bad }, { stream: bad, data: { poison: true } }, { stream: good }, { stream: bad });
  await reached(reactor, await writer.write({ stream: good }));
  expect((await jobsOf(reactor)).toSorted()).toEqual(['bad@0', 'good@0', 'good@1']);
  expect(lines).toContain('stream parked');
  const replay = (options?: { skip: boolean }) =>
    replayParkedOfReactor(
      { reactor, jobs: new Jobs(database.kysely, undefined), decode: tinyDecode(), store, database: database.kysely },
      bad,
      options,
    );
  expect(await replay()).toMatchObject({ handled: 0, parked: { revision: 1 } });
  control.bad = false;
  expect(await replay()).toMatchObject({ handled: 2, parked: null });
  await reached(reactor, await writer.write({ stream: bad }));
  expect((await jobsOf(reactor)).filter((job) => job.startsWith('bad'))).toEqual(['bad@0', 'bad@1', 'bad@2', 'bad@3']);
});

it('handles the others in the order of the log when it parks a stream, and stops at a stream that they depend on', async () => {
  const { reactor } = tinyReactor();
  await installReactor(database.kysely, store, reactor);
  const [a, b, bad] = [conversation('in order a'), conversation('in order b'), conversation('in order bad')];
  const end = await writer.write({ stream: a }, { stream: b }, { stream: bad, data: { poison: true } }, { stream: a }, { stream: b });
  const { stop } = follow(reactor);
  await reached(reactor, end);
  expect(await jobsOf(reactor)).toEqual(['in order a@0', 'in order b@0', 'in order a@1', 'in order b@1']);
  await stop();

  const { reactor: dependent } = tinyReactor();
  const stopping: Reactor = {
    ...dependent,
    reaction: { ...dependent.reaction, reads: 'decoded', stopsAt: ['conversation'] } as Reactor['reaction'],
  };
  await installReactor(database.kysely, store, stopping);
  await writer.write({ stream: bad, data: { poison: true } });
  expect(await follow(stopping).ended).toBeInstanceOf(GroupStopped);
  expect((await rowOf(stopping))?.stopped).toContain('cannot take it');
});

it('stops at an event that it cannot handle where the order of the log matters, and says why', async () => {
  const { reactor } = tinyReactor('head', 'of the log');
  await installReactor(database.kysely, store, reactor);
  const { ended } = follow(reactor);
  await writer.write({ stream: conversation('fine') }, { stream: conversation('stops'), data: { poison: true } });
  expect(await ended).toBeInstanceOf(GroupStopped);
  expect(await rowOf(reactor)).toMatchObject({ owner: null, stopped: expect.stringContaining('cannot take it') });
  expect((await jobsOf(reactor)).filter((job) => job !== 'fine@0')).toEqual([]);
});

it('handles nothing while it is paused, not even what leads to nothing, and then all of it once', async () => {
  const { reactor } = tinyReactor();
  await installReactor(database.kysely, store, reactor);
  const { lines } = follow(reactor);
  await reached(reactor, await writer.write({ stream: conversation('p') }));
  expect(await pauseWork(database.kysely, { reactor: reactor.name }, true)).toBe(true);
  await writer.write({ stream: conversation('p'), data: { quiet: true } });
  const end = await writer.write({ stream: conversation('p') });
  await eventually(() => lines.includes('reactor paused'));
  expect(await jobsOf(reactor)).toEqual(['p@0']);
  expect(await pauseWork(database.kysely, { reactor: reactor.name }, false)).toBe(true);
  await reached(reactor, end);
  expect(await jobsOf(reactor)).toEqual(['p@0', 'p@2']);
  expect((await rowOf(reactor))?.state).toBe(3);
});

it('does not go on with another log, or beyond the end of its own', async () => {
  for (const change of [{ log_id: 'another' }, { position: '9'.repeat(19) }]) {
    const { reactor } = tinyReactor();
    await installReactor(database.kysely, store, reactor);
    await database.kysely.updateTable('keep.reactors').set(change).where('name', '=', reactor.name).execute();
    expect(await follow(reactor).ended).toBeInstanceOf(GroupStopped);
  }
});

it('takes no more events at once than it says, and keeps its lease during a batch that takes long', async () => {
  const { reactor } = tinyReactor('start');
  const sizes: number[] = [];
  const leaseEnd = async () =>
    (await database.kysely.selectFrom('keep.reactors').select('lease_until').where('name', '=', reactor.name).executeTakeFirstOrThrow())
      .lease_until;
  const slow: Reactor = {
    ...reactor,
    maxEvents: 7,
    reaction: {
      reads: 'decoded',
      events: { conversation: ['Happened'] },
      order: 'of the log',
      async handle(events) {
        sizes.push(events.length);
        if (sizes.length > 1) return;
        const before = await leaseEnd();
        // Whatever it waits for: nothing in it keeps the lease.
        await eventually(async () => (await leaseEnd()) > before);
      },
    },
  };
  await installReactor(database.kysely, store, slow);
  let last = '';
  for (let n = 0; n < 20; n++) last = await writer.write({ stream: conversation(`many ${n}`) });
  follow(slow);
  await reached(slow, last);
  expect(Math.max(...sizes)).toBe(7);
});

it('waits for read models that are not there yet: an inbox may act, and the rules are asked for again', async () => {
  const position = (await writer.write({ stream: conversation('first of all') })) as Position;
  const checkpoints = new Checkpoints(database.kysely, readModels.shapes);
  checkpoints.advanced(CORE_GROUP, position, false);
  const parts = { database: database.kysely, readModels, checkpoints };
  await expect(ruleIdsOf(parts)('org', position)).rejects.toBeInstanceOf(StoreUnavailable);
  expect(await new ActingInboxes(parts, 'autoResponder', () => true).any('org', position)).toBe(true);
});

it('is refused at start when two share a name, or when nobody does what it asks for', () => {
  const { reactor } = tinyReactor();
  const kind = { kind: reactor.name, backoff: { first: 1, longest: 1 }, handle: () => Promise.resolve('done' as const) };
  expect(() => assertReactors(['core'], [reactor], [kind])).not.toThrow();
  expect(() => assertReactors([reactor.name], [reactor], [kind])).toThrow(`two groups or reactors are named ${reactor.name}`);
  expect(() => assertReactors(['core'], [reactor], [])).toThrow(`these kinds of jobs have no handler: ${reactor.name}`);
});
