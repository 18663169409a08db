import fc from 'fast-check';
import type { ConversationAnswer, ConversationSummary } from '../../src/conversations/conversation.answer.js';
import { PRIORITIES, STATUSES } from '../../src/conversations/conversation.js';
import type { PageMeta } from '../../src/read-models/paging.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * The list against the conversations themselves: what each filter and sort means is told a second time, in plain code over what GET of
 * each conversation answers.
 */

const CONVERSATIONS = 48;

let api: TestApi;
/** Every conversation, as GET of it answers. */
let all: ConversationAnswer[];
let inboxes: string[];
let agents: string[];
let teams: string[];
let visitors: string[];
/** Position of the last write. */
let position: string;

type Page = { data: ConversationSummary[]; meta: PageMeta };
const listed = async (query: string): Promise<Page> =>
  (await api.expect(200, 'GET', `/conversations?${query}`, { headers: { 'x-min-position': position } })).body as Page;
const ids = (list: readonly { id: string }[]) => list.map(({ id }) => id);

async function write(status: number, method: string, path: string, body: unknown): Promise<Answer> {
  const answer = await api.expect(status, method, path, { body });
  position = answer.headers.get('x-position') ?? position;
  return answer;
}
const made = async (path: string, body: unknown) => (await write(201, 'POST', path, body)).body.data.id as string;

beforeAll(async () => {
  api = await startApi();
  const made2 = (path: string, one: object, two: object) => Promise.all([made(path, one), made(path, two)]);
  inboxes = await made2('/inboxes', { name: 'One' }, { name: 'Two' });
  agents = await made2('/agents', { name: 'Ann' }, { name: 'Bob' });
  teams = await made2('/teams', { name: 'First', agentIds: [] }, { name: 'Second', agentIds: [] });
  await made2('/companies', { id: 'acme', name: 'Acme' }, { id: 'bolt', name: 'Bolt' });
  visitors = [];
  for (const companyId of ['acme', 'acme', 'bolt', null]) visitors.push(await made('/visitors', { name: 'V', companyId }));

  const pick = <T>(from: readonly T[], i: number): T => from[i % from.length] as T;
  const created: string[] = [];
  for (let i = 0; i < CONVERSATIONS; i++) {
    api.clock.advance(60_000);
    created.push(
      await made('/conversations', {
        visitor: { id: pick(visitors, i) },
        inboxId: pick(inboxes, Math.floor(i / 2)),
        priority: pick(PRIORITIES, Math.floor(i / 3)),
        message: `message ${i}`,
        as: i % 5 === 0 ? 'agent' : 'visitor',
        customAttributes: {
          plan: pick(['pro', 'free', 'a=b'], i),
          seats: i % 4,
          trial: i % 2 === 0,
          ...(i % 7 === 0 ? { 'a=b': 'c' } : {}),
        },
      }),
    );
  }
  for (const [i, id] of created.entries()) {
    // Several within the same clock minute, and out of the order of creation.
    if (i % 3 === 0) api.clock.advance(1_000);
    const path = `/conversations/${pick(created, i * 7)}`;
    void id;
    if (i % 3 === 0) await write(200, 'POST', `${path}/tags`, { tags: pick([['a'], ['b'], ['a', 'b'], ['c,d', 'ü']], i / 3) });
    if (i % 4 === 1) await write(200, 'POST', `${path}/assign`, { assigneeId: pick([...agents, ...teams], Math.floor(i / 4)) });
    if (i % 8 === 5) await write(200, 'POST', `${path}/assign`, { assigneeId: pick(agents, Math.floor(i / 8)) });
    if (i % 6 === 2) await write(201, 'POST', `${path}/reply`, { message: 'answer' });
    const status = pick([...STATUSES, 'open', 'open'], i);
    if (status === 'snoozed') await write(200, 'POST', `${path}/snooze`, { until: 'next_reply' });
    else if (status !== 'open') await write(200, 'PUT', path, { status });
  }
  // Another organization's are in the same tables.
  const other = await api.otherOrganization();
  await api.expect(201, 'POST', '/conversations', { key: other.adminKey, body: { visitor: {}, message: 'theirs' } });
  all = await Promise.all(
    created.map(
      async (id) =>
        (await api.expect(200, 'GET', `/conversations/${id}`, { headers: { 'x-min-position': position } })).body.data as ConversationAnswer,
    ),
  );
}, 120_000);
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await api.stop();
  }
});

interface Asked {
  status?: string[];
  priority?: string[];
  inboxId?: string[];
  teamId?: string[];
  assigneeId?: string[];
  visitorId?: string[];
  companyId?: string[];
  tag?: string[];
  tagMatch?: 'any' | 'all';
  createdAfter?: string;
  createdBefore?: string;
  updatedAfter?: string;
  updatedBefore?: string;
  customAttributes?: [string, string][];
}

