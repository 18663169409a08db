import fc from 'fast-check';
import { sql } from 'kysely';
import { CheckpointRefused, GroupStopped } from '../../projections/runtime/failures.js';
import { ProjectionGroup, type ProjectionGroupOptions } from '../../projections/runtime/group.js';
import { WORKER_SESSION } from '../../projections/runtime/lease.js';
import type { EventStore, Position } from '../../src/event-store/event-store.js';
import { parseStreamName, streamName } from '../../src/event-store/event-store.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { type OpenDatabase, openDatabase } from '../../src/database/database.js';
import { Checkpoints } from '../../src/read-models/checkpoints.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import {
  actualRows,
  conversation,
  eventually,
  expectedRows,
  openWorkerDatabase,
  tinyDecode,
  tinyProjections,
  tinyShapes,
  Writer,
  type Hooks,
} from './tiny-group.js';

let created: TestDatabase;
let database: OpenDatabase;
let store: EventStore;
let count = 0;
let running: Running[] = [];

beforeAll(async () => {
  created = await createDatabase();
});
afterAll(() => created.drop());

beforeEach(async () => {
  database = openWorkerDatabase(created.url);
  store = await openPostgresEventStore({ url: created.url });
});
afterEach(async () => {
  await Promise.all(running.map((group) => group.stop()));
  running = [];
  await store.close();
  await database.close();
});

interface Running {
  readonly name: string;
  readonly suffix: string;
  readonly lines: { level: string; message: string; facts: Record<string, unknown> }[];
  readonly checkpoints: Checkpoints;
  readonly ended: Promise<unknown>;
  stop(): Promise<unknown>;
  /** Stops and starts again under the same name, as a restarted process does. */
  again(options?: Partial<ProjectionGroupOptions>): Running;
}

/** A group of its own: every group of this file reads the whole log. */
function run(options: Partial<ProjectionGroupOptions> & { hooks?: Hooks } = {}, number = ++count): Running {
  const suffix = `_${number}`;
  const name = `group${suffix}`;
  const lines: Running['lines'] = [];
  const note = (level: string) => (facts: object, message: string) => void lines.push({ level, message, facts: { ...facts } });
  const checkpoints = new Checkpoints(database.kysely, tinyShapes(suffix));
  const ending = new AbortController();
  const tested = new ProjectionGroup({
    name,
    projections: tinyProjections(suffix, options.hooks),
    decode: tinyDecode(options.hooks),
    store,
    database: database.kysely,
    log: { info: note('info'), warn: note('warn'), error: note('error') },
    checkpoints,
    inFlight: () => 0,
    ...options,
  });
  const ended = tested.run(ending.signal).then(
    () => undefined,
    (error: unknown) => error,
  );
  const stop = () => {
    ending.abort();
    return ended;
  };
  const group = {
    name,
    suffix,
    lines,
    checkpoints,
    ended,
    stop,
    again: (changed?: Partial<ProjectionGroupOptions>) => run({ ...options, ...changed }, number),
  };
  running.push(group);
  return group;
}

async function reached({ checkpoints, name }: Running, position: string): Promise<void> {
  expect(await checkpoints.waitFor(name, position as Position, 10_000)).toBe('reached');
}

/** Asks the database itself, whoever works there. */
async function isAt({ name, suffix }: Running, position: string): Promise<true | undefined> {
  const reader = new Checkpoints(database.kysely, tinyShapes(suffix));
  const at = await reader.position(name).catch(() => 'start');
  return at !== 'start' && at >= position ? true : undefined;
}

async function parkedOf(group: Running) {
  return await database.kysely.selectFrom('keep.parked').selectAll().where('group_name', '=', group.name).orderBy('position').execute();
}

/** Only what this test wrote: the log is shared by the tests of this file. */
async function rowsOf(group: Running, writer: Writer) {
  const own = new Set(writer.written.map(({ stream }) => stream as string));
  const rows = await actualRows(database, group.suffix);
  return {
    seen: rows.seen.filter((at) => own.has(at.slice(0, at.lastIndexOf('@')))),
    revisions: rows.revisions.filter(({ stream }) => own.has(stream)),
  };
}

