import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import pg from 'pg';
import { OutcomeUnknown } from '../../src/event-store/event-store.js';
import type { EventStore, StoredEvent } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { createDatabase } from '../support/database.js';
import type { TestDatabase } from '../support/database.js';
import { startTcpProxy } from '../support/tcp-proxy.js';

const LOCK = /perform pg_advisory_xact_lock\((\d+)\);/;

const NUMBERING = 'select coalesce(max(position), 0) + 1 into v_base from log.events;';

/** What a reader that follows the log must never meet. */
interface Faults {
  /** Acknowledged, and passed over by the reader. */
  readonly lost: readonly string[];
  /** Delivered at or below a position that had been delivered. */
  readonly disordered: readonly string[];
  /** Rolled back, and delivered. */
  readonly ghosts: readonly string[];
  /** Streams whose revisions came in another order than 0, 1, 2… */
  readonly shuffled: readonly string[];
}

describe('the order of the Postgres log', () => {
  let database: TestDatabase;
  let elsewhere: TestDatabase;
  const clients: pg.Client[] = [];

  beforeEach(async () => {
    [database, elsewhere] = await Promise.all([createDatabase(), createDatabase()]);
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()));
    await Promise.all([database.drop(), elsewhere.drop()]);
  });

  async function connect(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url });
    clients.push(client);
    await client.connect();
    return client;
  }

  it('shows a reader every event once and in order: 16 writers in two processes, rollbacks, held and foreign transactions', async () => {
    const { faults, events, stalled } = await hunt(database.url, elsewhere.url);
    expect(faults).toEqual({ lost: [], disordered: [], ghosts: [], shuffled: [] });
    expect(events).toBeGreaterThan(1_000);
    expect(stalled).toBeLessThan(2_000);
  }, 60_000);

  it('would be caught without the lock: the same hunt loses events of a plain insert', async () => {
    const client = await connect(database.url);
    const { rows } = await client.query<{ source: string }>(`select pg_get_functiondef('log.append_many'::regproc) as source`);
    const source = rows[0]!.source;
    expect(source).toMatch(LOCK);
    expect(source).toContain(NUMBERING);
    // Numbers that are handed out before the commit, as those of a serial column are; each batch has a thousand of its own.
    await client.query('create sequence public.numbers increment 1000');
    await client.query(source.replace(LOCK, '').replaceAll(NUMBERING, `v_base := nextval('public.numbers');`));
    const { faults } = await hunt(database.url, elsewhere.url);
    expect(faults.lost.length).toBeGreaterThan(0);
  }, 60_000);

  it('is not stalled by transactions that hold no lock of the log, here or in another database', async () => {
    for (const url of [database.url, elsewhere.url]) await writeAndStayOpen(await connect(url));
    const store = await openPostgresEventStore({ url: database.url });
    const control = new AbortController();
    const delays: number[] = [];
    const sent = new Map<string, number>();
    const reading = (async () => {
      for await (const batch of store.feed('start', { maxEvents: 100, signal: control.signal }))
        for (const event of batch.events) delays.push(performance.now() - sent.get(event.stream)!);
    })();
    for (let i = 0; i < 50; i += 1) {
      const stream = `conversation-open.${i}` as StoredEvent['stream'];
      sent.set(stream, performance.now());
      await store.append(stream, 'none', [newEvent()], AbortSignal.timeout(5_000));
    }
    await eventually(() => delays.length === 50, 5_000);
    control.abort();
    await reading;
    await store.close();
    expect(delays.sort((a, b) => a - b)[45]).toBeLessThan(500);
  });

  it('ends a client that vanished between its Execute and its Sync, so that it cannot keep the lock', async () => {
    const watcher = await connect(database.url);
    const { rows } = await watcher.query<{ version: number }>(`select current_setting('server_version_num')::int as version`);
    if (rows[0]!.version < 170_000) {
      // There TCP's keep-alive finds it, which a proxy on the same machine answers for ever.
      process.stderr.write('NOT RUN: the end of a vanished client needs PostgreSQL 17\n');
      return;
    }
    const source = await watcher.query<{ source: string }>(`select pg_get_functiondef('log.append_many'::regproc) as source`);
    const key = LOCK.exec(source.rows[0]!.source)![1]!;
    const lockIsFree = async () =>
      (await watcher.query<{ free: boolean }>(`select pg_try_advisory_xact_lock(${key}) as free`)).rows[0]!.free;
    const address = new URL(database.url);
    const proxy = await startTcpProxy({ host: address.hostname, port: Number(address.port) });
    address.host = `${proxy.host}:${proxy.port}`;
    const far = await openPostgresEventStore({ url: address.href });
    const store = await openPostgresEventStore({ url: database.url });
    const append = (client: EventStore, id: string, ms: number) =>
      client.append(`conversation-vanish.${id}` as StoredEvent['stream'], 'none', [newEvent()], AbortSignal.timeout(ms));
    await append(far, '1', 5_000);
    // The Sync message, which commits what the Execute message before it did.
    void proxy.swallowRequestBefore(Buffer.from([0x53, 0, 0, 0, 4]));
    const vanished = append(far, '4', 1_000).catch((error: Error) => error);
    await eventually(async () => !(await lockIsFree()), 2_000);
    expect(await append(store, '5', 15_000)).toMatchObject({ outcome: 'appended' });
    expect(await vanished).toBeInstanceOf(OutcomeUnknown);
    await store.close();
    proxy.heal();
    await far.close();
    await proxy.close();
  }, 30_000);

  it('counts on after ten thousand appends that were rolled back as if they had never been, and looks at no more pages for it', async () => {
    const watcher = await connect(database.url);
    // What autovacuum would clear away is not there for a test to count on.
    await watcher.query('alter table log.events set (autovacuum_enabled = off)');
    const heads: string[] = [];

    /** What a session did shows in the server's statistics when it ends. */
    async function ended(application: string): Promise<void> {
      await eventually(async () => {
        const { rows } = await watcher.query(`select from pg_stat_activity where application_name like $1 || '%'`, [application]);
        return rows.length === 0;
      }, 10_000);
    }

    async function rollBack(times: number): Promise<void> {
      const roller = new pg.Client({ connectionString: database.url, application_name: 'rolling' });
      await roller.connect();
      const one = () => `begin; select log.append_many('conversation-undone.1', '0', '${randomUUID()}', 'Written', '{}', '{}'); rollback;`;
      for (let i = 0; i < times; i += 100) await roller.query(Array.from({ length: 100 }, one).join(''));
      await roller.end();
      await ended('rolling');
    }

    /** Pages of the log's table and indexes that are looked at for twenty appends, for their heads, and for reading and following them. */
    async function pages(): Promise<number> {
      const looked = async () => {
        const { rows } = await watcher.query<{ pages: number }>(`
          select (coalesce(heap_blks_read + heap_blks_hit, 0) + coalesce(idx_blks_read + idx_blks_hit, 0))::int as pages
          from pg_statio_user_tables where schemaname = 'log' and relname = 'events'`);
        return rows[0]!.pages;
      };
      const before = await looked();
      const store = await openPostgresEventStore({ url: database.url, applicationName: 'counted' });
      const after = await store.head();
      const positions: string[] = [];
      for (let i = 0; i < 20; i += 1) {
        const stream = `conversation-good.${heads.length + i}` as StoredEvent['stream'];
        const appended = await store.append(stream, 'none', [newEvent()], AbortSignal.timeout(10_000));
        if (appended.outcome !== 'appended') throw new Error('a stream of its own was written by another');
        positions.push(appended.position);
        expect(await store.head()).toBe(appended.position);
        for await (const batch of store.read(stream)) expect(batch).toHaveLength(1);
      }
      expect(await follow(store, after)).toEqual(positions);
      heads.push(...positions);
      await store.close();
      await ended('counted');
      return (await looked()) - before;
    }

    async function follow(store: EventStore, after: Awaited<ReturnType<EventStore['head']>>): Promise<string[]> {
      const seen: string[] = [];
      for await (const { events, caughtUp } of store.feed(after, { maxEvents: 7, signal: new AbortController().signal })) {
        seen.push(...events.map(({ position }) => position));
        if (caughtUp) break;
      }
      return seen;
    }

    const first = await pages();
    await rollBack(1_000);
    const early = await pages();
    await rollBack(9_000);
    const late = await pages();
    const later = await pages();
    expect(Math.max(early, late, later)).toBeLessThan(first * 1.5);
    expect(heads.map(Number)).toEqual(Array.from({ length: 80 }, (_, i) => i + 1));

    // A hole in the positions, of whatever origin, is nothing to wait for.
    const hole = '1000000000';
    await watcher.query(
      `insert into log.events (position, revision, id, stream, type, data, metadata) values ($1, 0, $2, 'conversation-hole.1', 'Written', '{}', '{}')`,
      [hole, randomUUID()],
    );
    heads.push(hole.padStart(19, '0'));
    await pages();
    expect(heads.map(Number).slice(80, 83)).toEqual([1e9, 1e9 + 1, 1e9 + 2]);
    const store = await openPostgresEventStore({ url: database.url });
    expect(await follow(store, 'start')).toEqual(heads);
    await store.close();
  }, 60_000);

  /** Writes and reads at once for a while, with everything that could let a reader pass an event that is not visible yet. */
  async function hunt(url: string, otherUrl: string): Promise<{ faults: Faults; events: number; stalled: number }> {
    const store = await openPostgresEventStore({ url });
    for (const openUrl of [url, otherUrl]) await writeAndStayOpen(await connect(openUrl));

    const seen: StoredEvent[] = [];
    const control = new AbortController();
    let last = performance.now();
    let stalled = 0;
    const reading = (async () => {
      for await (const batch of store.feed('start', { maxEvents: 100, signal: control.signal })) {
        if (batch.events.length === 0) continue;
        stalled = Math.max(stalled, performance.now() - last);
        last = performance.now();
        seen.push(...batch.events);
      }
    })();

    const rolledBack: string[] = [];
    const acknowledged = new Map<string, string>();
    const writers = [startWriters(url, 'a'), startWriters(url, 'b')];
    await Promise.all(writers.map((writer) => writer.ready));
    last = performance.now();
    stalled = 0;

    const holder = await connect(url);
    const roller = await connect(url);
    for (let round = 0; round < 12; round += 1) {
      // A transaction that has its position and commits late. With the lock nobody gets past it; without, the reader does.
      await holder.query('begin');
      const held = newEvent();
      const position = await appendRaw(holder, `conversation-held.${round}`, held.id);
      const reached = seen.length;
      await eventually(() => seen.length > reached + 20, 100).catch(() => undefined);
      await holder.query('commit');
      acknowledged.set(held.id, position);

      await roller.query('begin');
      const undone = newEvent();
      await appendRaw(roller, `conversation-undone.${round}`, undone.id);
      await roller.query('rollback');
      rolledBack.push(undone.id);

      if (round === 6) {
        // A frozen process holds nothing that the other one needs.
        writers[0]!.child.kill('SIGSTOP');
        const before = seen.length;
        await eventually(() => seen.length > before + 100, 10_000);
        writers[0]!.child.kill('SIGCONT');
      }
    }
    for (const writer of writers) for (const [id, at] of await writer.finish()) acknowledged.set(id, at);
    const head = await store.head();
    await eventually(() => seen.at(-1)!.position >= head, 20_000);
    control.abort();
    await reading;
    await store.close();
    return { faults: faultsOf(seen, acknowledged, rolledBack), events: seen.length, stalled };
  }
});

