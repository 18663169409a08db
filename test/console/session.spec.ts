import { ConsoleSessions } from '../../src/security/console-sessions.js';
import { checkAnswer } from '../support/answer-schemas.js';
import { startApi, type TestApi } from '../support/api.js';
import { ask } from '../support/ask.js';
import { eventually } from '../support/eventually.js';

let api: TestApi;
beforeAll(async () => {
  api = await startApi({ environment: { AUTH_FAILURES_PER_MINUTE: '10', TRUST_PROXY: '1' } });
});
afterAll(() => api.stop());
// Failed attempts are counted by the minute.
beforeEach(() => api.clock.advance(61_000));

const own = () => ({ 'x-threadlog-console': '1', origin: api.url });

/** Any request, as a page of this host sends it unless told otherwise. */
async function send(method: string, path: string, given: { body?: unknown; headers?: Record<string, string> } = {}) {
  const answer = await ask(`${api.url}${path}`, {
    method,
    headers: { ...(given.body === undefined ? {} : { 'content-type': 'application/json' }), ...(given.headers ?? own()) },
    body: given.body === undefined ? undefined : JSON.stringify(given.body),
  });
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers of every shape
  const body: any = answer.text === '' ? undefined : JSON.parse(answer.text);
  checkAnswer(method, path.replace(/^\/api\/support/, ''), answer.status, answer.headers.get('content-type'), body, false);
  return { ...answer, body };
}

const cookieOf = (headers: Headers) => (headers.get('set-cookie') ?? '').split(';', 1)[0] ?? '';

async function signedIn(key: string): Promise<string> {
  const answer = await send('POST', '/console/session', { body: { key } });
  expect(answer.status).toBe(201);
  return cookieOf(answer.headers);
}

describe('a session', () => {
  test('begins with a key, in a cookie that no script reads and no other site sends', async () => {
    const { status, headers, body, text } = await send('POST', '/console/session', { body: { key: api.adminKey } });
    expect(status).toBe(201);
    expect(headers.get('set-cookie')).toMatch(/^threadlog_session=[\w-]{54}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/);
    const lasts = Date.parse(body.data.expiresAt) - api.clock.now();
    expect(Math.abs(lasts - 12 * 60 * 60 * 1_000)).toBeLessThan(5_000);
    expect(text).not.toContain(cookieOf(headers).split('=')[1]);
  });

  test('keeps its cookie to TLS where the page came by it', async () => {
    const headers = { ...own(), 'x-forwarded-proto': 'https' };
    const begun = await send('POST', '/console/session', { body: { key: api.adminKey }, headers });
    expect(begun.headers.get('set-cookie')).toMatch(/; Secure$/);
  });

  test('stands for its key: role, organization and history are the key’s', async () => {
    const cookie = await signedIn(await api.keyFor('auditor'));
    const { body } = await send('GET', '/api/support/me', { headers: { cookie } });
    expect(body.data).toMatchObject({
      role: 'auditor',
      agent: null,
      mayActFor: false,
      organization: { id: api.organizationId, name: 'Test' },
    });
    expect((await send('POST', '/api/support/agents', { body: { name: 'Ada' }, headers: { cookie, ...own() } })).status).toBe(403);
    expect((await send('GET', '/api/support/conversations', { headers: { cookie } })).status).toBe(200);
  });

  test('reaches no other organization', async () => {
    const other = await api.otherOrganization();
    const { id } = (
      await api.expect(201, 'POST', '/conversations', { key: other.adminKey, body: { visitor: { name: 'V' }, message: 'Hi' } })
    ).body.data;
    const cookie = await signedIn(api.adminKey);
    expect((await send('GET', `/api/support/conversations/${id}`, { headers: { cookie } })).status).toBe(404);
    expect((await send('GET', '/api/support/me', { headers: { cookie: await signedIn(other.adminKey) } })).body.data.organization).toEqual({
      id: other.organizationId,
      name: 'Other',
    });
  });

  test('writes only from a page of this host, by Origin and header', async () => {
    const cookie = await signedIn(api.adminKey);
    const body = { visitor: { name: 'V' }, message: 'Hi' };
    const head = await api.backend.store.head();
    const refusals: readonly Record<string, string>[] = [
      { origin: api.url },
      { 'x-threadlog-console': '1' },
      { 'x-threadlog-console': '1', origin: 'https://evil.example' },
      { 'x-threadlog-console': '1', origin: 'null' },
      { 'x-threadlog-console': '1', origin: `${api.url}.evil.example` },
    ];
    for (const headers of refusals) {
      const refused = await send('POST', '/api/support/conversations', { body, headers: { cookie, ...headers } });
      expect([refused.status, refused.body.code]).toEqual([403, 'forbidden']);
    }
    expect(await api.backend.store.head()).toBe(head);
    expect((await send('POST', '/api/support/conversations', { body, headers: { cookie, ...own() } })).status).toBe(201);
  });

  test('begins and ends only from a page of this host', async () => {
    const cookie = await signedIn(api.adminKey);
    const refusals: readonly Record<string, string>[] = [
      { origin: api.url },
      { 'x-threadlog-console': '1', origin: 'https://evil.example' },
    ];
    for (const headers of refusals) {
      expect((await send('POST', '/console/session', { body: { key: api.adminKey }, headers })).status).toBe(403);
      expect((await send('DELETE', '/console/session', { headers: { cookie, ...headers } })).status).toBe(403);
    }
    expect((await send('GET', '/api/support/me', { headers: { cookie } })).status).toBe(200);
  });

  test('ends by DELETE, at once, and a second time changes nothing', async () => {
    const cookie = await signedIn(api.adminKey);
    for (let time = 0; time < 2; time += 1) {
      const ended = await send('DELETE', '/console/session', { headers: { cookie, ...own() } });
      expect([ended.status, ended.headers.get('set-cookie')]).toEqual([
        204,
        expect.stringContaining('threadlog_session=; Path=/; Max-Age=0'),
      ]);
    }
    expect((await send('GET', '/api/support/me', { headers: { cookie } })).status).toBe(401);
    // Whoever is told that the session is over has not guessed, however often the page asks.
    for (let time = 0; time < 12; time += 1) expect((await send('GET', '/api/support/me', { headers: { cookie } })).status).toBe(401);
    expect((await send('POST', '/console/session', { body: { key: api.adminKey } })).status).toBe(201);
  });

  test('ends after 12 hours, and within a second when its key is revoked', async () => {
    const made = (await api.expect(201, 'POST', '/api-keys', { body: { name: 'x', role: 'agent' } })).body.data;
    const cookie = await signedIn(made.key);
    const other = await signedIn(api.adminKey);
    expect((await send('GET', '/api/support/me', { headers: { cookie } })).body.data.keyName).toBe('x');
    await api.expect(204, 'DELETE', `/api-keys/${made.id}`);
    await eventually(async () => (await send('GET', '/api/support/me', { headers: { cookie } })).status === 401);
    api.clock.advance(12 * 60 * 60 * 1_000);
    await eventually(async () => (await send('GET', '/api/support/me', { headers: { cookie: other } })).status === 401);
  });

  test('is not had for a wrong key, a visitor’s token, a token that is none, or a body of another shape', async () => {
    const token = (await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: 'v' } } })).body.data.token as string;
    const statusOf = async (body: unknown) => (await send('POST', '/console/session', { body })).status;
    expect(await statusOf({ key: 'tl_wrong' })).toBe(401);
    expect(await statusOf({ key: token })).toBe(401);
    expect(await statusOf({ link: 'x'.repeat(54) })).toBe(401);
    expect(await statusOf({})).toBe(400);
    expect(await statusOf({ key: api.adminKey, link: 'x' })).toBe(400);
    expect(await statusOf({ key: 'x'.repeat(3_000) })).toBe(413);
    expect((await send('GET', '/api/support/me', { headers: { cookie: 'threadlog_session=guess' } })).status).toBe(401);
  });

  test('guesses are counted by address, as those of keys are', async () => {
    const statuses = [];
    for (let time = 0; time < 12; time += 1)
      statuses.push((await send('GET', '/api/support/me', { headers: { cookie: `threadlog_session=guess${time}` } })).status);
    expect(statuses.slice(0, 10)).toEqual(Array<number>(10).fill(401));
    expect(statuses.slice(10)).toEqual([429, 429]);
  });

  test('opens the live feed by a ticket, and nothing of it is logged', async () => {
    const cookie = await signedIn(api.adminKey);
    expect((await send('POST', '/api/support/live-tickets', { body: {}, headers: { cookie, ...own() } })).status).toBe(201);
    expect(api.logged()).not.toContain(cookie.split('=')[1]);
    expect(api.logged()).not.toContain(api.adminKey);
  });
});

