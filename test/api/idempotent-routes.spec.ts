import { Reflector } from '@nestjs/core';
import { metadataOf } from '../../src/event-store/aggregate.js';
import { AppModule } from '../../src/app.module.js';
import { IdempotencyKeys } from '../../src/commands/idempotency.js';
import { routesOf } from '../../src/http/routes.js';
import { declaredRoles } from '../../src/security/auth.guard.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventsAfter } from '../support/events-after.js';

/*
 * Every POST, walked: the same Idempotency-Key gets the first answer, byte for byte, and writes nothing, in the same process, in another
 * one, and in one that was started after it. A new POST route fails here until it has its requests.
 */

interface Keyed {
  readonly name: string;
  /** Below /api/support. */
  readonly path: string;
  readonly body: unknown;
  /** Other requests, which the same key must not be taken for. */
  readonly others: readonly unknown[];
}

/** Nobody listens there. */
const webhook = { url: 'http://127.0.0.1:9/', events: ['conversation.rated'] };

let count = 0;
const fresh = (prefix: string) => `${prefix}-${++count}`;

/** Requests of a route, on resources that they make for themselves; `{id}` is a conversation’s where they name no path of their own. */
type Requests = readonly (Omit<Keyed, 'path'> & Partial<Pick<Keyed, 'path'>>)[];
const REQUESTS: Readonly<Record<string, () => Promise<Requests> | Requests>> = {
  '/conversations': () => [
    { name: 'opened', body: { visitor: { name: 'Ada' }, message: 'Hi' }, others: [{ visitor: { name: 'Ada' }, message: 'Ho' }] },
    {
      name: 'opened for a known visitor',
      body: { visitor: { email: 'known@example.com' }, message: 'Hi' },
      others: [{ visitor: { email: 'known2@example.com' }, message: 'Hi' }],
    },
    {
      name: 'opened in an inbox, with a company, by an agent',
      body: { visitor: { companyId: 'company-1' }, inboxId: 'inbox-1', message: 'Hi', as: 'agent' },
      others: [{ visitor: { companyId: 'company-1' }, message: 'Hi', as: 'agent' }],
    },
  ],
  '/live-tickets': () => [{ name: 'a ticket', body: {}, others: [] }],
  '/conversations/bulk': async () => {
    const ids = [await conversation(), 'no such conversation', await conversation()];
    return [
      {
        name: 'many are told the same',
        body: { ids, action: { type: 'reply', message: 'x' } },
        others: [
          { ids, action: { type: 'reply', message: 'y' } },
          { ids: ids.slice(1), action: { type: 'reply', message: 'x' } },
        ],
      },
      {
        name: 'many are as they were',
        body: { ids, action: { type: 'setPriority', priority: 'normal' } },
        others: [{ ids, action: { type: 'setPriority', priority: 'low' } }],
      },
      {
        name: 'many go to one',
        body: { ids, action: { type: 'assign', assigneeId: 'agent-1', teamId: 'team-1' } },
        others: [{ ids, action: { type: 'assign', assigneeId: 'agent-1' } }],
      },
      {
        name: 'many move',
        body: { ids, action: { type: 'setInbox', inboxId: 'inbox-1' } },
        others: [{ ids, action: { type: 'setInbox', inboxId: 'inbox-2' } }],
      },
    ];
  },
  '/conversations/{id}/reply': async () => {
    const body = { title: 'Greeting', shortcut: fresh('/hello'), content: 'Hi {{visitor.name | "there"}}!' };
    const { id: cannedResponseId } = (await api.expect(201, 'POST', '/canned-responses', { body })).body.data;
    return [
      { name: 'reply', body: { message: 'x', status: 'pending' }, others: [{ message: 'y' }] },
      { name: 'note', body: { message: 'x', type: 'note' }, others: [{ message: 'x' }] },
      { name: 'canned', body: { cannedResponseId }, others: [{ message: 'x' }] },
    ];
  },
  '/conversations/{id}/messages': () => [{ name: 'message', body: { message: 'x' }, others: [{ message: 'y' }] }],
  '/conversations/{id}/assign': () => [
    { name: 'assigned', body: { assigneeId: 'agent-1' }, others: [{ assigneeId: null }] },
    { name: 'assigned to nobody, as it was', body: { assigneeId: null }, others: [{ assigneeId: 'agent-1' }] },
    { name: 'put into a queue', body: { teamId: 'team-1' }, others: [{ teamId: null }, { assigneeId: 'team-1' }] },
  ],
  '/conversations/{id}/snooze': () => [
    { name: 'snoozed', body: { until: 'next_reply' }, others: [{ until: new Date(api.clock.now() + 3_600_000).toISOString() }] },
  ],
  '/conversations/{id}/tags': () => [
    { name: 'tagged', body: { tags: ['a'] }, others: [{ tags: ['b'] }] },
    { name: 'tagged as it was', body: { tags: ['there'] }, others: [{ tags: ['b'] }] },
  ],
  '/conversations/{id}/rating': () => [{ name: 'rated', body: { rating: 5 }, others: [{ rating: 4 }] }],
  '/visitors': () => [
    { name: 'a visitor', body: { name: 'Ada' }, others: [{ name: 'Bo' }, { id: fresh('v'), name: 'Ada' }, { email: 'x@example.com' }] },
    { name: 'with an own id', body: { id: fresh('v'), name: 'Ada' }, others: [{ name: 'Ada' }, { id: fresh('v'), name: 'Ada' }] },
    {
      name: 'found as it was',
      body: { email: 'known@example.com' },
      others: [{ email: 'known2@example.com' }, { id: fresh('v') }],
    },
    { name: 'of a company', body: { name: 'Ada', companyId: 'company-1' }, others: [{ name: 'Ada' }] },
    { name: 'found and changed', body: { email: 'changed@example.com', phone: '1' }, others: [{ email: 'new@example.com' }] },
  ],
  '/visitor-tokens': () => [
    {
      name: 'a token',
      body: { visitor: { email: 'known@example.com' }, ttl: 60 },
      others: [{ visitor: { email: 'known2@example.com' }, ttl: 60 }],
    },
    { name: 'for one of a company', body: { visitor: { companyId: 'company-1' } }, others: [{ visitor: {} }] },
  ],
  '/visitor-tokens/revoke': () => [{ name: 'revoked', body: { visitorId: 'token-visitor' }, others: [{ visitorId: 'other-visitor' }] }],
  '/companies': () => [{ name: 'a company', body: { id: fresh('c'), name: 'Acme' }, others: [{ id: fresh('c'), name: 'Acme' }] }],
  '/inboxes': () => [
    {
      name: 'the default, with members',
      body: { name: 'Sales', isDefault: true, assignment: { mode: 'manual', agentIds: ['agent-1'] } },
      others: [{ name: 'Sales', isDefault: true }],
    },
    { name: 'an inbox', body: { name: 'Sales' }, others: [{ name: 'Deals' }, { id: fresh('i'), name: 'Sales' }] },
    { name: 'with an own id', body: { id: fresh('i'), name: 'Sales' }, others: [{ name: 'Sales' }, { id: fresh('i'), name: 'Sales' }] },
  ],
  '/agents': () => [
    { name: 'an agent', body: { name: 'Ada' }, others: [{ name: 'Bo' }, { id: fresh('a'), name: 'Ada' }] },
    { name: 'with an own id', body: { id: fresh('a'), name: 'Ada' }, others: [{ name: 'Ada' }, { id: fresh('a'), name: 'Ada' }] },
  ],
  '/teams': () => [
    { name: 'with members', body: { name: 'First', agentIds: ['agent-1'] }, others: [{ name: 'First', agentIds: [] }] },
    { name: 'a team', body: { name: 'First' }, others: [{ name: 'Second' }, { id: fresh('t'), name: 'First' }] },
    { name: 'with an own id', body: { id: fresh('t'), name: 'First' }, others: [{ name: 'First' }, { id: fresh('t'), name: 'First' }] },
  ],
  '/canned-responses': () => {
    const body = { title: 'Greeting', shortcut: fresh('/hello'), content: 'Hi!' };
    return [
      {
        name: 'a canned response',
        body,
        others: [
          { ...body, shortcut: fresh('/hello') },
          { ...body, title: 'Hello' },
        ],
      },
    ];
  },
  '/canned-responses/{id}/render': async () => {
    const body = { title: 'Greeting', shortcut: fresh('/hello'), content: 'Hi {{visitor.name | "there"}}!' };
    const { id } = (await api.expect(201, 'POST', '/canned-responses', { body })).body.data;
    return [
      {
        name: 'rendered',
        path: `/canned-responses/${id}/render`,
        body: { conversationId: await conversation() },
        others: [{ conversationId: await conversation() }],
      },
    ];
  },
  '/automation-rules': () => {
    // It never acts: otherwise its events would come between those that are counted here.
    const conditions = [{ field: 'conversation.subject', operator: 'equals', value: 'never' }];
    const body = { trigger: 'note.added', conditions, actions: [{ type: 'addTag', tag: 'x' }] };
    return [
      {
        name: 'a rule',
        body,
        others: [
          { ...body, name: 'x' },
          { ...body, conditions: { any: [] } },
        ],
      },
    ];
  },
  '/automation-rules/{id}/dry-run': async () => {
    const body = {
      trigger: 'message.received',
      conditions: [{ field: 'visitor.name', operator: 'is_set' }],
      actions: [{ type: 'unassign' }],
    };
    const { id } = (await api.expect(201, 'POST', '/automation-rules', { body: { ...body, enabled: false } })).body.data;
    const conversationId = await conversation();
    const path = `/automation-rules/${id}/dry-run`;
    return [{ name: 'asked', path, body: { conversationId }, others: [{ conversationId, revision: 0 }] }];
  },
  '/automation-rules/back-tests': async () => {
    const rule = { trigger: 'message.received', conditions: [], actions: [{ type: 'unassign' }] };
    const { id: ruleId } = (await api.expect(201, 'POST', '/automation-rules', { body: { ...rule, enabled: false } })).body.data;
    return [
      { name: 'a rule about the past', body: { rule }, others: [{ ruleId }] },
      { name: 'a saved rule about the past', body: { ruleId }, others: [{ ruleId, to: '2026-01-01T00:00:00Z' }] },
    ];
  },
  '/views': () => {
    const body = { name: 'Urgent', filter: { priority: ['urgent'] } };
    return [
      {
        name: 'a view',
        body,
        others: [
          { ...body, filter: {} },
          { ...body, shared: true },
        ],
      },
      { name: 'with an own id', body: { ...body, id: fresh('w') }, others: [body, { ...body, id: fresh('w') }] },
    ];
  },
  ...Object.fromEntries(
    Object.entries({
      companies: () => ({ id: fresh('c'), name: 'Acme' }),
      inboxes: () => ({ name: 'Sales' }),
      agents: () => ({ name: 'Ada' }),
      teams: () => ({ name: 'First' }),
      'canned-responses': () => ({ title: 'Greeting', shortcut: fresh('/hello'), content: 'Hi!' }),
      views: () => ({ name: 'Urgent', filter: {}, shared: true }),
      'automation-rules': () => ({
        trigger: 'note.added',
        conditions: [{ field: 'conversation.subject', operator: 'equals', value: 'never' }],
        actions: [{ type: 'unassign' }],
      }),
    }).map(([resource, bodyOf]) => [
      `/${resource}/{id}/unarchive`,
      async () => {
        const paths = [];
        for (const archived of [true, false]) {
          const { id } = (await api.expect(201, 'POST', `/${resource}`, { body: bodyOf() })).body.data as { id: string };
          if (archived) await api.expect(204, 'DELETE', `/${resource}/${id}`);
          paths.push(`/${resource}/${id}/unarchive`);
        }
        return paths.map((path) => ({ name: 'brought back', path, body: undefined, others: [{}] }));
      },
    ]),
  ),
  '/webhooks': () => [
    { name: 'a webhook, with its secret', body: webhook, others: [{ ...webhook, events: ['*'] }] },
    { name: 'a narrow one', body: { ...webhook, filters: { tag: 'a' } }, others: [webhook] },
  ],
  ...Object.fromEntries(
    Object.entries({
      enable: [undefined, [{}]],
      ping: [undefined, [{}]],
      'rotate-secret': [{ overlapHours: 1 }, [{ overlapHours: 2 }]],
      replay: [{ after: 'start', events: ['conversation.rated'] }, [{ after: 'start' }]],
    } as const).map(([action, [body, others]]) => [
      `/webhooks/{id}/${action}`,
      async () => {
        const { id } = (await api.expect(201, 'POST', '/webhooks', { body: webhook })).body.data as { id: string };
        if (action === 'enable') await api.expect(200, 'PUT', `/webhooks/${id}`, { body: { enabled: false } });
        return [{ name: action, path: `/webhooks/${id}/${action}`, body, others }];
      },
    ]),
  ),
  '/webhooks/{id}/deliveries/{deliveryId}/resend': async () => {
    const { id } = (await api.expect(201, 'POST', '/webhooks', { body: webhook })).body.data as { id: string };
    const ping = (await api.expect(202, 'POST', `/webhooks/${id}/ping`)).body.data as { id: string };
    return [{ name: 'resent', path: `/webhooks/${id}/deliveries/${ping.id}/resend`, body: undefined, others: [{}] }];
  },
  '/api-keys': () => [
    {
      name: 'an API key, with its secret',
      body: { name: 'CI', role: 'agent', rateLimitPerMinute: 5 },
      others: [{ name: 'CI', role: 'admin' }],
    },
    { name: 'bound to an agent', body: { name: 'CI', role: 'agent', agentId: 'agent-1' }, others: [{ name: 'CI', role: 'agent' }] },
  ],
};

