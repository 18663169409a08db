import { createHmac } from 'node:crypto';
import { Reflector } from '@nestjs/core';
import { AppModule } from '../../src/app.module.js';
import { declaredRoles } from '../../src/security/auth.guard.js';
import { routesOf } from '../../src/http/routes.js';
import { type Answer, type CallOptions, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventsAfter } from '../support/events-after.js';
import { eventually } from '../support/eventually.js';
import { LiveClient } from '../support/live-client.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * A widget's token: what its holder may do, what it is told, and what it can never get at. Two instances of the API on one database, since a
 * token that is revoked by one is nothing to the other for a moment only.
 */

let database: TestDatabase;
let api: TestApi;
let other: TestApi;
beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database, environment: { AUTH_FAILURES_PER_MINUTE: '0' } });
  const { MASTER_KEY = '' } = api.backend.config;
  other = await startApi({ database, environment: { MASTER_KEY, AUTH_FAILURES_PER_MINUTE: '3' } });
  await api.expect(201, 'POST', '/agents', { body: { id: 'eve', name: 'Eve' } });
  await api.expect(201, 'POST', '/teams', { body: { id: 'tier-1', name: 'Tier 1', agentIds: [] } });
  await api.expect(201, 'POST', '/inboxes', { body: { id: 'sales', name: 'Sales' } });
});
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await other.stop();
    await api.stop();
    await database.drop();
  }
});

let count = 0;
const fresh = (prefix: string) => `${prefix}-${++count}`;
// oxlint-disable-next-line typescript/no-explicit-any -- answers of every shape; the support has held them against their schemas
const data = (answer: Answer): any => answer.body.data;
const position = (answer: Answer) => answer.headers.get('x-position') ?? '';
/** Waits until the lists include what an answer with a key tells of. */
const settled = (answer: Answer) => api.expect(200, 'GET', '/conversations', { headers: { 'x-min-position': position(answer) } });

interface Widget {
  readonly visitorId: string;
  readonly token: string;
  readonly call: (method: string, path: string, options?: CallOptions) => Promise<Answer>;
  readonly expect: (status: number, method: string, path: string, options?: CallOptions) => Promise<Answer>;
  /** Opens a conversation and answers its id. */
  readonly open: (message?: string) => Promise<string>;
}

async function widget(visitor: object = { id: fresh('visitor') }, ttl?: number): Promise<Widget> {
  const { token, visitorId } = data(await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor, ttl } })) as Widget;
  return {
    token,
    visitorId,
    call: (method, path, options) => api.call(method, path, { key: token, ...options }),
    expect: (status, method, path, options) => api.expect(status, method, path, { key: token, ...options }),
    open: async (message = 'Hi') => data(await api.expect(201, 'POST', '/conversations', { key: token, body: { message } })).id as string,
  };
}

const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as unknown[];

describe('making a token', () => {
  test('finds or makes the visitor as a new conversation does, and says when the token ends', async () => {
    const body = { visitor: { userId: 'u-1', name: 'Ada' } };
    const first = await api.expect(201, 'POST', '/visitor-tokens', { body });
    const again = await api.expect(201, 'POST', '/visitor-tokens', { body: { ...body, ttl: 86_400 } });
    expect(data(again).visitorId).toBe(data(first).visitorId);
    expect(data(again).token).not.toBe(data(first).token);
    const ends = (answer: Answer) => Math.round((Date.parse(data(answer).expiresAt as string) - api.clock.now()) / 60_000);
    expect([ends(first), ends(again)]).toEqual([60, 1_440]);
    const { id, userId, name } = data(await api.expect(200, 'GET', `/visitors/${data(first).visitorId}`));
    expect([id, userId, name]).toEqual([data(first).visitorId, 'u-1', 'Ada']);
    const listed = await api.expect(200, 'GET', '/visitors?userId=u-1', { headers: { 'x-min-position': position(first) } });
    expect(listed.body.data).toHaveLength(1);
  });

  test('sent again with its Idempotency-Key answers the same token, from either instance', async () => {
    const ask = (instance: TestApi, visitor: object) =>
      instance.call('POST', '/visitor-tokens', { key: api.adminKey, body: { visitor }, headers: { 'idempotency-key': 'mint' } });
    const first = await ask(api, {});
    expect(first.status).toBe(201);
    api.clock.advance(1_000);
    for (const instance of [other, api]) expect((await ask(instance, {})).text).toBe(first.text);
    expect((await ask(other, { name: 'x' })).body.code).toBe('idempotency_key_reused');
  });

  test.each([
    ['visitor', {}],
    ['visitor', { visitor: 'ada' }],
    ['visitor.id', { visitor: { id: 'a b' } }],
    ['ttl', { visitor: {}, ttl: 59 }],
    ['ttl', { visitor: {}, ttl: 86_401 }],
    ['ttl', { visitor: {}, ttl: '600' }],
    ['role', { visitor: {}, role: 'admin' }],
  ])('refuses a body whose %s is wrong', async (field, body) => {
    const refused = await api.expect(400, 'POST', '/visitor-tokens', { body });
    expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
  });

  test('is refused for a visitor who is archived, and with an If-Match', async () => {
    await api.expect(201, 'POST', '/visitors', { body: { id: 'gone-before' } });
    await api.expect(204, 'DELETE', '/visitors/gone-before');
    await api.expect(409, 'POST', '/visitor-tokens', { body: { visitor: { id: 'gone-before' } } });
    await api.expect(412, 'POST', '/visitor-tokens', { body: { visitor: {} }, headers: { 'if-match': '"0"' } });
  });

  test('leaves no token in the log', async () => {
    const { token, expect: ask } = await widget();
    await ask(403, 'GET', '/visitors');
    await api.call('GET', '/conversations', { key: `${token}x` });
    for (const instance of [api, other]) expect(instance.logged()).not.toContain(token.slice(0, 40));
  });
});

