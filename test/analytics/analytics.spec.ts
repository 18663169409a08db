import { BehindReader } from '../../src/analytics/behind.reader.js';
import { type Metric, METRICS } from '../../src/analytics/metrics.js';
import type { Question } from '../../src/analytics/question.js';
import { type TestApi, startApi } from '../support/api.js';

let api: TestApi;
let analyst: string;
beforeAll(async () => {
  api = await startApi();
  analyst = await api.keyFor('analyst');
});
afterAll(() => api.stop());

const MINUTE = 60_000;
const made = async (path: string, body: object) => (await api.expect(201, 'POST', path, { body })).body.data.id as string;
const opened = (message: string, more: object = {}) => made('/conversations', { visitor: {}, message, ...more });

/** Asks for everything that was written before. */
const ask = async (path: string, key = analyst) =>
  await api.expect(200, 'GET', `/analytics/${path}`, { key, headers: { 'x-min-position': await api.backend.store.head() } });
const rows = async (path: string) => (await ask(`metrics/${path}`)).body.data as Record<string, unknown>[];

test('nothing is null or nothing', async () => {
  expect((await ask('conversations')).body.data).toEqual({
    totalConversations: 0,
    openConversations: 0,
    resolvedToday: 0,
    avgFirstResponseTime: null,
    avgResolutionTime: null,
    csat: null,
  });
  expect(await rows('first_response_time')).toEqual([{ count: 0, sum: 0, mean: null, median: null, p90: null }]);
  expect(await rows('messages_sent')).toEqual([{ count: 0 }]);
  expect(await rows('rating?by=agent')).toEqual([]);
});

test('a desk sees its six numbers, and opens one down to its events', async () => {
  const agent = await made('/agents', { name: '=Ada' });
  const key = await api.keyFor('agent', { agentId: agent });
  const id = await opened('Hello');
  api.clock.advance(2 * MINUTE);
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { key, body: { message: 'Hi' } });
  api.clock.advance(58 * MINUTE);
  await api.expect(200, 'PUT', `/conversations/${id}`, { key, body: { status: 'resolved' } });
  await api.expect(200, 'POST', `/conversations/${id}/rating`, { body: { rating: 4 } });
  await opened('Another');

  const { data, meta } = (await ask('conversations')).body;
  expect(data).toMatchObject({ totalConversations: 2, openConversations: 1, resolvedToday: 1, csat: 4 });
  // The clock of the test runs on.
  expect(Math.abs((data.avgFirstResponseTime as number) - 120)).toBeLessThan(30);
  expect(Math.abs((data.avgResolutionTime as number) - 3_600)).toBeLessThan(30);
  expect(meta).toMatchObject({ from: null, to: null, timezone: 'UTC' });

  const [row] = await rows('first_response_time?by=agent');
  expect(row).toMatchObject({ key: agent, name: '=Ada', count: 1 });
  const { body } = await ask(`metrics/first_response_time/conversations?by=agent&key=${agent}`);
  expect(body.meta).toMatchObject({ count: 1, conversations: 1, hasMore: false });
  expect(body.data).toMatchObject([{ conversationId: id, agentId: agent, value: row?.['mean'] }]);
  const [{ conversation }] = body.data;
  expect(conversation).toMatchObject({ id, status: 'resolved', lastMessage: { content: null } });
  const reading = (await ask(`metrics/first_response_time/conversations?by=agent&key=${agent}`, api.adminKey)).body.data[0];
  expect(reading).toMatchObject({ conversation: { id, lastMessage: { content: 'Hi' } } });
  const events = (await api.expect(200, 'GET', `/conversations/${id}/events?from=${body.data[0].revision}&limit=1`)).body.data;
  expect(events).toMatchObject([{ type: 'MessageSent', data: { author: { id: agent } } }]);

  const text = (await ask('metrics/first_response_time?by=agent&format=csv')).text;
  expect(text.split('\r\n')[1]).toMatch(new RegExp(`^,${agent},'=Ada,,1,`));
  const lines = (await ask('metrics/first_response_time?by=agent&format=ndjson')).text.trim().split('\n');
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([row]);
});

