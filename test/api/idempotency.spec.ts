import { request as httpRequest } from 'node:http';
import { CommandBus } from '@nestjs/cqrs';
import pg from 'pg';
import { WakeConversation } from '../../src/conversations/conversation.commands.js';
import { randomIds } from '../../src/ids.js';
import { type Answer, type CallOptions, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventsAfter } from '../support/events-after.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * What makes repeating a request safe, and what makes two writers safe from each other: Idempotency-Key, If-Match, X-Min-Position. Two
 * instances of the API, each with its own memory, on one database.
 */

let database: TestDatabase;
let api: TestApi;
let other: TestApi;
let sql: pg.Client;
/** The answer to a read that asks for a position which nothing will reach. */
let beyond: Promise<Answer>;
beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database });
  other = await startApi({ database, environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' } });
  sql = new pg.Client({ connectionString: database.url });
  await sql.connect();
  // It waits for as long as a read may, and the tests before its own run meanwhile.
  const unreached = String(await headOf()).replace(/[0-9a-z]/, '9');
  beyond = api.call('GET', '/conversations', { headers: { 'x-min-position': unreached } });
  beyond.catch(() => undefined);
});
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await sql.end();
    await other.stop();
    await api.stop();
    await database.drop();
  }
});

const HOUR = 3_600_000;
const MINUTE = 60_000;
let count = 0;
const fresh = (prefix: string) => `${prefix}-${++count}`;
// oxlint-disable-next-line typescript/no-explicit-any -- answers of every shape; the support has held them against their schemas
const data = (answer: Answer): any => answer.body.data;

/** Asks one of the two instances, both with the first one's key. */
const ask = (instance: TestApi, method: string, path: string, options: CallOptions = {}) =>
  instance.call(method, path, { key: api.adminKey, ...options });
const keyed = (instance: TestApi, key: string, path: string, body: unknown, headers: Record<string, string> = {}) =>
  ask(instance, 'POST', path, { body, headers: { 'idempotency-key': key, ...headers } });
