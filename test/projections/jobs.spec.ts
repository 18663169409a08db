import { type RawBuilder, sql } from 'kysely';
import { JobSignal } from '../../projections/runtime/job-signal.js';
import { type JobKind, JobRunner, type Outcome } from '../../projections/runtime/job-runner.js';
import { type Job, JOB_LEASE_MS, Jobs, type NewJob } from '../../projections/runtime/jobs.js';
import type { OpenDatabase } from '../../src/database/database.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { buffers, type Plan } from '../support/plans.js';
import { TestClock } from '../support/test-clock.js';
import { openWorkerDatabase } from './tiny-group.js';

let created: TestDatabase;
let database: OpenDatabase;
let clock: TestClock;
let jobs: Jobs;

beforeAll(async () => {
  created = await createDatabase();
  database = openWorkerDatabase(created.url);
});
afterAll(async () => {
  await database.close();
  await created.drop();
});
beforeEach(async () => {
  await sql`truncate keep.jobs`.execute(database.kysely);
  clock = new TestClock();
  jobs = new Jobs(database.kysely, () => clock.now());
});

const YEAR_MS = 366 * 24 * 3_600_000;
const job = (key: string, more: Partial<NewJob> = {}): NewJob => ({ kind: 'test', key, organizationId: 'org', payload: { key }, ...more });
const keysOf = (taken: readonly Job[]) => taken.map(({ key }) => key);
const take = (most = 10) => jobs.take(new Map([['test', most]]), 'me');
/**
 * The pages of 8 kB that a statement looks at. A session makes the plans of the table's functions at their first call, and again when
 * statistics have changed; the catalog's pages that this takes are not counted.
 * @param planning the same function, called before in the same session
 */
async function pagesOf(statement: RawBuilder<unknown>, planning = statement): Promise<number> {
  const { rows } = await database.kysely.connection().execute(async (session) => {
    await planning.execute(session);
    return await sql<{ 'QUERY PLAN': [{ Plan: Plan }] }>`explain (analyze, buffers, format json) ${statement}`.execute(session);
  });
  const plan = rows[0]?.['QUERY PLAN'][0].Plan;
  if (plan === undefined) throw new Error('EXPLAIN answered nothing');
  return buffers(plan);
}
const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** A process that does jobs; `stop` ends it in order. */
function runner(handle: (job: Job, signal: AbortSignal) => Promise<Outcome>, options: { jobs?: Jobs; kind?: Partial<JobKind> } = {}) {
  const ending = new AbortController();
  const kind = { kind: 'test', backoff: { first: 1_000, longest: 4_000 }, handle, ...options.kind };
  const one = new JobRunner({ jobs: options.jobs ?? jobs, kinds: [kind], log: quiet });
  const ended = one.run(ending.signal);
  return {
    wake: () => one.wake(),
    async stop() {
      ending.abort();
      await ended;
    },
  };
}

it('takes what is due by the clock of timers, the oldest first, once, and leaves kinds that it does not know', async () => {
  clock.stopAt(Date.now());
  await jobs.add([
    job('in a minute', { due: { inMs: 60_000 } }),
    // Longer than the longest timeout of Node.
    job('in 366 days', { due: { inMs: YEAR_MS } }),
    job('at once'),
    job('overdue', { due: { at: clock.now() - 1_000 } }),
    job('of another build', { kind: 'unknown' }),
  ]);
  expect(await jobs.add([job('at once', { payload: { other: true } })])).toBe(0);
  expect(keysOf(await take())).toEqual(['overdue', 'at once']);
  expect(await take()).toEqual([]);
  clock.advance(60_000);
  const [late] = await take();
  expect(late).toMatchObject({ key: 'in a minute', payload: { key: 'in a minute' }, attempt: 1, dueAt: clock.now() });
  clock.advance(YEAR_MS - 60_001);
  expect(await take()).toEqual([]);
  clock.advance(1);
  expect(keysOf(await take())).toEqual(['in 366 days']);
});

