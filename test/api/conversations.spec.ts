import { CommandBus } from '@nestjs/cqrs';
import { TakeOffArchived } from '../../src/conversations/conversation.commands.js';
import { conversationAggregate } from '../../src/conversations/conversation.js';
import { pauseWork } from '../../projections/runtime/lease.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { randomIds } from '../../src/ids.js';
import { type Answer, type CallOptions, startApi, type TestApi } from '../support/api.js';
import { eventsAfter } from '../support/events-after.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await api.stop();
  }
});

const DAY = 86_400_000;
const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
let count = 0;
/** An id that nothing in this file has had. */
const fresh = (prefix: string) => `${prefix}-${++count}`;

// oxlint-disable-next-line typescript/no-explicit-any -- answers of every shape; the support has held them against their schemas
const data = (answer: Answer): any => answer.body.data;

async function open(body: object = {}, options: CallOptions = {}): Promise<string> {
  const answer = await api.expect(201, 'POST', '/conversations', {
    ...options,
    body: { visitor: { name: 'Ada' }, message: 'Hi', ...body },
  });
  return data(answer).id as string;
}
const get = async (id: string, query = '', options: CallOptions = {}) =>
  data(await api.expect(200, 'GET', `/conversations/${id}${query}`, options));
const post = (status: number, id: string, what: string, body: unknown, options: CallOptions = {}) =>
  api.expect(status, 'POST', `/conversations/${id}/${what}`, { ...options, body });
const put = (status: number, id: string, body: unknown, options: CallOptions = {}) =>
  api.expect(status, 'PUT', `/conversations/${id}`, { ...options, body });
const types = async (id: string) =>
  (data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { type: string }[]).map(({ type }) => type);
/** Whether the reactor stands still that takes archived agents and teams off conversations. */
const pauseArchiving = (paused: boolean) => pauseWork(api.backend.database, { reactor: 'archived-assignees' }, paused);
const inFuture = (ms: number) => new Date(api.clock.now() + ms).toISOString();

async function agent(name: string): Promise<string> {
  return data(await api.expect(201, 'POST', '/agents', { body: { name } })).id as string;
}
async function team(name: string): Promise<string> {
  return data(await api.expect(201, 'POST', '/teams', { body: { name, agentIds: [] } })).id as string;
}

/** Brings a new conversation into a status. */
async function inStatus(status: string): Promise<string> {
  const id = await open();
  if (status === 'snoozed') await post(200, id, 'snooze', { until: inFuture(DAY) });
  else if (status !== 'open') await put(200, id, { status });
  return id;
}

describe("the source document's snippets, as written", () => {
  let conversationId: string;
  let calls: Answer[];

  /** The snippets' own fetch, against this server, with a key and ids that exist. */
  const fetch = async (address: string, options: { method?: string; headers: Record<string, string>; body?: string }) => {
    const answer = await api.call(
      options.method ?? 'GET',
      address.replace('/api/support', '').replace('{conversationId}', conversationId).replace('{tagId}', 'urgent'),
      {
        key: null,
        headers: Object.fromEntries(new Headers({ ...options.headers, 'X-API-Key': api.adminKey })),
        ...(options.body === undefined ? {} : { raw: options.body }),
      },
    );
    calls.push(answer);
    return { status: answer.status, json: () => Promise.resolve(answer.body) };
  };

  beforeAll(async () => {
    await api.expect(201, 'POST', '/agents', { body: { id: 'user-456', name: 'Support Agent' } });
    await api.expect(201, 'POST', '/inboxes', { body: { id: 'inbox-123', name: 'Billing' } });
  });
  beforeEach(async () => {
    calls = [];
    const answer = await api.expect(201, 'POST', '/conversations', {
      body: {
        visitor: { id: 'visitor-123', name: 'John Doe', email: 'john@example.com' },
        inboxId: 'inbox-123',
        message: 'Hi, I need help',
      },
    });
    conversationId = data(answer).id;
  });

  test('list conversations', async () => {
    const min = (await api.expect(200, 'GET', `/conversations/${conversationId}`)).headers.get('x-position') ?? '';
    await api.expect(200, 'GET', '/conversations', { headers: { 'x-min-position': min } });
    const response = await fetch('/api/support/conversations', {
      headers: {
        'X-API-Key': 'your-api-key',
      },
    });
    const { data, meta } = await response.json();
    expect(data).toEqual(expect.arrayContaining([expect.objectContaining({ id: conversationId })]));
    expect(meta).toMatchObject({ page: 1, limit: 25, totalIsExact: true });
  });

  test('get, reply, note, assign, update, snooze, tag, untag', async () => {
    await fetch('/api/support/conversations/{conversationId}/reply', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        message: 'Thanks for reaching out! Let me help you with that.',
        type: 'reply', // 'reply' | 'note'
      }),
    });
    await fetch('/api/support/conversations/{conversationId}/reply', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        message: 'Customer seems confused about pricing. Escalate to sales?',
        type: 'note',
      }),
    });
    await fetch('/api/support/conversations/{conversationId}/assign', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        assigneeId: 'user-456',
      }),
    });
    // The document's own date is past; the shape is the document's.
    await fetch('/api/support/conversations/{conversationId}/snooze', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        until: inFuture(DAY).replace(/\.\d+Z$/, 'Z'),
      }),
    });
    await fetch('/api/support/conversations/{conversationId}/tags', {
      method: 'POST',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        tags: ['billing', 'urgent'],
      }),
    });
    await fetch('/api/support/conversations/{conversationId}', {
      method: 'PUT',
      headers: {
        'Content-Type': 'application/json',
        'X-API-Key': 'your-api-key',
      },
      body: JSON.stringify({
        status: 'resolved',
      }),
    });
    expect(calls.map(({ status }) => status)).toEqual([201, 201, 200, 200, 200, 200]);

    const response = await fetch('/api/support/conversations/{conversationId}', {
      headers: {
        'X-API-Key': 'your-api-key',
      },
    });
    const { data } = await response.json();
    expect(data).toMatchObject({
      id: conversationId,
      status: 'resolved',
      inboxId: 'inbox-123',
      visitor: { id: 'visitor-123', name: 'John Doe', email: 'john@example.com' },
      assignee: { id: 'user-456', name: 'Support Agent' },
      messages: [
        { type: 'visitor', content: 'Hi, I need help' },
        { type: 'agent', content: 'Thanks for reaching out! Let me help you with that.', author: { name: 'Admin' } },
        { type: 'note', content: 'Customer seems confused about pricing. Escalate to sales?' },
      ],
      tags: ['billing', 'urgent'],
    });

    const removed = await fetch('/api/support/conversations/{conversationId}/tags/{tagId}', {
      method: 'DELETE',
      headers: {
        'X-API-Key': 'your-api-key',
      },
    });
    expect(removed.status).toBe(200);
    expect((await get(conversationId)).tags).toEqual(['billing']);
  });

  test("the snooze's own date is past by now", async () => {
    const answer = await post(422, conversationId, 'snooze', { until: '2024-01-16T09:00:00Z' });
    expect(answer.body.code).toBe('snooze_in_past');
  });

  const messages = [
    {
      type: 'text',
      content: 'Hello, how can I help?',
    },
    {
      type: 'attachment',
      content: 'Here is the document you requested.',
      attachments: [
        {
          name: 'invoice.pdf',
          url: 'https://...',
          type: 'application/pdf',
          size: 102400,
        },
      ],
    },
    {
      type: 'card',
      content: {
        title: 'Order #12345',
        description: 'Your order has been shipped',
        actions: [
          { label: 'Track Package', url: 'https://...' },
          { label: 'View Order', action: 'view_order' },
        ],
      },
    },
  ];
  test.each(messages)('a message of type $type', async (message) => {
    const { type: contentType, ...rest } = message;
    for (const [what, type] of [
      ['reply', 'agent'],
      ['messages', 'visitor'],
    ] as const) {
      const said = data(await post(201, conversationId, what, { message }));
      expect(said).toMatchObject({ type, contentType, ...rest });
      expect((await get(conversationId)).messages.at(-1)).toEqual(said);
    }
  });
});

