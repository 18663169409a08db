import { CommandBus } from '@nestjs/cqrs';
import { WakeConversation } from '../../src/conversations/conversation.commands.js';
import { Transactor } from '../../src/commands/transactor.js';
import { companyAggregate, createCompany } from '../../src/companies/company.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { randomIds } from '../../src/ids.js';
import { ROLES } from '../../src/security/roles.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';

let api: TestApi;

beforeAll(async () => {
  api = await startApi();
  await api.app
    .get(Transactor)
    .transact(companyAggregate, 'acme', systemContext(api.organizationId, randomIds.next()), createCompany({ name: 'Acme' }));
}, 60_000);

afterAll(() => api.stop());

const post = (body: unknown, headers: Record<string, string> = {}) => api.call('POST', '/visitors', { body, headers });
const fieldsOf = ({ body }: Answer) => (body.errors as { field: string }[]).map(({ field }) => field);
const head = () => api.backend.store.head();

/** The list as it is once it has seen a write. */
const listAfter = (written: Answer, query = '') =>
  api.expect(200, 'GET', `/visitors${query}`, { headers: { 'x-min-position': written.headers.get('x-position')! } });

describe('POST /visitors', () => {
  test('makes a visitor, and says where', async () => {
    const body = {
      userId: 'user-1',
      name: 'Ada Lovelace',
      email: 'Ada@Example.com',
      phone: '+44 20 7946 0000',
      avatarUrl: 'https://example.com/ada.png',
      plan: 'pro',
      companyId: 'acme',
      attributes: { seats: 3, city: 'London', trial: false, old: null },
    };
    const made = await post(body);
    expect(made.status).toBe(201);
    const { id, createdAt, ...shown } = made.body.data;
    expect(shown).toEqual({
      ...body,
      attributes: { seats: 3, city: 'London', trial: false },
      archived: false,
      revision: 0,
      updatedAt: createdAt,
    });
    expect(made.headers.get('location')).toBe(`/api/support/visitors/${id}`);
    expect(made.headers.get('etag')).toBe('"0"');
    const got = await api.expect(200, 'GET', `/visitors/${id}`);
    expect(got.body).toEqual(made.body);
    expect(got.headers.get('x-position')).toBe(made.headers.get('x-position'));
    expect((await listAfter(made, '?userId=user-1')).body.data).toEqual([made.body.data]);
  });

  test('finds the one that the userId or the e-mail names, and sets what differs', async () => {
    const made = await post({ userId: 'user-2', email: 'bob@example.com', name: 'Bob' });
    const { id } = made.body.data;
    for (const given of [{ userId: 'user-2' }, { email: 'BOB@example.com' }, { userId: 'user-2', name: null, plan: null }]) {
      const found = await post(given);
      expect([found.status, found.body.data.id, found.body.data.name]).toEqual([200, id, 'Bob']);
      expect(found.headers.get('location')).toBeNull();
    }
    const changed = await post({ email: 'bob@example.com', plan: 'pro' });
    expect(changed.status).toBe(200);
    expect(changed.body.data).toMatchObject({ id, plan: 'pro', name: 'Bob' });
  });

  test('makes one of nothing at all', async () => {
    const made = await post({});
    expect(made.body.data).toMatchObject({ name: null, email: null, attributes: {} });
  });

  test('takes an id of the caller, once', async () => {
    expect((await post({ id: 'Visitor:7@x', name: 'Seven' })).body.data.id).toBe('Visitor:7@x');
    expect((await post({ id: 'visitor:7@x' })).status).toBe(201);
    const before = await head();
    for (const body of [{ id: 'Visitor:7@x' }, { id: 'Visitor:7@x', name: 'Seven' }]) {
      const taken = await post(body);
      expect([taken.status, taken.body.code]).toEqual([409, 'id_taken']);
    }
    expect(await head()).toBe(before);
  });

  test('a retry gets the first answer and writes nothing', async () => {
    for (const body of [{ name: 'Retry' }, { email: 'retry@example.com', name: 'Retry' }, { id: 'retry', userId: 'retry' }]) {
      const headers = { 'idempotency-key': `retry-${JSON.stringify(body)}`.replaceAll(/[^\x21-\x7e]/g, '') };
      const first = await post(body, headers);
      expect(first.status).toBe(201);
      await api.expect(200, 'PUT', `/visitors/${first.body.data.id}`, { body: { plan: 'later' } });
      const before = await head();
      const again = await post(body, headers);
      expect([again.status, again.text, again.headers.get('x-position')]).toEqual([201, first.text, first.headers.get('x-position')]);
      expect(again.headers.get('etag')).toBe('"0"');
      const other = await post({ ...body, plan: 'other' }, headers);
      expect([other.status, other.body.code]).toEqual([422, 'idempotency_key_reused']);
      expect(await head()).toBe(before);
    }
  });

  test('two racing requests with one e-mail make one visitor', async () => {
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => post({ email: 'race@example.com', attributes: { [`a${i}`]: i } })),
    );
    expect(new Set(answers.map(({ body }) => body.data.id)).size).toBe(1);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(answers.every(({ status }) => status === 201 || status === 200)).toBe(true);
    const { body } = await api.expect(200, 'GET', `/visitors/${answers[0]!.body.data.id}`);
    expect(Object.keys(body.data.attributes)).toHaveLength(12);
  });

  test('two processes that take one e-mail at once, in making and in changing, leave it to one', async () => {
    const second = await startApi({
      database: { url: api.backend.databaseUrl },
      environment: { MASTER_KEY: api.backend.config.MASTER_KEY! },
    });
    try {
      for (let round = 0; round < 5; round++) {
        const email = `both${round}@example.com`;
        await post({ id: `both${round}` });
        const answers = await Promise.all(
          Array.from({ length: 6 }, (_, i) => {
            const instance = i % 2 === 0 ? api : second;
            const body = { email: i % 3 === 0 ? email.toUpperCase() : email };
            return i === 0
              ? instance.call('PUT', `/visitors/both${round}`, { key: api.adminKey, body })
              : instance.call('POST', '/visitors', { key: api.adminKey, body: { ...body, id: `both${round}-${i}` } });
          }),
        );
        expect(answers.filter(({ status }) => status < 300)).toHaveLength(1);
        for (const { status, body } of answers) if (status >= 300) expect([status, body.code]).toEqual([409, 'email_taken']);
        const list = await api.expect(200, 'GET', `/visitors?email=${email}`, { headers: { 'x-min-position': String(await head()) } });
        expect(list.body.data).toHaveLength(1);
      }
    } finally {
      await second.stop();
    }
  });

  test('an address is one in every spelling, and may be of a host without a dot or with an underscore', async () => {
    const spellings = ['Rene\u0301@München.example', 'ren\u00e9@xn--mnchen-3ya.example', 'REN\u00c9@mu\u0308nchen.example'];
    const [first, ...others] = await Promise.all(spellings.map((email) => post({ email })));
    for (const other of others) expect(other.body.data.id).toBe(first!.body.data.id);
    for (const email of spellings) {
      const headers = { 'x-min-position': String(await head()) };
      const list = await api.expect(200, 'GET', `/visitors?email=${encodeURIComponent(email)}`, { headers });
      expect(list.body.data).toMatchObject([{ id: first!.body.data.id }]);
    }
    for (const email of ['root@localhost', 'ada@mail_1.example.com']) expect((await post({ email })).body.data.email).toBe(email);
  });

  test('a name is stored as it is typed, without what cannot be seen', async () => {
    const { id, name } = (await post({ name: ' Zoe\u0308\u00a0\u202e Noor\u200b👩\u200d👧 ' })).body.data;
    expect(name).toBe('Zo\u00eb Noor👩\u200d👧');
    // Named as it is, it changes nothing.
    const again = await api.expect(200, 'PUT', `/visitors/${id}`, { body: { name: 'Zoe\u0308 Noor👩\u200d👧\t' } });
    expect(again.body.data.revision).toBe(0);
  });

  test('keys of two visitors are a conflict, in whichever way they meet', async () => {
    await post({ id: 'c1', userId: 'c1', email: 'c1@example.com' });
    await post({ id: 'c2', userId: 'c2', email: 'c2@example.com' });
    const before = await head();
    const met = async (method: string, path: string, body: unknown) => {
      const answer = await api.call(method, path, { body });
      return [answer.status, answer.body.code];
    };
    expect(await met('POST', '/visitors', { userId: 'c1', email: 'c2@example.com' })).toEqual([409, 'visitor_conflict']);
    expect(await met('POST', '/visitors', { userId: 'new', email: 'c2@example.com' })).toEqual([409, 'visitor_conflict']);
    expect(await met('POST', '/visitors', { id: 'c3', email: 'c2@example.com' })).toEqual([409, 'email_taken']);
    expect(await met('POST', '/visitors', { id: 'c3', userId: 'c2' })).toEqual([409, 'user_id_taken']);
    expect(await met('PUT', '/visitors/c1', { email: 'C2@example.com' })).toEqual([409, 'email_taken']);
    expect(await met('PUT', '/visitors/c1', { userId: 'c2' })).toEqual([409, 'user_id_taken']);
    const refused = await head();
    // A single refused key leaves no trace at all.
    expect(refused).toBe(before);
  });
});

