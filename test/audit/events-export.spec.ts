import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { FeedExports, EXPORTS_AT_ONCE } from '../../src/audit/event-feed.exports.js';
import type { FeedEvent, FeedPage } from '../../src/audit/event-feed.reader.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';

let api: TestApi;
/** The position of the last event. */
let last: string;
const ids: string[] = [];
const LONG = 'x'.repeat(45_000);

beforeAll(async () => {
  api = await startApi();
  for (let i = 0; i < 40; i++) {
    const made = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: `Person ${i}` }, message: `Hi ${i}` } });
    ids.push(made.body.data.id as string);
  }
  await note(4, 'A note');
}, 120_000);
afterAll(() => api.stop());

/** A note to every conversation. */
async function note(times: number, message: string): Promise<void> {
  for (let i = 0; i < times; i++) {
    const said = await api.expect(200, 'POST', '/conversations/bulk', { body: { ids, action: { type: 'note', message } } });
    last = said.headers.get('x-position') ?? '';
  }
}

const exports = () => api.app.get(FeedExports);
const settled = () => ({ headers: { 'x-min-position': last } });

interface End {
  meta: { events: number; next: string };
}
interface Exported {
  events: FeedEvent[];
  end: End;
}

function read(text: string): Exported {
  expect(text.endsWith('\n')).toBe(true);
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as FeedEvent | End);
  const end = lines.pop() as End;
  return { events: lines as FeedEvent[], end };
}
const exported = async (query = '', key?: string): Promise<Exported> =>
  read((await api.expect(200, 'GET', `/events?format=ndjson${query}`, { ...settled(), ...(key === undefined ? {} : { key }) })).text);

async function paged(query = ''): Promise<FeedEvent[]> {
  const all: FeedEvent[] = [];
  for (let after = 'start', more = true; more;) {
    const { data, meta } = (await api.expect(200, 'GET', `/events?limit=1000&after=${after}${query}`, settled())).body as FeedPage;
    all.push(...data);
    [after, more] = [meta.next, meta.hasMore];
  }
  return all;
}

/** An export whose reader decides when to read. */
async function begin(query = ''): Promise<{ answer: IncomingMessage; bytes: () => number }> {
  const sockets: Socket[] = [];
  const server = api.app.getHttpServer() as { once(name: 'connection', take: (socket: Socket) => void): void };
  server.once('connection', (socket) => sockets.push(socket));
  const asked = get(`${api.url}/api/support/events?format=ndjson${query}`, { headers: { 'x-api-key': api.adminKey }, agent: false });
  asked.on('error', () => undefined);
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  answer.on('error', () => undefined);
  return { answer, bytes: () => sockets[0]?.bytesWritten ?? 0 };
}

test('every event of the feed is a line, and the last line says that nothing is missing and where to go on', async () => {
  const answer = await api.expect(200, 'GET', '/events?format=ndjson', settled());
  expect(answer.headers.get('content-type')).toBe('application/x-ndjson; charset=utf-8');
  expect(answer.headers.get('content-disposition')).toBe('attachment; filename="events.ndjson"');
  const { events, end } = read(answer.text);
  expect(events).toEqual(await paged());
  expect(events.length).toBeGreaterThan(250);
  expect(end).toEqual({ meta: { events: events.length, next: last } });
  expect(events.at(-1)?.position).toBe(last);
});

test('an export goes on after any of its lines, and after its last one there is nothing', async () => {
  const { events } = await exported();
  for (const n of [0, 99, 100, events.length - 1]) {
    const rest = await exported(`&after=${events[n]?.position}`);
    expect(rest.events).toEqual(events.slice(n + 1));
    expect(rest.end.meta).toEqual({ events: events.length - n - 1, next: last });
  }
});

test('types are selected as in pages, and the end is the end of the search', async () => {
  const opened = await exported('&types=ConversationOpened');
  expect(opened.events).toEqual(await paged('&types=ConversationOpened'));
  expect(opened.events).toHaveLength(40);
  expect(opened.end).toEqual({ meta: { events: 40, next: last } });
  expect(await exported('&types=TeamCreated')).toEqual({ events: [], end: { meta: { events: 0, next: last } } });
});

test.each([
  ['&limit=10', 'limit'],
  ['&types=Nonsense', 'types'],
  ['&after=7', 'after'],
  ['&after=9999999999999999999', 'after'],
])('with %s it is refused before anything is sent', async (query, field) => {
  const { body } = await api.expect(400, 'GET', `/events?format=ndjson${query}`);
  expect(body.errors[0].field).toBe(field);
  expect(exports().running).toBe(0);
});