let database: TestDatabase;
let api: TestApi;
let other: TestApi;
beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database, environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  other = await again();
  for (const [path, body] of [
    ['/agents', { id: 'acting', name: 'Acting' }],
    ['/agents', { id: 'agent-1', name: 'Bo' }],
    ['/teams', { id: 'team-1', name: 'First line', agentIds: [] }],
    ['/inboxes', { id: 'inbox-1', name: 'Sales' }],
    ['/inboxes', { id: 'inbox-2', name: 'Deals' }],
    ['/companies', { id: 'company-1', name: 'Acme' }],
  ] as const)
    await api.expect(201, 'POST', path, { body });
  for (const email of ['known@example.com', 'changed@example.com'])
    await api.expect(201, 'POST', '/visitors', { body: { email, name: 'K' } });
  for (const id of ['token-visitor', 'other-visitor']) await api.expect(201, 'POST', '/visitors', { body: { id } });
});
afterAll(async () => {
  await other.stop();
  await api.stop();
  await database.drop();
});
const again = () =>
  startApi({ database, environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '', WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });

const send = (instance: TestApi, key: string, { path, body, raw }: { path: string; body?: unknown; raw?: string | undefined }) =>
  instance.call('POST', path, {
    key: api.adminKey,
    headers: { 'idempotency-key': key, 'x-agent-id': 'acting' },
    ...(raw === undefined
      ? { body }
      : { raw, headers: { 'idempotency-key': key, 'x-agent-id': 'acting', 'content-type': 'application/json' } }),
  });