it('writes what the log holds and what comes after, and shows it through the views', async () => {
  const writer = new Writer(store);
  await writer.write({ stream: conversation('w1') }, { stream: conversation('w2') }, { stream: conversation('w1'), data: { n: 5 } });
  const group = run();
  await reached(group, await writer.write({ stream: conversation('w3') }));
  expect(await rowsOf(group, writer)).toEqual(expectedRows(writer.written));
  await reached(group, await writer.write({ stream: conversation('w1') }));
  expect(await rowsOf(group, writer)).toEqual(expectedRows(writer.written));
  expect(await group.stop()).toBeUndefined();
});

it('passes streams that no projection wants', async () => {
  const writer = new Writer(store);
  const group = run();
  await reached(group, await writer.write({ stream: streamName('claim', 'org', 'c1'), type: 'Unreadable' }));
  expect((await rowsOf(group, writer)).seen).toEqual([]);
  await group.stop();
});

it('goes on where it stopped, and delivers nothing twice', async () => {
  const writer = new Writer(store);
  let group = run();
  for (let i = 0; i < 5; i++) {
    await reached(group, await writer.write({ stream: conversation('again') }, { stream: conversation(`again${i}`) }));
    await group.stop();
    group = group.again();
  }
  await reached(group, await writer.write({ stream: conversation('again') }));
  expect(await rowsOf(group, writer)).toEqual(expectedRows(writer.written));
  await group.stop();
});

it('notices a checkpoint that was set back while it ran, and writes the same rows again', async () => {
  const writer = new Writer(store);
  const group = run();
  const first = await writer.write({ stream: conversation('back') });
  await reached(group, await writer.write({ stream: conversation('back') }, { stream: conversation('back2') }));
  await database.kysely.updateTable('read.checkpoints').set({ position: first }).where('group_name', '=', group.name).execute();
  await reached(group, await writer.write({ stream: conversation('back') }));
  await eventually('the checkpoint passes the events again', async () =>
    (await rowsOf(group, writer)).seen.length >= 6 ? true : undefined,
  );
  expect((await rowsOf(group, writer)).revisions).toEqual(expectedRows(writer.written).revisions);
  expect(group.lines.some(({ message }) => message.includes('lost its lease'))).toBe(true);
  await group.stop();
});

it('gives the same rows for every way to cut the log into batches', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ stream: fc.integer({ min: 0, max: 5 }), n: fc.integer({ min: 0, max: 9 }) }), { minLength: 1, maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 8 }),
      async (facts, cuts) => {
        const memory = new MemoryEventStore();
        const writer = new Writer(memory);
        const last = await writer.write(...facts.map(({ stream, n }) => ({ stream: conversation(String(stream)), data: { n } })));
        // Each cut is a life of the group: so many events in a transaction, and stopped after its first one.
        let group = run({ store: memory, maxEvents: cuts[0]! });
        for (const maxEvents of cuts) {
          await eventually('it moves', async () => ((await group.checkpoints.position(group.name)) === 'start' ? undefined : true));
          await group.stop();
          group = group.again({ maxEvents });
        }
        await reached(group, last);
        expect(await actualRows(database, group.suffix)).toEqual(expectedRows(writer.written));
        await group.stop();
      },
    ),
    { numRuns: 15 },
  );
});

