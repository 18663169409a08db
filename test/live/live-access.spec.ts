import { readFileSync } from 'node:fs';
import { io } from 'socket.io-client';
import { ApiKeyWriter } from '../../src/api-keys/api-key.writer.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { randomIds } from '../../src/ids.js';
import { MOST_OF_VISITOR, MOST_STRANGERS } from '../../src/http/socket-places.js';
import { LiveFeed } from '../../src/live/live-feed.reader.js';
import { LiveSockets } from '../../src/live/live.sockets.js';
import { archiveAssignee, assigneeAggregate } from '../../src/team/assignee.js';
import { type TestApi, startApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { LiveClient, refusedHandshake } from '../support/live-client.js';

let api: TestApi;
let url: string;
beforeAll(async () => {
  api = await startApi({
    environment: {
      CORS_ORIGINS: 'https://shop.example.com',
      AUTH_FAILURES_PER_MINUTE: '50',
      LIVE_MAX_SOCKETS: '30',
      LIVE_MAX_SOCKETS_PER_ORGANIZATION: '20',
      TRUST_PROXY: '1',
    },
  });
  url = `${api.url}/support/conversations/live`;
});
afterAll(() => api.stop());

const open = async (email = 'ada@example.com') =>
  (await api.expect(201, 'POST', '/conversations', { body: { visitor: { email }, message: 'Hello' } })).body.data as {
    id: string;
    visitor: { id: string };
  };
const tokenFor = async (id: string) =>
  (await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id } } })).body.data.token as string;
const ticketFor = async (key: string, headers: Record<string, string> = {}) =>
  (await api.expect(201, 'POST', '/live-tickets', { key, headers })).body.data as { ticket: string; expiresAt: string };