describe('PUT /visitors/:id', () => {
  test('changes the named fields, merges attributes, and null clears', async () => {
    await post({ id: 'p1', name: 'Pat', email: 'pat@example.com', phone: '1', attributes: { a: 1, b: 2 } });
    const changed = await api.expect(200, 'PUT', '/visitors/p1', { body: { phone: null, plan: 'pro', attributes: { a: null, c: 'x' } } });
    expect(changed.body.data).toMatchObject({
      name: 'Pat',
      email: 'pat@example.com',
      phone: null,
      plan: 'pro',
      attributes: { b: 2, c: 'x' },
      revision: 1,
    });
    expect(changed.headers.get('etag')).toBe('"1"');
    const before = await head();
    for (const body of [{}, { plan: 'pro' }, { attributes: { a: null } }]) {
      const same = await api.expect(200, 'PUT', '/visitors/p1', { body });
      expect(same.body).toEqual(changed.body);
      expect(same.headers.get('x-position')).toBe(changed.headers.get('x-position'));
    }
    expect(await head()).toBe(before);
    // What it gave up is free, what it took finds it.
    await api.expect(200, 'PUT', '/visitors/p1', { body: { email: 'new@example.com' } });
    expect((await post({ email: 'pat@example.com' })).status).toBe(201);
    expect((await post({ email: 'new@example.com' })).body.data.id).toBe('p1');
  });

  test('respects If-Match', async () => {
    await post({ id: 'm1', name: 'Mo' });
    const stale = await api.call('PUT', '/visitors/m1', { body: { name: 'Mona' }, headers: { 'if-match': '"7"' } });
    expect([stale.status, stale.body.code]).toEqual([412, 'revision_mismatch']);
    await api.expect(200, 'PUT', '/visitors/m1', { body: { name: 'Mona' }, headers: { 'if-match': '"0"' } });
    expect((await api.call('DELETE', '/visitors/m1', { headers: { 'if-match': '"0"' } })).status).toBe(412);
    expect((await api.expect(200, 'GET', '/visitors/m1')).body.data).toMatchObject({ name: 'Mona', archived: false });
  });

  test('takes at most 100 attributes in all', async () => {
    const many = (from: number) => Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`k${from + i}`, i]));
    await post({ id: 'q1', attributes: many(0) });
    const more = await api.call('PUT', '/visitors/q1', { body: { attributes: many(60) } });
    expect([more.status, more.body.code]).toEqual([422, 'limit_exceeded']);
  });
});