describe('an event that cannot be handled', () => {
  it.each([
    ['the decoder does not know', { type: 'Unreadable' }],
    ['the projection throws at', { data: { throw: true } }],
    ['the database refuses', { data: { boom: true } }],
  ])('that %s parks its stream from there on, and others flow', async (_, bad) => {
    const id = `poison${count}`;
    const writer = new Writer(store);
    const good = new Writer(store);
    const fine = await good.write({ stream: conversation(`${id}good`) }, { stream: conversation(`${id}bad`) });
    const group = run();
    await reached(group, fine);
    // One transaction holds all of it or the batches fall as they may: both must come to the same.
    await writer.write({ stream: conversation(`${id}x`) }, { stream: conversation(`${id}x`) });
    await writer.write({ stream: conversation(`${id}x`), ...bad }, { stream: conversation(`${id}x`) });
    const end = await good.write({ stream: conversation(`${id}good`) }, { stream: conversation(`${id}good2`) });
    await reached(group, end);
    const after = await writer.write({ stream: conversation(`${id}x`) });
    await reached(group, after);

    expect(await rowsOf(group, good)).toEqual(expectedRows(good.written));
    expect(await rowsOf(group, writer)).toEqual(expectedRows(writer.written.slice(0, 2)));
    const parked = await parkedOf(group);
    expect(parked.filter((row) => row.stream.includes(id))).toMatchObject([{ stream: conversation(`${id}x`), revision: 2 }]);
    expect(JSON.stringify([parked, group.lines])).not.toContain('private words');
    const organizationId = parseStreamName(conversation(id))?.organizationId ?? '';
    for (const checkpoints of [group.checkpoints, new Checkpoints(database.kysely, tinyShapes(group.suffix))]) {
      expect(await checkpoints.waitFor(group.name, after as Position, 1_000)).toBe('reached');
      // Other tests have parked streams before it in this log.
      const [last] = await checkpoints.parked(group.name, organizationId, after as Position);
      expect(last).toBe(conversation(`${id}x`));
      expect(await checkpoints.parked(group.name, organizationId, fine as Position)).not.toContain(last);
      expect(await checkpoints.parked(group.name, 'another', after as Position)).toEqual([]);
    }
    await group.stop();

    // A worker that starts later knows what is parked, and the same log in one batch parks the same.
    const later = group.again();
    await reached(later, await writer.write({ stream: conversation(`${id}x`) }));
    expect(await rowsOf(later, writer)).toEqual(expectedRows(writer.written.slice(0, 2)));
    await later.stop();
    const whole = run();
    await reached(whole, after);
    expect(await rowsOf(whole, writer)).toEqual(expectedRows(writer.written.slice(0, 2)));
    expect((await parkedOf(whole)).map(({ stream, revision }) => [stream, revision])).toEqual(
      expect.arrayContaining([[conversation(`${id}x`), 2]]),
    );
    await whole.stop();
  });

  it('stops the group when it is of a settings stream', async () => {
    const memory = new MemoryEventStore();
    const writer = new Writer(memory);
    const group = run({ store: memory });
    await reached(group, await writer.write({ stream: conversation('s1') }));
    await writer.write({ stream: streamName('inbox', 'org', 'main'), type: 'Unreadable' }, { stream: conversation('s1') });
    expect(await group.ended).toBeInstanceOf(GroupStopped);
    expect((await rowsOf(group, writer)).seen).toEqual([`${conversation('s1')}@0`]);
    expect(await parkedOf(group)).toEqual([]);
    const [health] = (await group.checkpoints.health()).filter((one) => one.group === group.name);
    expect(health).toMatchObject({ owner: null, parked: 0 });
    expect(health?.stopped).toContain('settings stream');
  });

  it('stops the group when there are more than fifty within a minute', async () => {
    const memory = new MemoryEventStore();
    const writer = new Writer(memory);
    for (let i = 0; i < 50; i++) await writer.write({ stream: conversation(`p${i}`), data: { boom: true } });
    const group = run({ store: memory });
    await reached(group, await writer.write({ stream: conversation('fine') }));
    expect(await parkedOf(group)).toHaveLength(50);
    await writer.write({ stream: conversation('p50'), data: { boom: true } });
    expect(await group.ended).toBeInstanceOf(GroupStopped);
    expect(await parkedOf(group)).toHaveLength(50);
  });
});