describe('a socket is opened', () => {
  test.each([
    ['by Authorization', () => new LiveClient(url, { headers: { authorization: `Bearer ${api.adminKey}` } })],
    ['by X-API-Key', () => new LiveClient(url, { headers: { 'x-api-key': api.adminKey } })],
    ['by Sec-WebSocket-Protocol', () => new LiveClient(url, { protocols: ['threadlog', `bearer.${api.adminKey}`] })],
    ['by a page of its own host', () => new LiveClient(url, { headers: { 'x-api-key': api.adminKey, origin: api.url } })],
    [
      'by a page of CORS_ORIGINS',
      () => new LiveClient(url, { headers: { 'x-api-key': api.adminKey, origin: 'https://shop.example.com' } }),
    ],
  ])('%s', async (_, connect) => {
    const client = connect();
    await client.ready();
    expect(client.ws.protocol).toBe(client.ws.url !== '' && _.includes('Protocol') ? 'threadlog' : '');
    await client.close();
  });

  test('by a first message, which may narrow it and name a position', async () => {
    const client = new LiveClient(url);
    await eventually(() => client.ws.readyState === 1);
    client.send({ type: 'auth', token: api.adminKey, since: 'start', filter: { types: 'message.received' } });
    expect(await client.ready()).toMatchObject({ type: 'ready', position: 'start' });
    const { id } = await open();
    await eventually(() => client.told.some(({ data }) => data.conversation.id === id));
    expect(new Set(client.told.map(({ type }) => type))).toEqual(new Set(['message.received']));
    await client.close();
  });

  test('by a ticket, once, and never by an expired one', async () => {
    const { ticket, expiresAt } = await ticketFor(api.adminKey);
    expect(Date.parse(expiresAt) - api.clock.now()).toBeGreaterThan(28_000);
    const first = new LiveClient(`${url}?ticket=${ticket}`);
    await first.ready();
    expect((await refusedHandshake(`${url}?ticket=${ticket}`)).status).toBe(401);
    await first.close();

    const late = await ticketFor(api.adminKey);
    api.clock.advance(30_000);
    expect((await refusedHandshake(`${url}?ticket=${late.ticket}`)).status).toBe(401);
    const rows = await api.backend.database.selectFrom('keep.live_tickets').selectAll().execute();
    expect(JSON.stringify(rows)).not.toContain(ticket);
    expect(api.logged()).not.toContain(ticket);
  });

  test('a repeated request for a ticket gets the same one, used or not', async () => {
    const headers = { 'idempotency-key': 'ticket-1' };
    const first = await ticketFor(api.adminKey, headers);
    const client = new LiveClient(`${url}?ticket=${first.ticket}`);
    await client.ready();
    expect(await ticketFor(api.adminKey, headers)).toEqual(first);
    expect((await refusedHandshake(`${url}?ticket=${first.ticket}`)).status).toBe(401);
    await client.close();
  });

  test('by the snippet of the documentation, as it stands', async () => {
    const { ticket } = await ticketFor(api.adminKey);
    const logged: unknown[][] = [];
    const { WebSocket: Browser } = await import('ws');
    // eslint-disable-next-line @typescript-eslint/no-implied-eval -- the text of the documentation is what is tested
    const run = new Function(
      'WebSocket',
      'console',
      `const ws = new WebSocket('${url.replace('http', 'ws')}?ticket=${ticket}');
ws.onmessage = (event) => {
const { type, data } = JSON.parse(event.data);
switch (type) {
case 'conversation.created':
console.log('New conversation:', data);
break;
case 'message.received':
console.log('New message:', data);
break;
case 'conversation.updated':
console.log('Conversation updated:', data);
break;
}
};
return ws;`,
    ) as (socket: unknown, console: unknown) => { close(): void; readyState: number };
    const ws = run(Browser, { log: (...said: unknown[]) => logged.push(said) });
    await eventually(() => ws.readyState === 1);
    const { id } = await open();
    await api.expect(200, 'PUT', `/conversations/${id}`, { body: { priority: 'high' } });
    await eventually(() => logged.length >= 3);
    expect(logged.map(([said]) => said)).toEqual(['New conversation:', 'New message:', 'Conversation updated:']);
    ws.close();
  });

  test('by the programs of docs/live.md, as they stand', async () => {
    const { id } = await open('docs@example.com');
    const programs = [...readFileSync('docs/live.md', 'utf8').matchAll(/^```js\n([^]*?)^```/gm)].map(([, program = '']) => program);
    expect(programs).toHaveLength(2);
    const { WebSocket } = await import('ws');
    const opened: { close(): void }[] = [];
    class Kept extends WebSocket {
      constructor(...given: ConstructorParameters<typeof WebSocket>) {
        super(...given);
        opened.push(this);
      }
    }
    const kept = (...given: Parameters<typeof io>) => {
      const socket = io(...given);
      opened.push(socket);
      return socket;
    };
    const said: string[] = [];
    const given = {
      WebSocket: Kept,
      io: kept,
      process: { env: { KEY: api.adminKey } },
      console: { log: (...words: unknown[]) => said.push(words.join(' ')) },
      // The first program would connect again for ever.
      setTimeout: () => undefined,
    };
    for (const program of programs) {
      const here = program
        .replace(/^import .*$/m, '')
        .replace('wss://HOST', api.url.replace('http', 'ws'))
        .replace('https://HOST', api.url);
      // eslint-disable-next-line @typescript-eslint/no-implied-eval -- the text of the documentation is what is tested
      new Function(...Object.keys(given), here)(...Object.values(given));
    }
    await eventually(() => said.includes(`message.received ${id}`) && said.some((line) => /^\d[\d.-]* Hello$/.test(line)));
    for (const socket of opened) socket.close();
  });
});