describe('DELETE /visitors/:id', () => {
  test('archives, frees the keys, and is the same when asked again', async () => {
    await post({ id: 'd1', userId: 'd1', email: 'd1@example.com', name: 'Dee' });
    const gone = await api.expect(204, 'DELETE', '/visitors/d1');
    expect(gone.headers.get('etag')).toBe('"1"');
    expect((await api.expect(204, 'DELETE', '/visitors/d1')).headers.get('x-position')).toBe(gone.headers.get('x-position'));
    expect((await api.expect(200, 'GET', '/visitors/d1')).body.data).toMatchObject({ archived: true, name: 'Dee' });
    expect((await listAfter(gone, '?userId=d1')).body.data).toEqual([]);
    expect((await listAfter(gone, '?userId=d1&archived=true')).body.data).toMatchObject([{ id: 'd1' }]);
    for (const [method, path, body, code] of [
      ['PUT', '/visitors/d1', { name: 'Dora' }, 'resource_archived'],
      ['POST', '/visitors', { id: 'd1' }, 'id_taken'],
    ] as const) {
      const answer = await api.call(method, path, { body });
      expect([answer.status, answer.body.code]).toEqual([409, code]);
    }
    expect((await post({ userId: 'd1', email: 'd1@example.com' })).status).toBe(201);
  });
});