const open = async () =>
  data(await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Ada' }, message: 'Hi' } })).id as string;
const get = async (id: string) => data(await ask(api, 'GET', `/conversations/${id}`));
const headOf = () => api.backend.store.head();

/** What a retry answers as the first did. */
const facts = ({ status, text, headers }: Answer) => ({
  status,
  text,
  etag: headers.get('etag'),
  position: headers.get('x-position'),
  location: headers.get('location'),
});

describe('an Idempotency-Key', () => {
  const COMMANDS: [string, (id: string) => [string, unknown], unknown][] = [
    [
      'conversations',
      () => ['/conversations', { visitor: { email: `${fresh('v')}@example.com`, name: 'V' }, message: 'Hi' }],
      { visitor: {}, message: 'Ho' },
    ],
    ['reply', (id) => [`/conversations/${id}/reply`, { message: 'answer', status: 'pending' }], { message: 'other' }],
    ['note', (id) => [`/conversations/${id}/reply`, { message: 'note', type: 'note' }], { message: 'note' }],
    ['messages', (id) => [`/conversations/${id}/messages`, { message: 'more' }], { message: 'other' }],
    ['assign', (id) => [`/conversations/${id}/assign`, { assigneeId: 'bo' }], { assigneeId: null }],
    ['snooze', (id) => [`/conversations/${id}/snooze`, { until: 'next_reply' }], { until: '2999-01-01T00:00:00Z' }],
    ['tags', (id) => [`/conversations/${id}/tags`, { tags: ['a'] }], { tags: ['b'] }],
    ['rating', (id) => [`/conversations/${id}/rating`, { rating: 5 }], { rating: 4 }],
    ['tags that are there', (id) => [`/conversations/${id}/tags`, { tags: ['there'] }], { tags: ['a'] }],
    ['the assignee who has it', (id) => [`/conversations/${id}/assign`, { assigneeId: null }], { assigneeId: 'bo' }],
  ];
  beforeAll(async () => {
    await api.expect(201, 'POST', '/agents', { body: { id: 'bo', name: 'Bo' } });
  });

  test.each(COMMANDS)('makes a retry answer as the first request: %s', async (_, command, otherBody) => {
    const id = await open();
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['there'] } });
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'open' } });
    const key = fresh('key');
    const [path, body] = command(id);
    const first = await keyed(api, key, path, body);
    expect(first.status).toBeLessThan(300);
    const target = path === '/conversations' ? (data(first).id as string) : id;
    // What happens in between shows in no retry.
    await api.expect(200, 'PUT', `/conversations/${target}`, { body: { subject: 'changed since', status: 'pending' } });
    await api.expect(200, 'DELETE', `/conversations/${target}/tags/there`);
    const head = await headOf();
    for (const instance of [api, other, api]) expect(facts(await keyed(instance, key, path, body))).toEqual(facts(first));
    for (const instance of [api, other]) {
      const refused = await keyed(instance, key, path, otherBody);
      expect([refused.status, refused.body.code]).toEqual([422, 'idempotency_key_reused']);
    }
    expect(await eventsAfter(api, head)).toEqual([]);
  });

  test('answers a retry also after the conversation was closed', async () => {
    const id = await open();
    const first = await keyed(api, 'before-close', `/conversations/${id}/reply`, { message: 'x' });
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'closed' } });
    expect(facts(await keyed(other, 'before-close', `/conversations/${id}/reply`, { message: 'x' }))).toEqual(facts(first));
    expect((await keyed(api, 'after-close', `/conversations/${id}/reply`, { message: 'x' })).status).toBe(409);
  });

  test('of an opened conversation does not undo what happened to the visitor since', async () => {
    const visitorId = data(await api.expect(201, 'POST', '/visitors', { body: { name: 'Before' } })).id as string;
    const body = { visitor: { id: visitorId, name: 'Before' }, message: 'Hi' };
    const first = await keyed(api, 'visitor-since', '/conversations', body);
    await api.expect(200, 'PUT', `/visitors/${visitorId}`, { body: { name: 'After' } });
    const head = await headOf();
    for (const instance of [api, other])
      expect(data(await keyed(instance, 'visitor-since', '/conversations', body)).id).toBe(data(first).id);
    expect(await eventsAfter(api, head)).toEqual([]);
    expect(data(await api.expect(200, 'GET', `/visitors/${visitorId}`)).name).toBe('After');
  });

  test('fifty times at once, at both instances, is one event; the others wait or get its answer', async () => {
    const id = await open();
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => keyed(i % 2 === 0 ? api : other, 'fifty', `/conversations/${id}/reply`, { message: 'once' })),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201, 409]));
    const good = answers.filter(({ status }) => status === 201);
    for (const one of good) expect(facts(one)).toEqual(facts(good[0] as Answer));
    for (const { status, body, headers } of answers)
      if (status === 409) {
        expect(body.code).toBe('idempotency_key_in_flight');
        expect(headers.get('retry-after')).toBe('1');
      }
    expect((await get(id)).messageCount).toBe(2);
  });

  test('opens one conversation and makes one visitor, when twenty requests race at both instances', async () => {
    const email = `${fresh('race')}@example.com`;
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        keyed(i % 2 === 0 ? api : other, 'race', '/conversations', { visitor: { email }, message: 'once' }),
      ),
    );
    const made = answers.filter(({ status }) => status === 201).map((answer) => data(answer));
    expect(made.length).toBeGreaterThan(0);
    expect(new Set(made.map(({ id }) => id as string)).size).toBe(1);
    const list = await ask(api, 'GET', `/conversations?visitorId=${made[0].visitor.id}`, {
      headers: { 'x-min-position': String(await headOf()) },
    });
    expect(data(list)).toHaveLength(1);
  });

  /** Holds every request that needs a visitor's key that no instance has in memory. */
  async function holding<T>(work: () => Promise<T>): Promise<T> {
    await sql.query('begin');
    await sql.query('lock table keep.visitor_keys in access exclusive mode');
    try {
      return await work();
    } finally {
      await sql.query('rollback');
    }
  }
  const isHeld = async () => {
    const { rows } = await sql.query<{ n: number }>(
      `select count(*)::int as n from pg_locks where relation = 'keep.visitor_keys'::regclass and not granted`,
    );
    return (rows[0]?.n ?? 0) > 0;
  };

  test('that is in flight is 409, and is free again with the answer', async () => {
    const body = { visitor: { name: 'slow' }, message: 'Hi' };
    const first = await holding(async () => {
      const pending = keyed(api, 'in-flight', '/conversations', body);
      await eventually(isHeld);
      const refused = await keyed(api, 'in-flight', '/conversations', body);
      expect([refused.status, refused.body.code]).toEqual([409, 'idempotency_key_in_flight']);
      expect(refused.headers.get('retry-after')).toBe('1');
      return { pending };
    });
    const answer = await first.pending;
    expect(answer.status).toBe(201);
    expect(facts(await keyed(api, 'in-flight', '/conversations', body))).toEqual(facts(answer));
  });

  test('is free again also when the client went away before the answer', async () => {
    const body = JSON.stringify({ visitor: { name: 'gone' }, message: 'Hi' });
    let before: Awaited<ReturnType<typeof api.backend.store.head>> = 'start';
    await holding(async () => {
      before = await api.backend.store.head();
      const gone = httpRequest(`${api.url}/api/support/conversations`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-api-key': api.adminKey, 'idempotency-key': 'gone' },
      });
      gone.on('error', () => undefined);
      gone.end(body);
      await eventually(isHeld);
      gone.destroy();
    });
    const answer = await eventually(async () => {
      const again = await keyed(api, 'gone', '/conversations', JSON.parse(body));
      return again.status === 409 ? undefined : again;
    });
    expect(answer.status).toBe(201);
    expect(data(answer).messageCount).toBe(1);
    const written = await eventsAfter(api, before);
    expect(written.filter(({ type }) => type === 'ConversationOpened')).toHaveLength(1);
  });

  test('belongs to its API key, method and path', async () => {
    const [one, two] = [await open(), await open()];
    const first = await keyed(api, 'scoped', `/conversations/${one}/reply`, { message: 'x' });
    const second = await keyed(api, 'scoped', `/conversations/${two}/reply`, { message: 'y' });
    const third = await keyed(api, 'scoped', `/conversations/${one}/messages`, { message: 'z' });
    const fourth = await keyed(
      api,
      'scoped',
      `/conversations/${one}/reply`,
      { message: 'own' },
      { 'x-api-key': await api.keyFor('agent') },
    );
    expect(new Set([first, second, third, fourth].map((answer) => data(answer).id as string)).size).toBe(4);
    expect((await get(one)).messageCount).toBe(4);
  });

  test('of a request that was refused is as good as new', async () => {
    const id = await open();
    expect((await keyed(api, 'refused', `/conversations/${id}/reply`, { message: '' })).status).toBe(400);
    expect((await keyed(api, 'refused', `/conversations/${id}/reply`, { message: 'x', status: 'snoozed' })).status).toBe(400);
    expect((await keyed(api, 'refused', `/conversations/${id}/rating`, { rating: 5 })).status).toBe(409);
    expect((await keyed(api, 'refused', `/conversations/${id}/reply`, { message: 'x' })).status).toBe(201);
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
    expect((await keyed(api, 'refused', `/conversations/${id}/rating`, { rating: 5 })).status).toBe(200);
  });

  test('means nothing on PUT and DELETE, which repeat harmlessly by themselves', async () => {
    const id = await open();
    const headers = { 'idempotency-key': 'put' };
    await ask(api, 'PUT', `/conversations/${id}`, { body: { subject: 'one' }, headers });
    await ask(api, 'PUT', `/conversations/${id}`, { body: { subject: 'two' }, headers });
    expect(await get(id)).toMatchObject({ subject: 'two', revision: 3 });
    await ask(api, 'PUT', `/conversations/${id}`, { body: { subject: 'two' }, headers });
    expect((await get(id)).revision).toBe(3);
  });

  test.each(['', ' ', 'a b', 'x'.repeat(256), 'clé'])('%j is none', async (key) => {
    const id = await open();
    const head = await headOf();
    const refused = await keyed(api, key, `/conversations/${id}/reply`, { message: 'x' });
    expect([refused.status, refused.body.code]).toEqual([400, 'malformed_request']);
    expect(await eventsAfter(api, head)).toEqual([]);
  });
  test.each(['x', 'x'.repeat(255), '"quoted"', '~!@#$%^&*()'])('%j is one', async (key) => {
    const id = await open();
    const first = await keyed(api, key, `/conversations/${id}/reply`, { message: 'x' });
    expect(facts(await keyed(other, key, `/conversations/${id}/reply`, { message: 'x' }))).toEqual(facts(first));
  });

  test('is remembered for 24 hours, and after that makes a new message', async () => {
    const id = await open();
    const say = (instance = api) => keyed(instance, 'a-day', `/conversations/${id}/reply`, { message: 'x' });
    const opening = () => keyed(api, 'a-day', '/conversations', { visitor: {}, message: 'x' });
    const [first, conversation] = [await say(), await opening()];
    const later = (ms: number) => [api, other].forEach(({ clock }) => clock.advance(ms));
    later(24 * HOUR - MINUTE);
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    // Also by the instance that must read the stream for it.
    for (const instance of [api, other]) expect(facts(await say(instance))).toEqual(facts(first));
    later(2 * MINUTE);
    for (const one of [id, data(conversation).id as string])
      await api.expect(200, 'POST', `/conversations/${one}/tags`, { body: { tags: ['b'] } });
    const second = await say();
    expect(data(second).id).not.toBe(data(first).id);
    // And it is remembered for the next 24 hours.
    expect(facts(await say(other))).toEqual(facts(second));
    // A conversation never says its first message again.
    expect(facts(await opening())).toEqual(facts(conversation));
    expect((await get(data(conversation).id as string)).messageCount).toBe(1);
  });

  test.each([
    ['agents', { name: 'Late' }, { name: 'Later' }],
    ['teams', { name: 'Late' }, { name: 'Later' }],
    ['inboxes', { name: 'Late', isDefault: true }, { name: 'Later' }],
    ['canned-responses', { title: 'Late', shortcut: '/late', content: 'x' }, { title: 'Later' }],
  ])('is answered by what it made, and not by "taken", after that too: %s', async (resource, body, change) => {
    const [before] = data(await api.expect(200, 'GET', '/inboxes?limit=1&order=asc')) as unknown as { id: string }[];
    const make = () => keyed(api, 'a-day', `/${resource}`, body);
    const made = await make();
    api.clock.advance(25 * HOUR);
    await api.expect(200, 'PUT', `/${resource}/${String(data(made).id)}`, { body: change });
    // Another inbox is the default by now, and stays it.
    await api.expect(200, 'PUT', `/inboxes/${before!.id}`, { body: { isDefault: true } });
    const head = await api.backend.store.head();
    expect(facts(await make())).toEqual(facts(made));
    expect(await eventsAfter(api, head)).toEqual([]);
  });

  test('of a command that changed nothing is remembered for 24 hours too', async () => {
    const id = await open();
    const unassign = (instance = api) => keyed(instance, 'a-day-unchanged', `/conversations/${id}/assign`, { assigneeId: null });
    const first = await unassign();
    await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: 'bo' } });
    const outdate = (age: string) => sql.query('update keep.idempotency set created_at = now() - $1::interval', [age]);
    await outdate('23:59');
    for (const instance of [api, other]) expect(facts(await unassign(instance))).toEqual(facts(first));
    await outdate('24:01');
    expect(data(await unassign()).revision).toBe(3);

    // The same key once more, for nothing again: remembered anew, though nobody has swept the outdated row.
    const again = await keyed(api, 'a-day-again', `/conversations/${id}/assign`, { assigneeId: null });
    await outdate('24:01');
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    const anew = await keyed(api, 'a-day-again', `/conversations/${id}/assign`, { assigneeId: null });
    expect(data(anew).revision).toBe(data(again).revision + 1);
    await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: 'bo' } });
    expect(facts(await keyed(other, 'a-day-again', `/conversations/${id}/assign`, { assigneeId: null }))).toEqual(facts(anew));
  });
});