describe('a handshake is refused in plain HTTP', () => {
  const authorization = () => ({ authorization: `Bearer ${api.adminKey}` });
  test.each([
    ['a key that is none', 401, 'unauthenticated', () => refusedHandshake(url, { headers: { 'x-api-key': 'tl_nothing' } })],
    [
      'more than one key',
      401,
      'unauthenticated',
      () => refusedHandshake(url, { headers: { ...authorization(), 'x-api-key': api.adminKey } }),
    ],
    ['another origin', 403, 'forbidden', () => refusedHandshake(url, { headers: { ...authorization(), origin: 'https://evil.example' } })],
    ['an origin that is none', 403, 'forbidden', () => refusedHandshake(url, { headers: { ...authorization(), origin: 'null' } })],
    ['another path', 404, 'not_found', () => refusedHandshake(`${api.url}/support/other`, { headers: authorization() })],
    ['a wrong position', 400, 'validation_failed', () => refusedHandshake(`${url}?since=yesterday`, { headers: authorization() })],
    [
      'a position beyond the end of the log',
      400,
      'validation_failed',
      () => refusedHandshake(`${url}?since=9999999999999999999`, { headers: authorization() }),
    ],
    ['an unknown parameter', 400, 'validation_failed', () => refusedHandshake(`${url}?inbox=1`, { headers: authorization() })],
    ['an unknown type', 400, 'validation_failed', () => refusedHandshake(`${url}?types=message`, { headers: authorization() })],
    ['an unknown agent', 422, 'unknown_agent', () => refusedHandshake(url, { headers: { ...authorization(), 'x-agent-id': 'nobody' } })],
  ])('%s', async (_, status, code, handshake) => {
    const answer = await handshake();
    expect([answer.status, answer.body.code]).toEqual([status, code]);
    expect(answer.headers['content-type']).toContain('application/problem+json');
  });

  test('a request that asks for no WebSocket gets 426, and one that offers HTTP/2 is answered as if it did not', async () => {
    const plain = await fetch(url);
    expect([plain.status, plain.headers.get('upgrade')]).toEqual([426, 'websocket']);
    expect(await plain.json()).toMatchObject({ code: 'upgrade_required' });

    const { connect } = await import('node:net');
    const { port } = new URL(api.url);
    const body = JSON.stringify({ visitor: { email: 'h2@example.com' }, message: 'over h2c' });
    const socket = connect(Number(port), '127.0.0.1');
    socket.write(
      `POST /api/support/conversations HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n` +
        `X-API-Key: ${api.adminKey}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 10)}`,
    );
    setTimeout(() => socket.write(body.slice(10)), 50);
    let answer = '';
    socket.on('data', (chunk) => (answer += String(chunk)));
    await eventually(() => answer.includes('over h2c'));
    expect(answer).toMatch(/^HTTP\/1\.1 201 /);
    socket.destroy();
  });
});