describe('GET /visitors', () => {
  test('pages by cursor, and reads its own writes', async () => {
    const { adminKey: key } = await api.otherOrganization();
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) ids.push((await api.expect(201, 'POST', '/visitors', { key, body: { name: `N${i}` } })).body.data.id);
    const last = await api.expect(200, 'PUT', `/visitors/${ids[4]}`, { key, body: { name: 'A first' } });
    const headers = { 'x-min-position': last.headers.get('x-position')! };
    const first = await api.expect(200, 'GET', '/visitors?sort=name&limit=2', { key, headers });
    expect(first.body.data.map(({ name }: { name: string }) => name)).toEqual(['A first', 'N0']);
    expect(first.body.meta).toMatchObject({ page: 1, limit: 2, total: 5, totalIsExact: true, hasMore: true });
    const next = await api.expect(200, 'GET', `/visitors?sort=name&limit=2&cursor=${first.body.meta.nextCursor}`, { key });
    expect(next.body.data.map(({ name }: { name: string }) => name)).toEqual(['N1', 'N2']);
    expect((await api.expect(200, 'GET', '/visitors?sort=name&limit=2&page=2', { key })).body.data).toEqual(next.body.data);
    // What a row says is what the visitor's own route says.
    for (const row of first.body.data) expect((await api.expect(200, 'GET', `/visitors/${row.id}`, { key })).body.data).toEqual(row);
  });

  test('refuses what it does not know, by name', async () => {
    const answer = await api.call('GET', '/visitors?nmae=x&archived=1&email=a&email=b&limit=500');
    expect([answer.status, answer.body.code]).toEqual([400, 'validation_failed']);
    expect(fieldsOf(answer)).toEqual(expect.arrayContaining(['nmae', 'archived', 'email']));
    expect((await api.call('GET', '/visitors?userId=%00')).status).toBe(400);
    expect((await api.call('GET', '/visitors?limit=500')).status).toBe(400);
  });
});

