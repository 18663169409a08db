import { randomUUID } from 'node:crypto';
import { batchDecoder } from '../../src/event-decoding.js';
import { projectionsOf } from '../../projections/registry.js';
import { readBatch } from '../../projections/runtime/batches.js';
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import type { DecodeBatch } from '../../projections/runtime/projection.js';
import { replayParked, type Replayed } from '../../projections/runtime/unparking.js';
import { conversationsTable } from '../../src/conversations/conversation.table.js';
import type { DomainEvent, Recorded } from '../../src/event-store/aggregate.js';
import { streamName, type Position, type StoredEvent, type StreamName } from '../../src/event-store/event-store.js';
import { type OpenDatabase, openDatabase } from '../../src/database/database.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { CLI_MS, threadlogHere } from '../support/threadlog.js';
import { openWorkerDatabase } from './tiny-group.js';

let api: TestApi;
let sessions: OpenDatabase;

beforeAll(async () => {
  api = await startApi();
  sessions = openWorkerDatabase(api.backend.databaseUrl);
});
afterAll(async () => {
  await sessions.close();
  await api.stop();
});

const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };

async function open(): Promise<{ id: string; stream: StreamName }> {
  const { body } = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'Hello' } });
  const id = (body as { data: { id: string } }).data.id;
  return { id, stream: streamName('conversation', api.organizationId, id) };
}

/** Puts an event into the log that no command of this build would write, behind the stream's last one. */
async function force(stream: StreamName, type: string, data: object): Promise<string> {
  const { store } = api.backend;
  let last: StoredEvent | undefined;
  for await (const events of store.read(stream, { backwards: true, limit: 1 })) last = events[0];
  if (last === undefined) throw new Error(`there is no ${stream}`);
  const event = { id: randomUUID(), type, data: JSON.stringify(data), metadata: last.metadata };
  const appended = await store.append(stream, last.revision, [event], AbortSignal.timeout(10_000));
  if (appended.outcome !== 'appended') throw new Error('another wrote meanwhile');
  return appended.position;
}
const tag = (stream: StreamName, name: string) => force(stream, 'TagsAdded', { tags: [name] });

const reached = async (position: string) => {
  for (const group of [CORE_GROUP, INSIGHT_GROUP])
    expect(await api.backend.checkpoints.waitFor(group, position as Position, 5_000)).toBe('reached');
};

const row = (id: string) =>
  api.backend.database
    .selectFrom(api.backend.readModels.view(conversationsTable).as('c'))
    .select(['revision', 'tags'])
    .where('organization_id', '=', api.organizationId)
    .where('id', '=', id)
    .executeTakeFirst();

/** Those of the group: a reactor may have parked the same stream. */
const parkedRows = () =>
  api.backend.database
    .selectFrom('keep.parked')
    .select(['stream', 'revision', 'type', 'error'])
    .where('group_name', '=', CORE_GROUP)
    .orderBy('stream')
    .execute();

const partsOf = (decode: DecodeBatch = batchDecoder(api.backend.keys)) => ({
  group: CORE_GROUP,
  projections: projectionsOf(CORE_GROUP),
  decode,
  store: api.backend.store,
  log: quiet,
});

const replay = (stream: StreamName, options: { skip?: boolean; decode?: DecodeBatch } = {}): Promise<Replayed | undefined> =>
  replayParked({ ...partsOf(options.decode), database: sessions.kysely }, stream, { skip: options.skip ?? false });

/** A later build: it knows what Teleported means. */
const laterBuild: DecodeBatch = async (events) => {
  const { decoded, failed } = await batchDecoder(api.backend.keys)(
    events.map((event) => (event.type === 'Teleported' ? { ...event, type: 'TagsAdded', data: '{"tags":["teleported"]}' } : event)),
  );
  return { decoded: decoded.map((one) => ({ ...one, event: one.event as Recorded<DomainEvent> })), failed };
};

/** Leaves nothing parked or skipped behind. */
const forgiven = async () => {
  for (const table of ['keep.parked', 'keep.skipped'] as const) await api.backend.database.deleteFrom(table).execute();
};

it.each([
  ['an unknown type', 'Teleported', {}, 'Teleported'],
  ['a missing field', 'TagsAdded', {}, 'TagsAdded'],
  ['a field of the wrong kind that is as large as an event may be', 'TagsAdded', { tags: 'x'.repeat(880_000) }, 'TagsAdded'],
])('%s in one stream parks it, and no other lags behind', async (_, type, data, shown) => {
  const [bad, good] = [await open(), await open()];
  await force(bad.stream, type, data);
  await tag(bad.stream, 'after');
  const began = performance.now();
  await reached(await tag(good.stream, 'flows'));
  expect(performance.now() - began).toBeLessThan(5_000);
  expect(await row(good.id)).toMatchObject({ tags: ['flows'] });
  expect(await row(bad.id)).toMatchObject({ revision: 1, tags: [] });
  const parked = await parkedRows();
  expect(parked).toMatchObject([{ stream: bad.stream, revision: 2, type: shown }]);
  // What is kept of the error is no copy of the event.
  expect(parked[0]?.error.length).toBeLessThan(700);
  // It stays parked, with the error of now, as long as nobody can handle it.
  expect(await replay(bad.stream)).toMatchObject({ skipped: null, handled: 0, parked: { revision: 2, type: shown } });
  expect(await row(bad.id)).toMatchObject({ revision: 1 });
  await forgiven();
});