describe('opening', () => {
  test('answers the conversation with its first message, every field of it', async () => {
    const companyId = fresh('company');
    await api.expect(201, 'POST', '/companies', { body: { id: companyId, name: 'Acme' } });
    const inboxId = data(await api.expect(201, 'POST', '/inboxes', { body: { name: 'Sales' } })).id as string;
    const previousConversationId = await open();
    const visitor = {
      userId: fresh('user'),
      email: `${fresh('eve')}@example.com`,
      name: 'Eve',
      phone: '+49 30 123',
      plan: 'enterprise',
      attributes: { seats: 3 },
      companyId,
    };
    const answer = await api.expect(201, 'POST', '/conversations', {
      body: {
        visitor,
        inboxId,
        message: 'Hello ✓',
        subject: 'An order',
        customAttributes: { order: 'A-1', express: true, total: 12.5 },
        priority: 'high',
        previousConversationId,
      },
    });
    const { attributes: _attributes, ...shown } = visitor;
    expect(data(answer)).toEqual({
      id: expect.any(String),
      status: 'open',
      subject: 'An order',
      inboxId,
      channel: 'api',
      visitor: { ...shown, id: expect.any(String), avatarUrl: null },
      assignee: null,
      team: null,
      tags: [],
      customAttributes: { order: 'A-1', express: true, total: 12.5 },
      priority: 'high',
      snoozedUntil: null,
      rating: null,
      previousConversationId,
      revision: 1,
      createdAt: expect.stringMatching(INSTANT),
      updatedAt: expect.stringMatching(INSTANT),
      waitingSince: expect.stringMatching(INSTANT),
      messageCount: 1,
      messages: [
        { id: expect.any(String), type: 'visitor', contentType: 'text', content: 'Hello ✓', createdAt: expect.stringMatching(INSTANT) },
      ],
    });
    expect(answer.headers.get('etag')).toBe('"1"');
    expect(answer.headers.get('x-position')).toBeTruthy();
    expect(answer.headers.get('location')).toBe(`/api/support/conversations/${data(answer).id}`);
    expect(await get(data(answer).id)).toEqual(data(answer));
  });

  test('passes over a custom attribute that is null: there is none to remove', async () => {
    const answer = data(
      await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi', customAttributes: { plan: null, order: 7 } } }),
    );
    expect(answer.customAttributes).toEqual({ order: 7 });
    expect(data(await api.expect(200, 'GET', `/conversations/${answer.id}`)).customAttributes).toEqual({ order: 7 });
  });

  test('needs a visitor and a message only', async () => {
    const answer = data(await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi' } }));
    expect(answer).toMatchObject({ priority: 'normal', subject: null, customAttributes: {}, visitor: { name: null, email: null } });
    const inboxes = data(await api.expect(200, 'GET', '/inboxes')) as { id: string; isDefault: boolean }[];
    expect(answer.inboxId).toBe(inboxes.find(({ isDefault }) => isDefault)?.id);
  });

  test.each(['userId', 'email', 'id'] as const)('finds the visitor by %s instead of making another', async (by) => {
    const name = fresh('who');
    const known = { email: `${name}@example.com`, userId: name, id: name };
    const one = await get(await open({ visitor: { [by]: known[by], name: 'First' } }));
    const two = await get(await open({ visitor: { [by]: known[by] } }));
    expect(two.visitor).toEqual({ ...one.visitor, name: 'First' });
    expect(two.id).not.toBe(one.id);
  });

  test('by an agent begins with a reply', async () => {
    const id = await open({ as: 'agent', message: 'How was it?' });
    expect(await get(id)).toMatchObject({
      waitingSince: null,
      messages: [{ type: 'agent', content: 'How was it?', author: { name: 'Admin' } }],
    });
  });

  test.each([
    ['an unknown inbox', { inboxId: 'nowhere' }, 'unknown_inbox'],
    ['an unknown company', { visitor: { companyId: 'nobody' } }, 'unknown_company'],
    ['an unknown previous conversation', { previousConversationId: 'nothing' }, 'unknown_conversation'],
  ])('in %s is refused, and no visitor is left behind', async (_, body, code) => {
    const email = `${fresh('nobody')}@example.com`;
    const before = await api.backend.store.head();
    const answer = await api.expect(422, 'POST', '/conversations', {
      body: { message: 'Hi', ...body, visitor: { email, ...(body as { visitor?: object }).visitor } },
    });
    expect(answer.body.code).toBe(code);
    expect(await eventsAfter(api, before)).toEqual([]);
  });

  test('goes on for a visitor whose company was archived, and comes to no archived one', async () => {
    const [companyId, userId] = [fresh('company'), fresh('user')];
    await api.expect(201, 'POST', '/companies', { body: { id: companyId, name: 'Acme' } });
    const visitor = { userId, companyId };
    const first = await get(await open({ visitor }));
    await api.expect(204, 'DELETE', `/companies/${companyId}`);
    expect(await get(await open({ visitor }))).toMatchObject({ visitor: first.visitor });
    await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor } });
    await api.expect(200, 'POST', '/visitors', { body: visitor });
    await api.expect(200, 'PUT', `/visitors/${first.visitor.id}`, { body: { companyId, name: 'Ada' } });
    const before = await api.backend.store.head();
    const other = { userId: fresh('user'), companyId };
    for (const [method, path, body] of [
      ['POST', '/conversations', { message: 'Hi', visitor: other }],
      ['POST', '/visitor-tokens', { visitor: other }],
      ['POST', '/visitors', other],
    ] as const)
      expect((await api.expect(409, method, path, { body })).body.code).toBe('resource_archived');
    expect(await eventsAfter(api, before)).toEqual([]);
  });

  test('with If-Match matches nothing, and writes nothing', async () => {
    const before = await api.backend.store.head();
    const answer = await api.expect(412, 'POST', '/conversations', {
      body: { visitor: { name: 'Ada' }, message: 'Hi' },
      headers: { 'if-match': '"0"' },
    });
    expect(answer.body.code).toBe('revision_mismatch');
    expect(await eventsAfter(api, before)).toEqual([]);
  });
});