describe('the holder of a token', () => {
  test('opens a conversation, writes to it, follows it and rates it, and stands in the history as the visitor', async () => {
    const { visitorId, expect: ask } = await widget({ id: fresh('visitor'), name: 'Ada', plan: 'pro' });
    const opened = await ask(201, 'POST', '/conversations', {
      body: { message: 'Hello', subject: 'Help', inboxId: 'sales', visitor: { id: visitorId } },
    });
    const { id } = data(opened) as { id: string };
    expect(opened.headers.get('location')).toBe(`/api/support/conversations/${id}`);
    expect(opened.headers.get('etag')).toBe('"1"');
    const base = { id, status: 'open', subject: 'Help', channel: 'widget', rating: null, revision: 1, messageCount: 1 };
    expect(data(opened)).toMatchObject({ ...base, messages: [{ type: 'visitor', content: 'Hello' }] });

    const said = await ask(201, 'POST', `/conversations/${id}/messages`, {
      body: {
        message: { type: 'attachment', content: 'see', attachments: [{ name: 'a', url: 'https://a.example/', type: 'x/y', size: 1 }] },
      },
    });
    expect(data(said)).toMatchObject({ type: 'visitor', contentType: 'attachment', attachments: [{ name: 'a' }] });
    await api.expect(201, 'POST', `/conversations/${id}/reply`, {
      body: { message: 'Here', status: 'resolved' },
      headers: { 'x-agent-id': 'eve' },
    });
    const rated = await ask(200, 'POST', `/conversations/${id}/rating`, { body: { rating: 5, comment: 'fine' } });
    expect(data(rated)).toMatchObject({
      status: 'resolved',
      rating: { rating: 5, comment: 'fine' },
      revision: 5,
      messageCount: 3,
      lastMessage: { type: 'agent', content: 'Here', author: { name: 'Eve' } },
    });
    const read = await ask(200, 'GET', `/conversations/${id}`);
    expect(read.headers.get('etag')).toBe('"5"');
    expect(data(read).messages).toEqual(data(await ask(200, 'GET', `/conversations/${id}/messages`)));
    const listed = await ask(200, 'GET', '/conversations', { headers: { 'x-min-position': position(rated) } });
    expect(listed.body.data).toEqual([data(rated)]);

    const events = data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { actor: object; type: string }[];
    const byVisitor = events.filter(({ type }) => /Opened|Received|Rated/.test(type));
    expect(byVisitor.map(({ actor }) => actor)).toEqual(Array.from({ length: 4 }, () => ({ type: 'visitor', id: visitorId })));
    expect(data(await api.expect(200, 'GET', `/conversations/${id}`)).inboxId).toBe('sales');
  });

  test('may send the token as a bearer, and not beside a key', async () => {
    const { token } = await widget();
    const bearer = { authorization: `Bearer ${token}` };
    await api.expect(200, 'GET', '/conversations', { key: null, headers: bearer });
    await api.expect(401, 'GET', '/conversations', { key: api.adminKey, headers: bearer });
    await api.expect(401, 'GET', '/conversations', { key: token, headers: bearer });
  });

  test('is answered the same by a retry with a fresh token, and by the other instance', async () => {
    const one = await widget();
    const two = await widget({ id: one.visitorId });
    const headers = { 'idempotency-key': 'widget' };
    const body = { message: 'Once' };
    const first = await one.expect(201, 'POST', '/conversations', { body, headers });
    await api.expect(201, 'POST', `/conversations/${data(first).id}/reply`, { body: { message: 'psst', type: 'note' } });
    for (const instance of [api, other]) {
      const again = await instance.expect(201, 'POST', '/conversations', { key: two.token, body, headers });
      expect([again.text, again.headers.get('etag'), position(again)]).toEqual([first.text, '"1"', position(first)]);
    }
    // The same key of another visitor is another key.
    const stranger = await widget();
    expect(data(await stranger.expect(201, 'POST', '/conversations', { body, headers })).id).not.toBe(data(first).id);
  });

  test('names revisions by what it sees: a note makes none stale', async () => {
    const { open, expect: ask } = await widget();
    const id = await open();
    const etag = (await ask(200, 'GET', `/conversations/${id}`)).headers.get('etag') ?? '';
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'psst', type: 'note' } });
    await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['a'] } });
    const next = await ask(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'more' }, headers: { 'if-match': etag } });
    expect(next.headers.get('etag')).toBe('"2"');
    const stale = await ask(412, 'POST', `/conversations/${id}/messages`, { body: { message: 'more' }, headers: { 'if-match': etag } });
    expect(stale.body.detail).toBe('the revision is 2');
  });

  test('is told positions that only its own token can use, and from which nothing can be counted', async () => {
    const one = await widget();
    const stranger = await widget();
    const opened = await one.expect(201, 'POST', '/conversations', { body: { message: 'Hi' } });
    const { id } = data(opened) as { id: string };
    const raw = String(await api.backend.store.head());
    expect(position(opened)).toMatch(/^[\w-]{22,43}$/);
    const reads = ['/conversations', `/conversations/${id}`, `/conversations/${id}/messages`];
    for (const instance of [api, other])
      for (const path of reads) {
        const read = async (min: string, { token } = one) =>
          instance.call('GET', path, { key: token, headers: { 'x-min-position': min, 'x-request-id': 'same' } });
        expect((await read(position(opened))).status).toBe(200);
        const answers = await Promise.all([read(raw), read(`${raw}.1`), read('0000000000000000001'), read(position(opened), stranger)]);
        // Whether the log has reached a position is told to nobody who guesses it.
        expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
        expect(answers[0]?.body).toMatchObject({ status: 400, code: 'malformed_request' });
        expect(answers[0]?.body.detail).toBe('X-Min-Position must be a position that this visitor was told');
      }
    // With a key neither is a position of the log.
    await api.expect(400, 'GET', '/conversations', { headers: { 'x-min-position': position(opened) } });

    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
    const rate = async () => position(await one.expect(200, 'POST', `/conversations/${id}/rating`, { body: { rating: 5 } }));
    // The last three write nothing, and only before the last of them somebody did.
    const rated = [await rate(), await rate(), await rate()];
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'psst', type: 'note' } });
    expect(new Set([...rated, await rate()]).size).toBe(4);
  });

  test.each([
    ['customAttributes', { customAttributes: { a: 1 } }],
    ['priority', { priority: 'urgent' }],
    ['as', { as: 'agent' }],
    ['visitor.email', { visitor: { email: 'someone@example.com' } }],
    ['visitor.userId', { visitor: { userId: 'u' } }],
    ['visitor.name', { visitor: { name: 'Boss' } }],
    ['message', { message: ' ' }],
  ])('fills in no %s', async (field, more) => {
    const { expect: ask } = await widget();
    const refused = await ask(400, 'POST', '/conversations', { body: { message: 'Hi', ...more } });
    expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
  });

  test.each([
    ['assigneeId', '?assigneeId=none'],
    ['tag', '?tag=a'],
    ['customAttributes', '?customAttributes[a]=1'],
    ['visitorId', '?visitorId=someone'],
    ['updatedAfter', '?updatedAfter=2020-01-01T00:00:00Z'],
    ['sort', '?sort=waitingSince'],
    ['status', '?status=snoozed'],
    ['at', '/any?at=2020-01-01T00:00:00Z'],
    ['revision', '/any?revision=0'],
  ])('asks for no %s', async (field, query) => {
    const { expect: ask } = await widget();
    const refused = await ask(400, 'GET', `/conversations${query}`);
    expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
  });

  test('lists by the statuses that it knows, in pages', async () => {
    const { open, expect: ask } = await widget();
    const ids: string[] = [];
    for (let i = 0; i < 4; i++) {
      api.clock.advance(1_000);
      ids.push(await open(`message ${i}`));
    }
    await api.expect(200, 'POST', `/conversations/${ids[0]}/snooze`, { body: { until: 'next_reply' } });
    await api.expect(200, 'PUT', `/conversations/${ids[1]}`, { body: { status: 'pending' } });
    await settled(await api.expect(200, 'PUT', `/conversations/${ids[2]}`, { body: { status: 'closed' } }));
    const listed = async (query: string) =>
      (await ask(200, 'GET', `/conversations?${query}`)).body as {
        data: { id: string; status: string }[];
        meta: { total: number; hasMore: boolean; nextCursor: string | null };
      };
    const found = async (query: string) => (await listed(query)).data.map(({ id }) => ids.indexOf(id));
    expect(await found('sort=createdAt')).toEqual([3, 2, 1, 0]);
    expect(await found('status=open&sort=createdAt&order=asc')).toEqual([0, 3]);
    expect(await found('status=pending&status=closed&sort=createdAt&order=asc')).toEqual([1, 2]);
    expect(await found('status=resolved')).toEqual([]);
    expect((await listed('')).data.find(({ id }) => id === ids[0])?.status).toBe('open');
    const pages: number[] = [];
    let cursor = '';
    do {
      const page = await listed(`limit=3&sort=createdAt${cursor}`);
      expect(page.meta.total).toBe(4);
      pages.push(...page.data.map(({ id }) => ids.indexOf(id)));
      cursor = page.meta.nextCursor === null ? '' : `&cursor=${page.meta.nextCursor}`;
    } while (cursor !== '');
    expect(pages).toEqual([3, 2, 1, 0]);
  });

  test('is answered by no other route', async () => {
    const { token, visitorId, open } = await widget();
    const id = await open();
    const base = '/api/support/conversations';
    const may = new Set([
      `POST ${base}`,
      `GET ${base}`,
      `GET ${base}/{id}`,
      `POST ${base}/{id}/messages`,
      `GET ${base}/{id}/messages`,
      `POST ${base}/{id}/rating`,
      // Opens the live feed with the caller's own rights.
      `POST /api/support/live-tickets`,
    ]);
    const reflector = new Reflector();
    const routes = routesOf(AppModule.controllers).filter(({ handler }) => declaredRoles(reflector, handler) !== 'public');
    expect(routes.length).toBeGreaterThan(40);
    for (const { method, path } of routes) {
      const name = `${method} ${path}`;
      const own = path.includes('/visitors') ? visitorId : id;
      const address = path
        .replace('/api/support', '')
        .replace('{id}', own)
        .replaceAll(/\{\w+\}/g, 'x');
      const answer = await api.call(method, address, { key: token, ...(method === 'GET' || method === 'DELETE' ? {} : { body: {} }) });
      expect([name, answer.status === 403]).toEqual([name, !may.has(name)]);
      if (answer.status === 403) expect(answer.body.code).toBe('forbidden');
    }
    await api.expect(403, 'GET', '/conversations', { key: token, headers: { 'x-agent-id': 'eve' } });
  });
});