test('what happens later changes no number of the past', async () => {
  const inbox = await made('/inboxes', { name: 'Old name' });
  const agent = await made('/agents', { name: 'Before' });
  const team = await made('/teams', { name: 'Team', agentIds: [agent] });
  const id = await opened('Hello', { inboxId: inbox });
  await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: agent, teamId: team } });
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['first'] } });
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { headers: { 'x-agent-id': agent }, body: { message: 'Hi' } });
  const numbers = async () => [
    (await rows('messages_sent?by=inbox')).find(({ key }) => key === inbox)?.['count'],
    (await rows('messages_sent?by=agent')).find(({ key }) => key === agent)?.['count'],
    (await rows('messages_sent?by=team')).find(({ key }) => key === team)?.['count'],
    (await rows('messages_sent?by=tag')).find(({ key }) => key === 'first')?.['count'],
    (await rows('messages_sent?by=tag')).find(({ key }) => key === 'second')?.['count'],
  ];
  expect(await numbers()).toEqual([1, 1, 1, 1, undefined]);
  await api.expect(200, 'PUT', `/agents/${agent}`, { body: { name: 'After' } });
  await api.expect(200, 'DELETE', `/conversations/${id}/tags/first`);
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['second'] } });
  await api.expect(200, 'PUT', `/conversations/${id}`, { body: { inboxId: await made('/inboxes', { name: 'New' }) } });
  await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: null, teamId: null } });
  await api.expect(204, 'DELETE', `/agents/${agent}`);
  await api.expect(204, 'DELETE', `/teams/${team}`);
  expect(await numbers()).toEqual([1, 1, 1, 1, undefined]);
  expect((await rows('messages_sent?by=agent')).find(({ key }) => key === agent)).toMatchObject({ name: 'After' });
});

test('working time follows the hours that were in force', async () => {
  const day = ['09:00', '17:00'];
  const schedule = { monday: [day], tuesday: [day], wednesday: [day], thursday: [day], friday: [day] };
  const inbox = await made('/inboxes', { name: 'Office', workingHours: { timezone: 'Europe/Berlin', schedule } });
  const answered = async (from: string, to: string) => {
    api.clock.stopAt(Date.parse(from));
    const id = await opened('Hello', { inboxId: inbox });
    api.clock.stopAt(Date.parse(to));
    await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Hi' } });
  };
  const shown = async (hours: string) => {
    const answer = await rows(
      `first_response_time?inboxId=${inbox}&hours=${hours}&interval=day&timezone=Europe/Berlin&from=2027-03-26&to=2027-03-31`,
    );
    return answer.filter(({ count }) => count !== 0).map(({ start, sum }) => [start, sum]);
  };
  // From a Friday at 16:30 to a Monday at 09:15, over the night in which summer time begins.
  await answered('2027-03-26T15:30:00Z', '2027-03-29T07:15:00Z');
  await api.expect(200, 'PUT', `/inboxes/${inbox}`, { body: { workingHours: null } });
  await answered('2027-03-29T20:00:00Z', '2027-03-29T22:00:00Z');
  api.clock.goOn();
  expect(await shown('working')).toEqual([
    ['2027-03-28T22:00:00.000Z', 45 * 60],
    ['2027-03-29T22:00:00.000Z', 2 * 3_600],
  ]);
  expect(await shown('calendar')).toEqual([
    ['2027-03-28T22:00:00.000Z', 63.75 * 3_600],
    ['2027-03-29T22:00:00.000Z', 2 * 3_600],
  ]);
});

test('filters select events as they were, or conversations as they are', async () => {
  const visitorId = await made('/visitors', { name: 'V', companyId: undefined });
  const before = (await rows('messages_received'))[0]?.['count'] as number;
  const id = await opened('One', { visitor: { id: visitorId }, customAttributes: { plan: 'pro' } });
  await opened('Two');
  expect(await rows(`messages_received?visitorId=${visitorId}`)).toEqual([{ count: 1 }]);
  expect(await rows('messages_received?customAttributes[plan]=pro')).toEqual([{ count: 1 }]);
  expect(await rows(`messages_received?visitorId=${visitorId}&status=resolved`)).toEqual([{ count: 0 }]);
  await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
  expect(await rows(`messages_received?visitorId=${visitorId}&status=resolved`)).toEqual([{ count: 1 }]);
  expect(await rows('messages_received')).toEqual([{ count: before + 2 }]);
});