describe('the status table over HTTP', () => {
  const write = {
    'visitor writes': (id: string) => api.call('POST', `/conversations/${id}/messages`, { body: { message: 'More' } }),
    'agent replies': (id: string) => api.call('POST', `/conversations/${id}/reply`, { body: { message: 'Answer' } }),
    notes: (id: string) => api.call('POST', `/conversations/${id}/reply`, { body: { message: 'Note', type: 'note' } }),
    assigns: (id: string) => api.call('POST', `/conversations/${id}/assign`, { body: { assigneeId: someone } }),
    tags: (id: string) => api.call('POST', `/conversations/${id}/tags`, { body: { tags: ['new'] } }),
    'set open': (id: string) => api.call('PUT', `/conversations/${id}`, { body: { status: 'open' } }),
    'set pending': (id: string) => api.call('PUT', `/conversations/${id}`, { body: { status: 'pending' } }),
    'set resolved': (id: string) => api.call('PUT', `/conversations/${id}`, { body: { status: 'resolved' } }),
    'set closed': (id: string) => api.call('PUT', `/conversations/${id}`, { body: { status: 'closed' } }),
    snoozes: (id: string) => api.call('POST', `/conversations/${id}/snooze`, { body: { until: inFuture(2 * DAY) } }),
  };
  let someone: string;
  beforeAll(async () => {
    someone = await agent('Someone');
  });

  // The status after each column, `=` for 200 and no new event, a number for a refusal.
  const TABLE: Record<string, (string | number)[]> = {
    //          visitor   agent       note        assign      tag         open    pending    resolved    closed    snooze
    open: ['open', 'open', 'open', 'open', 'open', '=', 'pending', 'resolved', 'closed', 'snoozed'],
    pending: ['open', 'pending', 'pending', 'pending', 'pending', 'open', '=', 'resolved', 'closed', 'snoozed'],
    snoozed: ['open', 'snoozed', 'snoozed', 'snoozed', 'snoozed', 'open', 'pending', 'resolved', 'closed', 'snoozed'],
    resolved: ['open', 'resolved', 'resolved', 'resolved', 'resolved', 'open', 409, '=', 'closed', 409],
    closed: [409, 409, 409, 409, 409, 409, 409, 409, '=', 409],
  };
  const cells = Object.entries(TABLE).flatMap(([status, row]) =>
    row.map((cell, i) => [status, Object.keys(write)[i] as keyof typeof write, cell] as const),
  );

  test.each(cells)('%s, %s: %s', async (status, column, cell) => {
    const id = await inStatus(status);
    const before = await get(id);
    const answer = await write[column](id);
    const after = await get(id);
    if (typeof cell === 'number') {
      expect(answer.status).toBe(cell);
      expect(answer.body.code).toBe(status === 'closed' ? 'conversation_closed' : 'transition_not_allowed');
      expect(answer.body.allowed).toEqual(status === 'closed' ? [] : ['message', 'reply', 'note', 'assign', 'tag', 'open', 'closed']);
      expect(after).toEqual(before);
      return;
    }
    expect(answer.status).toBe(['visitor writes', 'agent replies', 'notes'].includes(column) ? 201 : 200);
    if (cell === '=') expect(after).toEqual(before);
    else {
      expect(after.status).toBe(cell);
      expect(after.revision).toBeGreaterThan(before.revision);
    }
    expect(answer.headers.get('etag')).toBe(`"${after.revision}"`);
    if (answer.status === 200) {
      const { messages: _messages, ...shown } = after;
      const { lastMessage: _lastMessage, ...summary } = data(answer);
      expect(summary).toEqual(shown);
    }
  });
});

describe('changing', () => {
  test('touches the named fields only, in one step', async () => {
    const inboxId = data(await api.expect(201, 'POST', '/inboxes', { body: { name: 'Other' } })).id as string;
    const id = await open({ subject: 'Old', customAttributes: { a: 1, b: 2 } });
    const changed = data(
      await put(200, id, { subject: 'New', priority: 'urgent', customAttributes: { b: null, c: '3' }, inboxId, status: 'pending' }),
    );
    expect(changed).toMatchObject({
      subject: 'New',
      priority: 'urgent',
      customAttributes: { a: 1, c: '3' },
      inboxId,
      status: 'pending',
      tags: [],
    });
    expect(changed).not.toHaveProperty('messages');
    expect(await types(id)).toEqual([
      'ConversationOpened',
      'MessageReceived',
      'SubjectChanged',
      'PriorityChanged',
      'CustomAttributesChanged',
      'InboxChanged',
      'ConversationStatusChanged',
    ]);
    expect(data(await put(200, id, { subject: null })).subject).toBeNull();
    expect(data(await put(200, id, {})).revision).toBe(7);
  });

  test('and closing at once can be asked again', async () => {
    const id = await open();
    const body = { subject: 'Done', priority: 'low', customAttributes: { a: 1 }, status: 'closed' };
    const first = await put(200, id, body);
    const again = await put(200, id, body);
    expect(data(again)).toEqual(data(first));
    expect(again.headers.get('etag')).toBe(first.headers.get('etag'));
    await put(409, id, { ...body, subject: 'Reopened?' });
  });

  test('to snoozed names the way to snooze', async () => {
    const id = await open();
    const answer = await put(400, id, { status: 'snoozed' });
    expect(JSON.stringify(answer.body.errors)).toContain('/snooze');
    await post(400, id, 'reply', { message: 'x', status: 'snoozed' });
  });

  test('to an inbox that nobody has is refused, and to an archived one unless it is there already', async () => {
    const inboxId = data(await api.expect(201, 'POST', '/inboxes', { body: { name: 'Old' } })).id as string;
    const [id, other] = [await open({ inboxId }), await open()];
    expect((await put(422, id, { inboxId: 'nowhere' })).body.code).toBe('unknown_inbox');
    await api.expect(204, 'DELETE', `/inboxes/${inboxId}`);
    expect(data(await put(200, id, { inboxId, subject: 'Still here' }))).toMatchObject({ inboxId, subject: 'Still here' });
    expect((await put(409, other, { inboxId })).body.code).toBe('resource_archived');
    expect((await api.expect(409, 'POST', '/conversations', { body: { visitor: {}, message: 'x', inboxId } })).body.code).toBe(
      'resource_archived',
    );
  });
});