describe('If-Match', () => {
  test('lets one of two writers through, also at different instances', async () => {
    const id = await open();
    const etag = (await ask(other, 'GET', `/conversations/${id}`)).headers.get('etag') ?? '';
    const answers = await Promise.all(
      [api, other].map((instance) =>
        ask(instance, 'PUT', `/conversations/${id}`, { body: { subject: instance.url }, headers: { 'if-match': etag } }),
      ),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 412]));
    expect(answers.find(({ status }) => status === 412)?.body.code).toBe('revision_mismatch');
    expect((await get(id)).revision).toBe(2);
  });

  test('is checked on every write, and looked up in the log', async () => {
    const id = await open();
    await ask(api, 'GET', `/conversations/${id}`);
    await ask(other, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    const stale = { 'if-match': '"1"' };
    const writes: [string, string, unknown][] = [
      ['PUT', '', { priority: 'low' }],
      ['POST', '/reply', { message: 'x' }],
      ['POST', '/messages', { message: 'x' }],
      ['POST', '/assign', { assigneeId: null }],
      ['POST', '/snooze', { until: 'next_reply' }],
      ['POST', '/tags', { tags: ['a'] }],
      ['DELETE', '/tags/none', undefined],
    ];
    for (const [method, path, body] of writes)
      expect(
        (await ask(api, method, `/conversations/${id}${path}`, { ...(body === undefined ? {} : { body }), headers: stale })).status,
      ).toBe(412);
    expect((await get(id)).revision).toBe(2);
    expect((await ask(api, 'PUT', `/conversations/${id}`, { body: { priority: 'low' }, headers: { 'if-match': '"2"' } })).status).toBe(200);
    expect((await ask(api, 'PUT', `/conversations/${id}`, { body: { priority: 'high' }, headers: { 'if-match': '*' } })).status).toBe(200);
  });

  test.each(['1', '"1', 'W/"3"', '"03"', '"-1"', '"x"', '"99999999999"'])('%s names no revision', async (header) => {
    const id = await open();
    await api.expect(412, 'PUT', `/conversations/${id}`, { body: { priority: 'low' }, headers: { 'if-match': header } });
  });

  test('that names no revision is told after what is wrong with the path and the body', async () => {
    const id = await open();
    const headers = { 'if-match': 'x' };
    await api.expect(400, 'PUT', `/conversations/${id}`, { body: { priority: 'lowest' }, headers });
    await api.expect(400, 'POST', '/conversations', { body: { message: 'x' }, headers });
    await api.expect(400, 'PUT', '/companies/a', { body: { name: '' }, headers });
    await api.expect(404, 'PUT', '/companies/a%20b', { body: { name: 'A' }, headers });
    await api.expect(412, 'PUT', '/companies/a', { body: { name: 'A' }, headers });
  });
});

