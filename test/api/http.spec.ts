import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request as httpRequest, type RequestOptions } from 'node:http';
import { connect } from 'node:net';
import { REACTORS } from '../../projections/registry.js';
import { problemSchema } from '../../src/http/problem.js';
import { startApi, type TestApi } from '../support/api.js';

/* What holds of every route alike: methods, spellings of an address, ids of requests, and faults that no route answers. */

let api: TestApi;
let id: string;
beforeAll(async () => {
  api = await startApi();
  const made = await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi' } });
  id = made.body.data.id as string;
});
afterAll(() => api.stop());

interface Raw {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** A request that fetch would refuse or tidy up. */
function raw(method: string, path: string, options: RequestOptions = {}, body?: string | Buffer): Promise<Raw> {
  return new Promise((resolve, reject) => {
    const { port } = new URL(api.url);
    const sent = httpRequest(
      { host: '127.0.0.1', port, method, path, ...options, headers: { 'x-api-key': api.adminKey, ...(options.headers as object) } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text: Buffer.concat(chunks).toString() }),
        );
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Bytes that Node's client would never send. */
function wire(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { port } = new URL(api.url);
    const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes));
    let text = '';
    socket.on('data', (chunk) => (text += chunk.toString()));
    socket.on('close', () => resolve(text));
    socket.on('error', reject);
  });
}

function problem(text: string): { code: string; status: number; instance: string; requestId: string } {
  const parsed = problemSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new Error(`no problem of ours: ${text}`);
  return parsed.data;
}

describe('methods', () => {
  test.each([
    ['PATCH', '/conversations', 'GET, HEAD, POST'],
    ['DELETE', '/conversations', 'GET, HEAD, POST'],
    ['POST', '/conversations/x', 'GET, HEAD, PUT'],
    ['GET', '/conversations/x/reply', 'POST'],
    ['GET', '/conversations/x/tags/y', 'DELETE'],
    ['PUT', '/conversations/x/events', 'GET, HEAD'],
    ['TRACE', '/conversations', 'GET, HEAD, POST'],
    ['OPTIONS', '/conversations', 'GET, HEAD, POST'],
    ['PROPFIND', '/conversations', 'GET, HEAD, POST'],
  ])('%s %s is 405, and names what is allowed', async (method, path, allowed) => {
    const answer = await raw(method, `/api/support${path}`);
    expect([answer.status, answer.headers.allow]).toEqual([405, allowed]);
    expect(problem(answer.text).code).toBe('method_not_allowed');
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  });

  test.each(['/conversations', `/conversations/ID`, '/conversations/ID/messages', '/conversations/ID/events', '/visitors'])(
    'HEAD %s is GET without a body, behind the same guard',
    async (path) => {
      const address = `/api/support${path.replace('ID', id)}`;
      const [get, head] = [await raw('GET', address), await raw('HEAD', address)];
      expect([head.status, head.text]).toEqual([200, '']);
      for (const name of ['content-type', 'content-length', 'etag', 'x-position']) expect(head.headers[name]).toBe(get.headers[name]);
      expect((await raw('HEAD', address, { headers: { 'x-api-key': 'wrong' } })).status).toBe(401);
    },
  );
});

describe('spellings of an address', () => {
  test.each([
    '/api/support/conversations/',
    '/api/support//conversations',
    '//api/support/conversations',
    '/api/support/Conversations',
    '/API/support/conversations',
    '/api/support/conversations.json',
    '/api/support/conversations;x=1',
    '/api/support',
    '/',
    '/health',
    '/api/support/health/ready',
  ])('%s is nothing', async (path) => {
    for (const key of [api.adminKey, 'wrong']) {
      const answer = await raw('GET', path, { headers: { 'x-api-key': key } });
      expect(answer.status).toBe(404);
      expect(problem(answer.text)).toMatchObject({ code: 'not_found', instance: path });
    }
  });

  test.each(['/api/support/%63onversations', '/api/support/conversations?'])('%s is the list, behind its guard', async (path) => {
    expect((await raw('GET', path)).status).toBe(200);
    expect((await raw('GET', path, { headers: { 'x-api-key': 'wrong' } })).status).toBe(401);
  });
});