describe('replying', () => {
  test('with a status is one step', async () => {
    const id = await open();
    const said = data(await post(201, id, 'reply', { message: 'Done', status: 'resolved' }));
    expect(said).toMatchObject({ type: 'agent', content: 'Done' });
    expect(await get(id)).toMatchObject({ status: 'resolved', revision: 3, waitingSince: null });
    const events = data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { type: string; commandId: string }[];
    expect(events.map(({ type }) => type)).toEqual(['ConversationOpened', 'MessageReceived', 'MessageSent', 'ConversationStatusChanged']);
    expect(events[2]?.commandId).toBe(events[3]?.commandId);
  });

  test('is by default a reply, and a note is for the team', async () => {
    const id = await open();
    expect(data(await post(201, id, 'reply', { message: 'x' })).type).toBe('agent');
    expect((await get(id)).waitingSince).toBeNull();
    await post(201, id, 'messages', { message: 'y' });
    expect(data(await post(201, id, 'reply', { message: 'x', type: 'note' })).type).toBe('note');
    expect((await get(id)).waitingSince).not.toBeNull();
  });

  test('keeps content exactly as sent', async () => {
    const id = await open();
    for (const content of [
      '  leading and trailing \n',
      '<b>&amp;</b>',
      'e\u0301 é',
      '👩‍👩‍👧‍👦 ‮rtl',
      '\\u0041 "quoted" \\',
      'x'.repeat(50_000),
      '💶'.repeat(50_000),
    ]) {
      const said = data(await post(201, id, 'reply', { message: content }));
      expect(said.content).toBe(content);
      expect((await get(id)).messages.at(-1).content).toBe(content);
    }
  });

  test('speaks as the agent of the key, or the one that an admin acts for, or the key itself', async () => {
    const id = await open();
    const bo = await agent('Bo');
    const key = await api.keyFor('agent', { agentId: bo });
    const author = async (options: CallOptions) => data(await post(201, id, 'reply', { message: 'x' }, options)).author;
    expect(await author({ key })).toEqual({ id: bo, name: 'Bo' });
    expect(await author({ headers: { 'x-agent-id': bo } })).toEqual({ id: bo, name: 'Bo' });
    expect(await author({})).toEqual({ id: expect.any(String), name: 'Admin' });
    expect(await author({ key: await api.keyFor('agent') })).toEqual({ id: expect.any(String), name: 'test agent' });
    const events = data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { actor: object }[];
    expect(events.slice(2).map(({ actor }) => actor)).toEqual([
      { type: 'agent', id: bo },
      { type: 'agent', id: bo },
      { type: 'apiKey', id: expect.any(String) },
      { type: 'apiKey', id: expect.any(String) },
    ]);
    // What was said keeps the name that it was said under.
    await api.expect(200, 'PUT', `/agents/${bo}`, { body: { name: 'Bodo' } });
    expect((await get(id)).messages[1].author).toEqual({ id: bo, name: 'Bo' });
  });

  test('for an agent that nobody has, or with a key that may not, is refused', async () => {
    const id = await open();
    const bo = await agent('Bo');
    expect((await post(422, id, 'reply', { message: 'x' }, { headers: { 'x-agent-id': 'nobody' } })).body.code).toBe('unknown_agent');
    await post(403, id, 'reply', { message: 'x' }, { headers: { 'x-agent-id': bo }, key: await api.keyFor('agent') });
    await post(403, id, 'reply', { message: 'x' }, { headers: { 'x-agent-id': bo }, key: await api.keyFor('admin', { agentId: bo }) });
    expect((await get(id)).messageCount).toBe(1);
  });
});

