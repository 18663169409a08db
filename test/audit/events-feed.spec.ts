import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import pg from 'pg';
import { projectionsOf } from '../../projections/registry.js';
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import type { FeedPage } from '../../src/audit/event-feed.reader.js';
import { eventsTable } from '../../src/audit/events.table.js';
import { batchDecoder } from '../../src/event-decoding.js';
import { parseStreamName, streamName, type Position, type StoredEvent } from '../../src/event-store/event-store.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventsAfter } from '../support/events-after.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { CORE_SCHEMA } from '../support/read-schema.js';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.stop());

const page = async (query: string, headers: Record<string, string> = {}, key?: string): Promise<FeedPage> =>
  (await api.expect(200, 'GET', `/events?${query}`, { headers, ...(key === undefined ? {} : { key }) })).body as FeedPage;

const open = async (message: string, key?: string) => {
  const answer = await api.expect(201, 'POST', '/conversations', {
    body: { visitor: { name: 'Ada' }, message },
    ...(key === undefined ? {} : { key }),
  });
  return { id: answer.body.data.id as string, position: answer.headers.get('x-position') ?? '' };
};

/** What the log says, in its order. */
const told = async (organizationId = api.organizationId): Promise<StoredEvent[]> =>
  (await eventsAfter({ backend: api.backend, organizationId }, api.beganAfter)).filter(
    ({ stream }) => !['claim', 'head'].includes(parseStreamName(stream)?.kind ?? ''),
  );

/** From a place to the end, in pages of this size. */
async function follow(after: string, limit: number, more = ''): Promise<FeedPage['data']> {
  const found: FeedPage['data'] = [];
  for (let from = after; ;) {
    const { data, meta } = await page(`after=${from}&limit=${limit}${more}`);
    found.push(...data);
    from = meta.next;
    if (!meta.hasMore) return found;
  }
}

test('an organization has all of its events in the order of the log, and nobody else’s', async () => {
  const { id, position: first } = await open('a secret from the start');
  await api.expect(201, 'POST', '/companies', { body: { id: 'acme', name: 'Acme' } });
  const other = await api.otherOrganization();
  const canary = await open('a canary of another organization', other.adminKey);
  const { position } = await open('last');
  const all = await follow('start', 3);
  await page('limit=1', { 'x-min-position': position });
  expect((await follow('start', 3)).map(({ id: event }) => event)).toEqual((await told()).map((event) => event.id));
  expect(JSON.stringify(all)).not.toContain(canary.id);
  const own = await page(`after=start&limit=1000`, { 'x-min-position': canary.position }, other.adminKey);
  expect(own.data.map((event) => event.id)).toEqual((await told(other.organizationId)).map((event) => event.id));

  // As in its own history, but for the stream that it is of; personal fields are unsealed.
  const { data: history } = (await api.expect(200, 'GET', `/conversations/${id}/events`)).body as { data: object[] };
  const inFeed = (await page(`limit=1000`)).data.filter(({ stream }) => stream.id === id);
  expect(inFeed).toEqual(history.map((event) => ({ ...event, stream: { kind: 'conversation', id } })));
  expect(JSON.stringify(inFeed)).toContain('a secret from the start');
  expect((await page(`after=${first}&limit=1`)).data[0]?.position).not.toBe(first);
});

test('a page tells where to go on, also when it holds nothing', async () => {
  await open('something');
  await expectReadModelsEqualFold(api);
  const answer = await api.expect(200, 'GET', '/events?limit=1000');
  const { data, meta } = answer.body as FeedPage;
  const last = data.at(-1)?.position ?? '';
  expect(meta).toEqual({ limit: 1000, hasMore: false, next: last });
  expect(answer.headers.get('x-position')).toBe(last);
  expect(await page(`after=${last}`)).toEqual({ data: [], meta: { limit: 100, hasMore: false, next: last } });
  const some = await page('limit=2');
  expect(some.meta).toEqual({ limit: 2, hasMore: true, next: some.data[1]?.position });

  // Of a type that occurs: what is between is passed over, and the end is the end of the look.
  const opened = await follow('start', 1, '&types=ConversationOpened');
  expect(opened.map(({ id }) => id)).toEqual(data.filter(({ type }) => type === 'ConversationOpened').map(({ id }) => id));
  const both = await follow('start', 2, '&types=ConversationOpened,VisitorCreated');
  expect(both).toEqual(await follow('start', 1000, '&types=ConversationOpened&types=VisitorCreated'));
  expect(new Set(both.map(({ type }) => type))).toEqual(new Set(['ConversationOpened', 'VisitorCreated']));
  expect(await page('types=TeamCreated')).toEqual({ data: [], meta: { limit: 100, hasMore: false, next: last } });
});

test.each([
  ['types=Nonsense', 'types'],
  ['types=ConversationOpened,', 'types'],
  ['after=7', 'after'],
  ['after=', 'after'],
  ['limit=0', 'limit'],
  ['limit=1001', 'limit'],
])('%s is refused, and the field named', async (query, field) => {
  const { body } = await api.expect(400, 'GET', `/events?${query}`);
  expect((body as { errors: { field: string }[] }).errors.some((error) => error.field.startsWith(field))).toBe(true);
});