describe('a socket ends', () => {
  test.each([
    ['without a key in its first message', { type: 'viewing', conversationId: 'x' }, 4401],
    ['by a key that is none', { type: 'auth', token: 'tl_nothing' }, 4401],
    ['by a filter that is none', () => ({ type: 'auth', token: api.adminKey, filter: { inbox: 'x' } }), 4400],
    ['by JSON that is none', '{"type":', 1007],
    ['by JSON that is no object', '5', 4400],
    ['by an object that names something twice', '{"type":"auth","type":"auth"}', 4400],
    ['by binary', Buffer.from('{}'), 1003],
    ['by a message that is too large', JSON.stringify({ type: 'auth', token: 'x'.repeat(20_000) }), 1009],
  ])('%s', async (_, message, code) => {
    const client = new LiveClient(url);
    await eventually(() => client.ws.readyState === 1);
    const given = typeof message === 'function' ? message() : message;
    if (Buffer.isBuffer(given)) client.ws.send(given);
    else client.send(given);
    expect((await client.closed).code).toBe(code);
  });

  test('names a wrong field of the filter where it was given', async () => {
    const refused = await refusedHandshake(`${url}?types=nope`, { headers: { authorization: `Bearer ${api.adminKey}` } });
    expect(refused.body.errors?.map(({ field }) => field)).toEqual(['types']);
    const client = new LiveClient(`${url}?types=nope`);
    await eventually(() => client.ws.readyState === 1);
    client.send({ type: 'auth', token: api.adminKey });
    expect((await client.closed).reason).toMatch(/^types must be among/);
    const other = new LiveClient(url);
    await eventually(() => other.ws.readyState === 1);
    other.send({ type: 'auth', token: api.adminKey, filter: { types: 'nope' } });
    expect((await other.closed).reason).toMatch(/^filter\.types must be among/);
  });

  test('by a message that its role may not send', async () => {
    const auditor = await LiveClient.open(api, await api.keyFor('auditor'));
    auditor.send({ type: 'viewing', conversationId: 'x' });
    expect((await auditor.closed).code).toBe(4403);
  });

  test.each([
    ['type must be one of viewing, typing', { type: 'shout', conversationId: 'x' }],
    ['conversationId is missing', { type: 'viewing' }],
    ['conversationId must be a text', { type: 'viewing', conversationId: 5 }],
    ['conversationId must not be empty', { type: 'viewing', conversationId: '' }],
    ['conversationId must have at most 128 characters', { type: 'viewing', conversationId: 'x'.repeat(129) }],
    ['text is not known here', { type: 'viewing', conversationId: 'x', text: 'y' }],
  ])('by a message that is answered: %s', async (reason, message) => {
    const admin = await LiveClient.open(api, api.adminKey);
    admin.send(message);
    expect(await admin.closed).toMatchObject({ code: 4400, reason });
  });

  test('when its key is revoked or expires, or its agent is archived, and no later than after five seconds', async () => {
    await api.expect(201, 'POST', '/agents', { body: { id: 'agent-live', name: 'Lea' } });
    const writer = api.app.get(ApiKeyWriter);
    const context = () => systemContext(api.organizationId, randomIds.next());
    const revoked = await writer.create(context(), { name: 'revoked', role: 'agent' });
    const expiring = await writer.create(context(), {
      name: 'expiring',
      role: 'agent',
      expiresAt: new Date(api.clock.now() + 60_000).toISOString(),
    });
    const bound = await api.keyFor('agent', { agentId: 'agent-live' });
    const clients = await Promise.all([revoked.key, expiring.key, bound].map((key) => LiveClient.open(api, key)));
    const acting = new LiveClient(url, { headers: { 'x-api-key': api.adminKey, 'x-agent-id': 'agent-live' } });
    await acting.ready();
    const began = performance.now();
    await api.expect(204, 'DELETE', `/api-keys/${revoked.id}`);
    api.clock.advance(60_001);
    await api.expect(204, 'DELETE', '/agents/agent-live');
    const codes = (await Promise.all([...clients, acting].map(({ closed }) => closed))).map(({ code }) => code);
    expect(codes).toEqual([4401, 4401, 4401, 4401]);
    expect(performance.now() - began).toBeLessThan(5_000);
  });

  test("when its visitor's tokens are revoked", async () => {
    const { visitor } = await open('eve@example.com');
    const before = await LiveClient.open(api, await tokenFor(visitor.id));
    await api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId: visitor.id } });
    const after = await LiveClient.open(api, await tokenFor(visitor.id), '?since=start');
    expect((await before.closed).code).toBe(4401);
    await after.expectTold(2);
    expect(after.ws.readyState).toBe(1);
    await after.close();
  });

  test('when its agent was archived while its key or ticket still worked', async () => {
    await api.expect(201, 'POST', '/agents', { body: { id: 'agent-gone', name: 'Noa' } });
    const bound = await api.keyFor('agent', { agentId: 'agent-gone' });
    const { ticket } = await ticketFor(api.adminKey, { 'x-agent-id': 'agent-gone' });
    const clients = [await LiveClient.open(api, bound), new LiveClient(`${url}?ticket=${ticket}`)];
    await clients[1]?.ready();
    const bystander = await LiveClient.open(api, api.adminKey);
    // As after a crash between the event and the revocation of the agent's keys.
    await api.backend.database.updateTable('keep.reactors').set({ paused: true }).where('name', '=', 'archived-assignees').execute();
    await api.backend.transactor.transact(
      assigneeAggregate,
      'agent-gone',
      systemContext(api.organizationId, randomIds.next()),
      archiveAssignee('agent'),
    );
    expect((await Promise.all(clients.map(({ closed }) => closed))).map(({ code }) => code)).toEqual([4401, 4401]);
    expect((await api.call('GET', '/conversations', { key: bound })).status).toBe(200);
    expect(bystander.ws.readyState).toBe(1);
    await bystander.close();
    await api.backend.database.updateTable('keep.reactors').set({ paused: false }).where('name', '=', 'archived-assignees').execute();
  });

  test("when its visitor's tokens were revoked before it had joined, though the feed stands still", async () => {
    const { visitor } = await open('early@example.com');
    const token = await tokenFor(visitor.id);
    const table = api.app.get(LiveFeed);
    const before = table.before.bind(table);
    const next = table.next.bind(table);
    let letGo = () => {};
    const held = new Promise<void>((resolve) => (letGo = resolve));
    table.before = async (...given) => {
      await held;
      return await before(...given);
    };
    table.next = () => Promise.resolve([]);
    try {
      const client = await LiveClient.open(api, token);
      await api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId: visitor.id } });
      letGo();
      expect((await client.closed).code).toBe(4401);
    } finally {
      table.before = before;
      table.next = next;
    }
  });

  test('when it gives no sign of life', async () => {
    const client = await LiveClient.open(api, api.adminKey);
    const dead = await LiveClient.open(api, api.adminKey);
    // A peer that is gone answers nothing.
    (dead.ws as unknown as { _receiver: { removeAllListeners(name: string): void } })._receiver.removeAllListeners('ping');
    const sockets = api.app.get(LiveSockets);
    sockets.ping();
    // The answer to this comes after the client's sign of life.
    client.ws.ping();
    await new Promise((resolve) => client.ws.once('pong', resolve));
    sockets.ping();
    expect((await dead.closed).code).toBe(1006);
    expect(client.ws.readyState).toBe(1);
    await client.close();
  });
});