describe('assigning', () => {
  test('shows who has it now, by the name of now, and the team it went through', async () => {
    const id = await open();
    const [first, bo] = [await team('First line'), await agent('Bo')];
    expect(data(await post(200, id, 'assign', { assigneeId: first }))).toMatchObject({
      assignee: { id: first, type: 'team', name: 'First line' },
      team: { id: first, name: 'First line' },
    });
    expect(data(await post(200, id, 'assign', { assigneeId: bo }))).toMatchObject({
      assignee: { id: bo, type: 'agent', name: 'Bo' },
      team: { id: first, name: 'First line' },
    });
    const position = (await api.expect(200, 'PUT', `/agents/${bo}`, { body: { name: 'Bodo' } })).headers.get('x-position') ?? '';
    expect((await get(id, '', { headers: { 'x-min-position': position } })).assignee.name).toBe('Bodo');
    expect(data(await post(200, id, 'assign', { assigneeId: null }))).toMatchObject({ assignee: null, team: { id: first } });
  });

  test('to somebody unknown or archived is refused', async () => {
    const id = await open();
    const [bo, old, line, other] = [await agent('Bo'), await team('Old line'), await team('First line'), await team('Second line')];
    await api.expect(204, 'DELETE', `/agents/${bo}`);
    await api.expect(204, 'DELETE', `/teams/${old}`);
    const before = await get(id);
    // The memory of settings may be a second old in another process, not in the one that archived.
    for (const [status, code, body] of [
      [422, 'unknown_assignee', { assigneeId: 'nobody' }],
      [422, 'unknown_assignee', { assigneeId: 'nobody', teamId: line }],
      [409, 'resource_archived', { assigneeId: bo }],
      [409, 'resource_archived', { assigneeId: old }],
      [422, 'unknown_team', { teamId: 'nobody' }],
      [422, 'unknown_team', { teamId: bo }],
      [409, 'resource_archived', { teamId: old }],
      [400, 'validation_failed', { assigneeId: line, teamId: other }],
      [400, 'validation_failed', { assigneeId: line, teamId: null }],
      [400, 'validation_failed', {}],
    ] as const)
      expect([body, (await post(status, id, 'assign', body)).body.code]).toEqual([body, code]);
    expect(await get(id)).toEqual(before);
  });

  test('puts into the queue of a team, takes out of it, and does both with an assignee', async () => {
    const id = await open();
    const [line, other, bo] = [await team('First line'), await team('Second line'), await agent('Bo')];
    const assign = async (body: object) => {
      const { assignee, team: queue } = data(await post(200, id, 'assign', body));
      return [assignee?.id ?? null, queue?.id ?? null];
    };
    expect(await assign({ teamId: line })).toEqual([null, line]);
    expect(await assign({ assigneeId: bo })).toEqual([bo, line]);
    expect(await assign({ teamId: null })).toEqual([bo, null]);
    expect(await assign({ assigneeId: null, teamId: other })).toEqual([null, other]);
    expect(await assign({ assigneeId: bo, teamId: line })).toEqual([bo, line]);
    expect(await assign({ assigneeId: other })).toEqual([other, other]);
    expect(await assign({ teamId: line })).toEqual([line, line]);
    expect(await assign({ teamId: null })).toEqual([null, null]);
    expect((await types(id)).slice(2)).toEqual([
      'ConversationTeamChanged',
      'ConversationAssigned',
      'ConversationTeamChanged',
      'ConversationUnassigned',
      'ConversationAssigned',
      'ConversationAssigned',
      'ConversationAssigned',
      'ConversationUnassigned',
    ]);
  });

  test('to whom it is assigned already changes nothing, also when they were archived since', async () => {
    const id = await open();
    const [line, bo] = [await team('First line'), await agent('Bo')];
    const { revision } = data(await post(200, id, 'assign', { assigneeId: bo, teamId: line }));
    // Otherwise they are taken off the conversation at once.
    await pauseArchiving(true);
    await api.expect(204, 'DELETE', `/agents/${bo}`);
    await api.expect(204, 'DELETE', `/teams/${line}`);
    for (const body of [{ assigneeId: bo }, { teamId: line }, { assigneeId: bo, teamId: line }])
      expect(data(await post(200, id, 'assign', body)).revision).toBe(revision);
    await pauseArchiving(false);
  });

  test('does not outlast the archiving of agent and team in what becomes open: not by the visitor, not by the timer', async () => {
    const [line, bo] = [await team('First line'), await agent('Bo')];
    const [written, due] = [await open(), await open()];
    for (const id of [written, due]) await post(200, id, 'assign', { assigneeId: bo, teamId: line });
    await put(200, written, { status: 'pending' });
    await post(200, due, 'snooze', { until: inFuture(2 * DAY) });
    await pauseArchiving(true);
    await api.expect(204, 'DELETE', `/agents/${bo}`);
    await api.expect(204, 'DELETE', `/teams/${line}`);
    await post(201, written, 'messages', { message: 'Hello?' });
    api.clock.advance(2 * DAY + 1_000);
    await eventually(async () => (await get(due)).status === 'open');
    for (const id of [written, due]) {
      expect(await get(id)).toMatchObject({ status: 'open', assignee: null, team: null });
      expect((await types(id)).slice(-3)).toEqual(['ConversationStatusChanged', 'ConversationUnassigned', 'ConversationTeamChanged']);
    }
    await pauseArchiving(false);
  });

  test('ends when who is archived is taken off, and not for who is back', async () => {
    const [line, bo] = [await team('First line'), await agent('Bo')];
    const id = await open();
    await post(200, id, 'assign', { assigneeId: bo, teamId: line });
    const takeOff = (assigneeId: string) =>
      api.app.get(CommandBus).execute(new TakeOffArchived(systemContext(api.organizationId, randomIds.next()), id, assigneeId));
    expect((await takeOff(bo)).outcome).toBe('unchanged');
    await pauseArchiving(true);
    await api.expect(204, 'DELETE', `/agents/${bo}`);
    await api.expect(204, 'DELETE', `/teams/${line}`);
    expect(await takeOff(bo)).toMatchObject({ outcome: 'appended', state: { assignee: null, team: { id: line } } });
    expect(await takeOff(line)).toMatchObject({ outcome: 'appended', state: { assignee: null, team: null } });
    expect((await takeOff(bo)).outcome).toBe('unchanged');
    await pauseArchiving(false);
  });

  test('is kept by reopening, unless the assignee was archived', async () => {
    const bo = await agent('Bo');
    const [kept, left] = [await open(), await open()];
    for (const id of [kept, left]) {
      await post(200, id, 'assign', { assigneeId: bo });
      await put(200, id, { status: 'resolved' });
    }
    await post(201, kept, 'messages', { message: 'again' });
    expect(await get(kept)).toMatchObject({ status: 'open', assignee: { id: bo } });
    await api.expect(204, 'DELETE', `/agents/${bo}`);
    await post(201, left, 'messages', { message: 'again' });
    expect(await get(left)).toMatchObject({ status: 'open', assignee: null });
    expect((await types(left)).slice(-3)).toEqual(['MessageReceived', 'ConversationStatusChanged', 'ConversationUnassigned']);
  });
});

describe('a visitor whose keys are of several', () => {
  const warnings = [{ field: 'visitor.email', code: 'email_taken' }];
  const visitor = { userId: 'keys-new', email: 'Keys@Example.com', name: 'New' };
  const ask = (path: string, body: object, key: string) => api.expect(201, 'POST', path, { body, headers: { 'idempotency-key': key } });
  beforeAll(() => api.expect(201, 'POST', '/visitors', { body: { id: 'keys-old', userId: 'keys-old', email: 'keys@example.com' } }));

  test('is not turned away: the userId decides, and the answer says what was left', async () => {
    const body = { visitor, message: 'Hi' };
    const first = await ask('/conversations', body, 'keys-open');
    expect(first.body.warnings).toEqual(warnings);
    expect(data(first).visitor).toMatchObject({ userId: 'keys-new', email: null, name: 'New' });
    expect(data(await api.expect(200, 'GET', '/visitors/keys-old'))).toMatchObject({ userId: 'keys-old', email: 'keys@example.com' });
    // The address is free by the time of the retry, which is answered as the first time.
    await api.expect(200, 'PUT', '/visitors/keys-old', { body: { email: null } });
    expect((await ask('/conversations', body, 'keys-open')).text).toBe(first.text);
    const anew = await ask('/conversations', body, 'keys-open-again');
    expect(Object.keys(anew.body)).toEqual(['data']);
    expect(data(anew).visitor).toMatchObject({ id: data(first).visitor.id, email: 'Keys@Example.com' });
  });

  test('gets a token all the same, and a conflict only where visitors are written', async () => {
    const body = { visitor: { ...visitor, userId: 'keys-third' } };
    const first = await ask('/visitor-tokens', body, 'keys-token');
    expect(first.body.warnings).toEqual(warnings);
    await api.expect(409, 'POST', '/visitors', { body: body.visitor });
    expect((await ask('/visitor-tokens', body, 'keys-token')).text).toBe(first.text);
    expect(await ask('/visitor-tokens', { visitor: { id: data(first).visitorId } }, 'keys-token-alone')).not.toHaveProperty(
      'body.warnings',
    );
  });
});