describe('a sign-in link', () => {
  test('begins one session with the rights of its key', async () => {
    const key = await api.backend.database
      .selectFrom('keep.api_keys')
      .select('id')
      .where('organization_id', '=', api.organizationId)
      .executeTakeFirstOrThrow();
    const link = await api.app.get(ConsoleSessions).makeLink({ organizationId: api.organizationId, keyId: key.id });
    const first = await send('POST', '/console/session', { body: { link } });
    expect(first.status).toBe(201);
    expect((await send('GET', '/api/support/me', { headers: { cookie: cookieOf(first.headers) } })).body.data.keyId).toBe(key.id);
    expect((await send('POST', '/console/session', { body: { link } })).status).toBe(401);
    // A session's own token is no link.
    expect((await send('POST', '/console/session', { body: { link: cookieOf(first.headers).split('=')[1] } })).status).toBe(401);
    const late = await api.app.get(ConsoleSessions).makeLink({ organizationId: api.organizationId, keyId: key.id });
    api.clock.advance(24 * 60 * 60 * 1_000);
    expect((await send('POST', '/console/session', { body: { link: late } })).status).toBe(401);
  });
});

describe('GET /me', () => {
  test('tells the agent that a key is bound to, or acts for', async () => {
    const agent = (await api.expect(201, 'POST', '/agents', { body: { name: 'Ada', email: 'ada@example.com' } })).body.data;
    const bound = await api.keyFor('agent', { agentId: agent.id });
    expect((await api.expect(200, 'GET', '/me', { key: bound })).body.data).toMatchObject({
      role: 'agent',
      agent: { id: agent.id, name: 'Ada' },
      mayActFor: false,
    });
    expect((await api.expect(200, 'GET', '/me')).body.data).toMatchObject({ role: 'admin', agent: null, mayActFor: true });
    const acting = await api.expect(200, 'GET', '/me', { headers: { 'x-agent-id': agent.id } });
    expect(acting.body.data).toMatchObject({ agent: { id: agent.id, name: 'Ada' }, mayActFor: true });
    await api.expect(422, 'GET', '/me', { headers: { 'x-agent-id': 'nobody' } });
    await api.expect(403, 'GET', '/me', { key: bound, headers: { 'x-agent-id': agent.id } });
    const token = (await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: 'v' } } })).body.data.token as string;
    await api.expect(403, 'GET', '/me', { key: token });
  });
});