test('a visitor of another organization is an unknown one, byte for byte', async () => {
  const made = (await post({ userId: 'tenant', name: 'Mine' })).body.data;
  const { adminKey: key } = await api.otherOrganization();
  const strip = ({ status, body }: Answer) => ({ status, ...body, instance: '', requestId: '' });
  for (const [method, body] of [
    ['GET', undefined],
    ['PUT', { name: 'Theirs' }],
    ['DELETE', undefined],
  ] as const) {
    const foreign = await api.call(method, `/visitors/${made.id}`, { key, body });
    expect(strip(foreign)).toEqual(strip(await api.call(method, '/visitors/nobody', { key, body })));
    expect(foreign.status).toBe(404);
    for (const odd of ['a%20b', '%00', '..%2Fx', 'x'.repeat(400), 'ü'])
      expect((await api.call(method, `/visitors/${odd}`, { body })).status).toBe(404);
  }
  // The same keys are another person there.
  expect((await api.expect(201, 'POST', '/visitors', { key, body: { id: made.id, userId: 'tenant' } })).body.data.name).toBeNull();
  expect((await api.expect(200, 'GET', `/visitors/${made.id}`)).body.data).toEqual(made);
});

test('roles: admin and agent write, everybody reads', async () => {
  await post({ id: 'r1' });
  for (const role of ROLES) {
    const key = await api.keyFor(role);
    const writes = role === 'admin' || role === 'agent';
    expect((await api.call('GET', '/visitors', { key })).status).toBe(200);
    expect((await api.call('GET', '/visitors/r1', { key })).status).toBe(200);
    expect((await api.call('POST', '/visitors', { key, body: { name: role } })).status).toBe(writes ? 201 : 403);
    expect((await api.call('PUT', '/visitors/r1', { key, body: { name: role } })).status).toBe(writes ? 200 : 403);
    if (!writes) expect((await api.call('DELETE', '/visitors/r1', { key })).status).toBe(403);
  }
  expect((await api.call('GET', '/visitors', { key: null })).status).toBe(401);
});

describe('bad input', () => {
  const fields: [string, unknown[]][] = [
    ['userId', ['', ' \u200b', 7, 'x'.repeat(257), 'a\u0000', ['a'], { $ne: 1 }]],
    ['name', ['', '\u202e', 7, 'x'.repeat(201), true]],
    ['email', ['', 'nobody', 'a@', 'a b@example.com', `${'x'.repeat(320)}@example.com`, 7, ['a@example.com']]],
    ['phone', ['', 'x'.repeat(51), 7]],
    ['avatarUrl', ['javascript:alert(1)', 'ftp://example.com/x', 'https://user:pw@example.com/', 'x', 7]],
    ['plan', ['', 'x'.repeat(101), 7]],
    ['companyId', ['', 'a b', 'x'.repeat(129), 7]],
    ['attributes', ['x', 7, [], { '': 1 }, Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`k${i}`, 1]))]],
    ['attributes.a', [{ a: {} }, { a: ['x'] }, { a: 'x'.repeat(1_001) }]],
    [`attributes.${'x'.repeat(64)}…`, [{ ['x'.repeat(65)]: 1 }]],
    ['createdAt', ['2026-01-01T00:00:00Z']],
    ['archived', [true]],
  ];

  test.each(fields)('%s', async (field, values) => {
    await post({ id: 'bad' });
    const before = await head();
    for (const value of values)
      for (const [method, path] of [
        ['POST', '/visitors'],
        ['PUT', '/visitors/bad'],
      ] as const) {
        const answer = await api.call(method, path, { body: { [field.split('.', 1)[0] ?? '']: value } });
        const code = JSON.stringify(value).includes('\\u0000') ? 'malformed_json' : 'validation_failed';
        expect([method, value, answer.status, answer.body.code]).toEqual([method, value, 400, code]);
        if (code === 'validation_failed') expect([...new Set(fieldsOf(answer))]).toEqual([field]);
      }
    expect(await head()).toBe(before);
  });

  test('ids', async () => {
    const before = await head();
    for (const id of ['', 'a b', 'a/b', 'ü', 'x'.repeat(129), 7, ['a']]) expect(fieldsOf(await post({ id }))).toEqual(['id']);
    // The id of a visitor cannot be changed.
    expect((await api.call('PUT', '/visitors/bad', { body: { id: 'other' } })).status).toBe(400);
    expect(await head()).toBe(before);
  });

  test('bodies that are no object, or none', async () => {
    await post({ id: 'bad' });
    for (const raw of ['[]', '"x"', '7', 'null', '', '{', '{"name":"a","name":"b"}', '{"__proto__":{}}']) {
      const before = await head();
      for (const [method, path] of [
        ['POST', '/visitors'],
        ['PUT', '/visitors/bad'],
      ] as const)
        expect([raw, method, (await api.call(method, path, { raw })).status]).toEqual([raw, method, 400]);
      expect(await head()).toBe(before);
    }
    const none = await api.call('PUT', '/visitors/bad');
    expect(none.status).toBeLessThan(500);
    expect((await api.call('POST', '/visitors')).status).toBeLessThan(500);
  });

  test('an unknown company', async () => {
    await post({ id: 'bad' });
    const before = await head();
    for (const [method, path] of [
      ['POST', '/visitors'],
      ['PUT', '/visitors/bad'],
    ] as const) {
      const answer = await api.call(method, path, { body: { companyId: 'nobody', email: 'company@example.com' } });
      expect([answer.status, answer.body.code]).toEqual([422, 'unknown_company']);
    }
    expect(await head()).toBe(before);
  });
});

