import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { AppModule } from '../../src/app.module.js';
import { readConfig } from '../../src/config.js';
import { createHttpApp } from '../../src/http/http-app.js';
import { createLogger } from '../../src/log.js';
import { openApiDocument } from '../../src/docs/openapi.js';
import { startApi, type TestApi } from '../support/api.js';

/* A page on another origin: what its browser asks beforehand, what the page may read, and that nobody else gains anything by it. */

const SHOP = 'https://shop.example.com';
const DESK = 'http://localhost:5173';

let api: TestApi;
beforeAll(async () => {
  api = await startApi({
    environment: { CORS_ORIGINS: `${SHOP}/, ${DESK}`, RATE_LIMIT_PER_MINUTE: '3', AUTH_FAILURES_PER_MINUTE: '2' },
  });
});
afterAll(() => api.stop());

interface Raw {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** fetch may not set Origin, and answers OPTIONS with what it likes. */
function raw(method: string, path: string, headers: Record<string, string>, body?: string, url = api.url): Promise<Raw> {
  return new Promise((resolve, reject) => {
    // As options: a text is parsed as a URL first, which refuses or tidies up some of these paths.
    const { hostname, port } = new URL(url);
    const sent = httpRequest({ hostname, port, path, method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const preflight = (path: string, origin: string, headers: Record<string, string> = {}, url = api.url) =>
  raw('OPTIONS', path, { origin, 'access-control-request-method': 'POST', ...headers }, undefined, url);
const listOf = (header: string | undefined) => header?.split(', ') ?? [];

describe('a preflight', () => {
  test.each([SHOP, DESK])('of %s is answered without a key, on every route and on none', async (origin) => {
    for (const path of [
      'conversations',
      'conversations/x/reply',
      'nothing',
      'conversations/%E0%A4%A',
      `conversations/${'x'.repeat(600)}`,
    ]) {
      const { status, headers, text } = await preflight(`/api/support/${path}`, origin, {
        'access-control-request-headers': 'authorization,idempotency-key',
      });
      expect([status, text]).toEqual([204, '']);
      expect(headers).toMatchObject({ 'access-control-allow-origin': origin, vary: 'Origin', 'access-control-max-age': '7200' });
      expect(headers['access-control-allow-credentials']).toBeUndefined();
      expect(headers['x-request-id']).toBeDefined();
    }
  });

  test('allows every method of the API, and every header that a request may have', async () => {
    const { paths, components } = openApiDocument(AppModule.controllers);
    const { headers } = await preflight('/api/support/conversations', SHOP);
    const methods = new Set(Object.values(paths).flatMap((one) => Object.keys(one).map((method) => method.toUpperCase())));
    expect(listOf(headers['access-control-allow-methods']).sort()).toEqual([...methods, 'HEAD'].sort());
    const named = Object.values(components.parameters).map(({ name }) => name);
    expect(listOf(headers['access-control-allow-headers']).sort()).toEqual([...named, 'Authorization', 'X-API-Key', 'Content-Type'].sort());
  });

  test('of any other origin is answered, and allows it nothing', async () => {
    for (const origin of ['https://shop.example.com.evil.example', 'http://shop.example.com', 'https://shop.example.com:8443', 'null']) {
      const { status, headers } = await preflight('/api/support/conversations', origin);
      expect([origin, status, headers['access-control-allow-origin'], headers.vary]).toEqual([origin, 204, undefined, 'Origin']);
    }
  });

  test('counts against no limit', async () => {
    const key = await api.keyFor('agent');
    for (let i = 0; i < 5; i++) await preflight('/api/support/conversations', SHOP, { 'x-api-key': key });
    const { headers } = await raw('GET', '/api/support/conversations', { origin: SHOP, 'x-api-key': key });
    expect(headers['x-ratelimit-remaining']).toBe('2');
  });

  test('is no other OPTIONS, which is 405 as ever', async () => {
    const { status, headers, text } = await raw('OPTIONS', '/api/support/conversations', { origin: SHOP });
    expect([status, headers.allow, headers['access-control-allow-origin']]).toEqual([405, 'GET, HEAD, POST', SHOP]);
    expect(JSON.parse(text)).toMatchObject({ code: 'method_not_allowed' });
  });
});

describe('a page', () => {
  const readable = (answer: Raw) => [answer.headers['access-control-allow-origin'], answer.headers.vary];

  test('reads an answer, and every header that the API describes', async () => {
    const body = JSON.stringify({ visitor: {}, message: 'Hi' });
    const sent = { origin: SHOP, 'x-api-key': api.adminKey, 'content-type': 'application/json' };
    const made = await raw('POST', '/api/support/conversations', sent, body);
    expect([made.status, ...readable(made)]).toEqual([201, SHOP, 'Origin']);
    const described = Object.keys((openApiDocument(AppModule.controllers).components as { headers?: object }).headers ?? {});
    expect(listOf(made.headers['access-control-expose-headers']).sort()).toEqual(described.sort());
  });

  test.each([
    ['401', 'GET', '/api/support/conversations', {}],
    ['404 of no route', 'GET', '/api/support/nothing', {}],
    ['404 of no text', 'GET', '/api/support/conversations/%E0%A4%A', {}],
    ['405', 'PATCH', '/api/support/conversations', {}],
    ['413', 'POST', '/api/support/conversations', { 'content-type': 'application/json', 'content-length': '600000' }],
    ['415', 'POST', '/api/support/conversations', { 'content-type': 'text/plain' }],
    ['431', 'GET', `/api/support/conversations?${Array.from({ length: 300 }, (_, i) => `p${i}`).join('&')}`, {}],
  ])('reads an error: %s', async (said, method, path, headers) => {
    const key = await api.keyFor('agent');
    const sent = said === '401' ? headers : { 'x-api-key': key, ...headers };
    const answer = await raw(method, path, { origin: DESK, ...sent }, 'content-type' in headers ? 'x'.repeat(600_000) : undefined);
    expect([String(answer.status), ...readable(answer)]).toEqual([said.slice(0, 3), DESK, 'Origin']);
    expect(listOf(answer.headers['access-control-expose-headers'])).toContain('X-Request-Id');
  });

  test('reads that it asks too often', async () => {
    const key = await api.keyFor('agent');
    let answer = await raw('GET', '/api/support/conversations', { origin: SHOP, 'x-api-key': key });
    for (let i = 0; i < 3; i++) answer = await raw('GET', '/api/support/conversations', { origin: SHOP, 'x-api-key': key });
    expect([answer.status, ...readable(answer)]).toEqual([429, SHOP, 'Origin']);
    expect(listOf(answer.headers['access-control-expose-headers'])).toEqual(expect.arrayContaining(['Retry-After', 'X-RateLimit-Reset']));
  });

  test('of an origin that is not named reads nothing', async () => {
    const answer = await raw('GET', '/api/docs.json', { origin: 'https://evil.example' });
    expect([answer.status, ...readable(answer)]).toEqual([200, undefined, 'Origin']);
  });

  test('reads nothing of what is for those who run it', async () => {
    for (const path of ['/metrics', '/health/ready']) {
      expect((await raw('GET', path, { origin: SHOP })).headers['access-control-allow-origin']).toBeUndefined();
      expect((await preflight(path, SHOP)).status).toBe(405);
    }
  });
});

test('* allows every origin, and * alone', async () => {
  const app = await createHttpApp(AppModule.over(api.backend) as never, {
    logger: createLogger('silent'),
    trustProxy: 0,
    corsOrigins: '*',
  });
  try {
    await app.listen(0, '127.0.0.1');
    const { port } = app.getHttpServer().address() as { port: number };
    const url = `http://127.0.0.1:${port}`;
    for (const answer of [
      await preflight('/api/support/conversations', 'https://anywhere.example', {}, url),
      await raw('GET', '/api/support/conversations/%E0%A4%A', { origin: 'null' }, undefined, url),
    ])
      expect(answer.headers['access-control-allow-origin']).toBe('*');
  } finally {
    await app.close();
  }
});

describe('CORS_ORIGINS', () => {
  const read = (text: string) => readConfig({ CORS_ORIGINS: text }).CORS_ORIGINS;

  test.each([
    ['https://shop.example.com', ['https://shop.example.com']],
    [
      ' https://Shop.Example.com:443/ ,http://localhost:5173,https://shop.example.com',
      ['https://shop.example.com', 'http://localhost:5173'],
    ],
    ['https://bücher.example', ['https://xn--bcher-kva.example']],
    ['capacitor://localhost', ['capacitor://localhost']],
    ['http://[::1]:8080', ['http://[::1]:8080']],
    ['*', '*'],
    ['', undefined],
  ])('%j is %j', (text, origins) => expect(read(text)).toEqual(origins));

  test.each([
    'shop.example.com',
    'https://',
    'https://shop.example.com/app',
    'https://shop.example.com?x',
    'https://shop.example.com/#x',
    'https://user:secret@shop.example.com',
    'https://*.example.com',
    'https://shop.example.com,*',
    'null',
    'https://a.example https://b.example',
    'javascript:alert(1)',
    ',',
  ])('%j stops the program at start, by name', (text) => expect(() => read(text)).toThrow(/^CORS_ORIGINS: /));
});
