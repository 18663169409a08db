import { sql } from 'kysely';
import { type StreamName, streamName } from '../../src/event-store/event-store.js';
import { chain, CHAIN_START } from '../../src/event-store/hash-chain.js';
import type { EventAnswer, VerificationAnswer } from '../../src/read-models/history.js';
import { startApi, type TestApi } from '../support/api.js';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.stop());

const verify = async (path: string): Promise<VerificationAnswer> =>
  (await api.expect(200, 'GET', `${path}/verify`)).body.data as VerificationAnswer;
const events = async (path: string): Promise<EventAnswer[]> => (await api.expect(200, 'GET', `${path}/events`)).body.data as EventAnswer[];

/** A conversation of seven events. */
async function aConversation(): Promise<{ id: string; path: string; stream: StreamName }> {
  const made = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Ada' }, message: 'Hi' } });
  const id = made.body.data.id as string;
  for (const tag of ['a', 'b', 'c', 'd', 'e']) await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: [tag] } });
  return { id, path: `/conversations/${id}`, stream: streamName('conversation', api.organizationId, id) };
}

test('an untouched stream is proved to its last event, whose hash stands for all of it', async () => {
  const { path, stream } = await aConversation();
  const past = await events(path);
  const answer = await api.expect(200, 'GET', `${path}/verify`);
  const { revision, hash, position } = past.at(-1) ?? {};
  expect(answer.body.data).toEqual({ ok: true, stream, events: 7, revision: 6, hash, position, firstBad: null });
  expect(revision).toBe(6);
  expect(answer.headers.get('x-position')).toBe(position);
  expect(answer.headers.get('etag')).toBe('"6"');
});

test('every kind of resource with a past is proved', async () => {
  const made: Record<string, object> = {
    companies: { id: 'acme', name: 'Acme' },
    inboxes: { name: 'Sales' },
    agents: { id: 'ada', name: 'Ada' },
    teams: { id: 'billing', name: 'Billing' },
    'canned-responses': { title: 'Hello', shortcut: 'hello', content: 'Hello' },
    views: { name: 'All', filter: {}, shared: true },
    'automation-rules': { trigger: 'message.received', conditions: [], actions: [{ type: 'addTag', tag: 'x' }], enabled: false },
    webhooks: { url: 'https://example.com/', events: ['message.sent'] },
    'api-keys': { name: 'A key', role: 'analyst' },
    visitors: { name: 'Grace' },
  };
  for (const [kind, body] of Object.entries(made)) {
    const { id } = (await api.expect(201, 'POST', `/${kind}`, { body })).body.data as { id: string };
    expect(await verify(`/${kind}/${id}`)).toMatchObject({ ok: true, events: 1, revision: 0, firstBad: null });
  }
  expect(await verify('/organization')).toMatchObject({ ok: true, firstBad: null });
  // A team is no agent, also for the proof.
  for (const path of ['/agents/billing', '/teams/ada', '/companies/nobody', '/conversations/nobody'])
    await api.expect(404, 'GET', `${path}/verify`);
});

// The log is tampered with behind the port, in SQL: this is about the log in PostgreSQL.
const inSql = process.env['EVENTSTORE_URL'] === undefined ? describe : describe.skip;