function faultsOf(seen: readonly StoredEvent[], acknowledged: ReadonlyMap<string, string>, rolledBack: readonly string[]): Faults {
  const positions = new Map(seen.map((event) => [event.id, event.position as string]));
  const next = new Map<string, number>();
  const shuffled: string[] = [];
  for (const { stream, revision } of seen) {
    if (revision !== (next.get(stream) ?? 0)) shuffled.push(`${stream}@${revision}`);
    next.set(stream, revision + 1);
  }
  return {
    lost: [...acknowledged].filter(([id, position]) => positions.get(id) !== position).map(([id]) => id),
    disordered: seen.filter((event, i) => i > 0 && event.position <= seen[i - 1]!.position).map((event) => event.id),
    ghosts: rolledBack.filter((id) => positions.has(id)),
    shuffled,
  };
}

function startWriters(url: string, name: string) {
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(
    process.execPath,
    ['--import', './test/support/typescript.mjs', 'test/contract/order-writers.ts', url, name, '8'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ready = (async () => {
    const line = await lines.next();
    if (line.value !== 'ready') throw new Error(`the writers of process ${name} did not start`);
  })();
  return {
    child,
    ready,
    finish: async () => {
      child.stdin.end();
      const line = await lines.next();
      return JSON.parse(line.value as string) as [string, string][];
    },
  };
}

/** A transaction with an id of its own that stays open: what holds back a reader that trusts the oldest open transaction. */
async function writeAndStayOpen(client: pg.Client): Promise<void> {
  await client.query('create table if not exists elsewhere (a integer)');
  await client.query('begin');
  await client.query('insert into elsewhere values (1)');
}

/** One event by plain SQL, as part of whatever transaction the client is in; its position. */
async function appendRaw(client: pg.Client, stream: string, id: string): Promise<string> {
  const { rows } = await client.query<{ position: string }>(`select log.append_many($1, '0', $2, 'Written', '{}', '{}') as position`, [
    stream,
    id,
  ]);
  return rows[0]!.position.padStart(19, '0');
}

function newEvent() {
  return { id: randomUUID(), type: 'Written', data: '{}', metadata: '{}' };
}

async function eventually(holds: () => boolean | Promise<boolean>, ms: number): Promise<void> {
  for (const until = performance.now() + ms; !(await holds()); await new Promise((resolve) => setTimeout(resolve, 2))) {
    if (performance.now() > until) throw new Error(`not within ${ms} ms: ${holds.toString()}`);
  }
}