/** The same body with the names of its objects in another order, and white space. */
function spelledOtherwise(body: unknown): string | undefined {
  const reversed = (_name: string, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).reverse()) : value;
  return body === undefined ? undefined : JSON.stringify(body, reversed, 2);
}
const facts = ({ status, text, headers }: Answer) => ({
  status,
  text,
  etag: headers.get('etag'),
  position: headers.get('x-position'),
  location: headers.get('location'),
});
/** A conversation that every command on one has something to do with. */
async function conversation(): Promise<string> {
  const id = (await api.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: 'Hi' } })).body.data.id as string;
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['there'] } });
  for (const status of ['resolved', 'open']) await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status } });
  return id;
}

const POSTS = routesOf(AppModule.controllers)
  // Signing in is nobody's request yet, and a second one may well begin a second session.
  .filter(({ method, handler }) => method === 'POST' && declaredRoles(new Reflector(), handler) !== 'public')
  .map(({ path }) => path.replace('/api/support', ''));
const answered: { key: string; request: Keyed; first: Answer }[] = [];

test.each(POSTS)('POST %s', async (route) => {
  const requests = REQUESTS[route];
  if (requests === undefined) throw new Error(`say what a repeated POST ${route} looks like`);
  for (const { name, path: own, body, others } of await requests()) {
    const path = own ?? (route.includes('{id}') ? route.replace('{id}', await conversation()) : route);
    const request = { name, path, body, others };
    const key = fresh('key');
    const first = await send(api, key, request);
    expect([name, first.status < 300]).toEqual([name, true]);
    const head = await api.backend.store.head();
    for (const instance of [api, other, api])
      expect({ name, ...facts(await send(instance, key, request)) }).toEqual({ name, ...facts(first) });
    // Key order and white space are no part of a request.
    expect({ name, ...facts(await send(other, key, { path, raw: spelledOtherwise(body) })) }).toEqual({ name, ...facts(first) });
    for (const instance of [other, api])
      for (const otherBody of others) {
        const refused = await send(instance, key, { path, body: otherBody });
        expect([name, otherBody, refused.status, refused.body.code]).toEqual([name, otherBody, 422, 'idempotency_key_reused']);
      }
    expect([name, await eventsAfter(api, head)]).toEqual([name, []]);
    answered.push({ key, request, first });
  }
});