describe('what belongs to others', () => {
  test('is answered as what does not exist, and nothing is written to it', async () => {
    const mine = await widget();
    const stranger = await widget();
    const theirs = await stranger.open();
    const elsewhere = await api.otherOrganization();
    const foreign = data(
      await api.expect(201, 'POST', '/conversations', { key: elsewhere.adminKey, body: { visitor: { id: mine.visitorId }, message: 'x' } }),
    ).id as string;
    const before = await api.backend.store.head();
    const unknown = '00000000-0000-4000-8000-000000000000';
    const asks: [string, string, object?][] = [
      ['GET', ''],
      ['GET', '/messages'],
      ['GET', '/messages?before=x'],
      ['POST', '/messages', { message: 'Hi' }],
      ['POST', '/rating', { rating: 1 }],
    ];
    for (const [method, path, body] of asks)
      for (const headers of [{}, { 'if-match': '"7"' }] as Record<string, string>[]) {
        const answers = await Promise.all(
          [unknown, theirs, foreign].map(async (id) => {
            const answer = await mine.expect(404, method, `/conversations/${id}${path}`, {
              headers: { 'x-request-id': 'same', ...headers },
              ...(body === undefined ? {} : { body }),
            });
            return answer.text.replaceAll(id, 'ID');
          }),
        );
        expect(new Set(answers).size).toBe(1);
      }
    const naming = await Promise.all(
      [unknown, theirs, foreign].map(async (id) => {
        const body = { message: 'Hi', previousConversationId: id };
        const answer = await mine.expect(422, 'POST', '/conversations', { body, headers: { 'x-request-id': 'same' } });
        return answer.text.replaceAll(id, 'ID');
      }),
    );
    expect(new Set(naming).size).toBe(1);
    for (const id of ['nobody', stranger.visitorId])
      await mine.expect(403, 'POST', '/conversations', { body: { message: 'Hi', visitor: { id } } });
    expect(await eventsAfter(api, before)).toEqual([]);
    expect(data(await api.expect(200, 'GET', `/conversations/${theirs}`)).messageCount).toBe(1);
    expect((await mine.expect(200, 'GET', '/conversations')).body.data).toEqual([]);
    expect(
      data(await mine.expect(201, 'POST', '/conversations', { body: { message: 'Hi', previousConversationId: await mine.open() } })).id,
    ).toBeDefined();
  });
});