test('the row without a key is told from a tag that is called none', async () => {
  await opened('Untagged');
  const id = await opened('Tagged');
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['none', 'null'] } });
  await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'again' } });
  const counts = new Map((await rows('messages_received?by=tag')).map(({ key, count }) => [key, count]));
  const behind = async (query: string) => (await ask(`metrics/messages_received/conversations?by=tag&${query}`)).body.meta.count as number;
  expect(await behind('key=none')).toBe(1);
  expect(counts.get('none')).toBe(1);
  expect(await behind('key=null')).toBe(1);
  expect(counts.get(null)).toBeGreaterThan(1);
  expect(await behind('noKey=true')).toBe(counts.get(null));
  expect(await behind('noKey=false&key=none')).toBe(1);
  expect(await behind('noKey=false')).toBe(await behind(''));
});

test('no number counts another organization', async () => {
  const other = await api.otherOrganization();
  const tag = 'canary-of-another-organization';
  const { id } = (await api.expect(201, 'POST', '/conversations', { key: other.adminKey, body: { visitor: {}, message: 'x' } })).body.data;
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { key: other.adminKey, body: { tags: [tag] } });
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { key: other.adminKey, body: { message: 'x', status: 'resolved' } });
  const definitions = (await ask('metrics')).body.data as { name: string; dimensions: string[] }[];
  for (const { name, dimensions } of definitions)
    for (const by of dimensions)
      for (const path of [`metrics/${name}?by=${by}`, `metrics/${name}/conversations?limit=500`]) {
        const { text } = await ask(path);
        expect(text).not.toContain(tag);
        expect(text).not.toContain(id as string);
      }
  expect((await ask('conversations', other.adminKey)).body.data).toMatchObject({ totalConversations: 1, resolvedToday: 1 });
});

test.each([
  ['metrics/nonsense', 404, undefined],
  ['metrics/rating?by=status', 400, 'by'],
  ['metrics/rating?by=nonsense', 400, 'by'],
  ['metrics/rating?hours=working', 400, 'hours'],
  ['metrics/rating?interval=year', 400, 'interval'],
  ['metrics/rating?interval=hour&from=1990-01-01', 400, 'interval'],
  ['metrics/rating?from=2026-02-30', 400, 'from'],
  ['metrics/rating?from=yesterday', 400, 'from'],
  ['metrics/rating?from=0000-01-01', 400, 'from'],
  ['metrics/rating?from=0000-12-31T23:59:59Z', 400, 'from'],
  ['metrics/rating?to=0001-01-01T00:00:00%2B01:00', 400, 'to'],
  ['conversations?createdAfter=0000-01-01T00:00:00Z', 400, 'createdAfter'],
  ['metrics/rating?from=2026-02-02&to=2026-02-02', 400, 'to'],
  ['metrics/rating?timezone=CET', 400, 'timezone'],
  ['metrics/rating?timezone=Nowhere/City', 400, 'timezone'],
  ['metrics/rating?format=xlsx', 400, 'format'],
  ['metrics/rating/conversations?key=x', 400, 'key'],
  ['metrics/rating/conversations?noKey=true', 400, 'noKey'],
  ['metrics/rating/conversations?by=tag&noKey=true&key=none', 400, 'noKey'],
  ['metrics/rating/conversations?by=tag&noKey=1', 400, 'noKey'],
  ['metrics/rating/conversations?start=2026-01-01T00:00:00Z', 400, 'start'],
  ['metrics/rating/conversations?interval=day&start=2026-01-01T00:00:01Z', 400, 'start'],
  ['metrics/rating/conversations?inStatus=open', 400, 'inStatus'],
  ['metrics/rating/conversations?cursor=abc', 400, 'cursor'],
  ['metrics/rating/conversations?limit=501', 400, 'limit'],
  ['conversations?by=agent', 400, 'by'],
])('%s is refused', async (path, status, field) => {
  const { body } = await api.expect(status, 'GET', `/analytics/${path}`);
  expect(body.errors?.[0]?.field).toBe(field);
});