describe('tags', () => {
  test('are added, and removed by their name in the address', async () => {
    const id = await open();
    const odd = ['a/b', 'ü ö', '100%', 'c++', '#1?', '💶', '...', 'tag:x', "it's"];
    expect(data(await post(200, id, 'tags', { tags: [...odd, 'plain'] })).tags).toEqual([...odd, 'plain']);
    for (const tag of odd) await api.expect(200, 'DELETE', `/conversations/${id}/tags/${encodeURIComponent(tag)}`);
    expect((await get(id)).tags).toEqual(['plain']);
  });

  test('are one however they are spelled, in every address', async () => {
    const id = await open();
    const tags = ['vip', ' vip', 'vip\u00a0', 'v\u200bip', 'cafe\u0301', 'caf\u00e9', '👩\u200d👧', 'a\u00a0 b'];
    const stored = ['vip', 'caf\u00e9', '👩\u200d👧', 'a b'];
    const added = await post(200, id, 'tags', { tags });
    expect(data(added).tags).toEqual(stored);
    const headers = { 'x-min-position': added.headers.get('x-position')! };
    for (const tag of tags) {
      const list = await api.expect(200, 'GET', `/conversations?visitorId=${data(added).visitor.id}&tag=${encodeURIComponent(tag)}`, {
        headers,
      });
      expect(list.body.data).toHaveLength(1);
    }
    for (const tag of ['vip\u00a0', 'cafe\u0301', '👩\u200d👧', 'a b'])
      await api.expect(200, 'DELETE', `/conversations/${id}/tags/${encodeURIComponent(tag)}`);
    expect((await get(id)).tags).toEqual([]);
  });

  test('that no address can name are refused, and those that an earlier build took are found and removed', async () => {
    const id = await open();
    for (const tag of ['.', '..', ' .. ', '.\u200b.'])
      expect((await post(400, id, 'tags', { tags: ['x', tag] })).body.errors).toMatchObject([{ field: expect.stringContaining('tags') }]);
    const stored = ['vip', 'vip\u00a0', 'cafe\u0301', '..'];
    const { transactor } = api.backend;
    const { keyId } = (await transactor.load(conversationAggregate, api.organizationId, id))!.state;
    const { position } = await transactor.transact(
      conversationAggregate,
      id,
      { ...systemContext(api.organizationId, fresh('command')), keyId },
      () => [{ type: 'TagsAdded' as const, data: { tags: stored } }],
    );
    const headers = { 'x-min-position': position };
    for (const tag of ['vip', 'caf\u00e9', '..']) {
      const list = await api.expect(200, 'GET', `/conversations?tag=${encodeURIComponent(tag)}`, { headers });
      expect((list.body.data as { id: string }[]).map((one) => one.id)).toContain(id);
    }
    await api.expect(200, 'DELETE', `/conversations/${id}/tags/vip`);
    await api.expect(200, 'DELETE', `/conversations/${id}/tags/${encodeURIComponent('caf\u00e9')}`);
    await api.expect(200, 'POST', '/conversations/bulk', { body: { ids: [id], action: { type: 'removeTag', tag: '..' } } });
    expect((await get(id)).tags).toEqual([]);
  });

  test('of the greatest length in any script can be removed again', async () => {
    const id = await open();
    const long = ['x'.repeat(100), '漢'.repeat(100), '💶'.repeat(100)];
    await post(200, id, 'tags', { tags: long });
    for (const tag of long) await api.expect(200, 'DELETE', `/conversations/${id}/tags/${encodeURIComponent(tag)}`);
    expect((await get(id)).tags).toEqual([]);
  });

  test('that are there, or are not there to remove, change nothing', async () => {
    const id = await open();
    await post(200, id, 'tags', { tags: ['a'] });
    const answer = await post(200, id, 'tags', { tags: ['a', 'a'] });
    expect(answer.headers.get('etag')).toBe('"2"');
    // Many clients announce JSON on every request, also on one without a body.
    const headers = { 'content-type': 'application/json' };
    expect((await api.expect(200, 'DELETE', `/conversations/${id}/tags/b`, { headers })).headers.get('etag')).toBe('"2"');
  });
});

describe('rating', () => {
  test('needs an ended episode, then goes to the latest one, and may change', async () => {
    const id = await open();
    expect((await post(409, id, 'rating', { rating: 5 })).body.code).toBe('no_ended_episode');
    await put(200, id, { status: 'resolved' });
    expect(data(await post(200, id, 'rating', { rating: 2, comment: 'slow' })).rating).toEqual({ rating: 2, comment: 'slow' });
    await post(201, id, 'messages', { message: 'again' });
    expect(data(await post(200, id, 'rating', { rating: 3 })).rating).toEqual({ rating: 3, comment: 'slow' });
    expect(data(await post(200, id, 'rating', { rating: 3, comment: null })).rating).toEqual({ rating: 3, comment: null });
    await put(200, id, { status: 'closed' });
    expect(data(await post(200, id, 'rating', { rating: 5 })).rating).toEqual({ rating: 5, comment: null });
    const events = data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { type: string; data: { episode: number } }[];
    expect(events.filter(({ type }) => type === 'ConversationRated').map(({ data: { episode } }) => episode)).toEqual([1, 1, 1, 2]);
  });
});