describe('a token that is none', () => {
  const refused = async (token: string, instance = api) =>
    expect([token, (await instance.call('GET', '/conversations', { key: token })).status]).toEqual([token, 401]);

  test('with any character changed', async () => {
    const { token } = await widget();
    for (let i = 0; i < token.length; i++) {
      const changed = token[i] === 'A' ? 'B' : 'A';
      await refused(token.slice(0, i) + changed + token.slice(i + 1));
    }
    // The last character of a MAC has two bits that say nothing: no second spelling of it is taken.
    const last = token.at(-1) ?? '';
    for (const one of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_')
      if (one !== last) await refused(token.slice(0, -1) + one);
    for (const other of [`${token}=`, `${token}.`, ` ${token}`, token.slice(0, -1), token.toUpperCase(), `${token}${token}`])
      if (other.trim() !== token) await refused(other);
  });

  test('whose form is confused with another', async () => {
    const { token } = await widget();
    const [, claims = '', mac = ''] = token.split('.');
    const none = Buffer.from('{"alg":"none"}').toString('base64url');
    await refused(`tlv1.${claims}.`);
    await refused(`tlv1.${claims}`);
    await refused(`tlv1..${mac}`);
    await refused(`tlv2.${claims}.${mac}`);
    await refused(`${none}.${claims}.`);
    await refused(`${none}.${claims}.${mac}`);
    await refused(`${claims}.${mac}`);
    // A key of another purpose, the master key itself, and none.
    const { masterKey } = api.backend;
    const master = Buffer.from(api.backend.config.MASTER_KEY ?? '', 'base64');
    for (const key of [masterKey.derive('cursors'), master, Buffer.alloc(0)])
      for (const signed of [`tlv1.${claims}`, claims])
        await refused(`tlv1.${claims}.${createHmac('sha256', key).update(signed).digest('base64url')}`);
  });

  test('with claims of another visitor, organization, generation or time under its own signature', async () => {
    const { token, visitorId } = await widget();
    const victim = await widget();
    const [organizationId, , generation, expiresAt, id] = claimsOf(token) as [string, string, number, number, string];
    const mac = token.split('.')[2] ?? '';
    for (const claims of [
      [organizationId, victim.visitorId, generation, expiresAt, id],
      [(await api.otherOrganization()).organizationId, visitorId, generation, expiresAt, id],
      [organizationId, visitorId, generation + 1, expiresAt, id],
      [organizationId, visitorId, generation, expiresAt + 1, id],
      [organizationId, visitorId, generation, expiresAt, victim.visitorId],
      null,
      [],
    ])
      await refused(`tlv1.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.${mac}`);
  });

  test('of a server with another MASTER_KEY', async () => {
    const stranger = await startApi();
    try {
      const made = await stranger.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: 'v' } } });
      await stranger.expect(200, 'GET', '/conversations', { key: data(made).token as string });
      await refused(data(made).token as string);
    } finally {
      await stranger.stop();
    }
  });

  test('after its time, to the millisecond', async () => {
    const { token } = await widget({ id: fresh('visitor') }, 60);
    const end = (claimsOf(token) as [string, string, number, number])[3];
    api.clock.stopAt(end - 1);
    await api.expect(200, 'GET', '/conversations', { key: token });
    api.clock.stopAt(end);
    await refused(token);
    api.clock.goOn();
  });

  test('of a visitor who was archived, in either instance', async () => {
    const { token, visitorId } = await widget();
    for (const instance of [api, other]) await instance.expect(200, 'GET', '/conversations', { key: token });
    await api.expect(204, 'DELETE', `/visitors/${visitorId}`);
    await refused(token);
    await eventually(async () => (await other.call('GET', '/conversations', { key: token })).status === 401, 5_000);
  });
});