describe('without If-Match', () => {
  test('commands that commute all get through, at both instances', async () => {
    const id = await open();
    const tags = Array.from({ length: 20 }, (_, i) => `t${i}`);
    const answers = await Promise.all(
      tags.map((tag, i) => ask(i % 2 === 0 ? api : other, 'POST', `/conversations/${id}/tags`, { body: { tags: [tag] } })),
    );
    // Lost races are bounded: what did not get through says so, and can be repeated.
    for (const { status, body } of answers) if (status !== 200) expect([status, body.code]).toEqual([409, 'concurrent_changes']);
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThan(10);
    const shown = await get(id);
    expect(new Set(shown.tags)).toEqual(new Set(tags.filter((_, i) => answers[i]?.status === 200)));
  });

  test('one of two that exclude each other is refused', async () => {
    const id = await open();
    const answers = await Promise.all([
      ask(api, 'PUT', `/conversations/${id}`, { body: { status: 'closed' } }),
      ask(other, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } }),
    ]);
    // Resolving may come first, and closing after it; never the other way.
    const statuses = answers.map(({ status }) => status);
    expect([
      [200, 200],
      [200, 409],
    ]).toContainEqual(statuses);
    expect((await get(id)).status).toBe('closed');
  });
});

test('a due snooze wakes once, though the timers of both instances fire', async () => {
  const snoozed = await Promise.all(Array.from({ length: 10 }, () => open()));
  const until = new Date(api.clock.now() + 30 * 24 * HOUR).toISOString();
  for (const id of snoozed) await api.expect(200, 'POST', `/conversations/${id}/snooze`, { body: { until } });
  const others = other.clock.now() - api.clock.now();
  api.clock.advance(30 * 24 * HOUR + 1_000);
  other.clock.advance(30 * 24 * HOUR + 1_000 - others);
  for (const id of snoozed) {
    await eventually(async () => (await get(id)).status === 'open');
    // Whoever comes second finds that snooze no longer in force.
    for (const instance of [api, other]) {
      const commandId = randomIds.next();
      const done = await instance.app.get(CommandBus).execute(
        new WakeConversation(
          {
            organizationId: api.organizationId,
            actor: { type: 'system', id: 'snooze-timer' },
            commandId,
            requestHash: '',
            correlationId: commandId,
          },
          id,
          2,
          api.clock.now(),
        ),
      );
      expect(done.outcome).toBe('unchanged');
    }
    const events = data(await ask(api, 'GET', `/conversations/${id}/events`)) as { type: string }[];
    expect(events.filter(({ type }) => type === 'ConversationStatusChanged')).toHaveLength(1);
  }
});