describe('snoozing', () => {
  test('wakes once, when its time has come', async () => {
    const id = await open();
    const until = inFuture(2 * DAY);
    expect(data(await post(200, id, 'snooze', { until }))).toMatchObject({ status: 'snoozed', snoozedUntil: until });
    api.clock.advance(2 * DAY + 1_000);
    await eventually(async () => (await get(id)).status === 'open');
    const events = data(await api.expect(200, 'GET', `/conversations/${id}/events`)) as { type: string; data: object; actor: object }[];
    expect(events.slice(3)).toEqual([
      expect.objectContaining({
        type: 'ConversationStatusChanged',
        actor: { type: 'system', id: 'snooze-timer' },
        data: { from: 'snoozed', to: 'open', reason: 'snooze_elapsed', episode: 1 },
      }),
    ]);
    expect((await get(id)).snoozedUntil).toBeNull();
  });

  test('anew voids the first timer, and leaving voids it too', async () => {
    const [longer, left] = [await open(), await open()];
    for (const id of [longer, left]) await post(200, id, 'snooze', { until: inFuture(DAY) });
    const until = inFuture(10 * DAY);
    await post(200, longer, 'snooze', { until });
    await put(200, left, { status: 'pending' });
    const due = await open();
    await post(200, due, 'snooze', { until: inFuture(DAY) });
    api.clock.advance(DAY + 1_000);
    // The one that is due shows that the timers have been looked at.
    await eventually(async () => (await get(due)).status === 'open');
    expect(await get(longer)).toMatchObject({ status: 'snoozed', snoozedUntil: until });
    expect((await get(left)).status).toBe('pending');
  });

  test('until the next reply waits for the visitor', async () => {
    const id = await open();
    expect(data(await post(200, id, 'snooze', { until: 'next_reply' })).snoozedUntil).toBe('next_reply');
    await post(201, id, 'reply', { message: 'ping' });
    expect((await get(id)).status).toBe('snoozed');
    await post(201, id, 'messages', { message: 'pong' });
    expect((await get(id)).status).toBe('open');
  });

  test.each([
    ['in the past', () => inFuture(-1_000), 'snooze_in_past'],
    ['in more than a year', () => inFuture(367 * DAY), 'snooze_too_far'],
  ])('%s is refused', async (_, until, code) => {
    expect((await post(422, await open(), 'snooze', { until: until() })).body.code).toBe(code);
  });
});

describe('messages', () => {
  test('show the last 200, and the older ones page by page', async () => {
    const id = await open({ message: 'n0' });
    for (let i = 1; i < 425; i++) await post(201, id, i % 3 === 0 ? 'reply' : 'messages', { message: `n${i}` });
    await post(200, id, 'tags', { tags: ['long'] });
    const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `n${from + i}`);
    const contents = (messages: { content: string }[]) => messages.map(({ content }) => content);
    const shown = await get(id);
    expect(contents(shown.messages)).toEqual(numbers(225, 425));
    expect(shown.messageCount).toBe(425);

    const page = async (query: string) => (await api.expect(200, 'GET', `/conversations/${id}/messages${query}`)).body;
    const older = await page(`?before=${shown.messages[0].id}&limit=200`);
    expect(contents(older.data)).toEqual(numbers(25, 225));
    expect(older.meta).toEqual({ limit: 200, hasMore: true });
    const oldest = await page(`?before=${older.data[0].id}&limit=200`);
    expect(contents(oldest.data)).toEqual(numbers(0, 25));
    expect(oldest.meta).toEqual({ limit: 200, hasMore: false });
    expect(contents((await page('')).data)).toEqual(numbers(375, 425));
    expect(contents((await page(`?before=${oldest.data[0].id}`)).data)).toEqual([]);
    await api.expect(404, 'GET', `/conversations/${id}/messages?before=nothing`);
    expect(contents((await get(id, '?revision=250')).messages)).toEqual(numbers(50, 250));
  }, 120_000);
});

describe('history', () => {
  test('tells every event with who, when, why and its place', async () => {
    const id = await open({ subject: 'S', customAttributes: { k: 'v' } }, { headers: { 'x-request-id': 'my-request' } });
    await post(201, id, 'reply', { message: 'hello' });
    await put(200, id, { status: 'resolved' });
    const answer = await api.expect(200, 'GET', `/conversations/${id}/events`);
    const events = data(answer) as Record<string, unknown>[];
    expect(events.map(({ revision }) => revision)).toEqual([0, 1, 2, 3]);
    expect(events[0]).toMatchObject({
      type: 'ConversationOpened',
      actor: { type: 'apiKey' },
      correlationId: 'my-request',
      causationDepth: 0,
      imported: false,
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
      data: { subject: 'S', customAttributes: { k: 'v' }, channel: 'api', priority: 'normal' },
    });
    expect(events[1]).toMatchObject({ type: 'MessageReceived', data: { content: 'Hi' } });
    expect(events[3]).toMatchObject({ data: { from: 'open', to: 'resolved', reason: 'agent', episode: 1 } });
    const positions = events.map(({ position }) => String(position));
    expect(positions).toEqual([...new Set(positions)].sort((a, b) => (a < b ? -1 : 1)));
    expect(answer.headers.get('x-position')).toBe(events[3]?.['position']);

    const part = (await api.expect(200, 'GET', `/conversations/${id}/events?from=1&limit=2`)).body;
    expect(part.data).toEqual(events.slice(1, 3));
    expect(part.meta).toEqual({ limit: 2, hasMore: true });
    expect((await api.expect(200, 'GET', `/conversations/${id}/events?from=4`)).body).toEqual({
      data: [],
      meta: { limit: 1000, hasMore: false },
    });
  });

  test('gives the conversation as it was at a revision or an instant', async () => {
    const id = await open();
    const versions = [await get(id)];
    for (const step of [
      () => post(201, id, 'reply', { message: 'hello', status: 'pending' }),
      () => post(200, id, 'tags', { tags: ['a'] }),
      () => put(200, id, { subject: 'S' }),
    ]) {
      api.clock.advance(60_000);
      await step();
      versions.push(await get(id));
    }
    for (const version of versions) {
      expect(await get(id, `?revision=${version.revision}`)).toEqual(version);
      expect(await get(id, `?at=${version.updatedAt}`)).toEqual(version);
      const later = new Date(Date.parse(version.updatedAt) + 30_000).toISOString();
      expect(await get(id, `?at=${later}`)).toEqual(version);
    }
    expect(await get(id, '?revision=0')).toMatchObject({ revision: 0, messages: [], messageCount: 0 });
    // Between the two events of one step the message is there, and the status not yet.
    expect(await get(id, '?revision=2')).toMatchObject({ status: 'open', messageCount: 2 });
    await api.expect(404, 'GET', `/conversations/${id}?revision=6`);
    await api.expect(404, 'GET', `/conversations/${id}?at=2020-01-01T00:00:00Z`);
    await api.expect(400, 'GET', `/conversations/${id}?revision=1&at=2020-01-01T00:00:00Z`);
  });
});

