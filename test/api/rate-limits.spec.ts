import { type Answer, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

/* How often a key may call, and an address may fail. Two instances on one database: one that faces its clients, one behind a proxy. */

const LIMIT = 20;
const FAILURES = 10;
const MINUTE = 60_000;

let database: TestDatabase;
let api: TestApi;
let behindProxy: TestApi;
beforeAll(async () => {
  database = await createDatabase();
  const limits = { RATE_LIMIT_PER_MINUTE: String(LIMIT), AUTH_FAILURES_PER_MINUTE: String(FAILURES) };
  api = await startApi({ database, environment: limits });
  const sameKeys = { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' };
  behindProxy = await startApi({ database, environment: { ...limits, ...sameKeys, TRUST_PROXY: '1' } });
});
afterAll(async () => {
  await behindProxy.stop();
  await api.stop();
  await database.drop();
});
// Every test begins in a new minute.
beforeEach(() => {
  api.clock.advance(MINUTE);
  behindProxy.clock.advance(MINUTE);
});

const list = (key: string, headers: Record<string, string> = {}, instance = api) => instance.call('GET', '/agents', { key, headers });
const told = ({ status, headers }: Answer) => [
  status,
  headers.get('x-ratelimit-limit'),
  headers.get('x-ratelimit-remaining'),
  headers.get('retry-after'),
];
const statuses = (answers: readonly Answer[]) => {
  const counted: Record<number, number> = {};
  for (const { status } of answers) counted[status] = (counted[status] ?? 0) + 1;
  return counted;
};
let count = 0;
const wrong = () => `tl_wrong${++count}`;

describe('an API key', () => {
  test('is told what is left, refused over its limit, and free again after a minute', async () => {
    const key = await api.keyFor('agent');
    const began = api.clock.now();
    for (let left = LIMIT - 1; left >= 0; left--) {
      const answer = await list(key);
      expect(told(answer)).toEqual([200, String(LIMIT), String(left), null]);
      const reset = Number(answer.headers.get('x-ratelimit-reset')) * 1000;
      expect(reset).toBeGreaterThanOrEqual(began + MINUTE);
      expect(reset).toBeLessThanOrEqual(api.clock.now() + MINUTE + 1_000);
    }
    const refused = await list(key);
    expect(told(refused).slice(0, 3)).toEqual([429, String(LIMIT), '0']);
    expect(refused.body.code).toBe('rate_limited');
    const wait = Number(refused.headers.get('retry-after'));
    expect(wait).toBeGreaterThan(0);
    expect(wait).toBeLessThanOrEqual(60);
    api.clock.advance(wait * 1000);
    expect(told(await list(key))).toEqual([200, String(LIMIT), String(LIMIT - 1), null]);
  });

  test('gets no more by calling all at once, by other addresses, paths or methods, or by being refused', async () => {
    const key = await api.keyFor('analyst');
    const calls: ((i: number) => Promise<Answer>)[] = [
      () => list(key),
      (i) => list(key, { 'x-forwarded-for': `192.0.2.${i}` }),
      () => api.call('GET', '/conversations/none', { key }),
      () => api.call('POST', '/agents', { key, body: { name: 'x' } }),
      () => api.call('GET', '/agents', { key: null, headers: { authorization: `Bearer ${key}` } }),
    ];
    const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => calls[i % calls.length]?.(i) as Promise<Answer>));
    expect(answers.filter(({ status }) => status !== 429)).toHaveLength(LIMIT);
    // What is refused writes nothing, and takes nothing from others.
    expect((await list(await api.keyFor('agent'))).status).toBe(200);
  });

  test('is counted whatever it sends, and a body is read for nobody who may not call', async () => {
    const key = await api.keyFor('agent');
    const bodies: [string, string, number][] = [
      ['{bad', 'application/json', 400],
      ['<a/>', 'application/xml', 415],
      [JSON.stringify({ name: 'x'.repeat(600_000) }), 'application/json', 413],
    ];
    const post = (as: string, [raw, type]: readonly [string, string, number]) =>
      api.call('POST', '/companies', { key: as, raw, headers: { 'content-type': type } });
    for (const body of bodies) expect((await post(key, body)).status).toBe(body[2]);
    for (const body of bodies) expect((await post(wrong(), body)).status).toBe(401);
    expect(told(await list(key)).slice(0, 3)).toEqual([200, String(LIMIT), String(LIMIT - bodies.length - 1)]);
    for (let i = bodies.length + 1; i < LIMIT; i++) await list(key);
    for (const body of bodies) expect((await post(key, body)).status).toBe(429);
  });

  test('is not let in by a clock that was set back, nor kept out by it for more than a minute', async () => {
    const key = await api.keyFor('agent');
    for (let i = 0; i <= LIMIT; i++) await list(key);
    expect((await list(key)).status).toBe(429);
    api.clock.advance(-5_000);
    expect((await list(key)).status).toBe(200);
    api.clock.advance(5_000);
  });

  test('may carry its own limit, which holds at once when it is changed', async () => {
    const made = (await api.expect(201, 'POST', '/api-keys', { body: { name: 'slow', role: 'agent', rateLimitPerMinute: 2 } })).body.data;
    expect(made.rateLimitPerMinute).toBe(2);
    const few = [await list(made.key), await list(made.key), await list(made.key)];
    expect(few.map(told).map(([status, limit]) => [status, limit])).toEqual([
      [200, '2'],
      [200, '2'],
      [429, '2'],
    ]);
    await api.expect(200, 'PUT', `/api-keys/${made.id}`, { body: { rateLimitPerMinute: 4 } });
    expect(statuses([await list(made.key), await list(made.key), await list(made.key)])).toEqual({ 200: 2, 429: 1 });
    await api.expect(200, 'PUT', `/api-keys/${made.id}`, { body: { rateLimitPerMinute: 0 } });
    const unlimited = await Promise.all(Array.from({ length: 40 }, () => list(made.key)));
    expect(statuses(unlimited)).toEqual({ 200: 40 });
    expect(unlimited[0]?.headers.has('x-ratelimit-limit')).toBe(false);
    await api.expect(200, 'PUT', `/api-keys/${made.id}`, { body: { rateLimitPerMinute: null } });
    expect(told(await list(made.key))[1]).toBe(String(LIMIT));
    const shown = (await api.expect(200, 'GET', `/api-keys/${made.id}`)).body.data;
    expect(shown).toMatchObject({ rateLimitPerMinute: null, revision: 4 });
  });

  test.each([-1, 1.5, '5', 1_000_001, true])('carries no limit of %j', async (rateLimitPerMinute) => {
    const refused = await api.expect(400, 'POST', '/api-keys', { body: { name: 'x', role: 'agent', rateLimitPerMinute } });
    expect(refused.body.errors[0].field).toBe('rateLimitPerMinute');
  });
});