describe("a request's id", () => {
  test.each(['abc', 'A.b:c@d_e-1', 'x'.repeat(64)])('is the caller’s own: %s', async (own) => {
    const answer = await raw('GET', '/api/support/conversations/none', { headers: { 'x-request-id': own } });
    expect(answer.headers['x-request-id']).toBe(own);
    expect(problem(answer.text).requestId).toBe(own);
  });

  test.each(['', 'x'.repeat(65), 'a b', '<script>', 'ü', 'a, b'])('is made when the caller’s is %j', async (own) => {
    const answers = [
      await raw('GET', '/api/support/conversations/none', { headers: { 'x-request-id': own } }),
      await raw('GET', '/api/support/conversations/none'),
    ];
    for (const { headers, text } of answers) {
      expect(headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
      expect(problem(text).requestId).toBe(headers['x-request-id']);
    }
  });
});

test('every answer forbids to be guessed at or kept', async () => {
  for (const [method, path] of [
    ['GET', `/api/support/conversations/${id}`],
    ['GET', '/api/support/nothing'],
    ['PATCH', '/api/support/conversations'],
  ] as const)
    expect((await raw(method, path)).headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'cache-control': 'no-store' });
});

describe('faults before any route', () => {
  test('headers of 20 KB are 431', async () => {
    const answer = await raw('GET', '/api/support/conversations', { headers: { 'x-filler': 'x'.repeat(20_000) } });
    expect(answer.status).toBe(431);
    expect(problem(answer.text).code).toBe('headers_too_large');
    expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  });

  test.each([201, 300, 2_000, 5_000])('%i parameters are 431, and the server goes on', async (parameters) => {
    const query = Array.from({ length: parameters }, (_, i) => `p${i}`).join('&');
    const answer = await raw('GET', `/api/support/conversations?${query}`);
    expect(answer.status).toBe(431);
    expect(problem(answer.text).code).toBe('headers_too_large');
    expect((await raw('GET', '/api/support/conversations')).status).toBe(200);
  });

  test.each([
    ['no HTTP', 'hello\r\n\r\n'],
    ['a space in a header’s name', 'GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n'],
    ['two lengths', 'POST /api/support/conversations HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
    ['a length and chunks', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['no host', 'GET /api/support/conversations HTTP/1.1\r\n\r\n'],
  ])('%s is 400', async (_, bytes) => {
    const text = await wire(bytes);
    expect(text).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('bytes in an address that are no text name nothing', async () => {
    const answer = await raw('GET', '/api/support/conversations/%E0%A4%A');
    expect(answer.status).toBe(404);
    expect(problem(answer.text).code).toBe('not_found');
    expect(answer.headers['x-request-id']).toBe(problem(answer.text).requestId);
  });
});

describe('the document of the API', () => {
  test('is the one that is committed, and needs no key', async () => {
    const answer = await raw('GET', '/api/docs.json', { headers: { 'x-api-key': '' } });
    expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/json; charset=utf-8']);
    expect(JSON.parse(answer.text)).toEqual(JSON.parse(readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8')));
  });

  test('has a part for visitor tokens', async () => {
    const answer = await raw('GET', '/api/visitor-docs.json', { headers: { 'x-api-key': '' } });
    expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/json; charset=utf-8']);
    const { info, paths } = JSON.parse(answer.text) as { info: { title: string }; paths: Record<string, object> };
    expect([info.title, '/api/support/conversations' in paths, '/api/support/search' in paths]).toEqual([
      'Threadlog for visitors',
      true,
      false,
    ]);
  });

  test('is a page, too', async () => {
    const answer = await raw('GET', '/api/docs', { headers: { 'x-api-key': '' } });
    expect([answer.status, answer.headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
    expect(answer.text).toContain('<title>Threadlog API</title>');
    const policy = answer.headers['content-security-policy'];
    for (const kind of ['style', 'script']) {
      const [, text = ''] = new RegExp(`<${kind}>([^]*)</${kind}>`).exec(answer.text) ?? [];
      expect(policy).toContain(`${kind}-src 'sha256-${createHash('sha256').update(text).digest('base64')}'`);
    }
    expect(policy).toMatch(/^default-src 'none';/);
    expect(policy).not.toContain('unsafe');
  });
});

describe('health', () => {
  test('needs no key', async () => {
    const live = await raw('GET', '/health/live', { headers: { 'x-api-key': '' } });
    expect([live.status, JSON.parse(live.text)]).toEqual([200, { status: 'ok' }]);
    const ready = await raw('GET', '/health/ready', { headers: { 'x-api-key': '' } });
    expect([ready.status, JSON.parse(ready.text)]).toEqual([
      200,
      {
        status: 'ok',
        log: 'ok',
        database: 'ok',
        projections: [
          { group: 'core', status: 'ok', parked: 0 },
          { group: 'insight', status: 'ok', parked: 0 },
        ],
        reactors: Object.keys(REACTORS)
          .toSorted()
          .map((reactor) => ({ reactor, status: 'ok', parked: 0 })),
      },
    ]);
  });
});