describe('a stranger', () => {
  const routes: [string, string, unknown][] = [
    ['GET', '', undefined],
    ['GET', '?revision=0', undefined],
    ['GET', '/messages', undefined],
    ['GET', '/events', undefined],
    ['PUT', '', { status: 'closed' }],
    ['POST', '/reply', { message: 'x' }],
    ['POST', '/messages', { message: 'x' }],
    ['POST', '/assign', { assigneeId: null }],
    ['POST', '/snooze', { until: 'next_reply' }],
    ['POST', '/tags', { tags: ['x'] }],
    ['DELETE', '/tags/x', undefined],
    ['POST', '/rating', { rating: 1 }],
  ];

  test.each(routes)('%s …%s: another organization’s conversation is answered as an unknown one', async (method, path, body) => {
    const { adminKey } = await api.otherOrganization();
    const id = await open();
    const before = await get(id);
    const options = { key: adminKey, headers: { 'x-request-id': 'same' }, ...(body === undefined ? {} : { body }) };
    const foreign = await api.expect(404, method, `/conversations/${id}${path}`, options);
    const unknown = await api.expect(404, method, `/conversations/${'0'.repeat(id.length)}${path}`, options);
    expect(foreign.text.replace(id, '0'.repeat(id.length))).toBe(unknown.text);
    const headers = (answer: Answer) => [...answer.headers].filter(([name]) => name !== 'date');
    expect(headers(foreign)).toEqual(headers(unknown));
    expect(await get(id)).toEqual(before);
  });

  test.each(['1', '%00', '..%2f', '%E0%A4%A', 'a%2Fb', 'x'.repeat(200), 'x'.repeat(600), '%20', "'", 'ä', '%F0%9F%92%A9'])(
    'an id of any shape that names nothing is 404: %s',
    async (id) => {
      for (const [method, path, body] of routes)
        await api.expect(404, method, `/conversations/${id}${path}`, body === undefined ? {} : { body });
    },
  );
});

describe('roles', () => {
  test.each([
    ['admin', true, true],
    ['agent', true, true],
    ['auditor', false, true],
    ['analyst', false, false],
  ] as const)('%s', async (role, writes, reads) => {
    const key = await api.keyFor(role);
    const id = await open();
    const statuses = await Promise.all([
      api.call('POST', '/conversations', { key, body: { visitor: {}, message: 'x' } }),
      api.call('PUT', `/conversations/${id}`, { key, body: { priority: 'low' } }),
      api.call('POST', `/conversations/${id}/reply`, { key, body: { message: 'x' } }),
      api.call('POST', `/conversations/${id}/messages`, { key, body: { message: 'x' } }),
      api.call('POST', `/conversations/${id}/assign`, { key, body: { assigneeId: null } }),
      api.call('POST', `/conversations/${id}/snooze`, { key, body: { until: 'next_reply' } }),
      api.call('POST', `/conversations/${id}/tags`, { key, body: { tags: ['x'] } }),
      api.call('DELETE', `/conversations/${id}/tags/x`, { key }),
    ]).then((answers) => answers.map(({ status }) => status));
    expect(statuses).toEqual(writes ? [201, 200, 201, 201, 200, 200, 200, 200] : Array(8).fill(403));
    await api.expect(200, 'GET', `/conversations/${id}`, { key });
    await api.expect(200, 'GET', `/conversations/${id}/messages`, { key });
    await api.expect(200, 'GET', '/conversations', { key });
    await api.expect(reads ? 200 : 403, 'GET', `/conversations/${id}/events`, { key });
  });

  test('an analyst sees everything but what was said', async () => {
    const key = await api.keyFor('analyst');
    const id = await open({ message: 'a secret', subject: 'Subject' });
    const said = await post(201, id, 'reply', {
      message: {
        type: 'attachment',
        content: 'a secret',
        attachments: [{ name: 'secret.txt', url: 'https://a.example/secret', type: 'text/plain', size: 1 }],
      },
    });
    const headers = { 'x-min-position': said.headers.get('x-position') ?? '' };
    const answers = [
      await api.expect(200, 'GET', `/conversations/${id}`, { key }),
      await api.expect(200, 'GET', `/conversations/${id}?revision=2`, { key }),
      await api.expect(200, 'GET', `/conversations/${id}/messages`, { key }),
      await api.expect(200, 'GET', '/conversations?limit=1', { key, headers }),
    ];
    for (const answer of answers) expect(answer.text).not.toContain('secret');
    expect(data(answers[0] as Answer)).toMatchObject({
      subject: 'Subject',
      messages: [{ content: null }, { content: null, contentType: 'attachment' }],
    });
    expect(data(answers[3] as Answer)[0]).toMatchObject({ id, lastMessage: { content: null } });
  });

  test('no key, a wrong one, two at once or one in the address is 401', async () => {
    const id = await open();
    const path = `/conversations/${id}`;
    await api.expect(401, 'GET', path, { key: null });
    await api.expect(401, 'GET', path, { key: 'tl_wrong' });
    await api.expect(401, 'GET', path, { headers: { authorization: `Bearer ${api.adminKey}` } });
    await api.expect(401, 'GET', `${path}?api_key=${api.adminKey}`, { key: null });
    await api.expect(401, 'GET', path, { key: null, headers: { authorization: `Basic ${api.adminKey}` } });
    await api.expect(200, 'GET', path, { key: null, headers: { authorization: `Bearer ${api.adminKey}` } });
    await api.expect(200, 'GET', path, { key: null, headers: { authorization: `bearer ${api.adminKey}` } });
  });
});

test('no log line holds what was said, a name or a key', async () => {
  await open({ message: 'unspeakable words', visitor: { name: 'Nameless Person', email: `${fresh('hidden')}@example.com` } });
  await api.call('POST', '/conversations', { raw: '{"message":"unspeakable words"' });
  await api.call('POST', '/conversations', { body: { message: 'unspeakable words', visitor: { email: 'unspeakable' } } });
  const logged = api.logged();
  for (const text of ['unspeakable', 'Nameless Person', 'hidden-', api.adminKey]) expect(logged).not.toContain(text);
});