test.each(['json', 'csv', 'ndjson'])('what is behind a number is refused as %s before anything is sent', async (format) => {
  const refused = async (query: string) => {
    const path = `/analytics/metrics/messages_received/conversations?format=${format}&${query}`;
    return (await api.expect(400, 'GET', path)).body.errors[0].field as string;
  };
  expect(await refused('interval=day&start=2026-01-01T00:00:01Z')).toBe('start');
  expect(await refused('from=2026-02-02&to=2026-02-01')).toBe('to');
  expect(await refused('interval=hour&from=2000-01-01')).toBe('interval');
});

test('nothing behind a number is CSV of one line and no line of NDJSON', async () => {
  const empty = 'metrics/messages_received/conversations?to=2001-01-01&format=';
  expect((await ask(`${empty}csv`)).text).toMatch(/^conversationId,[\w,]+\r\n$/);
  expect((await ask(`${empty}ndjson`)).text).toBe('');
});

test('the first and the last day that can be asked for are those of PostgreSQL and of ISO 8601', async () => {
  for (const timezone of ['UTC', 'Asia/Tokyo', 'America/New_York'])
    expect(await rows(`rating?from=0001-01-01&to=9999-12-31&timezone=${timezone}`)).toMatchObject([{ count: 1 }]);
});

test('a slow reader keeps no other organization from its streams, and three in a process are all', async () => {
  const path = '/analytics/metrics/messages_received/conversations?format=';
  const hold = async (organizationId: string) => {
    const question: Question = {
      organizationId,
      metric: METRICS.find(({ name }) => name === 'messages_received') as Metric,
      range: { from: undefined, to: undefined, timezone: 'UTC' },
      hours: 'calendar',
      by: undefined,
      interval: undefined,
      filter: {},
    };
    const nothing = { key: undefined, start: undefined, inStatus: undefined };
    const stream = api.app.get(BehindReader).stream(question, nothing, () => undefined);
    await stream.next();
    return stream;
  };
  const told = async (format: string, key: string) => (await api.expect(429, 'GET', `${path}${format}`, { key })).body.detail as string;
  const own = await hold(api.organizationId);
  for (const format of ['csv', 'ndjson']) expect(await told(format, analyst)).toMatch(/^this organization already/);
  const others = await Promise.all([1, 2, 3].map(() => api.otherOrganization()));
  for (const { adminKey } of others) await api.expect(200, 'GET', `${path}csv`, { key: adminKey });
  const held = [own];
  for (const { organizationId, adminKey } of others.slice(0, 2)) {
    await api.expect(201, 'POST', '/conversations', { key: adminKey, body: { visitor: {}, message: 'x' } });
    await ask('conversations', adminKey);
    held.push(await hold(organizationId));
  }
  for (const format of ['csv', 'ndjson']) expect(await told(format, others[2]?.adminKey ?? '')).toMatch(/^this process already/);
  for (const stream of held) await stream.return();
  await ask('metrics/messages_received/conversations?format=csv');
});

test('a long answer is streamed whole, page after page the same', async () => {
  const all = (await ask('metrics/messages_received/conversations?format=ndjson')).text.trim().split('\n');
  const paged: unknown[] = [];
  let cursor = '';
  do {
    const { data, meta } = (await ask(`metrics/messages_received/conversations?limit=2${cursor}`)).body;
    paged.push(...(data as { conversation?: unknown }[]).map((row) => ({ ...row, conversation: undefined })));
    cursor = meta.nextCursor === null ? '' : `&cursor=${encodeURIComponent(meta.nextCursor as string)}`;
  } while (cursor !== '');
  expect(all.map((line) => JSON.parse(line) as unknown)).toEqual(paged);
});