describe('places', () => {
  /** A connection from an address of the caller's choice, without a key. */
  const stranger = async (address: string, at = url) => {
    const client = new LiveClient(at, { headers: { 'x-forwarded-for': address } });
    await eventually(() => client.ws.readyState === 1);
    return client;
  };
  const polled = async () => await fetch(`${api.url}/socket.io/?EIO=4&transport=polling`, { headers: { 'x-forwarded-for': '192.0.2.2' } });

  test('connections without a key take none from those who have a key, are few for one address, and end', async () => {
    api.clock.stopAt(api.clock.now());
    const half = MOST_STRANGERS.ofAddress / 2;
    // The same kind over socket.io: connected, and in no namespace.
    const addresses = Array.from({ length: 2 * half }, (_, i) => (i < half ? url : `${api.url}/socket.io/?EIO=4&transport=websocket`));
    const strangers = await Promise.all(addresses.map((address) => stranger('192.0.2.1', address)));
    const full = await refusedHandshake(url, { headers: { 'x-forwarded-for': '192.0.2.1' } });
    expect([full.status, full.body.code, full.headers['retry-after']]).toEqual([503, 'too_many_sockets', '1']);
    const another = await stranger('192.0.2.2');
    const known = await LiveClient.open(api, api.adminKey);

    expect(strangers.every(({ ws }) => ws.readyState === 1)).toBe(true);
    api.clock.goOn();
    api.clock.advance(5_000);
    const codes = await Promise.all([...strangers, another].map(async ({ closed }) => (await closed).code));
    expect(codes.filter((code) => code === 4408)).toHaveLength(half + 1);
    expect(known.ws.readyState).toBe(1);
    await known.close();
    await (await stranger('192.0.2.1')).close();
  });

  test('a visitor has few, over both transports together, until one is free', async () => {
    const token = await tokenFor((await open('many@example.com')).visitor.id);
    const clients = await Promise.all(Array.from({ length: MOST_OF_VISITOR }, () => LiveClient.open(api, token)));
    const refused = await refusedHandshake(url, { headers: { authorization: `Bearer ${token}` } });
    expect([refused.status, refused.body.code]).toEqual([503, 'too_many_sockets']);
    const socket = io(url, { auth: { token }, transports: ['websocket'], reconnection: false, forceNew: true });
    const error = await new Promise<Error & { data?: { code?: string } }>((resolve) => socket.on('connect_error', resolve));
    expect(error.data?.code).toBe('too_many_sockets');
    socket.close();
    const late = new LiveClient(url);
    await eventually(() => late.ws.readyState === 1);
    late.send({ type: 'auth', token });
    expect((await late.closed).code).toBe(1013);
    const another = await LiveClient.open(api, await tokenFor((await open('few@example.com')).visitor.id));
    await clients.pop()?.close();
    clients.push(await eventually(() => LiveClient.open(api, token)));
    for (const client of [...clients, another]) await client.close();
  });

  test('when an organization has all of its own, it is told so in each way, and another one is let in', async () => {
    const other = await api.otherOrganization();
    const clients = await Promise.all(Array.from({ length: 20 }, () => LiveClient.open(api, api.adminKey)));
    const refused = await refusedHandshake(url, { headers: { authorization: `Bearer ${api.adminKey}` } });
    expect([refused.status, refused.body.code, refused.headers['retry-after']]).toEqual([503, 'too_many_sockets', '1']);
    const socket = io(url, { auth: { token: api.adminKey }, transports: ['websocket'], reconnection: false, forceNew: true });
    const error = await new Promise<Error & { data?: { code?: string } }>((resolve) => socket.on('connect_error', resolve));
    expect(error.data?.code).toBe('too_many_sockets');
    socket.close();
    const late = new LiveClient(url);
    await eventually(() => late.ws.readyState === 1);
    late.send({ type: 'auth', token: api.adminKey });
    expect((await late.closed).code).toBe(1013);
    await (await LiveClient.open(api, other.adminKey)).close();
    await clients.pop()?.close();
    clients.push(await eventually(() => LiveClient.open(api, api.adminKey)));
    for (const client of clients) await client.close();
  });

  test('when all are taken, whoever asks for more is told 503 on either transport, until a place is free', async () => {
    const other = await api.otherOrganization();
    const keys = Array.from({ length: 30 }, (_, i) => (i < 20 ? api.adminKey : other.adminKey));
    const clients = await Promise.all(keys.map((key) => LiveClient.open(api, key)));
    const refused = await refusedHandshake(url, { headers: { authorization: `Bearer ${other.adminKey}` } });
    expect([refused.status, refused.body.code]).toEqual([503, 'too_many_sockets']);
    const polling = await polled();
    expect([polling.status, polling.headers.get('retry-after')]).toEqual([503, '1']);
    expect(await polling.json()).toMatchObject({ code: 'too_many_sockets' });
    const upgrade = await refusedHandshake(`${api.url}/socket.io/?EIO=4&transport=websocket`);
    expect([upgrade.status, upgrade.body.code]).toEqual([503, 'too_many_sockets']);
    await clients.pop()?.close();
    clients.push(await eventually(() => LiveClient.open(api, other.adminKey)));
    for (const client of clients) await client.close();
    await eventually(async () => (await polled()).status === 200);
    api.clock.advance(5_000);
  });
});