/** What each filter means. */
function matches(c: ConversationAnswer, asked: Asked): boolean {
  const any = (values: string[] | undefined, value: string | null | undefined) =>
    values === undefined || (value !== null && value !== undefined && values.includes(value));
  const { tag, customAttributes: attributes = [] } = asked;
  return (
    any(asked.status, c.status) &&
    any(asked.priority, c.priority) &&
    any(asked.inboxId, c.inboxId) &&
    any(asked.teamId, c.team?.id) &&
    any(asked.assigneeId, c.assignee?.id ?? 'none') &&
    any(asked.visitorId, c.visitor.id) &&
    any(asked.companyId, c.visitor.companyId) &&
    (tag === undefined || (asked.tagMatch === 'all' ? tag.every((t) => c.tags.includes(t)) : tag.some((t) => c.tags.includes(t)))) &&
    (asked.createdAfter === undefined || c.createdAt >= asked.createdAfter) &&
    (asked.createdBefore === undefined || c.createdAt < asked.createdBefore) &&
    (asked.updatedAfter === undefined || c.updatedAt >= asked.updatedAfter) &&
    (asked.updatedBefore === undefined || c.updatedAt < asked.updatedBefore) &&
    attributes.every(([name, value]) => name in c.customAttributes && String(c.customAttributes[name]) === value)
  );
}

type Sort = 'updatedAt' | 'createdAt' | 'waitingSince' | 'priority';

/** Whether one may stand before the other: times from the newest and priorities from urgent on, unless the order says otherwise. */
function inOrder(one: ConversationSummary, next: ConversationSummary, sort: Sort, order: 'asc' | 'desc'): boolean {
  if (sort === 'priority') {
    const ranks = [PRIORITIES.indexOf(one.priority), PRIORITIES.indexOf(next.priority)] as [number, number];
    return order === 'asc' ? ranks[0] <= ranks[1] : ranks[0] >= ranks[1];
  }
  const [a, b] = [one[sort], next[sort]];
  // Nobody waits: last, whichever way the others run.
  if (a === null || b === null) return b === null;
  return order === 'asc' ? a <= b : a >= b;
}

function query(asked: Asked, more: Record<string, string | number | undefined> = {}): string {
  const parameters = new URLSearchParams();
  const { customAttributes = [], ...rest } = asked;
  for (const [name, value] of Object.entries(rest))
    for (const one of Array.isArray(value) ? value : value === undefined ? [] : [value]) parameters.append(name, one);
  for (const [name, value] of customAttributes) parameters.append(`customAttributes[${name}]`, value);
  for (const [name, value] of Object.entries(more)) if (value !== undefined) parameters.append(name, String(value));
  return parameters.toString();
}

/** Follows the cursors to the end. */
async function paged(asked: Asked, more: Record<string, string | number | undefined>): Promise<ConversationSummary[]> {
  const found: ConversationSummary[] = [];
  let cursor: string | undefined;
  for (let pages = 0; pages <= CONVERSATIONS; pages++) {
    const { data, meta } = await listed(query(asked, { ...more, cursor }));
    found.push(...data);
    if (meta.nextCursor === null) {
      expect(meta.hasMore).toBe(false);
      return found;
    }
    expect(meta.hasMore).toBe(true);
    cursor = meta.nextCursor;
  }
  throw new Error('the cursors never end');
}

test('an entry is the conversation with its last message instead of all', async () => {
  const { data } = await listed('limit=100');
  const byId = new Map(all.map((c) => [c.id, c]));
  expect(data).toHaveLength(all.length);
  for (const { lastMessage, ...entry } of data) {
    const { messages, ...whole } = byId.get(entry.id) as ConversationAnswer;
    expect({ ...entry, lastMessage }).toEqual({ ...whole, lastMessage: messages.at(-1) });
  }
});

