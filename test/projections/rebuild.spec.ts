import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import pg from 'pg';
import { batchDecoder } from '../../src/event-decoding.js';
import { ConversationListProjection } from '../../projections/conversation-list.projection.js';
import { startLiveProjections } from '../../projections/live.js';
import { projectionsOf } from '../../projections/registry.js';
import { GroupStopped } from '../../projections/runtime/failures.js';
import { beginGeneration } from '../../projections/runtime/generations.js';
import { ProjectionGroup } from '../../projections/runtime/group.js';
import { groupOf } from '../../projections/runtime/projection.js';
import { RebuildRunning, rebuildGroup, type RebuildOptions } from '../../projections/runtime/rebuild.js';
import { streamName, type EventStore, type Position } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import type { OpenDatabase } from '../../src/database/database.js';
import { Checkpoints } from '../../src/read-models/checkpoints.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
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
} from './tiny-group.js';
import { CORE_SCHEMA } from '../support/read-schema.js';

const WRITES_A_SECOND = 200;

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

describe('all read models of an installation', () => {
  let api: TestApi;
  let ids: string[];
  /** Beside that of the API. */
  const workers: { stop(): Promise<void> }[] = [];

  beforeAll(async () => {
    api = await startApi();
    ids = await history();
  });
  afterEach(() => Promise.all(workers.splice(0).map((one) => one.stop())));
  afterAll(() => api.stop());

  const rebuild = (options: Partial<RebuildOptions> = {}) =>
    rebuildGroup({
      group: CORE_GROUP,
      projections: projectionsOf(CORE_GROUP),
      decode: batchDecoder(api.backend.keys),
      store: api.backend.store,
      databaseUrl: api.backend.databaseUrl,
      log: quiet,
      signal: new AbortController().signal,
      ...options,
    });

  const made = async (path: string, body: unknown) => (await api.expect(201, 'POST', path, { body })).body.data.id as string;

  /** Something of everything, with what text formats trip over. */
  async function history(): Promise<string[]> {
    const nasty = 'tab\there, "quotes", back\\slash, \\N, new\nline, \r, {brace}, NULL, ünïcödé 🎈';
    const agent = await made('/agents', { name: nasty });
    const team = await made('/teams', { name: 'Team', agentIds: [agent] });
    await made('/companies', { id: 'acme', name: 'Acme\\' });
    const inbox = await made('/inboxes', { name: 'Second' });
    const conversations: string[] = [];
    for (let i = 0; i < 6; i++) {
      const id = await made('/conversations', {
        visitor: { name: `${nasty} ${i}`, email: `v${i}@example.com`, attributes: { [`k ${i}`]: nasty }, companyId: 'acme' },
        inboxId: inbox,
        subject: i % 2 === 0 ? nasty : '\\.',
        message: nasty,
        customAttributes: { plan: nasty, seats: i, vip: i % 2 === 0 },
      });
      conversations.push(id);
    }
    // One after the other over all of them, so that small batches meet each of them again and again.
    for (const body of [{ message: 'one' }, { type: 'note', message: nasty }, { message: 'two', status: 'pending' }])
      for (const id of conversations) await made(`/conversations/${id}/reply`, body);
    for (const id of conversations) {
      await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: [nasty.slice(0, 40), '"', '\\'] } });
      await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: team } });
      await api.expect(200, 'POST', `/conversations/${id}/snooze`, { body: { until: 'next_reply' } });
    }
    // The visitor's last message is not the last one here.
    for (const message of ['first', nasty]) await made(`/conversations/${conversations[1]}/reply`, { type: 'note', message });
    await api.expect(200, 'PUT', `/conversations/${conversations[0]}`, { body: { status: 'resolved' } });
    await api.expect(200, 'POST', `/conversations/${conversations[0]}/rating`, { body: { rating: 2, comment: nasty } });
    return conversations;
  }

  /** Every table of the live generation as bytes, of this test's organization. */
  async function shown(): Promise<Record<string, string[]>> {
    const tables = projectionsOf(CORE_GROUP).flatMap((one) => one.tables);
    const dump: Record<string, string[]> = {};
    for (const { name: table, key } of tables) {
      const { rows } = await sql<{ row: string }>`
        select t::text as row from ${sql.table(`${CORE_SCHEMA}.${table}`)} t where organization_id = ${api.organizationId} order by ${sql.raw(key.join(', '))}`.execute(
        api.backend.database,
      );
      dump[table] = rows.map(({ row }) => row);
    }
    return dump;
  }

  const indexes = async (generation: number) => {
    const { rows } = await sql<{ name: string }>`
      select regexp_replace(indexdef, '_g[0-9]+', '', 'g') as name from pg_indexes where schemaname = 'read' and tablename ~ ${`_g${generation}$`}
      order by 1`.execute(api.backend.database);
    return rows.map(({ name }) => name);
  };

  it('become the same when less is remembered than one batch has', async () => {
    await expectReadModelsEqualFold(api);
    const before = await shown();
    const projections = projectionsOf(CORE_GROUP).map((one) =>
      one.name === 'conversation-list' ? new ConversationListProjection(4_000) : one,
    );
    expect(await rebuild({ projections, maxEvents: 5 })).toMatchObject({ parked: 0 });
    expect(await shown()).toEqual(before);
  });

  it('are byte for byte the same, whatever the batches, and the log gets nothing of it', async () => {
    await expectReadModelsEqualFold(api);
    const live = await shown();
    expect(live['conversations']).toHaveLength(ids.length);
    const [{ generation } = { generation: 0 }] = await api.backend.checkpoints.health();
    const before = await indexes(generation);
    // A log that is shared may be long; one event at a time is for one of the test's own.
    const sizes = api.beganAfter === 'start' ? [1, 7, 5_000] : [501, 5_000];
    const head = api.beganAfter === 'start' ? await api.backend.store.head() : undefined;
    for (const maxEvents of sizes) {
      const result = await rebuild({ maxEvents });
      expect(await shown()).toEqual(live);
      expect(await indexes(result.generation)).toEqual(before);
      expect(result).toMatchObject({ oldDropped: true });
      await expectReadModelsEqualFold(api);
    }
    if (head !== undefined) expect(await api.backend.store.head()).toBe(head);
    const { rows } = await sql<{
      name: string;
    }>`select tablename as name from pg_tables where schemaname = 'read' and tablename ~ '_g[0-9]+$'`.execute(api.backend.database);
    expect(new Set(rows.map(({ name }) => /_g(\d+)$/.exec(name)?.[1])).size).toBe(api.backend.readModels.groups.length);
  });

  it('are read and written as ever while they are rebuilt, and nothing of what is written meanwhile is missing', async () => {
    const faults: string[] = [];
    let rebuilding = true;
    let wrote = 0;
    const writing = async (writer: number) => {
      for (let i = 0; rebuilding; i++) {
        const id = ids[(writer + i) % ids.length] ?? '';
        const answer = await api.call('POST', `/conversations/${id}/messages`, { body: { message: `meanwhile ${writer} ${i}` } });
        if (answer.status !== 201 && answer.status !== 409) faults.push(`write: ${answer.text}`);
        // Its own write is in the list, whichever generation it reads.
        const page = await api.call('GET', '/conversations?limit=100', {
          headers: { 'x-min-position': answer.headers.get('x-position') ?? '' },
        });
        if (answer.status !== 201) continue;
        wrote++;
        if (page.status !== 200) faults.push(`read: ${page.text}`);
        else if (!(page.body.data as { id: string }[]).some((one) => one.id === id)) faults.push(`${id} is not in the list`);
      }
    };
    const writers = [0, 1, 2].map(writing);
    try {
      for (let i = 0; i < 3; i++) await rebuild({ maxEvents: 50 });
    } finally {
      rebuilding = false;
      await Promise.all(writers);
    }
    expect(faults).toEqual([]);
    expect(wrote).toBeGreaterThan(10);
    await expectReadModelsEqualFold(api);
  }, 120_000);

  it('are byte for byte the same when they were rebuilt under two hundred writes a second, in other batches and beside other workers', async () => {
    const faults: string[] = [];
    const conversations = [...ids];
    let wrote = 0;
    let ended = false;
    const write = async (i: number) => {
      const id = conversations[i % conversations.length] ?? '';
      const [path, body] =
        i % 10 === 0
          ? ['/conversations', { visitor: { name: `V ${i}` }, message: `opened ${i}` }]
          : i % 3 === 0
            ? [`/conversations/${id}/tags`, { tags: [`t${i % 17}`] }]
            : [`/conversations/${id}/messages`, { message: `under load ${i}` }];
      const answer = await api.call('POST', path, { body });
      // A conversation takes so many tags, and no more.
      if (answer.status !== 201 && answer.status !== 200 && answer.status !== 422) faults.push(answer.text);
      if (path === '/conversations') conversations.push(answer.body.data.id as string);
      wrote++;
    };
    const writing = (async () => {
      const inFlight = new Set<Promise<void>>();
      const began = performance.now();
      for (let sent = 0; !ended; await new Promise((resolve) => setTimeout(resolve, 5)))
        // A machine that cannot keep up does what it can.
        for (; sent < ((performance.now() - began) * WRITES_A_SECOND) / 1_000 && inFlight.size < 20; sent++) {
          const one = write(sent).finally(() => inFlight.delete(one));
          inFlight.add(one);
        }
      await Promise.all(inFlight);
    })();
    try {
      for (const maxEvents of [500, 5_000]) {
        const before = wrote;
        // As often as it takes for writes to be many beside it.
        for (let done = false; !done || wrote < before + 200; done = true) {
          const running = rebuild({ maxEvents });
          // Another worker goes on with the live rows, if there is one.
          await sql`update read.checkpoints set owner = null, lease_until = '-infinity', epoch = epoch + 1 where live`.execute(
            api.backend.database,
          );
          await running;
        }
        workers.push(await startLiveProjections(api.backend, {}));
      }
    } finally {
      ended = true;
      await writing;
    }
    expect(faults).toEqual([]);
    await expectReadModelsEqualFold(api);
    const live = await shown();
    expect(live['conversations']?.length).toBe(conversations.length);
    for (const maxEvents of api.beganAfter === 'start' ? [13, 1_000] : [1_000]) {
      await rebuild({ maxEvents });
      expect(await shown()).toEqual(live);
    }
    await expectReadModelsEqualFold(api);
  }, 240_000);

  it('are swapped once nobody reads the old ones, and who comes meanwhile need not wait for that', async () => {
    const analyst = new pg.Client({ connectionString: api.backend.databaseUrl });
    await analyst.connect();
    await analyst.query('begin');
    const { rows: before } = await analyst.query<{ id: string }>(`select id from ${CORE_SCHEMA}.conversations`);
    let swapping = false;
    const running = rebuild({ onProgress: ({ phase }) => (swapping ||= phase === 'swapping') });
    await eventually('it wants to swap', async () => (swapping ? true : undefined), 30_000);
    const began = performance.now();
    let reads = 0;
    for (; performance.now() - began < 2_000; reads++) await api.expect(200, 'GET', '/conversations?limit=1');
    expect((await analyst.query(`select id from ${CORE_SCHEMA}.conversations`)).rows).toHaveLength(before.length);
    await analyst.query('commit');
    await analyst.end();
    expect(await running).toMatchObject({ oldDropped: true });
    // Each attempt lets readers wait for 50 ms at most, and there is one a second.
    expect(reads).toBeGreaterThan(20);
    await expectReadModelsEqualFold(api);
  }, 60_000);
});