describe('socket.io', () => {
  const connect = (auth: Record<string, unknown>, options: Record<string, unknown> = {}) =>
    io(url, { auth, transports: ['websocket'], reconnection: false, forceNew: true, ...options });

  test.each([[['websocket']], [['polling']]])('carries the same frames over %s, each under its type', async (transports) => {
    const plain = await LiveClient.open(api, api.adminKey);
    const socket = connect({ token: api.adminKey, filter: { types: ['message.received', 'conversation.created'] } }, { transports });
    const got: [string, unknown][] = [];
    socket.onAny((type: string, frame: unknown) => got.push([type, frame]));
    await eventually(() => got.some(([type]) => type === 'ready'));
    await open();
    await eventually(() => got.length === 3);
    expect(got.slice(1)).toEqual((await plain.expectTold(2)).map(({ type, data, position }) => [type, { type, data, position }]));
    socket.disconnect();
    await plain.close();
  });

  test('refuses whoever has no key, asks for what is not there, or enters the namespace that is not ours', async () => {
    const refused = async (auth: Record<string, unknown>, at = url) => {
      const socket = io(at, { auth, transports: ['websocket'], reconnection: false, forceNew: true });
      const error = await new Promise<Error & { data?: { code: string } }>((resolve) => socket.on('connect_error', resolve));
      socket.disconnect();
      return error.data?.code ?? error.message;
    };
    expect(await refused({})).toBe('unauthenticated');
    expect(await refused({ token: 'tl_nothing' })).toBe('unauthenticated');
    expect(await refused({ token: api.adminKey, since: 'x' })).toBe('validation_failed');
    expect(await refused({ token: api.adminKey, filter: { types: 'x' } })).toBe('validation_failed');
    expect(await refused({ token: api.adminKey }, api.url)).toContain('nothing here');
    const { ticket } = await ticketFor(api.adminKey);
    const socket = connect({ ticket });
    await new Promise((resolve) => socket.on('ready', resolve));
    expect(await refused({ ticket })).toBe('unauthenticated');
    const ended = new Promise<{ data: { code: number } }>((resolve) => socket.on('error', resolve));
    const gone = new Promise((resolve) => socket.on('disconnect', resolve));
    socket.emit('shout', { text: 'x' });
    expect((await ended).data.code).toBe(4400);
    await gone;
  });

  test('is closed to pages of other origins', async () => {
    for (const [origin, status] of [
      ['https://evil.example', 403],
      ['https://shop.example.com', 200],
    ] as const)
      expect((await fetch(`${api.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin } })).status).toBe(status);
  });

  test('cuts a connection that sends what no client sends, and goes on', async () => {
    const raw = async () => {
      const client = new LiveClient(`${api.url}/socket.io/?EIO=4&transport=websocket`);
      client.ws.removeAllListeners('message');
      const packets: string[] = [];
      client.ws.on('message', (data) => packets.push(String(data as Buffer)));
      await eventually(() => packets.some((packet) => packet.startsWith('0{')));
      client.ws.send(`40/support/conversations/live,${JSON.stringify({ token: api.adminKey })}`);
      await eventually(() => packets.some((packet) => packet.includes('"ready"')));
      return client;
    };
    const placeholders = JSON.stringify(['viewing', ...Array.from({ length: 500 }, (_, num) => ({ _placeholder: true, num }))]);
    const packets: readonly (readonly (string | Buffer)[])[] = [
      [`42/support/conversations/live,["viewing",{"conversationId":"${'x'.repeat(20_000)}"}]`],
      [`4510000-/support/conversations/live,${placeholders}`, Buffer.alloc(100), '42/support/conversations/live,["viewing"]'],
      ['451-/support/conversations/live,["viewing",{"_placeholder":true,"num":-1}]', Buffer.alloc(100)],
      ['42/support/conversations/live,{"not":"a list"}'],
      ['49'],
      ['42/elsewhere,["viewing"]'],
      ['42/support/conversations/live,["__proto__",{}]'],
      ['42/support/conversations/live,["viewing",{"conversationId":{"length":1}}]'],
    ];
    for (const sent of packets) {
      const client = await raw();
      for (const packet of sent) client.ws.send(packet);
      await client.closed;
    }
    const sid = JSON.parse((await (await fetch(`${api.url}/socket.io/?EIO=4&transport=polling`)).text()).slice(1)) as { sid: string };
    const posted = await fetch(`${api.url}/socket.io/?EIO=4&transport=polling&sid=${sid.sid}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Buffer.alloc(1_000),
    });
    expect(posted.ok).toBe(false);
    await (await LiveClient.open(api, api.adminKey)).close();
  });

  test('lets a connection that asks twice before it is answered in once', async () => {
    const client = new LiveClient(`${api.url}/socket.io/?EIO=4&transport=websocket`);
    client.ws.removeAllListeners('message');
    const packets: string[] = [];
    client.ws.on('message', (data) => packets.push(String(data as Buffer)));
    await eventually(() => packets.length > 0);
    const enter = `40/support/conversations/live,${JSON.stringify({ token: api.adminKey })}`;
    client.ws.send(enter);
    client.ws.send(enter);
    await eventually(
      () => packets.some((packet) => packet.startsWith('44/support')) && packets.some((packet) => packet.includes('"ready"')),
    );
    expect(packets.filter((packet) => packet.includes('"ready"'))).toHaveLength(1);
    client.ws.terminate();
  });
});