it('is told to other processes as it is added, many at once in a few words, and again after the connection was cut', async () => {
  const woken = { here: 0, there: 0 };
  const [here, there] = [new JobSignal(created.url, () => woken.here++), new JobSignal(created.url, () => woken.there++)];
  try {
    for (let cuts = 0; cuts < 2; cuts++) {
      // Each wakes when it listens, since it may have missed something before.
      await eventually(() => woken.here > 0 && woken.there > 0);
      Object.assign(woken, { here: 0, there: 0 });
      for (let n = 0; n < 200; n++) here.added();
      expect(woken.here).toBe(200);
      // The first of them at once, and the others together.
      await eventually(() => woken.there >= 2);
      await sql`notify threadlog_jobs`.execute(database.kysely);
      await eventually(() => woken.here > 200);
      await eventually(() => woken.there >= 3);
      expect(woken).toEqual({ here: 201, there: 3 });
      Object.assign(woken, { here: 0, there: 0 });
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'threadlog-jobs' and datname = current_database()`.execute(database.kysely);
    }
  } finally {
    await here.close();
    await there.close();
  }
});

it('gives a job that nobody renews to the next, who alone may end it; also when the clock was set back or ahead', async () => {
  await jobs.add([job('a')]);
  const [first] = await take();
  const lease = async (end: string) =>
    void (await sql`update keep.jobs set leased_until = clock_timestamp() + ${end}::interval`.execute(database.kysely));
  for (const end of ['-1 ms', `${2 * JOB_LEASE_MS + 1_000} ms`]) {
    expect(await take()).toEqual([]);
    await lease(end);
    expect(keysOf(await take())).toEqual(['a']);
  }
  expect(await jobs.renew([first!])).toEqual(new Set());
  await jobs.finish([first!]);
  await jobs.again(first!, 0, 'late');
  const [row] = await database.kysely.selectFrom('keep.jobs').select(['attempt', 'error']).execute();
  expect(row).toEqual({ attempt: 3, error: null });
});

describe('a lane', () => {
  it('goes on when its first job has ended, and waits while that is tried again', async () => {
    await jobs.add([job('1', { lane: 'l' }), job('2', { lane: 'l' }), job('other', { lane: 'm' }), job('3', { lane: 'l' })]);
    const [one, other] = await take();
    expect(keysOf([one!, other!])).toEqual(['1', 'other']);
    await jobs.again(one!, 5_000, 'not now');
    expect(await take()).toEqual([]);
    clock.advance(5_000);
    const [again] = await take();
    expect(again).toMatchObject({ key: '1', attempt: 2 });
    await jobs.finish([again!]);
    expect(keysOf(await take())).toEqual(['2']);
    await jobs.remove([{ kind: 'test', key: '2' }]);
    expect(keysOf(await take())).toEqual(['3']);
    expect(await take()).toEqual([]);
  });

  it('loses no job that is added while its last one ends, whoever commits first', async () => {
    for (const first of ['the end', 'the new job'] as const) {
      const lane = first;
      await jobs.add([job(`${first} 1`, { lane })]);
      const [head] = await take();
      const open = await database.kysely.startTransaction().execute();
      const held = new Jobs(open, () => clock.now());
      const next = job(`${first} 2`, { lane });
      let second: Promise<unknown>;
      if (first === 'the end') {
        await held.finish([head!]);
        second = jobs.add([next]);
      } else {
        await held.add([next]);
        second = jobs.finish([head!]);
      }
      // Waits for the lane, and not only for its turn on the connection.
      await eventually(async () => {
        const { rows } = await sql<{
          n: number;
        }>`select count(*)::int as n from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())`.execute(database.kysely);
        return rows[0]?.n === 1 ? true : undefined;
      });
      await open.commit().execute();
      await second;
      expect(keysOf(await take())).toEqual([`${first} 2`]);
    }
  });

  it('keeps its order among four that add and four that do, with failures in between', async () => {
    const done = new Map<string, number[]>();
    const running = new Set<string>();
    let fails = 0;
    const handle = async ({ lane, payload }: Job): Promise<Outcome> => {
      const name = lane!;
      if (running.has(name)) throw new Error('two of a lane at once');
      running.add(name);
      await new Promise((resolve) => setImmediate(resolve));
      running.delete(name);
      if (fails++ % 7 === 0) return { againInMs: 0, because: 'for once' };
      done.set(name, [...(done.get(name) ?? []), (payload as { n: number }).n]);
      return 'done';
    };
    const runners = [runner(handle), runner(handle)];
    const lanes = ['a', 'b', 'c', 'd', 'e'];
    await Promise.all(
      lanes.map(async (lane) => {
        for (let n = 0; n < 40; n++) {
          await jobs.add([job(`${lane}${n}`, { lane, payload: { n } })]);
          runners[n % 2]?.wake();
        }
      }),
    );
    await eventually(async () => ([...done.values()].flat().length >= 200 ? true : undefined));
    for (const one of runners) await one.stop();
    const inOrder = Array.from({ length: 40 }, (_, n) => n);
    for (const lane of lanes) expect(done.get(lane)).toEqual(inOrder);
    expect(await database.kysely.selectFrom('keep.jobs').select('id').execute()).toEqual([]);
  });

  it('of 100,000 jobs behind a first one that is far from due keeps nobody waiting', async () => {
    await jobs.add([job('head', { lane: 'dead', due: { inMs: 3_600_000 } })]);
    await sql`
      insert into keep.jobs (kind, key, lane, head, organization_id, payload, due_at)
      select 'test', 'waits ' || n, 'dead', false, 'org', '{}', now() - interval '1 day' from generate_series(1, 100000) n`.execute(
      database.kysely,
    );
    await jobs.add([job('mine')]);
    const plan = await sql<{ 'QUERY PLAN': string }>`
      explain (analyze, buffers, format text) select id from keep.jobs where head and due_at <= now() and kind = 'test'
      order by due_at, id limit 10`.execute(database.kysely);
    expect(plan.rows.map((row) => row['QUERY PLAN']).join('\n')).toContain('jobs_due');
    // The same in the functions, of which EXPLAIN shows no plan. Nobody keeps what is taken for no time.
    expect(await pagesOf(sql`select from keep.take_due_jobs(array['test'], array[10], '{}', 'nobody', '0 s', null)`)).toBeLessThan(100);
    const [mine] = await take();
    expect(mine?.key).toBe('mine');
    const finishing = sql`select keep.finish_jobs(array[${mine?.id}]::bigint[], array[${mine?.attempt}]::integer[])`;
    expect(await pagesOf(finishing, sql`select keep.finish_jobs('{}', '{}')`)).toBeLessThan(100);
    expect(await take()).toEqual([]);
  });
});

describe('a process that does jobs', () => {
  it('ends what is done or given up, and tries what failed again after a pause that grows', async () => {
    const outcomes: Outcome[] = ['done', { gaveUp: 'never' }];
    const seen: [string, number][] = [];
    await jobs.add([job('done'), job('given up'), job('fails')]);
    const one = runner(async ({ key, attempt }) => {
      seen.push([key, attempt]);
      if (key === 'fails' && attempt < 3) throw new Error('not yet');
      return key === 'given up' ? outcomes[1]! : 'done';
    });
    const left = () => database.kysely.selectFrom('keep.jobs').select(['key', 'error', 'due_at', 'owner']).execute();
    for (const [failures, [least, most]] of [
      [500, 1_000],
      [1_000, 2_000],
    ].entries()) {
      const [row] = await eventually(async () => {
        const rows = await left();
        // Due later: before the runner has taken it, the row is that of the failure before.
        const [only] = rows.length === 1 && rows[0]?.owner === null && rows[0].due_at.getTime() > clock.now() ? rows : [];
        return only !== undefined && seen.length === 3 + failures ? rows : undefined;
      });
      expect(row).toMatchObject({ key: 'fails', error: 'Error: not yet' });
      const pause = row!.due_at.getTime() - clock.now();
      // The database keeps microseconds, and a Date cuts them off.
      expect(pause).toBeGreaterThanOrEqual(least! - 1);
      expect(pause).toBeLessThanOrEqual(most!);
      clock.advance(pause);
      one.wake();
    }
    await eventually(async () => ((await left()).length === 0 ? true : undefined));
    expect(seen.filter(([key]) => key === 'fails').map(([, attempt]) => attempt)).toEqual([1, 2, 3]);
    await one.stop();
  });

  it('does 5,000 that are due at once with another, each once, within 10 s', async () => {
    await jobs.add(Array.from({ length: 5_000 }, (_, n) => job(String(n), { due: { inMs: 1_000 + (n % 1_000) } })));
    const done: string[] = [];
    const handle = async ({ key }: Job): Promise<Outcome> => {
      done.push(key);
      return Promise.resolve('done' as const);
    };
    const runners = [runner(handle), runner(handle)];
    expect(done).toEqual([]);
    clock.advance(2_000);
    const began = performance.now();
    await eventually(async () => (done.length >= 5_000 ? true : undefined), 10_000);
    const ms = performance.now() - began;
    for (const one of runners) await one.stop();
    expect(new Set(done).size).toBe(5_000);
    expect(done).toHaveLength(5_000);
    expect(ms).toBeLessThan(10_000);
    expect(await database.kysely.selectFrom('keep.jobs').select('id').execute()).toEqual([]);
  });

  it('does a job of one kind at once, however many of another kind are due before it, and no more of a kind than it has places for', async () => {
    const open = { doing: 0, most: 0 };
    const ending = new AbortController();
    let told: (at: string) => void = () => undefined;
    const done = new Promise<string>((resolve) => (told = resolve));
    const long: JobKind = {
      kind: 'long',
      backoff: { first: 1_000, longest: 1_000 },
      places: { atOnce: 2, inHand: 3 },
      async handle(_, signal) {
        open.most = Math.max(open.most, ++open.doing);
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
        return { againInMs: 0, because: 'the process ended' };
      },
    };
    const short: JobKind = {
      kind: 'test',
      backoff: { first: 1_000, longest: 1_000 },
      handle: ({ key }) => {
        told(key);
        return Promise.resolve('done' as const);
      },
    };
    await jobs.add(Array.from({ length: 1_000 }, (_, n) => job(String(n), { kind: 'long', due: { at: 0 } })));
    const one = new JobRunner({ jobs, kinds: [long, short], log: quiet });
    const ended = one.run(ending.signal);
    await eventually(() => open.doing === 2);
    await jobs.add([job('short')]);
    one.wake();
    expect(await done).toBe('short');
    const taken = await database.kysely
      .selectFrom('keep.jobs')
      .select('id')
      .where('owner', 'is not', null)
      .where('kind', '=', 'long')
      .execute();
    expect(taken).toHaveLength(3);
    ending.abort();
    await ended;
    expect(open.most).toBe(2);
  });

  it('lets receivers take turns, so that a job waits for no more of another receiver than are in hand', async () => {
    const done: string[] = [];
    await jobs.add(Array.from({ length: 2_000 }, (_, n) => job(`busy ${n}`, { receiver: 'busy', lane: `lane ${n}`, due: { at: 0 } })));
    const one = runner(
      async ({ key }) => {
        await new Promise((resolve) => setImmediate(resolve));
        done.push(key);
        return 'done';
      },
      { kind: { fair: true } },
    );
    await eventually(() => done.length > 0);
    await jobs.add(['first', 'second', 'third'].map((key) => job(key, { receiver: key, due: { at: clock.now() - 1 } })));
    const before = done.length;
    one.wake();
    await eventually(() => ['first', 'second', 'third'].every((key) => done.includes(key)));
    // What was in hand when they were added, and what came with them.
    expect(Math.max(...['first', 'second', 'third'].map((key) => done.indexOf(key)))).toBeLessThan(before + 2 * 64);
    await one.stop();
    expect(done.length).toBeLessThan(2_000);
    expect(new Set(done).size).toBe(done.length);
  });

  it('looks at no receivers while there is room for all that is due', async () => {
    await sql`
      insert into keep.jobs (kind, key, receiver, head, organization_id, payload, due_at)
      select 'test', n::text, 'receiver ' || n % 5000, true, 'org', '{}', now() + interval '1 day' from generate_series(1, 10000) n`.execute(
      database.kysely,
    );
    await jobs.add([job('due', { receiver: 'receiver 7' }), job('of no receiver')]);
    const taking = (room: number) =>
      sql<{ key: string }>`select key from keep.take_due_jobs(array['test'], array[${sql.lit(room)}], array['test'], 'me', '0 s', null)`;
    const { rows } = await taking(2).execute(database.kysely);
    expect(rows.map(({ key }) => key).toSorted()).toEqual(['due', 'of no receiver']);
    expect(await pagesOf(taking(2))).toBeLessThan(100);
    expect(await pagesOf(taking(1))).toBeGreaterThan(5_000);
  });

  it('of a receiver alone takes as many as there is room for, each once', async () => {
    await jobs.add(Array.from({ length: 30 }, (_, n) => job(String(n), { receiver: 'alone' })));
    await jobs.add([job('of another kind', { kind: 'unknown', receiver: 'other' })]);
    const rooms = new Map([['test', 20]]);
    expect(keysOf(await jobs.take(rooms, 'me', ['test']))).toEqual(Array.from({ length: 20 }, (_, n) => String(n)));
    expect(keysOf(await jobs.take(rooms, 'me', ['test']))).toEqual(Array.from({ length: 10 }, (_, n) => String(20 + n)));
    expect(await jobs.take(rooms, 'me', ['test'])).toEqual([]);
  });

  it('begins nothing once it is to end, though it is taking jobs at that moment', async () => {
    let release: () => void = () => undefined;
    let taking = 0;
    class SlowJobs extends Jobs {
      override async take(...given: Parameters<Jobs['take']>): Promise<Job[]> {
        const taken = await super.take(...given);
        if (++taking > 1) await new Promise<void>((resolve) => (release = resolve));
        return taken;
      }
    }
    const begun: string[] = [];
    const kind: JobKind = {
      kind: 'test',
      backoff: { first: 1_000, longest: 1_000 },
      places: { atOnce: 2, inHand: 3 },
      async handle({ key }, signal) {
        begun.push(key);
        if (!signal.aborted) await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
        return 'done';
      },
    };
    await jobs.add(['1', '2', '3'].map((key) => job(key)));
    const another: JobKind = { ...kind, kind: 'another' };
    const one = new JobRunner({ jobs: new SlowJobs(database.kysely, () => clock.now()), kinds: [kind, another], log: quiet });
    const ending = new AbortController();
    const ended = one.run(ending.signal);
    await eventually(() => begun.length === 2);
    await eventually(() => {
      one.wake();
      return taking === 2;
    });
    ending.abort();
    await eventually(async () => (await database.kysely.selectFrom('keep.jobs').select('id').execute()).length === 1);
    release();
    await ended;
    expect(begun).toEqual(['1', '2']);
    expect((await take()).map(({ key, attempt }) => [key, attempt])).toEqual([['3', 1]]);
  });

  it('gives back what it has not begun, and tells what it does that it ends', async () => {
    await jobs.add(Array.from({ length: 40 }, (_, n) => job(String(n))));
    const begun: string[] = [];
    const one = runner(async ({ key }, signal) => {
      begun.push(key);
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      return { againInMs: 0, because: 'the process ended' };
    });
    await eventually(async () => (begun.length === 16 ? true : undefined));
    await one.stop();
    const free = await take(100);
    expect(free).toHaveLength(40);
    expect(free.filter(({ attempt }) => attempt === 1)).toHaveLength(24);
  });
});