test('any combination of filters, sort, order and page size lists what plain code finds', async () => {
  const some = (values: readonly string[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 3 });
  const times = [...new Set(all.flatMap(({ createdAt, updatedAt }) => [createdAt, updatedAt]))];
  const time = fc.constantFrom(...times);
  const asked = fc.record<Asked>(
    {
      status: some(STATUSES),
      priority: some(PRIORITIES),
      inboxId: some([...inboxes, 'nowhere']),
      teamId: some(teams),
      assigneeId: some([...agents, ...teams, 'none', 'nobody']),
      visitorId: some(visitors),
      companyId: some(['acme', 'bolt', 'none']),
      tag: some(['a', 'b', 'c,d', 'ü', 'A']),
      tagMatch: fc.constantFrom('any', 'all'),
      createdAfter: time,
      createdBefore: time,
      updatedAfter: time,
      updatedBefore: time,
      customAttributes: fc.uniqueArray(
        fc.constantFrom<[string, string]>(['plan', 'pro'], ['seats', '2'], ['trial', 'true'], ['plan', 'a=b'], ['a=b', 'c'], ['a', 'b=c']),
        { minLength: 1, maxLength: 2, selector: ([name]) => name },
      ),
    },
    { requiredKeys: [] },
  );
  const sorting = fc.record({
    sort: fc.constantFrom<Sort>('updatedAt', 'createdAt', 'waitingSince', 'priority'),
    order: fc.option(fc.constantFrom('asc' as const, 'desc' as const), { nil: undefined }),
    limit: fc.integer({ min: 1, max: 20 }),
  });
  // Few filters at a time, or nothing would be left to compare.
  const few = fc.tuple(asked, fc.integer({ min: 1, max: 4 }), fc.nat()).map(([whole, most, seed]): Asked => {
    const names = Object.keys(whole) as (keyof Asked)[];
    const kept = names.filter((_, i) => (i * 7 + seed) % Math.max(names.length, 1) < most);
    return Object.fromEntries(kept.map((name) => [name, whole[name]]));
  });
  let found = 0;
  await fc.assert(
    fc.asyncProperty(few, sorting, async (filter, { sort, order, limit }) => {
      const expected = all.filter((c) => matches(c, filter));
      const listing = await paged(filter, { sort, order, limit });
      expect(new Set(ids(listing))).toEqual(new Set(ids(expected)));
      expect(listing).toHaveLength(expected.length);
      const by = order ?? (sort === 'priority' ? 'asc' : 'desc');
      listing.forEach((one, i) => {
        const next = listing[i + 1];
        if (next !== undefined) expect([one, next, inOrder(one, next, sort, by)]).toEqual([one, next, true]);
      });
      const { data, meta } = await listed(query(filter, { sort, order, limit: 100 }));
      expect(ids(data)).toEqual(ids(listing));
      expect(meta).toMatchObject({ total: expected.length, totalIsExact: true });
      found += expected.length;
    }),
    { numRuns: 80 },
  );
  expect(found).toBeGreaterThan(80);
}, 120_000);

test.each([
  ['updatedAt', (c: ConversationSummary) => c.updatedAt],
  ['createdAt', (c: ConversationSummary) => c.createdAt],
] as const)('%s runs from the newest by default', async (sort, time) => {
  const { data } = await listed(`sort=${sort}&limit=100`);
  expect(data.map(time)).toEqual(data.map(time).sort().reverse());
  if (sort === 'updatedAt') expect(ids((await listed('limit=100')).data)).toEqual(ids(data));
});

test('pages by number cover the list, with the total beside each', async () => {
  const whole = ids((await listed('limit=100')).data);
  const pages: string[] = [];
  for (let page = 1; page <= 5; page++) {
    const { data, meta } = await listed(`limit=10&page=${page}`);
    expect(meta).toEqual({
      page,
      limit: 10,
      total: CONVERSATIONS,
      totalIsExact: true,
      hasMore: page < 5,
      nextCursor: page < 5 ? (expect.any(String) as string) : null,
    });
    pages.push(...ids(data));
  }
  expect(pages).toEqual(whole);
  expect((await listed('page=7&limit=10')).data).toEqual([]);
  expect((await listed('page=3&limit=10&sort=waitingSince')).data.length).toBe(10);
});

test('25 at once by default, and no total when none is asked for', async () => {
  const { data, meta } = await listed('total=none');
  expect(data).toHaveLength(25);
  expect(meta).not.toHaveProperty('total');
  expect(meta).not.toHaveProperty('totalIsExact');
});

test('a page after a cursor shows nothing twice when others come in between', async () => {
  const first = await listed('limit=20&sort=createdAt');
  await write(201, 'POST', '/conversations', { visitor: {}, message: 'newer' });
  const second = await listed(`limit=100&sort=createdAt&cursor=${first.meta.nextCursor ?? ''}`);
  const { data } = await listed('limit=100&sort=createdAt');
  expect([...ids(first.data), ...ids(second.data)]).toEqual(ids(data).slice(1));
  // By number the same page has moved by one.
  const moved = await listed('limit=20&page=2&sort=createdAt');
  expect(ids(moved.data)[0]).toBe(ids(first.data).at(-1));
});

