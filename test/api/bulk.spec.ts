import { pauseWork } from '../../projections/runtime/lease.js';
import type { BulkItem } from '../../src/conversations/bulk.commands.js';
import type { EventAnswer } from '../../src/read-models/history.js';
import { type Answer, type CallOptions, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { eventsAfter } from '../support/events-after.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * One action on many conversations: each by its own rules, each once. Two instances of the API on one database, so that a request may come
 * again elsewhere.
 */

let database: TestDatabase;
let api: TestApi;
let other: TestApi;
beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database });
  other = await startApi({ database, environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' } });
  await api.expect(201, 'POST', '/agents', { body: { id: 'eve', name: 'Eve' } });
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

const bulk = (body: object, options: CallOptions = {}, instance = api) =>
  instance.call('POST', '/conversations/bulk', { key: api.adminKey, body, ...options });
const keyed = (key: string, body: object, instance = api) => bulk(body, { headers: { 'idempotency-key': key } }, instance);
const items = (answer: Answer) => {
  if (answer.status !== 200) throw new Error(answer.text);
  return data(answer) as BulkItem[];
};

/** Asks until nothing of it is left undone: a slow machine may not do all of it before the request's deadline. */
async function completed(key: string, body: object): Promise<Answer> {
  for (;;) {
    const answer = await keyed(key, body);
    if (!items(answer).some(({ status }) => status === 503)) return answer;
  }
}

/** Opens conversations, some at once; the position of the last write is kept in `last`. */
let last = '';
async function open(number: number, attributes: object = {}): Promise<string[]> {
  const ids: string[] = [];
  for (let done = 0; done < number; done += 20)
    ids.push(
      ...(await Promise.all(
        Array.from({ length: Math.min(20, number - done) }, async () => {
          const made = await api.expect(201, 'POST', '/conversations', {
            body: { visitor: { id: 'ada' }, message: 'Hi', customAttributes: attributes },
          });
          if (position(made) > last) last = position(made);
          return data(made).id as string;
        }),
      )),
    );
  return ids;
}
const eventsOf = async (id: string) => data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as EventAnswer[];
const get = async (id: string) => data(await api.expect(200, 'GET', `/conversations/${id}`));

describe('500 conversations', () => {
  const SIZE = 500;
  let ids: string[];
  let expected: BulkItem[];
  let first: Answer;
  let head: Awaited<ReturnType<TestApi['backend']['store']['head']>>;

  beforeAll(async () => {
    const elsewhere = await api.otherOrganization();
    const foreign = data(await api.expect(201, 'POST', '/conversations', { key: elsewhere.adminKey, body: { visitor: {}, message: 'x' } }))
      .id as string;
    ids = await open(SIZE - 2);
    // Every tenth is closed, resolved, or resolved already snoozed; two are nobody's.
    const closed = ids.filter((_, i) => i % 10 === 0);
    const resolved = ids.filter((_, i) => i % 10 === 1);
    const snoozed = ids.filter((_, i) => i % 10 === 2);
    const prepare = (which: string[], action: object) => bulk({ ids: which, action });
    for (const answer of [
      await prepare(closed, { type: 'setStatus', status: 'closed' }),
      await prepare(resolved, { type: 'setStatus', status: 'resolved' }),
      await prepare(snoozed, { type: 'snooze', until: 'next_reply' }),
    ])
      expect(answer.body.meta).toEqual({ total: 50, succeeded: 50, failed: 0 });
    ids.splice(250, 0, foreign, 'no such conversation');
    expected = ids.map((id): BulkItem => {
      if (id === foreign || id === 'no such conversation') return { id, status: 404, code: 'not_found' };
      if (closed.includes(id))
        return {
          id,
          status: 409,
          code: 'conversation_closed',
          detail: 'a new conversation may name it as previousConversationId',
          allowed: [],
        };
      if (resolved.includes(id))
        return {
          id,
          status: 409,
          code: 'transition_not_allowed',
          detail: 'pending is not allowed while the conversation is resolved',
          allowed: ['message', 'reply', 'note', 'assign', 'tag', 'open', 'closed'],
        };
      return { id, status: 200, revision: snoozed.includes(id) ? 3 : 2 };
    });
    first = await completed('all', { ids, action: { type: 'setStatus', status: 'pending' } });
    head = await api.backend.store.head();
  }, 120_000);

  test('are answered in their order, each as its own request would be', () => {
    expect(items(first)).toEqual(expected);
    expect(first.body.meta).toEqual({ total: SIZE, succeeded: 398, failed: 102 });
  });

  test('are changed as they say, each by a command of its own that the request caused', async () => {
    const done = items(first).filter(({ status }) => status === 200);
    const commands = new Set<string>();
    const causes = new Set<string>();
    for (const { id } of [done[0], done[100], done[397]] as BulkItem[]) {
      const event = (await eventsOf(id)).at(-1);
      expect(event).toMatchObject({ type: 'ConversationStatusChanged', data: { to: 'pending', reason: 'agent' } });
      commands.add(event?.commandId ?? '');
      causes.add(event?.causationId ?? '');
    }
    expect([commands.size, causes.size]).toEqual([3, 1]);
    const listed = await api.expect(200, 'GET', '/conversations?status=pending&limit=1', {
      headers: { 'x-min-position': position(first) },
    });
    expect(listed.body.meta.total).toBe(398);
  });

  test('are answered the same to a retry, at either instance, and nothing is written', async () => {
    await api.expect(200, 'PUT', `/conversations/${ids[5]}`, { body: { status: 'open' } });
    await api.expect(200, 'PUT', `/conversations/${ids[1]}`, { body: { status: 'open' } });
    const since = await api.backend.store.head();
    for (const instance of [api, other]) {
      const again = await keyed('all', { ids, action: { type: 'setStatus', status: 'pending' } }, instance);
      expect(again.text).toBe(first.text);
      expect(position(again)).toBe(position(first));
    }
    expect(await eventsAfter(api, since)).toEqual([]);
    const reused = await keyed('all', { ids, action: { type: 'setStatus', status: 'open' } });
    expect([reused.status, reused.body.code]).toEqual([422, 'idempotency_key_reused']);
    expect(await eventsAfter(api, since)).toEqual([]);
    expect((await eventsAfter(api, head)).length).toBe(2);
  });

  test('and more are changed by no filter that finds them all', async () => {
    await open(3);
    const before = await api.backend.store.head();
    const filter = { createdAfter: '2000-01-01T00:00:00Z' };
    const refused = await bulk({ filter, action: { type: 'addTags', tags: ['x'] } }, { headers: { 'x-min-position': last } });
    expect([refused.status, refused.body.code]).toEqual([422, 'limit_exceeded']);
    expect(await eventsAfter(api, before)).toEqual([]);
  });

  test('are changed once by two instances that are asked at once', async () => {
    const body = { ids, action: { type: 'reply', message: 'both' } };
    const answers = await Promise.all([keyed('both', body), keyed('both', body, other)]);
    const results = answers.map(items);
    expect(results[0]?.filter(({ status }) => status === 201).length).toBe(448);
    expect(results[1]).toEqual(results[0]);
    for (const id of [ids[1], ids[5], ids[499]] as string[])
      expect((await eventsOf(id)).filter(({ type }) => type === 'MessageSent').length).toBe(1);
  }, 60_000);
});

test.each<[string, object, object]>([
  ['assign', { type: 'assign', assigneeId: 'eve' }, { assignee: { id: 'eve', type: 'agent', name: 'Eve' } }],
  ['assign nobody', { type: 'assign', assigneeId: null }, { assignee: null }],
  ['setStatus', { type: 'setStatus', status: 'resolved' }, { status: 'resolved' }],
  ['setPriority', { type: 'setPriority', priority: 'urgent' }, { priority: 'urgent' }],
  ['setInbox', { type: 'setInbox', inboxId: 'sales' }, { inboxId: 'sales' }],
  ['setCustomAttributes', { type: 'setCustomAttributes', customAttributes: { a: 1, gone: null } }, { customAttributes: { a: 1 } }],
  ['snooze', { type: 'snooze', until: 'next_reply' }, { status: 'snoozed', snoozedUntil: 'next_reply' }],
  ['addTags', { type: 'addTags', tags: ['a', 'b'] }, { tags: ['a', 'b'] }],
  ['removeTag', { type: 'removeTag', tag: 'a' }, { tags: [] }],
])('%s does to each what its own request does', async (_, action, becomes) => {
  const ids = await open(2, { gone: true });
  const done = await bulk({ ids, action }, { headers: { 'x-agent-id': 'eve' } });
  for (const item of items(done)) {
    const now = await get(item.id);
    expect(now).toMatchObject(becomes);
    expect(item).toEqual({ id: item.id, status: 200, revision: now.revision });
  }
});

test('reply and note say the same to each, by the one who asks, and name the messages', async () => {
  const ids = await open(3);
  const reply = await bulk(
    { ids, action: { type: 'reply', message: 'Back up', status: 'resolved' } },
    { headers: { 'x-agent-id': 'eve' } },
  );
  const note = await bulk({ ids, action: { type: 'note', message: { type: 'text', content: 'outage' } } });
  for (const [i, id] of ids.entries()) {
    const { messages, status } = await get(id);
    expect(status).toBe('resolved');
    expect(messages.slice(1)).toMatchObject([
      { type: 'agent', content: 'Back up', author: { name: 'Eve' } },
      { type: 'note', content: 'outage' },
    ]);
    expect(items(reply)[i]).toEqual({ id, status: 201, revision: 3, messageId: messages[1].id });
    expect(items(note)[i]).toEqual({ id, status: 201, revision: 4, messageId: messages[2].id });
  }
});

test('an archived assignee, team or inbox is refused only to what does not have it already', async () => {
  const ids = await open(2);
  const [has = '', hasNot = ''] = ids;
  for (const [path, body] of [
    ['/agents', { id: 'leaving', name: 'L' }],
    ['/teams', { id: 'old-line', name: 'O', agentIds: [] }],
    ['/inboxes', { id: 'old-inbox', name: 'O' }],
  ] as const)
    await api.expect(201, 'POST', path, { body });
  await api.expect(200, 'POST', `/conversations/${has}/assign`, { body: { assigneeId: 'leaving', teamId: 'old-line' } });
  await api.expect(200, 'PUT', `/conversations/${has}`, { body: { inboxId: 'old-inbox' } });
  // Otherwise they are taken off the conversation at once.
  const reactor = { reactor: 'archived-assignees' };
  await pauseWork(api.backend.database, reactor, true);
  for (const path of ['/agents/leaving', '/teams/old-line', '/inboxes/old-inbox']) await api.expect(204, 'DELETE', path);
  for (const action of [
    { type: 'assign', assigneeId: 'leaving' },
    { type: 'assign', teamId: 'old-line' },
    { type: 'assign', assigneeId: 'leaving', teamId: 'old-line' },
    { type: 'setInbox', inboxId: 'old-inbox' },
  ])
    expect([action, items(await bulk({ ids, action }))]).toEqual([
      action,
      [
        { id: has, status: 200, revision: 3 },
        { id: hasNot, status: 409, code: 'resource_archived', detail: expect.any(String) },
      ],
    ]);
  await pauseWork(api.backend.database, reactor, false);
  // They are taken off now, which must not happen during the next test.
  await eventually(async () => {
    const { assignee, team } = data(await api.expect(200, 'GET', `/conversations/${has}`));
    return assignee === null && team === null;
  });
});

test('a canned response is rendered for each', async () => {
  const response = await api.expect(201, 'POST', '/canned-responses', {
    body: { title: 'Hello', shortcut: 'hello', content: 'Hello {{visitor.name | "you"}}' },
  });
  const named = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Bo' }, message: 'Hi' } });
  const ids = [data(named).id as string, ...(await open(1))];
  items(await bulk({ ids, action: { type: 'reply', cannedResponseId: data(response).id } }));
  const said = await Promise.all(ids.map(async (id) => (await get(id)).messages.at(-1).content as string));
  expect(said).toEqual(['Hello Bo', 'Hello you']);
});

describe('a filter', () => {
  test('means what it means in the list, and is looked up once: a retry goes on with what it found', async () => {
    const plan = fresh('plan');
    const ids = await open(7, { plan });
    const headers = { 'x-min-position': last, 'idempotency-key': 'filter' };
    const body = { filter: { status: ['open'], customAttributes: { plan } }, action: { type: 'setStatus', status: 'resolved' } };
    const first = await bulk(body, { headers });
    expect(
      items(first)
        .map(({ id }) => id)
        .sort(),
    ).toEqual([...ids].sort());
    expect(first.body.meta).toEqual({ total: 7, succeeded: 7, failed: 0 });
    for (const instance of [api, other]) expect((await bulk(body, { headers }, instance)).text).toBe(first.text);
    // Asked anew it finds none that is open.
    const anew = await bulk(body, { headers: { 'x-min-position': position(first) } });
    expect([anew.body.data, anew.body.meta.total, anew.headers.has('x-position')]).toEqual([[], 0, false]);
  });

  test('may have one text for a list, and finds no other organization’s', async () => {
    const plan = fresh('plan');
    await open(1, { plan });
    const { adminKey } = await api.otherOrganization();
    await api.expect(201, 'POST', '/conversations', { key: adminKey, body: { visitor: {}, message: 'x', customAttributes: { plan } } });
    const body = { filter: { assigneeId: 'none', customAttributes: { plan } }, action: { type: 'assign', assigneeId: 'eve' } };
    expect(items(await bulk(body, { headers: { 'x-min-position': last } }))).toHaveLength(1);
  });
});

describe('nothing is done', () => {
  let ids: string[];
  beforeAll(async () => {
    ids = await open(2);
  });

  test.each<[string, (some: string[]) => object]>([
    ['ids', () => ({})],
    ['ids', (some) => ({ ids: some, filter: {} })],
    ['ids', () => ({ ids: [] })],
    ['ids[1]', (some) => ({ ids: [some[0], some[0]] })],
    ['ids', () => ({ ids: Array.from({ length: 501 }, (_, i) => `c-${i}`) })],
    ['ids[0]', () => ({ ids: [7] })],
    ['ids', () => ({ ids: null })],
    ['filter', () => ({ filter: [] })],
    ['filter', () => ({ filter: {} })],
    ['filter', () => ({ filter: { tagMatch: 'all' } })],
    ['filter', () => ({ filter: { customAttributes: {} } })],
    ['filter', () => ({ filter: { status: ['open', 'pending', 'snoozed', 'resolved', 'closed'] } })],
    ['filter', () => ({ filter: { priority: ['urgent', 'high', 'normal', 'low'], tagMatch: 'any' } })],
    ['filter.status[0]', () => ({ filter: { status: ['asleep'] } })],
    ['filter.status', () => ({ filter: { status: [] } })],
    ['filter.tag', () => ({ filter: { tag: [], tagMatch: 'all' } })],
    ['filter.teamId', () => ({ filter: { teamId: null } })],
    ['filter.tagMatch', () => ({ filter: { tagMatch: null } })],
    ['filter.updatedBefore', () => ({ filter: { updatedBefore: null } })],
    ['filter.customAttributes', () => ({ filter: { customAttributes: null } })],
    ['filter.q', () => ({ filter: { q: 'x' } })],
    ['filter.sort', () => ({ filter: { sort: 'updatedAt' } })],
    ['filter.customAttributes.a', () => ({ filter: { customAttributes: { a: 1 } } })],
    ['action', (some) => ({ ids: some, action: undefined })],
    ['action', (some) => ({ ids: some, action: [] })],
    ['action', (some) => ({ ids: some, action: 'close' })],
    ['action.type', (some) => ({ ids: some, action: { type: 'delete' } })],
    ['action.type', (some) => ({ ids: some, action: {} })],
    ['action.status', (some) => ({ ids: some, action: { type: 'setStatus', status: 'snoozed' } })],
    ['action.tags', (some) => ({ ids: some, action: { type: 'addTags', tags: [] } })],
    ['action.tags[1]', (some) => ({ ids: some, action: { type: 'addTags', tags: ['x', '..'] } })],
    ['action.tag', (some) => ({ ids: some, action: { type: 'removeTag' } })],
    ['action.assigneeId', (some) => ({ ids: some, action: { type: 'assign' } })],
    ['action.priority', (some) => ({ ids: some, action: { type: 'setPriority', priority: 1 } })],
    ['action.until', (some) => ({ ids: some, action: { type: 'snooze', until: 'tomorrow' } })],
    ['action.message', (some) => ({ ids: some, action: { type: 'reply' } })],
    ['action.colour', (some) => ({ ids: some, action: { type: 'addTags', tags: ['x'], colour: 'red' } })],
  ])('when %s is wrong', async (field, body) => {
    const before = await api.backend.store.head();
    const refused = await api.expect(400, 'POST', '/conversations/bulk', {
      body: { action: { type: 'addTags', tags: ['x'] }, ...body(ids) },
    });
    expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
    expect(await eventsAfter(api, before)).toEqual([]);
  });

  test.each<[string, number, object, Record<string, string>?]>([
    ['unknown_assignee', 422, { type: 'assign', assigneeId: 'nobody' }],
    ['unknown_team', 422, { type: 'assign', teamId: 'nobody' }],
    ['unknown_inbox', 422, { type: 'setInbox', inboxId: 'nowhere' }],
    ['unknown_canned_response', 422, { type: 'note', cannedResponseId: 'nowhere' }],
    ['revision_mismatch', 412, { type: 'addTags', tags: ['x'] }, { 'if-match': '"1"' }],
  ])('when it cannot be done to any: %s', async (code, status, action, headers = {}) => {
    const before = await api.backend.store.head();
    const refused = await bulk({ ids, action }, { headers: { ...headers, 'idempotency-key': fresh('refused') } });
    expect([refused.status, refused.body.code]).toEqual([status, code]);
    expect(await eventsAfter(api, before)).toEqual([]);
  });

  test('by a role that may not', async () => {
    for (const role of ['auditor', 'analyst'] as const)
      await api.expect(403, 'POST', '/conversations/bulk', {
        key: await api.keyFor(role),
        body: { ids, action: { type: 'addTags', tags: ['x'] } },
      });
  });

  test('to one whose snooze ends in the past, though others may', async () => {
    const answer = await bulk({ ids, action: { type: 'snooze', until: '2020-01-01T00:00:00Z' } });
    expect(items(answer).map((item) => ('code' in item ? item.code : item.status))).toEqual(['snooze_in_past', 'snooze_in_past']);
  });
});