describe('a checkpoint', () => {
  it('of another log is refused', async () => {
    const memory = new MemoryEventStore();
    const group = run({ store: memory });
    await reached(group, await new Writer(memory).write({ stream: conversation('l1') }));
    await group.stop();
    const other = new MemoryEventStore();
    await new Writer(other).write({ stream: conversation('l1') }, { stream: conversation('l1') });
    const refused = await group.again({ store: other }).ended;
    expect(refused).toBeInstanceOf(CheckpointRefused);
    expect((refused as Error).message).toContain(memory.log.id);
    expect((await actualRows(database, group.suffix)).seen).toHaveLength(1);
  });

  it('beyond the end of the log is refused', async () => {
    const memory = new MemoryEventStore();
    const group = run({ store: memory });
    await reached(group, await new Writer(memory).write({ stream: conversation('l1') }));
    await group.stop();
    await database.kysely
      .updateTable('read.checkpoints')
      .set({ position: '9'.repeat(19) })
      .where('group_name', '=', group.name)
      .execute();
    expect(await group.again().ended).toBeInstanceOf(CheckpointRefused);
    // For readiness, and for whoever looks.
    const health = await new Checkpoints(database.kysely, tinyShapes(group.suffix)).health();
    expect(health.find((one) => one.group === group.name)?.stopped).toContain('restored from an older backup');
  });

  it('that nothing was written under belongs to no log yet', async () => {
    const group = run({ store: new MemoryEventStore() });
    await eventually('it works', async () => (group.lines.some(({ message }) => message.includes('working')) ? true : undefined));
    await group.stop();
    const other = new MemoryEventStore();
    const second = group.again({ store: other });
    await reached(second, await new Writer(other).write({ stream: conversation('l1') }));
    await second.stop();
  });
});