describe('GET /visitors/:id/events', () => {
  const history = (id: string, query = '', key: string | null = api.adminKey) => api.call('GET', `/visitors/${id}/events${query}`, { key });

  test('tells what was done to a visitor, by whom, in plain text', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: { name: 'Ada' } })).body.data.id;
    await post({ id: 'h1', userId: 'h1', name: 'Grace', attributes: { seats: 1, old: true } });
    await api.expect(200, 'PUT', '/visitors/h1', {
      body: { email: 'grace@example.com', name: null, attributes: { seats: 2, old: null } },
      headers: { 'x-agent-id': ada },
    });
    const gone = await api.expect(204, 'DELETE', '/visitors/h1');
    for (const role of ROLES) {
      const answer = await history('h1', '', await api.keyFor(role));
      expect(answer.status).toBe(role === 'analyst' ? 403 : 200);
      if (role === 'analyst') continue;
      expect(answer.headers.get('x-position')).toBe(gone.headers.get('x-position'));
      expect(answer.body.data).toMatchObject([
        { revision: 0, type: 'VisitorCreated', data: { userId: 'h1', name: 'Grace', attributes: { seats: 1, old: true } } },
        {
          revision: 1,
          type: 'VisitorChanged',
          actor: { type: 'agent', id: ada },
          data: { email: 'grace@example.com', name: null, attributes: { set: { seats: 2 }, removed: ['old'] } },
        },
        { revision: 2, type: 'VisitorArchived', actor: { type: 'apiKey' }, data: {} },
      ]);
    }
    expect((await history('h1', '?from=2')).body.data).toHaveLength(1);
    expect((await history('h1', '?limit=2')).body.meta).toEqual({ limit: 2, hasMore: true });
  });

  test('tells nothing personal once the visitor was erased', async () => {
    await post({ id: 'h2', name: 'Hopper', email: 'hopper@example.com', attributes: { rank: 'admiral' }, plan: 'pro' });
    await api.expect(200, 'PUT', '/visitors/h2', { body: { attributes: { rank: null }, phone: '+1' } });
    await api.backend.database.updateTable('keep.visitor_keys').set({ wrapped: null }).where('visitor_id', '=', 'h2').execute();
    // Another process, which has not seen the key.
    const later = await startApi({
      database: { url: api.backend.databaseUrl },
      environment: { MASTER_KEY: api.backend.config.MASTER_KEY! },
    });
    try {
      const answer = await later.expect(200, 'GET', '/visitors/h2/events', { key: api.adminKey });
      expect(answer.text).not.toMatch(/Hopper|hopper|rank|admiral|\+1/);
      expect(answer.body.data).toMatchObject([
        { type: 'VisitorCreated', data: { name: '[erased]', email: '[erased]', plan: 'pro' } },
        { type: 'VisitorChanged', data: { phone: '[erased]' } },
      ]);
    } finally {
      await later.stop();
    }
  });

  test('is another organization’s to nobody else', async () => {
    await post({ id: 'h3' });
    const { adminKey } = await api.otherOrganization();
    const problem = ({ status, body: { detail, code } }: Answer) => [status, code, detail];
    expect(problem(await history('h3', '', adminKey))).toEqual(problem(await history('nobody', '', adminKey)));
    expect((await history('h3', '', adminKey)).status).toBe(404);
    for (const query of ['?from=-1', '?limit=0', '?limit=1001', '?after=1']) expect((await history('h3', query)).status).toBe(400);
    for (const id of ['%00', '..%2f', 'x'.repeat(129)]) expect((await history(id)).status).toBe(404);
  });
});