describe('revoking', () => {
  test('ends every token of the visitor, here at once and in the other instance within five seconds, and none that is made later', async () => {
    const one = await widget();
    const two = await widget({ id: one.visitorId });
    const stranger = await widget();
    for (const instance of [api, other])
      for (const { token } of [one, two, stranger]) await instance.expect(200, 'GET', '/conversations', { key: token });
    const revoked = await api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId: one.visitorId } });
    expect(data(revoked).visitorId).toBe(one.visitorId);
    for (const { token } of [one, two]) await api.expect(401, 'GET', '/conversations', { key: token });
    // Made after a revocation that the other instance has not seen yet.
    const later = await widget({ id: one.visitorId });
    for (const instance of [other, api]) await instance.expect(200, 'GET', '/conversations', { key: later.token });
    for (const { token } of [one, two])
      await eventually(async () => (await other.call('GET', '/conversations', { key: token })).status === 401, 5_000);
    for (const instance of [api, other]) await instance.expect(200, 'GET', '/conversations', { key: stranger.token });
    const events = data(await api.expect(200, 'GET', `/visitors/${one.visitorId}/events`)) as { type: string; actor: { type: string } }[];
    expect(events.map(({ type, actor }) => [type, actor.type]).at(-1)).toEqual(['VisitorTokensRevoked', 'apiKey']);
  });

  test('again revokes again; a retry does not, and what is made since stays good', async () => {
    const { visitorId } = await widget();
    const ask = () =>
      api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId }, headers: { 'idempotency-key': fresh('revoke') } });
    await ask();
    const between = await widget({ id: visitorId });
    const key = fresh('revoke-once');
    const once = () => api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId }, headers: { 'idempotency-key': key } });
    const first = await once();
    await between.expect(401, 'GET', '/conversations');
    const later = await widget({ id: visitorId });
    api.clock.advance(1_000);
    expect((await once()).text).toBe(first.text);
    await later.expect(200, 'GET', '/conversations');
  });

  test('names a visitor', async () => {
    await api.expect(404, 'POST', '/visitor-tokens/revoke', { body: { visitorId: 'nobody' } });
    await api.expect(400, 'POST', '/visitor-tokens/revoke', { body: {} });
    const foreign = await api.otherOrganization();
    const { visitorId, token } = await widget();
    await api.expect(404, 'POST', '/visitor-tokens/revoke', { key: foreign.adminKey, body: { visitorId } });
    await api.expect(200, 'GET', '/conversations', { key: token });
  });
});