inSql('somebody who can write to the database', () => {
  /** A process that has read none of the streams before they were tampered with. */
  let later: TestApi;
  beforeAll(async () => {
    later = await startApi({
      database: { url: api.backend.databaseUrl },
      environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' },
    });
  });
  afterAll(() => later.stop());

  beforeEach(async () => {
    await sql`create table public.saved as table log.events`.execute(api.backend.database);
  });
  afterEach(async () => {
    await sql`truncate log.events; insert into log.events select * from public.saved; drop table public.saved`.execute(
      api.backend.database,
    );
  });

  interface Row {
    position: number;
    revision: number;
    id: string;
    type: string;
    data: string;
    metadata: string;
  }
  const rowsOf = async (stream: string): Promise<Row[]> =>
    (
      await sql<Row>`select position, revision, id, type, data, metadata from log.events where stream = ${stream} order by revision`.execute(
        api.backend.database,
      )
    ).rows;

  const ALTERED = 'the hash does not follow';
  /** What is done to the stream, the revision where it is found, and why. */
  const TAMPERINGS: [string, (stream: string) => Promise<unknown>, number, string][] = [
    [
      'changes the data of an event',
      (stream) =>
        sql`update log.events set data = replace(data, '"c"', '"x"') where stream = ${stream} and revision = 4`.execute(
          api.backend.database,
        ),
      4,
      ALTERED,
    ],
    [
      'changes who did it',
      (stream) =>
        sql`update log.events set metadata = replace(metadata, '"type":"apiKey"', '"type":"system"') where stream = ${stream} and revision = 3`.execute(
          api.backend.database,
        ),
      3,
      ALTERED,
    ],
    [
      'makes an event unreadable',
      (stream) => sql`update log.events set data = '{' where stream = ${stream} and revision = 2`.execute(api.backend.database),
      2,
      ALTERED,
    ],
    [
      'renames the type of an event',
      (stream) => sql`update log.events set type = 'TagsLost' where stream = ${stream} and revision = 2`.execute(api.backend.database),
      2,
      ALTERED,
    ],
    [
      'removes an event',
      (stream) => sql`delete from log.events where stream = ${stream} and revision = 3`.execute(api.backend.database),
      4,
      'revision 3 is missing',
    ],
    [
      'removes an event and closes the gap',
      async (stream) => {
        await sql`delete from log.events where stream = ${stream} and revision = 3`.execute(api.backend.database);
        for (const revision of [4, 5, 6])
          await sql`update log.events set revision = ${revision - 1} where stream = ${stream} and revision = ${revision}`.execute(
            api.backend.database,
          );
      },
      3,
      ALTERED,
    ],
    [
      'swaps two events',
      async (stream) => {
        const rows = await rowsOf(stream);
        for (const [revision, other] of [
          [3, rows[5]],
          [5, rows[3]],
        ] as const)
          await sql`update log.events set data = ${other?.data}, metadata = ${other?.metadata} where stream = ${stream} and revision = ${revision}`.execute(
            api.backend.database,
          );
      },
      3,
      ALTERED,
    ],
    [
      'puts in an event',
      async (stream) => {
        for (const revision of [6, 5, 4])
          await sql`update log.events set revision = ${revision + 1} where stream = ${stream} and revision = ${revision}`.execute(
            api.backend.database,
          );
        await sql`insert into log.events (position, stream, revision, id, type, data, metadata)
          select (select max(position) + 1 from log.events), stream, 4, gen_random_uuid(), type, replace(data, '"b"', '"forged"'), metadata
          from log.events where stream = ${stream} and revision = 3`.execute(api.backend.database);
      },
      4,
      ALTERED,
    ],
    [
      'removes the first event',
      (stream) => sql`delete from log.events where stream = ${stream} and revision = 0`.execute(api.backend.database),
      1,
      'revision 0 is missing',
    ],
  ];

  test.each(TAMPERINGS)('%s: the first bad event is named, and nothing after it is proved', async (_, tamper, at, why) => {
    const { path, stream } = await aConversation();
    const before = await rowsOf(stream);
    await tamper(stream);
    const now = await rowsOf(stream);
    const bad = now.find(({ revision }) => revision === at);
    const { ok, events: count, revision, hash, firstBad } = await verify(path);
    expect([ok, count, revision]).toEqual([false, now.length, at - 1 - (why.includes('missing') ? 1 : 0)]);
    expect(hash).toBe(revision < 0 ? null : (JSON.parse(before[revision]?.metadata ?? '') as { hash: string }).hash);
    expect(firstBad).toEqual({
      revision: at,
      eventId: bad?.id,
      position: String(bad?.position).padStart(19, '0'),
      why: expect.stringContaining(why),
    });
    const again = await later.expect(200, 'GET', `${path}/verify`, { key: api.adminKey });
    expect(again.body.data.firstBad).toEqual(firstBad);
  });

  test('changes a team so that no build can read it: its proof is answered, to those who see teams', async () => {
    await api.expect(201, 'POST', '/teams', { body: { id: 'unreadable', name: 'Team' } });
    await api.expect(200, 'PUT', '/teams/unreadable', { body: { name: 'Renamed' } });
    const stream = streamName('assignee', api.organizationId, 'unreadable');
    await sql`update log.events set type = 'Nonsense' where stream = ${stream} and revision = 1`.execute(api.backend.database);
    const { body } = await later.expect(200, 'GET', '/teams/unreadable/verify', { key: api.adminKey });
    expect(body.data).toMatchObject({ ok: false, revision: 0, firstBad: { revision: 1 } });
    await later.expect(404, 'GET', '/agents/unreadable/verify', { key: api.adminKey });
  });

  test('computes the whole chain anew, or cuts its tail: the stream alone cannot tell, which is why heads are kept', async () => {
    const { path, stream } = await aConversation();
    let hash = CHAIN_START;
    for (const { revision, id, type, data, metadata } of await rowsOf(stream)) {
      const body = metadata.replace(/,"hash":"[0-9a-f]{64}"\}$/, '}');
      const next = chain(hash, stream, revision, { id, type, data: data.replace('"c"', '"forged"') }, body);
      hash = next.hash;
      await sql`update log.events set data = ${next.stored.data}, metadata = ${next.stored.metadata} where stream = ${stream} and revision = ${revision}`.execute(
        api.backend.database,
      );
    }
    expect(await verify(path)).toMatchObject({ ok: true, revision: 6, hash });
    await sql`delete from log.events where stream = ${stream} and revision = 6`.execute(api.backend.database);
    expect(await verify(path)).toMatchObject({ ok: true, events: 6, revision: 5 });
  });
});