it('a list that is to show what was written to a parked stream says so, and others are shown', async () => {
  const [bad, good] = [await open(), await open()];
  const before = await tag(bad.stream, 'before');
  await force(bad.stream, 'Teleported', {});
  const waiting = await tag(bad.stream, 'after');
  const fine = await tag(good.stream, 'flows');
  const list = (position: string) => api.call('GET', '/conversations', { headers: { 'x-min-position': position } });
  for (const position of [before, fine]) expect((await list(position)).status).toBe(200);
  const refused = await list(waiting);
  expect([refused.status, refused.body.code, refused.headers.get('retry-after')]).toEqual([503, 'stream_parked', '60']);
  const bulk = await api.call('POST', '/conversations/bulk', {
    body: { filter: { status: ['closed'] }, action: { type: 'addTags', tags: ['x'] } },
    headers: { 'x-min-position': waiting },
  });
  expect([bulk.status, bulk.body.code]).toEqual([503, 'stream_parked']);
  await forgiven();
  expect((await list(waiting)).status).toBe(200);
});

it('a database that hands out no connection says nothing of the events whose keys are asked of it', async () => {
  const { stream } = await open();
  const events: StoredEvent[] = [];
  for await (const part of api.backend.store.read(stream)) events.push(...part);
  const exhausted = openDatabase({
    url: api.backend.databaseUrl,
    poolSize: 1,
    name: 'test-exhausted',
    onError: () => undefined,
    connectTimeoutMs: 1_000,
  });
  const held = await exhausted.pool.connect();
  try {
    const decode = batchDecoder(new VisitorKeys(exhausted.kysely, api.backend.masterKey));
    await expect(readBatch(decode, events, new Map())).rejects.toThrow('timeout exceeded when trying to connect');
    held.release();
    expect(await readBatch(decode, events, new Map())).toMatchObject({ events: events.length, failed: [] });
  } finally {
    await exhausted.close();
  }
});

it('a large field that can be handled is', async () => {
  const { id } = await open();
  const answer = await api.call('POST', `/conversations/${id}/messages`, { body: { message: 'x'.repeat(50_000) } });
  if (answer.status === 201) await reached(answer.headers.get('x-position') ?? '');
  expect(await parkedRows()).toEqual([]);
});

it('a retry replays the stream in order with all that came meanwhile, while the group goes on', async () => {
  const { id, stream } = await open();
  await force(stream, 'Teleported', {});
  for (const name of ['b', 'c']) await tag(stream, name);
  await reached(await tag((await open()).stream, 'x'));
  expect(await row(id)).toMatchObject({ revision: 1 });
  // Written and handled while it is replayed: to whichever side they fall, none is missing and none comes twice.
  let going = true;
  const writing = (async () => {
    for (let i = 0; going && i < 200; i++) await tag(stream, `later ${i}`);
  })();
  const replayed = await replay(stream, { decode: laterBuild });
  going = false;
  await writing;
  expect(replayed).toMatchObject({ skipped: null, parked: null });
  expect(replayed?.handled).toBeGreaterThanOrEqual(3);
  await reached(await tag(stream, 'last'));
  const found = await row(id);
  const later = (found?.tags.length ?? 0) - 4;
  expect(found?.tags).toEqual(['teleported', 'b', 'c', ...Array.from({ length: later }, (_, i) => `later ${i}`), 'last']);
  expect(await parkedRows()).toEqual([]);
  expect(await replay(stream)).toBeUndefined();
});

it('a retry that meets another poisonous event parks there, and keeps what it could handle', async () => {
  const { id, stream } = await open();
  await force(stream, 'Teleported', {});
  await tag(stream, 'b');
  await force(stream, 'Beamed', {});
  await reached(await tag(stream, 'c'));
  expect(await replay(stream, { decode: laterBuild })).toMatchObject({ handled: 2, parked: { revision: 4, type: 'Beamed' } });
  expect(await row(id)).toMatchObject({ revision: 3, tags: ['teleported', 'b'] });
  expect(await parkedRows()).toMatchObject([{ revision: 4, type: 'Beamed' }]);
  await forgiven();
});

it('a skip passes over one event, and a rebuild leaves the same one out until it is told to take it up', async () => {
  const { id, stream } = await open();
  await force(stream, 'Teleported', {});
  await tag(stream, 'b');
  await reached(await tag((await open()).stream, 'x'));
  expect(await replay(stream, { skip: true })).toMatchObject({ skipped: { revision: 2, type: 'Teleported' }, handled: 1, parked: null });
  expect(await row(id)).toMatchObject({ revision: 3, tags: ['b'] });
  await reached(await tag(stream, 'c'));
  expect(await row(id)).toMatchObject({ revision: 4, tags: ['b', 'c'] });

  const parts = { ...partsOf(), databaseUrl: api.backend.databaseUrl, signal: new AbortController().signal };
  await rebuildGroup(parts);
  expect(await row(id)).toMatchObject({ revision: 4, tags: ['b', 'c'] });
  expect((await parkedRows()).filter((one) => one.stream === stream)).toEqual([]);
  await rebuildGroup({ ...parts, projections: projectionsOf(CORE_GROUP), decode: laterBuild, withSkipped: true });
  expect(await row(id)).toMatchObject({ revision: 4, tags: ['teleported', 'b', 'c'] });
  expect(await api.backend.database.selectFrom('keep.skipped').selectAll().execute()).toEqual([]);
  await forgiven();
});

