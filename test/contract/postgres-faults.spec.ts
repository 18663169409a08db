import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { InvalidAppend, OutcomeUnknown, StoreUnavailable, streamName } from '../../src/event-store/event-store.js';
import type { EventStore, NewEvent, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { createDatabase } from '../support/database.js';
import type { TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';

const LOCK = /perform pg_advisory_xact_lock\((\d+)\);/;

describe('the Postgres log when the server misbehaves', () => {
  let database: TestDatabase;
  let admin: pg.Client;
  let store: EventStore;
  const warnings: string[] = [];

  beforeAll(async () => {
    database = await createDatabase();
    admin = new pg.Client({ connectionString: database.url });
    await admin.connect();
    await admin.query(`do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$`);
    store = await openPostgresEventStore({ url: database.url, onWarning: (warning) => warnings.push(warning) });
  });
  afterAll(async () => {
    await store.close();
    await admin.end();
    await database.drop();
  });

  it('warns of settings that can lose acknowledged events', async () => {
    const { rows } = await admin.query<{ fsync: string }>(`select current_setting('fsync') as fsync`);
    expect(warnings.some((warning) => warning.includes('fsync'))).toBe(rows[0]!.fsync !== 'on');
  });

  it('appends with synchronous_commit on, whatever the database says', async () => {
    await admin.query('create table public.seen_setting (value text)');
    await admin.query(`
      create function public.note_setting() returns trigger language plpgsql as $$
      begin insert into public.seen_setting values (current_setting('synchronous_commit')); return null; end $$`);
    await admin.query('create trigger note_setting after insert on log.events for each statement execute function public.note_setting()');
    await append(newStream(), 'none', [event()]);
    await admin.query('drop trigger note_setting on log.events');
    const { rows } = await admin.query<{ value: string; here: string }>(
      `select value, current_setting('synchronous_commit') as here from public.seen_setting`,
    );
    expect(rows).toEqual([{ value: 'on', here: expect.any(String) }]);
  });

  it('lets an append that the server refuses harm none of its neighbours', async () => {
    await admin.query(`
      create function public.refuse_poison() returns trigger language plpgsql as $$
      begin
        if new.data like '%poison%' then raise exception 'poisoned' using errcode = 'check_violation'; end if;
        if new.data like '%malformed%' then raise exception 'malformed' using errcode = 'data_exception'; end if;
        return new;
      end $$`);
    await admin.query('create trigger refuse_poison before insert on log.events for each row execute function public.refuse_poison()');
    const texts = Array.from({ length: 30 }, (_, i) => (i === 11 ? 'poison' : i === 19 ? 'malformed' : 'fine'));
    const streams = texts.map(newStream);
    const answers = await Promise.all(texts.map((text, i) => append(streams[i]!, 'none', [event(text)]).catch((error: Error) => error)));
    await admin.query('drop trigger refuse_poison on log.events');
    for (const [i, answer] of answers.entries()) {
      if (i === 11) expect(answer).toBeInstanceOf(StoreUnavailable);
      else if (i === 19) expect(answer).toBeInstanceOf(InvalidAppend);
      else expect(answer).toMatchObject({ outcome: 'appended', revision: 0 });
      expect(await readAll(streams[i]!)).toHaveLength(texts[i] === 'fine' ? 1 : 0);
    }
  });

  it.each([
    ['57P01, sessions terminated', 'pg_terminate_backend(pid)'],
    ['57014, statements cancelled', 'pg_cancel_backend(pid)'],
  ])('survives %s under load, with every append answered as it is stored', async (_, kill) => {
    const after = await store.head();
    const streams = Array.from({ length: 12 }, newStream);
    const sent: string[] = [];
    let writing = true;
    const writers = streams.map(async (stream) => {
      for (let revision = -1; writing; revision += 1) {
        const one = event();
        const answer = await append(stream, revision < 0 ? 'none' : revision, [one]);
        expect(answer).toMatchObject({ outcome: 'appended', revision: revision + 1 });
        sent.push(one.id);
      }
    });
    for (let round = 0; round < 15; round += 1) {
      const before = sent.length;
      await eventually(() => sent.length > before + 12);
      await admin.query(`select ${kill} from pg_stat_activity where application_name like 'threadlog:%' and datname = current_database()`);
    }
    writing = false;
    await Promise.all(writers);
    const stored = (await Promise.all(streams.map(readAll))).flat();
    expect(stored.map((e) => e.id).sort()).toEqual([...sent].sort());
    expect((await readFeed(after, stored.length)).map((e) => e.id).sort()).toEqual([...sent].sort());
  });

  it('tells at the deadline what was sent from what still waited, while the lock is held elsewhere', async () => {
    const source = await admin.query<{ source: string }>(`select pg_get_functiondef('log.append_many'::regproc) as source`);
    const key = LOCK.exec(source.rows[0]!.source)![1]!;
    await admin.query('begin');
    await admin.query(`select pg_advisory_xact_lock(${key})`);
    const [sent, behind] = [newStream(), newStream()];
    const events = [event(), event()];
    const answers = await Promise.all([
      append(sent, 'none', [events[0]!], 2_000).catch((error: Error) => error),
      // Behind the first on its stream: it certainly was not sent.
      append(sent, 0, [events[1]!], 1_500).catch((error: Error) => error),
    ]);
    expect(answers[0]).toBeInstanceOf(OutcomeUnknown);
    expect(answers[1]).toBeInstanceOf(StoreUnavailable);
    await admin.query('commit');
    // The same again gives the one true answer.
    expect(await append(sent, 'none', [events[0]!])).toMatchObject({ outcome: 'appended', revision: 0 });
    expect(await append(behind, 'none', [event()])).toMatchObject({ outcome: 'appended' });
    expect((await readAll(sent)).map((e) => e.id)).toEqual([events[0]!.id]);
  });

  it('waits out a server that takes no writes for a while', async () => {
    // As a standby would answer after a failover: 25006.
    await admin.query(`
      create function public.standby() returns trigger language plpgsql as $$
      begin raise exception 'cannot execute INSERT in a read-only transaction' using errcode = '25006'; end $$`);
    await admin.query('create trigger standby before insert on log.events for each statement execute function public.standby()');
    const stream = newStream();
    // A deadline that passes while an attempt is under way cannot know; one that passes between two attempts does.
    await eventually(async () => {
      const answer = await append(stream, 'none', [event()], 300).catch((error: unknown) => error);
      if (!(answer instanceof OutcomeUnknown)) expect(answer).toBeInstanceOf(StoreUnavailable);
      return answer instanceof StoreUnavailable;
    });
    const waiting = append(stream, 'none', [event()], 10_000);
    await admin.query('drop trigger standby on log.events');
    expect(await waiting).toMatchObject({ outcome: 'appended', revision: 0 });
  });

  it.each(['40001', '40P01', '53100', '53200', '53300', '55P03', '57014', '58030'])(
    'sends the same events again after %s, and tells at the deadline that nothing was written',
    async (code) => {
      await admin.query('create sequence public.attempts');
      await admin.query(`
        create function public.fail() returns trigger language plpgsql as $$
        begin if nextval('public.attempts') <= 1003 then raise exception 'injected' using errcode = '${code}'; end if; return null; end $$`);
      await admin.query('create trigger fail before insert on log.events for each statement execute function public.fail()');
      // A deadline that passes while an attempt is under way cannot know; one that passes between two attempts does.
      await eventually(async () => {
        const answer = await append(newStream(), 'none', [event()], 100).catch((error: unknown) => error);
        if (!(answer instanceof OutcomeUnknown)) expect(answer).toBeInstanceOf(StoreUnavailable);
        return answer instanceof StoreUnavailable;
      });
      await admin.query("select setval('public.attempts', 1000)");
      const stream = newStream();
      const one = event();
      // Three failures, with the pauses between them.
      expect(await append(stream, 'none', [one], 10_000)).toMatchObject({ outcome: 'appended', revision: 0 });
      expect((await admin.query('select last_value::int from public.attempts')).rows[0]).toEqual({ last_value: 1004 });
      await admin.query('drop trigger fail on log.events; drop function public.fail; drop sequence public.attempts');
      expect((await readAll(stream)).map(({ id }) => id)).toEqual([one.id]);
    },
  );

  it('bounds a batch in bytes, whatever number of events was asked for, and leaves none out', async () => {
    const after = await store.head();
    const stream = newStream();
    for (let i = 0; i < 30; i += 1) await append(stream, i === 0 ? 'none' : i - 1, [event('x'.repeat(i % 3 === 0 ? 890_000 : 400_000))]);
    const seen: number[] = [];
    const control = new AbortController();
    const check = (batch: readonly StoredEvent[]) => {
      expect(batch.reduce((bytes, e) => bytes + e.data.length, 0)).toBeLessThan(8_000_000);
      seen.push(...batch.map((e) => e.revision));
    };
    for await (const batch of store.feed(after, { maxEvents: 1_000, signal: control.signal })) {
      check(batch.events);
      expect(batch.caughtUp).toBe(seen.length === 30);
      if (batch.caughtUp) control.abort();
    }
    const all = Array.from({ length: 30 }, (_, i) => i);
    expect(seen.splice(0)).toEqual(all);
    for await (const batch of store.read(stream)) check(batch);
    expect(seen.splice(0)).toEqual(all);
    for await (const batch of store.read(stream, { backwards: true })) check(batch);
    expect(seen).toEqual(all.reverse());
  });

  it('tells callers at once when more waits than the memory should hold', async () => {
    await admin.query('begin');
    await admin.query('lock table log.events in access exclusive mode');
    const large = 'x'.repeat(899_000);
    const answers = Promise.allSettled(Array.from({ length: 90 }, () => append(newStream(), 'none', [event(large)], 1_000)));
    const refused = append(newStream(), 'none', [event()], 60_000);
    await expect(refused).rejects.toThrow('too many appends are waiting');
    await admin.query('rollback');
    await answers;
    expect(await append(newStream(), 'none', [event()])).toMatchObject({ outcome: 'appended' });
  });

  it('refuses to open what is no log', async () => {
    await expect(openPostgresEventStore({ url: 'postgres://nobody@127.0.0.1:1/none' })).rejects.toThrow(StoreUnavailable);
    const empty = new URL(database.url);
    empty.pathname = '/postgres';
    await expect(openPostgresEventStore({ url: empty.href })).rejects.toThrow('run the migrations first');
  });

  it('finds its way by the indexes, also with plans made while the table was empty', async () => {
    const fresh = await createDatabase();
    const other = await openPostgresEventStore({ url: fresh.url });
    const stream = newStream();
    const late = () => AbortSignal.timeout(15_000);
    const use = async () => {
      for await (const batch of other.read(stream)) expect(batch.length).toBeGreaterThan(0);
      for await (const batch of other.read(stream, { backwards: true, limit: 3 })) expect(batch.length).toBe(3);
      await Promise.all(Array.from({ length: 20 }, () => other.append(newStream(), 'none', [event()], late())));
      for await (const batch of other.feed(await other.head(), { maxEvents: 10, signal: new AbortController().signal }))
        if (batch.caughtUp) break;
    };
    for (let i = 0; i < 12; i += 1) await use();
    for (let i = 0; i < 20; i += 1)
      await other.append(
        stream,
        i === 0 ? 'none' : i * 500 - 1,
        Array.from({ length: 500 }, () => event()),
        late(),
      );
    await use();
    // A session tells its statistics when it ends.
    await other.close();
    const client = new pg.Client({ connectionString: fresh.url });
    await client.connect();
    let sessions = 1;
    const count = async () => {
      const { rows } = await client.query<{ count: string }>(`select count(*) from pg_stat_activity where datname = current_database()`);
      sessions = Number(rows[0]!.count);
    };
    for (await count(); sessions > 1; await count()) await new Promise((resolve) => setTimeout(resolve, 5));
    const { rows } = await client.query<{ seq_scan: string; idx_scan: string }>(
      `select seq_scan, idx_scan from pg_stat_user_tables where schemaname = 'log' and relname = 'events'`,
    );
    await client.end();
    await fresh.drop();
    expect(Number(rows[0]!.idx_scan)).toBeGreaterThan(100);
    // Making the table and its indexes reads it.
    expect(Number(rows[0]!.seq_scan)).toBeLessThan(5);
  });

  function append(stream: StreamName, expected: 'none' | number, events: readonly NewEvent[], ms = 15_000) {
    return store.append(stream, expected, events, AbortSignal.timeout(ms));
  }

  async function readAll(stream: StreamName): Promise<StoredEvent[]> {
    const found: StoredEvent[] = [];
    for await (const batch of store.read(stream)) found.push(...batch);
    return found;
  }

  async function readFeed(after: Awaited<ReturnType<EventStore['head']>>, count: number): Promise<StoredEvent[]> {
    const found: StoredEvent[] = [];
    const control = new AbortController();
    for await (const batch of store.feed(after, { maxEvents: 100, signal: control.signal })) {
      found.push(...batch.events);
      if (found.length >= count) control.abort();
    }
    return found;
  }
});

function newStream(): StreamName {
  return streamName('conversation', randomUUID(), randomUUID());
}

function event(text = ''): NewEvent {
  return { id: randomUUID(), type: 'ReplySent', data: JSON.stringify({ text }), metadata: '{}' };
}