test('an attribute of any length and script is found, and hides no conversation', async () => {
  const long = Array.from({ length: 1_000 }, (_, i) => String.fromCodePoint(0x4e00 + ((i * 7919) % 20_000))).join('');
  const id = await made('/conversations', { visitor: {}, message: 'long', customAttributes: { long, name: 'x' } });
  expect(ids((await listed('customAttributes[name]=x')).data)).toEqual([id]);
  await write(200, 'PUT', `/conversations/${id}`, { customAttributes: { short: '漢'.repeat(300) } });
  expect(ids((await listed(`customAttributes[short]=${encodeURIComponent('漢'.repeat(300))}`)).data)).toEqual([id]);
});

test('an attribute is not found by where its name ends and its value begins', async () => {
  // A third of the conversations have the plan `a=b`, some have the attribute `a=b` with the value `c`.
  const holders = all.filter(({ customAttributes }) => customAttributes['a=b'] === 'c');
  expect(holders.length).toBeGreaterThan(0);
  expect(new Set(ids((await listed('limit=100&customAttributes[a%3Db]=c')).data))).toEqual(new Set(ids(holders)));
  expect((await listed('customAttributes[a]=b%3Dc')).data).toEqual([]);
});

describe('is refused with', () => {
  const refused = async (query: string, field: string) => {
    const answer = await api.expect(400, 'GET', `/conversations?${query}`);
    expect(answer.body.code).toBe('validation_failed');
    expect((answer.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
  };
  test.each([
    ['limit=0', 'limit'],
    ['limit=-1', 'limit'],
    ['limit=101', 'limit'],
    ['limit=abc', 'limit'],
    ['limit=', 'limit'],
    ['limit=1e2', 'limit'],
    ['limit=0x10', 'limit'],
    ['limit=1&limit=2', 'limit'],
    ['page=0', 'page'],
    ['page=1.5', 'page'],
    ['page=102&limit=100', 'page'],
    ['page=2&cursor=x', 'page'],
    ['cursor=x', 'cursor'],
    ['cursor=', 'cursor'],
    ['cursor=a&cursor=b', 'cursor'],
    ['total=exact', 'total'],
    ['status=new', 'status'],
    ['status=open&status=new', 'status[1]'],
    ['status[$ne]=open', 'status[$ne]'],
    ['status[]=open', 'status[]'],
    ['priority=1', 'priority'],
    ['sort=name', 'sort'],
    ['sort=updatedAt&sort=priority', 'sort'],
    ['order=up', 'order'],
    ['tagMatch=none', 'tagMatch'],
    ['createdAfter=2026-02-30T00:00:00Z', 'createdAfter'],
    ['createdAfter=2026-01-01', 'createdAfter'],
    ['createdAfter=2026-01-01T00:00:00', 'createdAfter'],
    ['updatedBefore=2026-W01', 'updatedBefore'],
    ['updatedBefore=%2B275761-01-01T00:00:00Z', 'updatedBefore'],
    ['inboxId=', 'inboxId'],
    ['tag=%00', 'tag'],
    ['tag=%E2%80%8B', 'tag'],
    ['customAttributes=x', 'customAttributes'],
    ['customAttributes[]=x', 'customAttributes[]'],
    ['customAttributes[a]=%00', 'customAttributes[a]'],
    ['customAttributes[%00]=x', 'customAttributes[\u0000]'],
    ['customAttributes[a]=1&customAttributes[a]=2', 'customAttributes[a]'],
    ['customAttributes[__proto__]=x', '__proto__'],
    ['unknown=1', 'unknown'],
    ['__proto__=1', '__proto__'],
    ['constructor=1', 'constructor'],
    [Array.from({ length: 51 }, (_, i) => `tag=t${i}`).join('&'), 'tag'],
  ])('%s', refused);

  test('a cursor of another list', async () => {
    const { nextCursor } = (await listed('limit=5&sort=createdAt')).meta;
    const cursor = nextCursor ?? '';
    await api.expect(200, 'GET', `/conversations?sort=createdAt&cursor=${cursor}`);
    await refused(`sort=updatedAt&cursor=${cursor}`, 'cursor');
    await refused(`sort=createdAt&order=asc&cursor=${cursor}`, 'cursor');
    await refused(`sort=createdAt&status=open&cursor=${cursor}`, 'cursor');
    await refused(`sort=createdAt&cursor=${cursor.slice(0, -1)}${cursor.endsWith('A') ? 'B' : 'A'}`, 'cursor');
    await refused(`sort=createdAt&cursor=A${cursor}`, 'cursor');
    const other = await api.otherOrganization();
    await api.expect(400, 'GET', `/conversations?sort=createdAt&cursor=${cursor}`, { key: other.adminKey });
  });
});
