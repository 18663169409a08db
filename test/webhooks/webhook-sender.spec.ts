import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import type { ModuleRef } from '@nestjs/core';
import { CommandBus } from '@nestjs/cqrs';
import fc from 'fast-check';
import { type Kysely, type KyselyPlugin, type RawBuilder, sql } from 'kysely';
import { WebhookSender } from '../../projections/webhook-sender.js';
import { jobOf } from '../../projections/webhooks.reactor.js';
import { Jobs } from '../../projections/runtime/jobs.js';
import { UnchangedAnswerRows } from '../../src/commands/idempotency.js';
import { Transactor } from '../../src/commands/transactor.js';
import { PublicEventsReader } from '../../src/conversations/public-events.reader.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { type EventStore, streamName } from '../../src/event-store/event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { OutboundClient } from '../../src/http-out/outbound-client.js';
import { Reachable } from '../../src/http-out/reachable.js';
import { randomIds } from '../../src/ids.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { Cursors } from '../../src/read-models/paging.js';
import { MasterKey } from '../../src/security/sealing.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { DeliveryReader } from '../../src/webhooks/delivery.reader.js';
import {
  DELIVER_WEBHOOK,
  giveUpDeliveries,
  insertDeliveries,
  type NewDelivery,
  removeOldDeliveries,
  sendSoon,
} from '../../src/webhooks/delivery.rows.js';
import { ToldEvents } from '../../src/webhooks/webhook.told-events.js';
import { PAUSES } from '../../src/webhooks/retry-schedule.js';
import { WEBHOOK_DISABLED } from '../../src/webhooks/webhook-event.js';
import { newWebhookSecret, WebhookSecrets } from '../../src/webhooks/webhook.secrets.js';
import { createWebhook, disableWebhook, enableWebhook, webhookAggregate, type WebhookDecision } from '../../src/webhooks/webhook.js';
import { startApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { type Receiver, startReceiver } from '../support/receiver.js';
import { TestClock } from '../support/test-clock.js';

describe('the statements that claim and record', () => {
  let database: TestDatabase;
  let opened: OpenDatabase;
  let db: Kysely<Database>;
  beforeAll(async () => {
    database = await createDatabase();
    opened = openDatabase({ url: database.url, poolSize: 4, name: 'test', onError: () => undefined });
    db = opened.kysely;
  });
  afterAll(async () => {
    await opened?.close();
    await database?.drop();
  });

  interface Claimed {
    readonly job: number;
    readonly attempt: number;
    readonly id: string;
    readonly stream_id: string;
    readonly revision: number;
  }
  type Outcome = 'delivered' | 'again' | 'given_up' | 'unsent';
  const take = async (owner: string, most: number, room = 8) =>
    (
      await sql<Claimed>`
        select * from keep.take_deliveries(${DELIVER_WEBHOOK}, '{}'::jsonb, ${room}, ${most}, ${owner}, '15 s'::interval, null)`.execute(db)
    ).rows;
  const record = async (results: readonly (readonly [Claimed, Outcome])[]) =>
    sql`select * from keep.record_deliveries(${JSON.stringify(
      results.map(([{ job, attempt, id }, outcome]) => ({
        job,
        attempt,
        id,
        organization_id: 'o',
        webhook_id: 'w',
        outcome,
        entry: outcome === 'unsent' ? null : { status: outcome === 'delivered' ? 200 : 500 },
        tries: 1,
        status: outcome === 'delivered' ? 200 : 500,
        error: outcome === 'delivered' ? null : 'x',
        delay_ms: 0,
        endpoint_failed: false,
      })),
    )}::jsonb, '5 days'::interval, null)`.execute(db);
  const all = (claims: readonly Claimed[], outcome: Outcome) => record(claims.map((claim) => [claim, outcome]));
  const delivery = (given: Partial<NewDelivery>): NewDelivery => ({
    id: randomIds.next(),
    organizationId: 'o',
    webhookId: 'w',
    event: 'message.received',
    kind: 'conversation',
    streamId: 'c',
    revision: 0,
    index: 0,
    position: '0',
    ...given,
  });
  const add = async (conversations: number, events: number, webhookId = 'w') => {
    const deliveries = Array.from({ length: conversations * events }, (_, i) =>
      delivery({ webhookId, streamId: `c${i % conversations}`, revision: Math.floor(i / conversations), position: String(i) }),
    );
    await db.transaction().execute(async (tx) => {
      const made = await insertDeliveries(tx, deliveries, undefined);
      await new Jobs(db, undefined).add(made.map(jobOf), tx);
    });
    return deliveries;
  };
  const clear = () => sql`truncate keep.jobs, keep.webhook_deliveries, keep.webhook_health`.execute(db);

  test('lose nothing, keep the order, and believe whoever has a delivery, whatever the workers do and when they die', async () => {
    const outcome = fc.constantFrom<Outcome>('delivered', 'again', 'given_up', 'unsent');
    const step = fc.record({
      what: fc.constantFrom('take', 'take', 'record', 'record', 'dies', 'late', 'late and present'),
      who: fc.constantFrom('a', 'b'),
      many: fc.integer({ min: 1, max: 4 }),
      outcome,
      lateOutcome: outcome,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        await clear();
        const deliveries = await add(3, 3);
        const held: Record<string, Claimed[]> = { a: [], b: [] };
        /** Of workers that are thought dead, and may still record. */
        const lost: Claimed[] = [];
        /** The last attempt at a job that has not ended. */
        const attempts = new Map<number, number>();
        const ended = new Map<string, number[]>();
        const arrived = new Set<string>();
        const takes = (claims: readonly Claimed[]) => {
          for (const { job, attempt, stream_id: lane, revision } of claims) {
            attempts.set(job, attempt);
            // Only the first of each lane.
            expect(revision).toBe((ended.get(lane) ?? []).length);
          }
          return claims;
        };
        const records = async (...results: readonly (readonly [Claimed, Outcome])[]) => {
          const isLate = ({ job, attempt }: Claimed) => attempts.get(job) !== attempt;
          const inOrder = [...results.filter(([claim]) => isLate(claim)), ...results.filter(([claim]) => !isLate(claim))];
          for (const [claim, result] of inOrder) {
            const late = isLate(claim);
            if (result === 'delivered') arrived.add(claim.id);
            if (late || !(arrived.has(claim.id) || result === 'given_up')) continue;
            attempts.delete(claim.job);
            ended.set(claim.stream_id, [...(ended.get(claim.stream_id) ?? []), claim.revision]);
          }
          await record(results);
          const { rows } = await sql<{ id: string }>`select id from keep.webhook_deliveries where status = 'delivered'`.execute(db);
          expect(new Set(rows.map(({ id }) => id))).toEqual(arrived);
        };
        for (const { what, who, many, outcome: present, lateOutcome } of steps) {
          const mine = held[who] ?? [];
          if (what === 'take') {
            const claims = takes(await take(who, many));
            // Nobody else has it.
            const others = Object.values(held).flat();
            for (const { job } of claims) expect(others.filter((one) => one.job === job)).toEqual([]);
            mine.push(...claims);
          } else if (what === 'record') await records(...mine.splice(0, many).map((claim) => [claim, present] as const));
          else if (what === 'dies') {
            // Its leases run out, and it does not know.
            const gone = mine.splice(0);
            lost.push(...gone);
            await sql`update keep.jobs set leased_until = '-infinity' where id = any (${gone.map(({ job }) => job)}::bigint[])`.execute(db);
          } else if (what === 'late') await records(...lost.splice(0, many).map((claim) => [claim, lateOutcome] as const));
          else {
            // The same worker, which took a delivery again after its lease had run out, records both attempts together.
            const stale = lost.splice(0, many);
            const again = mine.filter(({ job }) => stale.some((one) => one.job === job));
            for (const one of again) mine.splice(mine.indexOf(one), 1);
            await records(...again.map((claim) => [claim, present] as const), ...stale.map((claim) => [claim, lateOutcome] as const));
          }
        }
        // Everything that is left is taken by somebody and ends. What had been lost is recorded after that.
        await sql`update keep.jobs set leased_until = null`.execute(db);
        for (let round = 0; ; round++) {
          const claims = takes(await take('c', 100));
          if (claims.length === 0) break;
          expect(round).toBeLessThan(10);
          await records(...claims.map((claim) => [claim, 'delivered'] as const));
        }
        await records(...[...lost, ...Object.values(held).flat()].map((claim) => [claim, 'again'] as const));
        expect([...ended.values()]).toEqual([
          [0, 1, 2],
          [0, 1, 2],
          [0, 1, 2],
        ]);
        const { rows } = await sql<{ id: string }>`
          select id from keep.webhook_deliveries where status in ('delivered', 'given_up')`.execute(db);
        expect(rows).toHaveLength(deliveries.length);
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  test('take of each endpoint as much as it may have, however much waits for another', async () => {
    await clear();
    await add(50, 1, 'much');
    await add(2, 1, 'little');
    const claims = await take('a', 10, 4);
    expect(claims).toHaveLength(6);
    expect(await take('b', 100, 0)).toEqual([]);
  });

  test('send once more what was asked for again, also while it is under way, and do not hold up what waits behind it', async () => {
    await clear();
    await add(1, 3);
    const again = (id: string) => sendSoon(db, { id, organizationId: 'o', webhookId: 'w' }, undefined);
    const statusOf = async (id: string) =>
      (await sql<{ status: string }>`select status from keep.webhook_deliveries where id = ${id}`.execute(db)).rows[0]?.status;
    const takeOne = async () => {
      const [claim, ...more] = await take('a', 10);
      expect(more).toEqual([]);
      if (claim === undefined) throw new Error('nothing was due');
      return claim;
    };
    const first = await takeOne();
    await again(first.id);
    // Asked for while it is under way: nobody else gets it, and it is due as soon as that attempt has ended.
    expect(await take('b', 10)).toEqual([]);
    await all([first], 'delivered');
    expect(await statusOf(first.id)).toBe('pending');
    const both = await take('a', 10);
    expect(both.map(({ revision }) => revision).toSorted((a, b) => a - b)).toEqual([0, 1]);
    await all(both, 'delivered');
    expect(await statusOf(first.id)).toBe('delivered');
    // What failed and is asked for again meanwhile keeps its place before the others.
    await add(1, 1);
    const last = await takeOne();
    await again(last.id);
    await all([last], 'again');
    const repeated = await takeOne();
    expect(repeated.id).toBe(last.id);
    await all([repeated], 'again');
    // One that waits behind it overtakes it.
    const waiting = (await sql<{ key: string }>`select key from keep.jobs where not head`.execute(db)).rows[0]?.key ?? '';
    await again(waiting);
    expect((await take('a', 10)).map(({ id }) => id).toSorted()).toEqual([last.id, waiting].toSorted());
  });

  test('give up what waits for an endpoint, and leave no lane without a head to what is added meanwhile', async () => {
    await clear();
    await add(1, 2);
    const adding = await db.startTransaction().execute();
    const late = delivery({ streamId: 'c0', revision: 2 });
    await insertDeliveries(adding, [late], undefined);
    await new Jobs(db, undefined).add([jobOf(late)], adding);
    // It waits for the lane, and does not know of what is being added.
    const ending = db.transaction().execute((tx) => giveUpDeliveries(tx, 'o', 'w', 'it was disabled'));
    // Other tests wait in other databases of the server.
    const waiting = sql`select from pg_locks where locktype = 'advisory' and not granted
      and database = (select oid from pg_database where datname = current_database())`;
    const waits = async () => (await waiting.execute(db)).rows.length > 0;
    await Promise.race([ending, eventually(waits)]);
    await adding.commit().execute();
    await ending;
    expect((await take('a', 10)).map(({ id }) => id)).toEqual([late.id]);
    const { rows } = await sql<{ status: string; last_error: string | null }>`
      select status, last_error from keep.webhook_deliveries where id <> ${late.id}`.execute(db);
    expect(rows).toEqual(Array.from({ length: 2 }, () => ({ status: 'given_up', last_error: 'it was disabled' })));
  });

  test('read few pages, however much waits and was delivered', async () => {
    await clear();
    await sql`
      insert into keep.jobs (kind, key, lane, receiver, head, organization_id, payload, due_at)
      select ${DELIVER_WEBHOOK}, gen_random_uuid()::text, 'lane ' || n / 2, 'o.w' || n % 20, n % 2 = 0, 'o', '{}', now() - interval '1 day'
      from generate_series(0, 19999) n`.execute(db);
    await sql`
      insert into keep.webhook_deliveries
        (id, organization_id, webhook_id, event, kind, stream_id, revision, index, position, status, created_at)
      select gen_random_uuid(), 'o', 'w' || n % 4, case when n % 6666 = 0 then 'conversation.rated' else 'message.sent' end, 'conversation',
        'c' || n / 8, n, 0, n::text, case when n % 5000 = 0 then 'failed' else 'delivered' end, now() - n * interval '1 s'
      from generate_series(0, 19999) n`.execute(db);
    await sql`analyze keep.jobs, keep.webhook_deliveries`.execute(db);
    const pages = async (query: RawBuilder<unknown>) => {
      const { rows } = await sql<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>`
        explain (analyze, buffers, format json) ${query}`.execute(db);
      const plan = rows[0]?.['QUERY PLAN'][0].Plan ?? {};
      return (plan['Shared Hit Blocks'] ?? NaN) + (plan['Shared Read Blocks'] ?? NaN);
    };
    await sql`select * from keep.take_due_jobs(array['other'], array[10], '{}', 'x', '15 s', null)`.execute(db);
    expect(await pages(sql`select * from keep.take_due_jobs(array['other'], array[10], '{}', 'x', '15 s', null)`)).toBeLessThan(100);
    const fair = sql`select * from keep.take_due_jobs(array[${DELIVER_WEBHOOK}], array[10], array[${DELIVER_WEBHOOK}], 'x', '0 s', null)`;
    await fair.execute(db);
    expect(await pages(fair)).toBeLessThan(2_000);
    expect(await pages(sql`select key from keep.jobs where receiver = 'o.none' and kind = ${DELIVER_WEBHOOK}`)).toBeLessThan(20);
    // The jobs have no deliveries, so this counts the taking of 20 alone.
    const taking = sql`select * from keep.take_deliveries(${DELIVER_WEBHOOK}, '{}'::jsonb, 1, 20, 'x', '15 s', null)`;
    await taking.execute(db);
    expect(await pages(taking)).toBeLessThan(2_000);

    const asked: RawBuilder<unknown>[] = [];
    const noting: KyselyPlugin = {
      transformQuery: ({ node }) => {
        const compiled = db.getExecutor().compileQuery(node, { queryId: 'noted' });
        asked.push(rawOf(compiled.sql, compiled.parameters));
        return node;
      },
      transformResult: ({ result }) => Promise.resolve(result),
    };
    const keys = new VisitorKeys(db, new MasterKey(randomBytes(32)));
    const reader = new DeliveryReader(db.withPlugin(noting), new Cursors(randomBytes(32)), keys);
    const old = Date.now() - 19_000_000;
    for (const filter of [
      {},
      { status: ['failed', 'given_up'] as const },
      { status: ['delivered'] as const },
      { conversationId: 'c77' },
      { to: old },
      { from: old, to: old + 1_000_000 },
      { event: ['conversation.rated'] },
    ]) {
      const page = await reader.page('o', 'w0', filter, { limit: 25, cursor: undefined });
      expect([filter, page.data.length > 0]).toEqual([filter, true]);
      const query = asked.splice(0).at(-1);
      expect([filter, (await pages(query ?? sql``)) < 250]).toEqual([filter, true]);
    }
  }, 60_000);

  test('remove what is old and has ended', async () => {
    await clear();
    await add(3, 1);
    await all(await take('a', 2), 'delivered');
    await removeOldDeliveries(db, Date.now() + 29 * 86_400_000);
    const left = () => sql<{ n: number }>`select count(*)::int n from keep.webhook_deliveries`.execute(db).then(({ rows }) => rows[0]?.n);
    expect(await left()).toBe(3);
    await removeOldDeliveries(db, Date.now() + 31 * 86_400_000);
    expect(await left()).toBe(1);
  });
});

describe('the sender', () => {
  let database: TestDatabase;
  let opened: OpenDatabase;
  let store: EventStore;
  let receiver: Receiver;
  const clock = new TestClock();
  const master = new MasterKey(randomBytes(32));
  const stops: (() => Promise<void>)[] = [];
  const logged: string[] = [];
  /** A process of its own: what another one has appended it must read. */
  const transactor = () => new Transactor(store, clock, randomIds, new UnchangedAnswerRows(opened.kysely));
  let other: Transactor;
  let secrets: WebhookSecrets;

  beforeAll(async () => {
    database = await createDatabase();
    opened = openDatabase({ url: database.url, poolSize: 6, name: 'test', onError: () => undefined });
    store = await openPostgresEventStore({ url: database.url });
    receiver = await startReceiver();
    other = transactor();
    secrets = new WebhookSecrets(opened.kysely, master);
  });
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });
  afterAll(async () => {
    await receiver?.stop();
    await store?.close();
    await opened?.close();
    await database?.drop();
  });

  const context = () => ({ ...systemContext('o', randomIds.next()), actor: { type: 'system' as const, id: 'test' } });
  const decide = (id: string, decision: WebhookDecision) => other.transact(webhookAggregate, id, context(), (state) => decision(state));
  async function endpoint(withSecret = true): Promise<string> {
    const id = randomIds.next();
    const fields = { url: `${receiver.url}/${id}`, events: ['*'], filters: {}, ignoreOwnWrites: false };
    await decide(id, createWebhook(fields, { type: 'apiKey', id: 'k' }));
    const secret = { id: randomIds.next(), secret: newWebhookSecret(), revision: 0, earlierUntil: clock.now() };
    if (withSecret) await secrets.add('o', id, secret);
    return id;
  }
  async function send(given: Partial<NewDelivery> & Pick<NewDelivery, 'webhookId'>): Promise<string> {
    const one = {
      id: randomIds.next(),
      organizationId: 'o',
      event: WEBHOOK_DISABLED,
      kind: webhookAggregate.kind,
      streamId: given.webhookId,
      revision: 1,
      index: 0,
      position: '1',
      ...given,
    };
    await opened.kysely.transaction().execute(async (tx) => {
      await insertDeliveries(tx, [one], clock.now());
      await new Jobs(opened.kysely, undefined).add([jobOf(one)], tx);
    });
    return one.id;
  }
  const row = (id: string) =>
    opened.kysely.selectFrom('keep.webhook_deliveries').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  function run(): { readonly wake: () => void } {
    const keys = new VisitorKeys(opened.kysely, master);
    const own = transactor();
    const log = (facts: object, message: string) => void logged.push(`${message} ${JSON.stringify(facts)}`);
    const sender = new WebhookSender({
      database: opened.kysely,
      transactor: own,
      commands: new CommandBus({} as ModuleRef),
      events: new PublicEventsReader(store, own, keys),
      toldEvents: new ToldEvents(),
      keys,
      secrets,
      client: new OutboundClient(new Reachable(['127.0.0.1/32'])),
      clock,
      timersClock: () => clock.now(),
      log: { info: log, warn: log, error: log },
    });
    const ending = new AbortController();
    const running = sender.run(ending.signal);
    stops.push(async () => {
      ending.abort();
      await running;
    });
    return { wake: () => sender.wake() };
  }

  test('looks again before it gives up for an endpoint that was disabled a moment ago', async () => {
    const { wake } = run();
    const id = await endpoint();
    await decide(id, disableWebhook('gone'));
    const before = await send({ webhookId: id });
    wake();
    await eventually(async () => (await row(before)).status === 'given_up');
    await decide(id, enableWebhook());
    await send({ webhookId: id });
    wake();
    await eventually(() => receiver.got.some(({ path }) => path === `/${id}`));
  });

  test.each([
    ['no secret signs', async () => ({ webhookId: await endpoint(false) }), 'no secret'],
    ['the log has no such event', async () => ({ webhookId: await endpoint(), revision: 77 }), 'could not be made'],
    [
      'an event cannot be read',
      async () => {
        const webhookId = await endpoint();
        const broken = { id: randomIds.next(), type: 'MessageReceived', data: '{}', metadata: '{}' };
        await store.append(streamName('conversation', 'o', webhookId), 'none', [broken], AbortSignal.timeout(5_000));
        return { webhookId, event: 'message.received', kind: 'conversation', streamId: webhookId, revision: 0 };
      },
      'could not be made',
    ],
  ] as const)('counts it as a failed attempt when %s, and gives up at last', async (_, prepare, error) => {
    const id = await send(await prepare());
    const { wake } = run();
    for (let attempt = 1; attempt <= PAUSES.length + 1; attempt++) {
      const seen = await eventually(async () => {
        const one = await row(id);
        return one.attempts === attempt ? one : undefined;
      });
      expect(seen).toMatchObject({ status: attempt > PAUSES.length ? 'given_up' : 'failed', last_status: null });
      expect(seen.last_error).toContain(error);
      expect(seen.log).toHaveLength(attempt);
      clock.advance((PAUSES[attempt - 1] ?? 0) * 1.2);
      wake();
    }
    expect(await opened.kysely.selectFrom('keep.jobs').select('id').where('key', '=', id).execute()).toEqual([]);
    // It is no fault of the endpoint's.
    expect(await opened.kysely.selectFrom('keep.webhook_health').selectAll().execute()).toEqual([]);
    if (error !== 'no secret') expect(logged.join('\n')).toContain(`could not send a delivery {"delivery":"${id}"`);
  });

  test('removes deliveries of a month ago and secrets that sign no more, when it begins', async () => {
    const id = await endpoint();
    await secrets.add('o', id, { id: randomIds.next(), secret: newWebhookSecret(), revision: 1, earlierUntil: clock.now() - 1 });
    const old = await send({ webhookId: id });
    await opened.kysely
      .updateTable('keep.webhook_deliveries')
      .set({ status: 'delivered', created_at: new Date(clock.now() - 31 * 86_400_000) })
      .where('id', '=', old)
      .execute();
    await opened.kysely.deleteFrom('keep.jobs').execute();
    run();
    await eventually(async () => {
      const left = await opened.kysely.selectFrom('keep.webhook_deliveries').select('id').where('id', '=', old).execute();
      const signing = await opened.kysely.selectFrom('keep.webhook_secrets').select('revision').where('webhook_id', '=', id).execute();
      return left.length === 0 && signing.length === 1 && signing[0]?.revision === 1;
    });
  });
});

test('two hundred dead endpoints delay no other', async () => {
  const api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  const receiver = await startReceiver();
  const sockets = new Set<Socket>();
  // Takes every connection and never answers.
  const silent: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as { port: number };
  const events = ['conversation.created'];
  try {
    // An organization may have a hundred. The healthy one shares its organization with most of a hundred, and the process with all.
    const others = [await api.otherOrganization(), await api.otherOrganization()];
    for (const [key, many] of [[api.adminKey, 90], ...others.map(({ adminKey }) => [adminKey, 55] as const)] as const)
      for (let i = 0; i < many; i++)
        await api.expect(201, 'POST', '/webhooks', { key, body: { url: `http://127.0.0.1:${port}/${i}`, events } });
    await api.expect(201, 'POST', '/webhooks', { body: { url: receiver.url, events } });
    const took: number[] = [];
    for (let i = 0; i < 8; i++) {
      for (const { adminKey: key } of others)
        await api.expect(201, 'POST', '/conversations', { key, body: { visitor: {}, message: 'Hi' } });
      const opened = await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi' } });
      const began = performance.now();
      await eventually(() => receiver.got.some(({ body }) => body.conversation.id === opened.body.data.id));
      took.push(performance.now() - began);
    }
    expect(Math.max(...took)).toBeLessThan(5_000);
    // One at a time for each dead one.
    expect(sockets.size).toBeLessThanOrEqual(200);
    expect(sockets.size).toBeGreaterThan(150);
  } finally {
    await api.stop();
    for (const socket of sockets) socket.destroy();
    silent.close();
    await receiver.stop();
  }
}, 120_000);

/** A statement with its parameters, to be a part of another one. */
function rawOf(text: string, parameters: readonly unknown[]): RawBuilder<unknown> {
  const parts = text.split(/\$\d+/);
  const order = [...text.matchAll(/\$(\d+)/g)].map(([, number]) => parameters[Number(number) - 1]);
  return sql.join(
    parts.flatMap((part, i) => (i < order.length ? [sql.raw(part), sql`${order[i]}`] : [sql.raw(part)])),
    sql.raw(''),
  );
}