test('all of them, first sent to a build that took the hash over the body as it was sent', async () => {
  const older = await again();
  try {
    const keys = older.app.get(IdempotencyKeys);
    const hashes = keys.identify.bind(keys);
    keys.identify = async (...request) => {
      const { requestHash, earlierRequestHash } = await hashes(...request);
      return { requestHash: earlierRequestHash ?? requestHash };
    };
    for (const route of POSTS)
      for (const { name, path: own, body } of await (REQUESTS[route] ?? (() => []))()) {
        const path = own ?? (route.includes('{id}') ? route.replace('{id}', await conversation()) : route);
        const key = fresh('key');
        const first = await send(older, key, { path, body });
        const head = await api.backend.store.head();
        for (const instance of [other, older])
          expect({ name, ...facts(await send(instance, key, { path, body })) }).toEqual({ name, ...facts(first) });
        expect([name, await eventsAfter(api, head)]).toEqual([name, []]);
      }
  } finally {
    await older.stop();
  }
}, 120_000);

test('a key is free again when its request was refused, and is taken when another process was faster', async () => {
  await api.expect(201, 'POST', '/companies', { body: { id: 'taken', name: 'Acme' } });
  const refused = await send(api, 'mended', { path: '/companies', body: { id: 'taken', name: 'Other' } });
  expect(refused.body.code).toBe('id_taken');
  const shapeless = await send(other, 'mended', { path: '/companies', body: { id: fresh('c') } });
  expect(shapeless.status).toBe(400);
  expect((await send(other, 'mended', { path: '/companies', body: { id: fresh('c'), name: 'Other' } })).status).toBe(201);

  const unknown = await send(api, 'mended-key', { path: '/api-keys', body: { name: 'x', role: 'agent', agentId: 'nobody' } });
  expect(unknown.body.code).toBe('unknown_agent');
  expect((await send(api, 'mended-key', { path: '/api-keys', body: { name: 'x', role: 'agent' } })).status).toBe(201);

  const bodies = Array.from({ length: 10 }, () => ({ id: fresh('race'), name: 'Acme' }));
  const race = await Promise.all(bodies.map((body, i) => send(i % 2 === 0 ? api : other, 'race', { path: '/companies', body })));
  expect(race.filter(({ status }) => status === 201)).toHaveLength(1);
  for (const { status, body } of race) if (status !== 201) expect([409, 422]).toContain(body.status);
  const made = await Promise.all(bodies.map(({ id }) => api.call('GET', `/companies/${id}`)));
  expect(made.filter(({ status }) => status === 200)).toHaveLength(1);
});