describe('a rebuild', () => {
  let created: TestDatabase;
  let database: OpenDatabase;
  let store: EventStore;
  let count = 0;
  const ending: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    created = await createDatabase();
    database = openWorkerDatabase(created.url);
    store = await openPostgresEventStore({ url: created.url });
  });
  afterEach(async () => {
    await Promise.all(ending.splice(0).map((end) => end()));
    await store.close();
    await database.close();
    await created.drop();
  });

  const optionsOf = (suffix: string): RebuildOptions => ({
    group: `group${suffix}`,
    projections: tinyProjections(suffix),
    decode: tinyDecode(),
    store,
    databaseUrl: created.url,
    log: quiet,
    signal: new AbortController().signal,
  });

  /** The live group, in this process. */
  function live(): string {
    const suffix = `_r${++count}`;
    const abort = new AbortController();
    const ended = new ProjectionGroup({ ...optionsOf(suffix), name: `group${suffix}`, database: database.kysely }).run(abort.signal);
    ending.push(() => {
      abort.abort();
      return ended;
    });
    return suffix;
  }

  const reached = async (suffix: string, position: string) =>
    expect(await new Checkpoints(database.kysely, tinyShapes(suffix)).waitFor(`group${suffix}`, position as Position, 10_000)).toBe(
      'reached',
    );

  const generations = async () =>
    (await new Checkpoints(database.kysely, new Map()).generations()).map(({ live: shown, phase }) => ({ shown, phase }));

  const tables = async () => {
    const { rows } = await sql<{
      name: string;
    }>`select tablename as name from pg_tables where schemaname = 'read' and tablename ~ '_g'`.execute(database.kysely);
    return rows.map(({ name }) => name);
  };

  /** A process that sends itself a signal when its rebuild reaches a phase. */
  function startRebuild(suffix: string, phase: string, signal: string) {
    const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
    const child = spawn(
      process.execPath,
      ['--import', path('../support/typescript.mjs'), path('./tiny-rebuild.ts'), created.url, suffix, phase, signal],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const exited = once(child, 'exit');
    ending.push(async () => {
      child.kill('SIGKILL');
      await exited;
    });
    return { child, exited, output: () => output };
  }

  /** A lease that nobody renews any more has run out. */
  const passTime = () =>
    sql`update read.checkpoints set lease_until = lease_until - interval '1 minute' where not live`.execute(database.kysely);

  it('that is killed leaves the live read models as they are and nothing that the next one does not remove', async () => {
    const suffix = live();
    const writer = new Writer(store);
    for (let i = 0; i < 30; i++) await writer.write({ stream: conversation(String(i % 7)), data: { n: i } });
    await reached(suffix, await writer.write({ stream: conversation('last') }));
    for (const phase of ['applying', 'before commit', 'filling', 'indexing', 'catching up', 'swapping', 'dropping the old tables']) {
      const { child, exited } = startRebuild(suffix, phase, 'SIGKILL');
      await exited;
      expect({ phase, signal: child.signalCode }).toEqual({ phase, signal: 'SIGKILL' });
      expect({ phase, rows: await actualRows(database, suffix) }).toEqual({ phase, rows: expectedRows(writer.written) });
      await reached(suffix, await writer.write({ stream: conversation(String(count)), data: { n: 1 } }));
      expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
      expect((await generations()).length).toBe(2);
      await passTime();
    }
    await rebuildGroup(optionsOf(suffix));
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    expect(await tables()).toHaveLength(2);
    await reached(suffix, await writer.write({ stream: conversation('after') }));
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  }, 120_000);

  it('that was frozen is replaced by the next one, and ends when it wakes without having changed anything', async () => {
    const suffix = live();
    const writer = new Writer(store);
    await reached(suffix, await writer.write({ stream: conversation('a') }, { stream: conversation('b') }));
    const frozen = startRebuild(suffix, 'indexing', 'SIGSTOP');
    await eventually('it is frozen', async () => ((await generations()).some(({ phase }) => phase !== null) ? true : undefined), 60_000);
    await eventually('it holds still', async () => (frozen.output().includes('indexing') ? true : undefined), 60_000);
    // Its lease runs out within seconds; until then it might live.
    const result = await rebuildGroup(optionsOf(suffix));
    frozen.child.kill('SIGCONT');
    await frozen.exited;
    expect(frozen.child.exitCode).toBe(1);
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    const [health] = await new Checkpoints(database.kysely, tinyShapes(suffix)).health();
    expect(health?.generation).toBe(result.generation);
    await reached(suffix, await writer.write({ stream: conversation('a') }));
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  }, 120_000);

  it('goes on after one that was killed before the database’s clock was set back by a day', async () => {
    const suffix = live();
    const writer = new Writer(store);
    await reached(suffix, await writer.write({ stream: conversation('a') }));
    await startRebuild(suffix, 'indexing', 'SIGKILL').exited;
    await sql`update read.checkpoints set lease_until = lease_until + interval '1 day' where not live`.execute(database.kysely);
    await rebuildGroup(optionsOf(suffix));
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    expect(await tables()).toHaveLength(2);
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  }, 60_000);

  it('goes on when the session that keeps its lease is cut', async () => {
    const suffix = live();
    const writer = new Writer(store);
    await reached(suffix, await writer.write({ stream: conversation('a') }, { stream: conversation('b') }));
    // The server ends that session while it renews, twice.
    await sql`create sequence public.cuts`.execute(database.kysely);
    await sql`
      create function public.cut() returns trigger language plpgsql as $$ begin
        if current_setting('application_name') = 'threadlog-rebuild-lease' and nextval('public.cuts') <= 2
        then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5); end if;
        return new;
      end $$`.execute(database.kysely);
    await sql`create trigger cut before update on read.checkpoints for each row execute function public.cut()`.execute(database.kysely);
    let proceed = () => {};
    const held = new Promise<void>((resolve) => (proceed = resolve));
    const running = rebuildGroup({
      ...optionsOf(suffix),
      decode: async (events) => {
        await held;
        return await tinyDecode()(events);
      },
    });
    const ended = running.catch((error: unknown) => error);
    const cuts = async () => {
      const { rows } = await sql<{ n: number }>`select last_value::int as n from public.cuts`.execute(database.kysely);
      return (rows[0]?.n ?? 0) > 1 ? true : undefined;
    };
    await eventually('its renewals are cut', cuts, 20_000);
    await reached(suffix, await writer.write({ stream: conversation('a') }));
    proceed();
    expect(await ended).toMatchObject({ oldDropped: true });
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  }, 60_000);

  it('begins at most once at a time, however many are asked for at once', async () => {
    const suffix = live();
    const group = groupOf(`group${suffix}`, tinyProjections(suffix));
    const begun = await Promise.all(['a', 'b', 'c', 'd'].map((owner) => beginGeneration(database.kysely, group, store.log.id, owner)));
    expect(begun.filter((one) => one !== undefined)).toHaveLength(1);
  });

  it('is refused while another one lives', async () => {
    const suffix = live();
    await reached(suffix, await new Writer(store).write({ stream: conversation('a') }));
    let proceed = () => {};
    const held = new Promise<void>((resolve) => (proceed = resolve));
    let began = false;
    const first = rebuildGroup({
      ...optionsOf(suffix),
      decode: async (events) => {
        began = true;
        await held;
        return await tinyDecode()(events);
      },
    });
    await eventually('it began', async () => (began ? true : undefined));
    await expect(rebuildGroup(optionsOf(suffix))).rejects.toThrow(RebuildRunning);
    proceed();
    expect(await first).toMatchObject({ events: 1, oldDropped: true });
  }, 60_000);

  it('that is interrupted, or cannot go on, removes what it made', async () => {
    const suffix = live();
    const writer = new Writer(store);
    await reached(suffix, await writer.write({ stream: conversation('a') }));
    const interrupt = new AbortController();
    const interrupted = rebuildGroup({
      ...optionsOf(suffix),
      signal: interrupt.signal,
      onProgress: ({ phase }) => phase === 'catching up' && interrupt.abort(),
    });
    await expect(interrupted).rejects.toThrow();
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    const throwing = tinyProjections(suffix, {
      at: () => {
        throw Object.assign(new Error('the disk is full'), { code: '53100' });
      },
    });
    await expect(rebuildGroup({ ...optionsOf(suffix), projections: throwing })).rejects.toThrow('the disk is full');
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
    expect(await tables()).toHaveLength(2);
  });

  it('parks what cannot be handled, and gives up where that may not be parked', async () => {
    const suffix = live();
    const writer = new Writer(store);
    const good = new Writer(store);
    await writer.write({ stream: conversation('x') }, { stream: conversation('x'), data: { boom: true } }, { stream: conversation('x') });
    await reached(suffix, await good.write({ stream: conversation('y') }));
    const before = await actualRows(database, suffix);
    expect(await rebuildGroup(optionsOf(suffix))).toMatchObject({ parked: 1 });
    expect(await actualRows(database, suffix)).toEqual(before);
    const parked = await database.kysely.selectFrom('keep.parked').select(['stream', 'revision']).execute();
    // That of the generation that is gone went with it.
    expect(parked).toEqual([{ stream: conversation('x'), revision: 1 }]);
    const settings = tinyDecode();
    await good.write({ stream: streamName('inbox', 'org', 'main') });
    const refusing = rebuildGroup({
      ...optionsOf(suffix),
      decode: async (events) => {
        const { decoded, failed } = await settings(events);
        const inboxes = events
          .filter(({ stream }) => stream.startsWith('inbox-'))
          .map((event) => ({ event, error: new Error('no codec') }));
        return { decoded: decoded.filter(({ kind }) => kind !== 'inbox'), failed: [...failed, ...inboxes] };
      },
    });
    await expect(refusing).rejects.toThrow(GroupStopped);
    expect(await generations()).toEqual([{ shown: true, phase: null }]);
  });

  it('replaces read models of another log, or of one that was restored from an older backup', async () => {
    const suffix = live();
    const writer = new Writer(store);
    await reached(suffix, await writer.write({ stream: conversation('a') }));
    await Promise.all(ending.splice(0).map((end) => end()));
    await database.kysely
      .updateTable('read.checkpoints')
      .set({ position: '9'.repeat(19), stopped: 'beyond the end' })
      .execute();
    const result = await rebuildGroup(optionsOf(suffix));
    expect(result.position < '9').toBe(true);
    await sql`update read.checkpoints set log_id = 'another'`.execute(database.kysely);
    await rebuildGroup(optionsOf(suffix));
    const [health] = await new Checkpoints(database.kysely, new Map()).generations();
    expect(health).toMatchObject({ logId: store.log.id, position: result.position, stopped: null });
    expect(await actualRows(database, suffix)).toEqual(expectedRows(writer.written));
  });
});