it('the event that begins a stream cannot be skipped', async () => {
  const id = randomUUID();
  const stream = streamName('conversation', api.organizationId, id);
  const { store } = api.backend;
  const event = { id: randomUUID(), type: 'Teleported', data: '{}', metadata: '{"schemaVersion":1}' };
  const appended = await store.append(stream, 'none', [event], AbortSignal.timeout(5_000));
  if (appended.outcome !== 'appended') throw new Error('it is there');
  await reached(appended.position);
  await expect(replay(stream, { skip: true })).rejects.toThrow('nothing could follow');
  expect(await parkedRows()).toMatchObject([{ stream, revision: 0 }]);
  await forgiven();
});

it(
  'an operator lists, retries and skips by the command line, and replays what happened',
  async () => {
    const { DATABASE_URL = '', DATA_DIR, MASTER_KEY = '' } = api.backend.config;
    const environment = { DATABASE_URL, DATA_DIR, MASTER_KEY };
    const run = (...given: string[]) => threadlogHere(given, environment);
    const { id, stream } = await open();
    await force(stream, 'Teleported', {});
    await reached(await tag(stream, 'b'));
    const [listed, retried, missing] = await Promise.all([
      run('parked', 'list', '--json'),
      run('parked', 'retry', '--json'),
      run('parked', 'retry', `${stream}x`),
    ]);
    const one = { stream, revision: 2, type: 'Teleported' };
    const { parked, skipped: none } = JSON.parse(listed.stdout) as { parked: { group: string }[]; skipped: unknown[] };
    expect(parked.toSorted((a, b) => (a.group < b.group ? -1 : 1))).toMatchObject([
      { group: 'core', ...one },
      { group: 'insight', ...one },
    ]);
    expect(none).toEqual([]);
    expect(retried.code).toBe(1);
    expect(JSON.parse(retried.stdout)).toMatchObject({
      streams: [
        { stream, handled: 0, parked: { revision: 2 } },
        { stream, handled: 0, parked: { revision: 2 } },
      ],
    });
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toContain('is not parked');
    const skipped = await run('parked', 'skip', stream);
    expect(skipped).toMatchObject({ code: 0, stderr: '' });
    expect(skipped.stdout).toContain('Teleported at revision 2');
    expect(skipped.stdout).toContain('1 event handled; it goes on');
    expect(await row(id)).toMatchObject({ tags: ['b'] });

    const [again, history, feed, before] = await Promise.all([
      run('parked', 'list'),
      run('replay', id, '--json', '--organization', api.organizationId),
      run('replay', '--organization', api.organizationId),
      run('replay', id, '--revision', '1', '--organization', api.organizationId),
    ]);
    expect(again.stdout).toMatch(/No stream is parked\.[^]*Skipped: 2 events\./);
    // An event that this build cannot read is told as such, and the exit code says so.
    expect(history.code).toBe(1);
    const lines = history.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map(({ type, revision }) => [type, revision])).toEqual([
      ['ConversationOpened', 0],
      ['MessageReceived', 1],
      ['Teleported', 2],
      ['TagsAdded', 3],
    ]);
    expect(lines[1]).toMatchObject({ stream, data: { content: 'Hello' }, actor: { type: 'apiKey' } });
    expect(lines[2]).toHaveProperty('unreadable');
    expect(feed.stdout).toContain(`${stream} 3  TagsAdded by`);
    expect(JSON.parse(before.stdout)).toMatchObject({ id, revision: 1, messages: [{ content: 'Hello' }], tags: [] });
    await forgiven();
  },
  CLI_MS,
);

it('a checkpoint that is set back while the group runs, and events that come again, change no row', async () => {
  // Of its own: rows that the tests above broke on purpose are no folds.
  const whole = await startApi();
  try {
    const made = await whole.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'm' } });
    const { id } = (made.body as { data: { id: string } }).data;
    const positions: string[] = [];
    let going = true;
    const writing = (async () => {
      for (let i = 0; going; i++) {
        const { headers } = await whole.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: String(i) } });
        positions.push(headers.get('x-position') ?? '');
      }
    })();
    for (let round = 1; round <= 3; round++) {
      await eventually(() => positions.length > 60 * round, 30_000);
      const back = positions[Math.max(positions.length - 500, 0)] ?? '';
      await whole.backend.database.updateTable('read.checkpoints').set({ position: back }).where('live', '=', true).execute();
    }
    going = false;
    await writing;
    await expectReadModelsEqualFold(whole);
  } finally {
    await whole.stop();
  }
}, 60_000);