test('a conversation of an erased visitor takes no more words, and all else goes on with it', async () => {
  const DAY = 86_400_000;
  const made = await api.expect(201, 'POST', '/conversations', { body: { visitor: { id: 'h4' }, message: 'Hi' } });
  const id = made.body.data.id as string;
  const until = new Date(api.clock.now() + DAY).toISOString();
  await api.expect(200, 'POST', `/conversations/${id}/snooze`, { body: { until } });
  await api.backend.database.updateTable('keep.visitor_keys').set({ wrapped: null }).where('visitor_id', '=', 'h4').execute();
  // Another process, which has not seen the key.
  const later = await startApi({
    database: { url: api.backend.databaseUrl },
    environment: { MASTER_KEY: api.backend.config.MASTER_KEY! },
  });
  try {
    const woken = await later.app
      .get(CommandBus)
      .execute(new WakeConversation(systemContext(api.organizationId, randomIds.next()), id, 2, api.clock.now() + DAY));
    expect(woken).toMatchObject({ outcome: 'appended', state: { status: 'open' } });
    const ask = async (method: string, path: string, body: object) => {
      const answer = await later.call(method, `/conversations/${id}${path}`, { key: api.adminKey, body });
      return answer.body.code ?? answer.status;
    };
    for (const [path, body] of [
      ['', { subject: 'x' }],
      ['', { customAttributes: { a: 1 } }],
    ] as const)
      expect(await ask('PUT', path, body)).toBe('visitor_erased');
    for (const path of ['/reply', '/messages']) expect(await ask('POST', path, { message: 'x' })).toBe('visitor_erased');
    expect(await ask('POST', '/tags', { tags: ['gone'] })).toBe(200);
    expect(await ask('POST', '/assign', { assigneeId: null })).toBe(200);
    expect(await ask('POST', '/snooze', { until })).toBe(200);
    expect(await ask('PUT', '', { status: 'closed', priority: 'low', subject: null })).toBe(200);
    expect(await ask('POST', '/rating', { rating: 5 })).toBe(200);
    expect(await ask('POST', '/rating', { rating: 5, comment: 'x' })).toBe('visitor_erased');
  } finally {
    await later.stop();
  }
});

test('the log, the server log and the keys tell nothing of a visitor', async () => {
  const secret = 'Zaphod Beeblebrox';
  const made = await post({ name: secret, email: 'zaphod@example.com', phone: '+42 4242', attributes: { heads: 'two heads' } });
  await api.call('POST', '/visitors', { body: { name: secret, email: 'not an address zaphod' } });
  await listAfter(made);
  expect(api.logged()).not.toMatch(/Zaphod|zaphod|\+42 4242|two heads/);
  for await (const batch of api.backend.store.feed('start', { maxEvents: 1_000, signal: AbortSignal.timeout(10_000) })) {
    expect(JSON.stringify(batch.events)).not.toMatch(/Zaphod|zaphod|\+42 4242|two heads/);
    if (batch.caughtUp) break;
  }
});