describe('X-Min-Position', () => {
  test('lets every read see the write that answered it, at either instance', async () => {
    for (let i = 0; i < 20; i++) {
      const made = await ask(i % 2 === 0 ? api : other, 'POST', '/conversations', {
        body: { visitor: {}, message: `m${i}`, customAttributes: { seen: i } },
      });
      const headers = { 'x-min-position': made.headers.get('x-position') ?? '' };
      for (const instance of [api, other]) {
        const list = await ask(instance, 'GET', `/conversations?customAttributes[seen]=${i}`, { headers });
        expect(data(list)).toHaveLength(1);
      }
    }
  });

  test('a command that wrote nothing answers the position of the conversation', async () => {
    const id = await open();
    const tagged = await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    await open();
    const again = await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    expect(again.headers.get('x-position')).toBe(tagged.headers.get('x-position'));
  });

  test.each(['', 'no position', 'abc', '1e9', '0x1', '7', 'ä', 'x'.repeat(101), "1'--"])('%j is none', async (header) => {
    const refused = await api.call('GET', '/conversations', { headers: { 'x-min-position': header } });
    expect([refused.status, refused.body.code]).toEqual([400, 'malformed_request']);
  });

  test('that nothing will reach is 503, and says when to try again', async () => {
    const refused = await beyond;
    expect([refused.status, refused.body.code, refused.headers.get('retry-after')]).toEqual([503, 'read_model_behind', '1']);
  });
});