test('an event that this build cannot read is told as it is stored, and one of a parked stream too', async () => {
  const { id } = await open('before');
  const { store } = api.backend;
  const stream = streamName('conversation', api.organizationId, id);
  const [before] = (await told()).filter((event) => event.stream === stream).slice(-1);
  if (before === undefined) throw new Error('the conversation has no events');
  const append = async (expected: number, type: string, data: object) => {
    const event = { id: randomUUID(), type, data: JSON.stringify(data), metadata: before.metadata };
    const appended = await store.append(stream, expected, [event], AbortSignal.timeout(10_000));
    if (appended.outcome !== 'appended') throw new Error('another wrote meanwhile');
    return appended;
  };
  const unknown = await append(before.revision, 'FromTheFuture', { what: 'it says' });
  const later = await append(unknown.revision, 'TagsAdded', { tags: ['vip'] });
  const { data } = await page(`after=${before.position}`, { 'x-min-position': later.position });
  expect(data).toMatchObject([
    { type: 'FromTheFuture', revision: unknown.revision, data: { what: 'it says' }, stream: { kind: 'conversation', id } },
    { type: 'TagsAdded', revision: later.revision, data: { tags: ['vip'] } },
  ]);
  expect(await api.backend.database.selectFrom('keep.parked').select('stream').distinct().execute()).toEqual([{ stream }]);
  await api.backend.database.deleteFrom('keep.parked').execute();
});

test('16 writers and a reader that polls: nothing is missing, doubled or out of order, across a rebuild as well', async () => {
  const { position: from } = await open('the first of many');
  const writers = 16;
  const each = 6;
  let writing = writers;
  const write = async (n: number) => {
    const { id } = await open(`writer ${n}`);
    for (let i = 1; i < each; i++) await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: `${n}.${i}` } });
    writing--;
  };
  const seen: string[] = [];
  let after = from;
  const poll = async () => {
    for (;;) {
      const over = writing === 0;
      const { data, meta } = await page(`after=${after}&limit=7`);
      seen.push(...data.map(({ id }) => id));
      after = meta.next;
      if (over && !meta.hasMore && data.length === 0 && seen.length >= (await expected()).length) return;
    }
  };
  const expected = async () => (await told()).filter(({ position }) => position > from).map(({ id }) => id);
  // What other tests have left in a log that they share stops a rebuild of all of it.
  const shared = process.env['EVENTSTORE_URL'] !== undefined;
  if (shared) process.stderr.write('EventStoreDB: the feed beside a rebuild is NOT RUN on a shared log\n');
  const rebuilt = shared
    ? undefined
    : // A lock that a busy machine does not give it within seconds ends a rebuild, and it may be begun again.
      eventually(async () => {
        await rebuildGroup({
          group: CORE_GROUP,
          projections: projectionsOf(CORE_GROUP),
          decode: batchDecoder(api.backend.keys),
          store: api.backend.store,
          databaseUrl: api.backend.databaseUrl,
          log: { info: () => undefined, warn: () => undefined, error: () => undefined },
          signal: new AbortController().signal,
        });
        return true;
      }, 100_000);
  await Promise.all([poll(), rebuilt, ...Array.from({ length: writers }, (_, n) => write(n))]);
  expect(seen).toEqual(await expected());
  expect(seen.length).toBeGreaterThan(writers * each);
}, 120_000);

test('a position that the log has not reached is refused, since whoever goes on from it would miss events', async () => {
  const { position } = await open('the last one');
  await page(`after=${position}`, { 'x-min-position': position });
  const beyond = position.replace(/^\d/, '9');
  const { body } = await api.expect(400, 'GET', `/events?after=${beyond}`, {});
  expect(body).toMatchObject({
    code: 'validation_failed',
    errors: [{ field: 'after', message: expect.stringContaining('beyond the end of the log') }],
  });
});

test('a page is read by the key alone, however long the feed is', async () => {
  const client = new pg.Client({ connectionString: api.backend.databaseUrl });
  await client.connect();
  try {
    await client.query('begin');
    await client.query(
      `insert into ${CORE_SCHEMA}.events select 'long', lpad(i::text, 19, '0'), 'conversation', 'c', i, gen_random_uuid(), 'X', '{}', '{}'
       from generate_series(1, 20000) i`,
    );
    // Without statistics of rows that no other session sees, the planner may gather them first: the question is whether the key can serve the order.
    await client.query('set local enable_bitmapscan = off');
    const { rows } = await client.query<{ 'QUERY PLAN': string }>(
      `explain select * from ${CORE_SCHEMA}.events where organization_id = 'long' and position > $1 order by position limit 101`,
      ['0000000000000000100'],
    );
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(plan).toMatch(/Index Scan using events_g\d+_pkey/);
    expect(plan).not.toContain('Sort');
  } finally {
    await client.query('rollback');
    await client.end();
  }
});

test('of a type that is rare no more than ten thousand events are looked at, and the next request goes on behind them', async () => {
  const view = api.backend.readModels.view(eventsTable);
  const other = await api.otherOrganization();
  await eventually(async () => (await page('limit=1', {}, other.adminKey)).data.length > 0);
  const head = (await page('limit=1000', {}, other.adminKey)).meta.next as Position;
  await sql`
    insert into ${view} (organization_id, position, kind, stream_id, revision, event_id, type, data, metadata)
    select organization_id,
      case when position like '%-%' then left(position, 20) || lpad((right(position, 19)::bigint + i)::text, 19, '0')
        else position || '-' || lpad(i::text, 19, '0') end, kind, stream_id, revision, event_id, 'InboxChanged', data, metadata
    from ${view}, generate_series(1, 10050) i where organization_id = ${other.organizationId} and position = ${head}`.execute(
    api.backend.database,
  );
  // The log goes on behind the rows, or they would lie beyond its end.
  await open('afterwards', other.adminKey);
  const first = await page(`after=${head}&types=TeamCreated`, {}, other.adminKey);
  expect(first).toMatchObject({ data: [], meta: { hasMore: true } });
  const second = await page(`after=${first.meta.next}&types=TeamCreated`, {}, other.adminKey);
  expect(second).toMatchObject({ data: [], meta: { hasMore: false } });
  expect(second.meta.next > first.meta.next).toBe(true);
});