test('tokens that are guessed are counted against the address, those that were signed and have ended are not', async () => {
  const { token, visitorId } = await widget();
  await api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId } });
  await eventually(async () => (await other.call('GET', '/conversations', { key: token })).status === 401, 5_000);
  for (let i = 0; i < 10; i++) await other.expect(401, 'GET', '/conversations', { key: token });
  for (let i = 0; i < 3; i++) await other.expect(401, 'GET', '/conversations', { key: `${token.slice(0, -2)}${10 + i}` });
  await other.expect(429, 'GET', '/conversations', { key: `${token.slice(0, -2)}xx` });
  // Whoever holds a good one goes on.
  await other.expect(200, 'GET', '/conversations', { key: (await widget()).token });
});

describe('internal notes, and all that the team does', () => {
  /**
   * Everything that a visitor was answered, in the order of asking, and then everything that its sockets were told, one of which was there
   * all the time and one of which goes on from the beginning. Ids and positions are named by their first appearance.
   */
  async function history(noisy: boolean): Promise<string[]> {
    const start = Date.parse('2030-03-01T10:00:00Z');
    let at = start;
    api.clock.stopAt(at);
    const secret = 'the team thinks so';
    const { visitorId, token } = await widget({ id: fresh('visitor') }, 86_400);
    const heard: string[] = [];
    const live = await LiveClient.open(api, token);
    const names = new Map<string, string>([[visitorId, 'VISITOR']]);
    let asked = 0;
    let last = '';

    const nameOf = (one: string) => {
      if (!names.has(one)) names.set(one, `NAME${names.size}`);
      return names.get(one) as string;
    };
    const named = (text: string) =>
      text
        .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, nameOf)
        .replaceAll(/(?<="position":")[\w-]+(?=")/g, nameOf);
    // The values in a cursor are not sealed, and its signature is over ids that differ.
    const openCursor = (text: string) =>
      text.replaceAll(
        /"nextCursor":"([\w-]+)\.([\w-]+)"/g,
        (_, values: string, mac: string) => `"nextCursor":${Buffer.from(values, 'base64url').toString()} signed by ${mac.length}`,
      );
    /** What the visitor asks, in both histories. */
    const ask = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> => {
      const answer = await api.call(method, path, {
        key: token,
        headers: { 'x-request-id': `ask-${++asked}`, ...(method === 'GET' && last !== '' ? { 'x-min-position': last } : {}), ...headers },
        ...(body === undefined ? {} : { body }),
      });
      const told = [...answer.headers]
        .filter(([name]) => name !== 'date')
        // Which positions are equal must say nothing either.
        .map(([name, value]) => (name === 'x-position' ? [name, nameOf(value)] : [name, value]));
      heard.push(named(openCursor(JSON.stringify([method, path.replace(/cursor=.*/, 'cursor'), answer.status, told]) + answer.text)));
      if (answer.headers.has('x-position')) last = position(answer);
      if (method === 'GET') expect(answer.headers.has('x-position')).toBe(false);
      expect(answer.text).not.toContain(secret);
      return answer;
    };
    const team = async (method: string, path: string, body?: unknown) => {
      const answer = await api.call(method, path, { body, headers: { 'x-agent-id': 'eve' } });
      if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.text}`);
      // Whoever holds a token cannot wait for the team's positions.
      await settled(answer);
      return answer;
    };
    /** Half a second later, what only one of the histories has. */
    const noise = async (...calls: [string, string, unknown?][]) => {
      api.clock.stopAt((at += 500));
      if (noisy) for (const call of calls) await team(...call);
      api.clock.stopAt((at += 500));
    };
    const note = (id: string): [string, string, unknown] => [
      'POST',
      `/conversations/${id}/reply`,
      {
        type: 'note',
        message: { type: 'attachment', content: secret, attachments: [{ name: secret, url: 'https://a.example/', type: 'x/y', size: 1 }] },
      },
    ];
    const followed = async (...ids: string[]) => {
      for (const query of ['', '?sort=createdAt&order=asc', '?status=open', '?status=pending&status=resolved', '?total=none'])
        await ask('GET', `/conversations${query}`);
      let cursor: string | null = '';
      while (cursor !== null) {
        const page: Answer = await ask('GET', `/conversations?limit=1${cursor === '' ? '' : `&cursor=${cursor}`}`);
        cursor = page.body.meta.nextCursor as string | null;
      }
      await ask('GET', '/conversations?limit=1&page=2');
      for (const id of ids) {
        const whole = await ask('GET', `/conversations/${id}`);
        await ask('GET', `/conversations/${id}/messages?limit=2`);
        for (const message of data(whole).messages as { id: string }[])
          await ask('GET', `/conversations/${id}/messages?limit=1&before=${message.id}`);
      }
    };

    const one = data(await ask('POST', '/conversations', { message: 'First', subject: 'One' }, { 'idempotency-key': 'one' })).id as string;
    await noise(note(one), note(one), ['POST', `/conversations/${one}/assign`, { assigneeId: 'eve' }]);
    const two = data(await ask('POST', '/conversations', { message: 'Second' })).id as string;
    const path1 = `/conversations/${one}`;
    const path2 = `/conversations/${two}`;
    await followed(one, two);
    // The first moves to the top of the team's list, and of no visitor's.
    await noise(note(one), ['POST', `${path1}/tags`, { tags: ['a', 'b'] }], ['DELETE', `${path1}/tags/a`]);
    await followed(one, two);
    await ask('POST', `${path2}/rating`, { rating: 1 });
    await ask('POST', `${path1}/messages`, { message: 'stale' }, { 'if-match': '"0"' });
    await ask('POST', `${path1}/messages`, { message: 'More' }, { 'if-match': '"1"' });
    await noise(
      ['PUT', path1, { priority: 'urgent', customAttributes: { plan: secret }, inboxId: 'sales' }],
      ['POST', `${path1}/assign`, { assigneeId: 'tier-1' }],
      note(one),
    );
    await team('POST', `${path1}/reply`, { message: 'An answer' });
    await noise(note(one), ['POST', `${path1}/snooze`, { until: 'next_reply' }], note(one));
    await followed(one, two);
    await ask('POST', `${path1}/messages`, { message: 'And?' }, { 'idempotency-key': 'and' });
    await noise(note(one), ['POST', `${path1}/snooze`, { until: 'next_reply' }], ['PUT', path1, { status: 'open' }]);
    await team('POST', `${path1}/reply`, { message: 'So', status: 'pending' });
    await followed(one);
    await noise(note(one));
    await team('PUT', path1, { status: 'resolved', subject: 'Told' });
    await noise(note(one), ['POST', `${path1}/assign`, { assigneeId: null }]);
    await ask('POST', `${path1}/rating`, { rating: 5, comment: 'good' });
    await noise(note(one), note(two));
    // Writes nothing, and answers a position that only in one of the histories has changed.
    await ask('POST', `${path1}/rating`, { rating: 5, comment: 'good' });
    await followed(one, two);
    await ask('POST', `${path1}/messages`, { message: 'Again' });
    await noise(note(one));
    await team('PUT', path1, { status: 'closed' });
    await ask('POST', `${path1}/messages`, { message: 'too late' });
    await ask('POST', `${path1}/messages`, { message: 'And?' }, { 'idempotency-key': 'and' });
    await ask('POST', '/conversations', { message: 'First', subject: 'One' }, { 'idempotency-key': 'one' });
    await noise();
    await ask('POST', '/conversations', { message: 'Third', previousConversationId: one });
    await noise(note(two));
    await followed(one, two);
    await eventually(() => live.told.at(-1)?.data.message?.content === 'Third');
    const again = await LiveClient.open(api, token, '?since=start');
    await again.expectTold(live.told.length);
    for (const client of [live, again]) {
      heard.push(...client.frames.map(({ text }) => named(text)));
      expect(client.frames.map(({ text }) => text).join('')).not.toContain(secret);
      await client.close();
    }
    expect(again.told.map(({ text }) => text)).toEqual(live.told.map(({ text }) => text));
    if (noisy) {
      // A note's id names nothing, as any unknown one.
      const notes = data(await api.expect(200, 'GET', path1)).messages.filter(({ type }: { type: string }) => type === 'note');
      expect(notes.length).toBe(11);
      expect(data(await api.expect(200, 'GET', path1)).revision).toBeGreaterThan(20);
      const unknown = await api.expect(404, 'GET', `${path1}/messages?before=x`, { key: token, headers: { 'x-request-id': 'r' } });
      for (const { id } of notes as { id: string }[]) {
        const answer = await api.expect(404, 'GET', `${path1}/messages?before=${id}`, { key: token, headers: { 'x-request-id': 'r' } });
        expect(answer.text.replace(id, 'x')).toBe(unknown.text);
      }
    }
    return heard;
  }

  test('change no byte of what the visitor is answered', async () => {
    try {
      const [quiet, noisy] = [await history(false), await history(true)];
      expect(quiet.length).toBeGreaterThan(100);
      for (const [i, answer] of noisy.entries()) expect(answer).toBe(quiet[i]);
      expect(noisy).toHaveLength(quiet.length);
    } finally {
      api.clock.goOn();
    }
  }, 120_000);

  test('are not among the 200 messages that are shown, however many they are', async () => {
    const { open, expect: ask } = await widget();
    const id = await open();
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Hello' } });
    for (let i = 0; i < 205; i++) await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: `n${i}`, type: 'note' } });
    const { messages, messageCount, revision } = data(await ask(200, 'GET', `/conversations/${id}`));
    expect([messages.map((message: { content: string }) => message.content), messageCount, revision]).toEqual([['Hi', 'Hello'], 2, 2]);
    expect(data(await ask(200, 'GET', `/conversations/${id}/messages?limit=1`))).toEqual([messages[1]]);
  });
});