/** All that has been made is archived, but for the default inbox, which cannot be. */
async function archiveAll(): Promise<void> {
  for (const resource of ['visitors', 'companies', 'inboxes', 'teams', 'canned-responses', 'views', 'agents'])
    for (;;) {
      const { body } = await api.expect(200, 'GET', `/${resource}?limit=100`, {
        headers: { 'x-min-position': await api.backend.store.head() },
      });
      const left = (body.data as { id: string; isDefault?: boolean }[]).filter(({ isDefault }) => isDefault !== true);
      if (left.length === 0) break;
      for (const { id } of left) await api.expect(204, 'DELETE', `/${resource}/${id}`);
    }
}

test('all of them once more, in a process that was started since, when all that they name and the agent who acted are archived', async () => {
  expect(answered.length).toBeGreaterThanOrEqual(POSTS.length);
  await archiveAll();
  const head = await api.backend.store.head();
  const restarted = await again();
  try {
    for (const { key, request, first } of answered)
      expect({ name: request.name, ...facts(await send(restarted, key, request)) }).toEqual({ name: request.name, ...facts(first) });
    // What was not answered before, the archived agent does no more.
    for (const { request } of answered) {
      const refused = await send(restarted, fresh('too-late'), request);
      expect([request.path, request.name, refused.status, refused.body.code]).toEqual([
        request.path,
        request.name,
        409,
        'resource_archived',
      ]);
    }
    // Conversations of other tests may still be losing their archived assignees, which is nobody's retry.
    const written = await eventsAfter(api, head);
    expect(written.filter((event) => metadataOf(event).actor.type !== 'system')).toEqual([]);
  } finally {
    await restarted.stop();
  }
});