describe('the surroundings', () => {
  it('may cut every connection, again and again: nothing is lost or doubled', async () => {
    const writer = new Writer(store);
    const group = run();
    for (let round = 0; round < 8; round++) {
      for (let i = 0; i < 20; i++) await writer.write({ stream: conversation(`cut${i % 3}`) });
      await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'test-worker' and pid <> pg_backend_pid() and datname = current_database()`
        .execute(database.kysely)
        .catch(() => undefined);
    }
    const last = await writer.write({ stream: conversation('cut') });
    await eventually('it recovers', () => isAt(group, last));
    expect(await rowsOf(group, writer)).toEqual(expectedRows(writer.written));
    expect((await parkedOf(group)).filter(({ stream }) => stream.includes('cut'))).toEqual([]);
    await group.stop();
  });

  it.each(['40001', '40P01', '53100', '57014', '08006', '55P03'])(
    'may answer %s for a while: it is tried again and parks nothing',
    async (code) => {
      const memory = new MemoryEventStore();
      const writer = new Writer(memory);
      let refusals = 3;
      const group = run({
        store: memory,
        hooks: {
          at: (moment) => {
            if (moment === 'before commit' && refusals-- > 0) throw Object.assign(new Error('not now'), { code });
          },
        },
      });
      // One event: the batch, its stream and the event by itself are refused once each, which would park it.
      await reached(group, await writer.write({ stream: conversation('t1') }));
      expect(await actualRows(database, group.suffix)).toEqual(expectedRows(writer.written));
      expect(await parkedOf(group)).toEqual([]);
      await group.stop();
    },
  );
});

describe('a worker of whose connections only the one that keeps its lease is cut', () => {
  let cut: OpenDatabase;
  let proceed = () => {};
  beforeEach(async () => {
    cut = openDatabase({ url: created.url, poolSize: 4, name: 'cut-worker', settings: WORKER_SESSION, onError: () => undefined });
    await sql`create sequence public.cuts`.execute(database.kysely);
  });
  afterEach(async () => {
    proceed();
    await Promise.all(running.map((group) => group.stop()));
    await sql`drop trigger if exists cut on read.checkpoints`.execute(database.kysely);
    await sql`drop function if exists public.cut; drop sequence public.cuts`.execute(database.kysely);
    await cut.close();
  });

  /** Ends the session of that worker that takes or renews a lease, while it does; never one that writes a batch. */
  async function cutLease(times: number): Promise<void> {
    await sql`
      create function public.cut() returns trigger language plpgsql as $$ begin
        if current_setting('application_name') = 'cut-worker' and new.events = old.events and new.lease_until <> old.lease_until
          and nextval('public.cuts') <= ${sql.lit(times)}
        then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5); end if;
        return new;
      end $$`.execute(database.kysely);
    await sql`create trigger cut before update on read.checkpoints for each row execute function public.cut()`.execute(database.kysely);
  }
  const cuts = async () => {
    const { rows } = await sql<{ n: number }>`
      select case when is_called then last_value else 0 end::int as n from public.cuts`.execute(database.kysely);
    return rows[0]?.n ?? 0;
  };
  const lease = async ({ name }: Running) =>
    await database.kysely
      .selectFrom('read.checkpoints')
      .select(['owner', 'epoch'])
      .where('group_name', '=', name)
      .executeTakeFirstOrThrow();
  const workings = ({ lines }: Running) => lines.filter(({ message }) => message === 'projection group working').length;

  it('goes on under a new epoch when it gets the lease again, and nobody else works meanwhile', async () => {
    const writer = new Writer(store);
    const first = run({ database: cut.kysely });
    await reached(first, await writer.write({ stream: conversation('lease1') }));
    const second = first.again({ database: database.kysely });
    const before = await lease(first);
    await cutLease(2);
    // The renewal, and the first attempt to take the lease again.
    await eventually(
      'it is cut twice and has the lease again',
      async () => ((await cuts()) > 2 && workings(first) > 1 ? true : undefined),
      20_000,
    );
    await reached(first, await writer.write({ stream: conversation('lease1') }, { stream: conversation('lease2') }));
    expect(await lease(first)).toEqual({ owner: before.owner, epoch: before.epoch + 1 });
    expect(workings(second)).toBe(0);
    expect(await rowsOf(first, writer)).toEqual(expectedRows(writer.written));
  }, 60_000);

  it('writes nothing of what it has in hand when another took over', async () => {
    const writer = new Writer(store);
    let holds = false;
    const gate = new Promise<void>((resolve) => (proceed = resolve));
    let armed = false;
    const first = run({
      database: cut.kysely,
      hooks: {
        async at(moment) {
          if (!armed || moment !== 'decoding') return;
          holds = true;
          await gate;
        },
      },
    });
    await reached(first, await writer.write({ stream: conversation('lease3') }));
    const before = await lease(first);
    armed = true;
    const position = await writer.write({ stream: conversation('lease3') });
    await eventually('it has a batch in hand', async () => (holds ? true : undefined));
    await cutLease(1_000);
    await eventually('its renewal is cut', async () => ((await cuts()) > 0 ? true : undefined), 20_000);
    // A lease that nobody renews has run out.
    await database.kysely
      .updateTable('read.checkpoints')
      .set({ lease_until: sql<Date>`'-infinity'` })
      .where('group_name', '=', first.name)
      .execute();
    const second = first.again({ database: database.kysely, decode: tinyDecode(), projections: tinyProjections(first.suffix) });
    await reached(second, position);
    const taken = await lease(first);
    expect(taken.epoch).toBe(before.epoch + 1);
    proceed();
    await eventually('it notices', async () => (first.lines.some(({ message }) => message.includes('interrupted')) ? true : undefined));
    await reached(second, await writer.write({ stream: conversation('lease3') }));
    expect(await lease(first)).toEqual(taken);
    expect(workings(first)).toBe(1);
    expect(await rowsOf(first, writer)).toEqual(expectedRows(writer.written));
  }, 60_000);
});

describe('two workers of one group', () => {
  it('never work at once, and the second goes on at once when the first stops in order', async () => {
    const writer = new Writer(store);
    const first = run();
    await reached(first, await writer.write({ stream: conversation('two') }));
    const second = first.again();
    await reached(first, await writer.write({ stream: conversation('two') }));
    expect(second.lines.filter(({ message }) => message.includes('working'))).toEqual([]);
    await first.stop();
    const began = performance.now();
    const position = await writer.write({ stream: conversation('two') });
    expect(await second.checkpoints.waitFor(second.name, position as Position, 5_000)).toBe('reached');
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(await rowsOf(second, writer)).toEqual(expectedRows(writer.written));
    await second.stop();
  });

  it('make the tables once when they start together', async () => {
    const first = run();
    const second = first.again();
    const third = first.again();
    const writer = new Writer(store);
    const position = await writer.write({ stream: conversation('three') });
    await eventually('one of them works', () => isAt(first, position));
    expect(await rowsOf(first, writer)).toEqual(expectedRows(writer.written));
    await Promise.all([first.stop(), second.stop(), third.stop()]);
  });
});