test('another form is refused, an agent may not, and another organization has its own events alone', async () => {
  expect((await api.expect(400, 'GET', '/events?format=csv')).body.errors[0].field).toBe('format');
  for (const role of ['agent', 'analyst'] as const) await api.expect(403, 'GET', '/events?format=ndjson', { key: await api.keyFor(role) });
  const auditor = await exported('', await api.keyFor('auditor'));
  expect(auditor.events.length).toBeGreaterThan(250);
  const other = await api.otherOrganization();
  const made = await api.expect(201, 'POST', '/companies', { body: { id: 'canary', name: 'Canary' }, key: other.adminKey });
  const headers = { 'x-min-position': made.headers.get('x-position') ?? '' };
  const { text } = await api.expect(200, 'GET', '/events?format=ndjson', { key: other.adminKey, headers });
  expect(text).toContain('Canary');
  for (const foreign of ['A note', api.organizationId, ...ids]) expect(text).not.toContain(foreign);
  expect((await api.expect(200, 'GET', '/events?format=ndjson')).text).not.toContain('Canary');
});

describe('with a client that is slower than the server', () => {
  // More than the buffers of two sockets hold.
  beforeAll(() => note(20, LONG), 120_000);

  test('it ends where the feed ended when it began, and is no larger in memory than what the client has not taken', async () => {
    const whole = (await api.expect(200, 'GET', '/events?format=ndjson', settled())).text.length;
    const { answer, bytes } = await begin();
    answer.pause();
    let before = -1;
    // The server stops when the buffers are full.
    await eventually(() => {
      const now = bytes();
      const stopped = now > 0 && now === before;
      before = now;
      return stopped;
    });
    expect(whole).toBeGreaterThan(36_000_000);
    expect(bytes()).toBeLessThan(whole / 2);
    expect(exports().running).toBe(1);
    const late = await api.expect(201, 'POST', `/conversations/${ids[0]}/reply`, { body: { message: 'too late for it' } });
    last = late.headers.get('x-position') ?? '';
    await api.expect(200, 'GET', '/events?limit=1', settled());
    const text = (await answer.toArray()).map(String).join('');
    expect(text).not.toContain('too late for it');
    const { events, end } = read(text);
    expect(end.meta.events).toBe(events.length);
    const rest = await exported(`&after=${end.meta.next}`);
    expect(rest.events.map(({ position }) => position)).toEqual([last]);
    await eventually(() => exports().running === 0);
  }, 120_000);

  test('a connection that is cut ends its export, before and after the first byte was read', async () => {
    for (const readFirst of [false, true]) {
      const { answer } = await begin();
      if (readFirst) await once(answer, 'data');
      else answer.pause();
      expect(exports().running).toBe(1);
      answer.destroy();
      await eventually(() => exports().running === 0);
    }
    const head = await fetch(`${api.url}/api/support/events?format=ndjson`, { method: 'HEAD', headers: { 'x-api-key': api.adminKey } });
    expect(head.status).toBe(200);
    expect(exports().running).toBe(0);
  });

  test('an organization has a few exports at once, and a place is free again when one ends', async () => {
    const running = await Promise.all(
      Array.from({ length: EXPORTS_AT_ONCE }, async () => {
        const { answer } = await begin();
        answer.pause();
        return answer;
      }),
    );
    const refused = await api.expect(429, 'GET', '/events?format=ndjson');
    expect(refused.body).toMatchObject({ code: 'rate_limited', detail: `this organization has ${EXPORTS_AT_ONCE} exports running` });
    expect(refused.headers.get('retry-after')).toBe('5');
    const other = await api.otherOrganization();
    await api.expect(200, 'GET', '/events?format=ndjson', { key: other.adminKey });
    await api.expect(200, 'GET', '/events?limit=1');
    running[0]?.destroy();
    await eventually(() => api.expect(200, 'GET', '/events?format=ndjson&types=TeamCreated'));
    for (const answer of running) answer.destroy();
    await eventually(() => exports().running === 0);
  });

  test('a server that ends cuts its exports, and they go on elsewhere', async () => {
    const elsewhere = await startApi({
      database: { url: api.backend.databaseUrl },
      environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' },
    });
    const asked = get(`${elsewhere.url}/api/support/events?format=ndjson`, { headers: { 'x-api-key': api.adminKey }, agent: false });
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    const got: string[] = [];
    answer.on('data', (chunk: Buffer) => got.push(chunk.toString('latin1')));
    await once(answer, 'data');
    answer.pause();
    const ended = new Promise<string>((resolve) => answer.once('error', ({ message }) => resolve(message)));
    const stopping = elsewhere.stop();
    answer.resume();
    expect(await ended).toBe('aborted');
    await stopping;
    const lines = got.join('').split('\n');
    lines.pop();
    const events = lines.map((line) => JSON.parse(line) as FeedEvent);
    expect(events.length).toBeGreaterThan(0);
    const { events: all } = await exported();
    const rest = await exported(`&after=${events.at(-1)?.position}`);
    expect([...events, ...rest.events].map(({ id }) => id)).toEqual(all.map(({ id }) => id));
  });
});