describe('an address', () => {
  test('fails ten times a minute', async () => {
    const answers = [];
    for (let i = 0; i <= FAILURES; i++) answers.push(await list(wrong()));
    expect(answers.map(({ status }) => status)).toEqual([...Array.from({ length: FAILURES }, () => 401), 429]);
    expect(told(answers[0] as Answer)).toEqual([401, String(FAILURES), String(FAILURES - 1), null]);
    const refused = answers.at(-1) as Answer;
    expect(told(refused).slice(1, 3)).toEqual([String(FAILURES), '0']);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    api.clock.advance(MINUTE);
    expect((await list(wrong())).status).toBe(401);
  });

  test('fails no more often by failing at once, or by naming other addresses when no proxy is trusted', async () => {
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        list(wrong(), { 'x-forwarded-for': `192.0.2.${i}`, 'x-real-ip': `192.0.2.${i}`, forwarded: `for=192.0.2.${i}` }),
      ),
    );
    expect(statuses(answers)).toEqual({ 401: FAILURES, 429: 40 });
  });

  test('that failed too often learns of no other key whether it is good, and goes on with those that it uses', async () => {
    const [used, unused] = [await api.keyFor('agent'), await api.keyFor('agent')];
    expect((await list(used)).status).toBe(200);
    for (let i = 0; i < FAILURES; i++) await list(wrong());
    expect((await list(unused)).status).toBe(429);
    expect((await list(used)).status).toBe(200);
  });

  test('is not kept from good keys that come at the same moment as bad ones', async () => {
    const keys = await Promise.all(Array.from({ length: 40 }, () => api.keyFor('agent')));
    expect(statuses(await Promise.all(keys.map((key) => list(key))))).toEqual({ 200: 40 });
    const more = await Promise.all(Array.from({ length: 20 }, () => api.keyFor('agent')));
    const mixed = await Promise.all(more.flatMap((key, i) => (i < 9 ? [list(wrong()), list(key)] : [list(key)])));
    expect(statuses(mixed)).toEqual({ 200: 20, 401: 9 });
  });

  test('is the one that the trusted proxy saw, whatever the client wrote before it', async () => {
    const from = (address: string) => ({ 'x-forwarded-for': address });
    const attacker = await Promise.all(Array.from({ length: 50 }, (_, i) => list(wrong(), from(`192.0.2.${i}, 203.0.113.9`), behindProxy)));
    expect(statuses(attacker)).toEqual({ 401: FAILURES, 429: 40 });
    expect((await list(wrong(), from('203.0.113.10'), behindProxy)).status).toBe(401);
    // Of IPv6 the whole network of one customer counts.
    const six = await Promise.all(Array.from({ length: 50 }, (_, i) => list(wrong(), from(`2001:db8::${i + 1}`), behindProxy)));
    expect(statuses(six)).toEqual({ 401: FAILURES, 429: 40 });
    expect((await list(wrong(), from('2001:db8:0:1::1'), behindProxy)).status).toBe(401);
  });

  test('guesses nothing without a key', async () => {
    const none = await Promise.all(Array.from({ length: 20 }, () => api.call('GET', '/agents', { key: null })));
    expect(statuses(none)).toEqual({ 401: 20 });
    expect((await list(wrong())).status).toBe(401);
  });
});

test('health and what has no route are not counted', async () => {
  const key = await api.keyFor('agent');
  for (let i = 0; i < 3; i++) {
    const health = await fetch(`${api.url}/health/live`, { headers: { 'x-api-key': key } });
    expect([health.status, health.headers.has('x-ratelimit-limit')]).toEqual([200, false]);
    expect((await api.call('GET', '/nothing', { key })).headers.has('x-ratelimit-limit')).toBe(false);
  }
  expect(told(await list(key))[2]).toBe(String(LIMIT - 1));
});
