import { Reflector } from '@nestjs/core';
import { AppModule } from '../../src/app.module.js';
import { declaredRoles } from '../../src/security/auth.guard.js';
import { requestTypesOf } from '../../src/docs/openapi.js';
import { CALLER_ROLES, type CallerRole, ROLES } from '../../src/security/roles.js';
import { API_PREFIX, type Route, routesOf } from '../../src/http/routes.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { eventsAfter } from '../support/events-after.js';

/*
 * Every route, walked: with no key, keys that are none, the keys of every role, a visitor's token and another organization's key, on an id
 * of one's own, another's and nobody's. Who may not is told 401 or 403, and another's id is answered like nobody's, byte for byte. A new
 * route fails here until it has a body, and a new resource until it can be made.
 */

/** A rule that does nothing. */
const RULE = { trigger: 'message.received', conditions: [], actions: [{ type: 'addTag', tag: 'x' }], enabled: false };

/** A body that each route takes. */
const BODIES: Readonly<Record<string, () => unknown>> = {
  'POST /conversations': () => ({ visitor: {}, message: 'Hi' }),
  'POST /conversations/bulk': () => ({ ids: [ids.conversations?.own ?? ''], action: { type: 'addTags', tags: ['a'] } }),
  'PUT /conversations/{id}': () => ({ subject: 'x' }),
  'POST /conversations/{id}/reply': () => ({ message: 'x' }),
  'POST /conversations/{id}/messages': () => ({ message: 'x' }),
  'POST /conversations/{id}/assign': () => ({ assigneeId: null }),
  'POST /conversations/{id}/snooze': () => ({ until: 'next_reply' }),
  'POST /conversations/{id}/tags': () => ({ tags: ['a'] }),
  'POST /conversations/{id}/rating': () => ({ rating: 5 }),
  'POST /visitors': () => ({ name: 'x' }),
  'PUT /visitors/{id}': () => ({ name: 'x' }),
  'POST /visitor-tokens': () => ({ visitor: {} }),
  'POST /visitor-tokens/revoke': () => ({ visitorId: ids.visitors?.own ?? '' }),
  'POST /companies': () => ({ id: fresh('company'), name: 'x' }),
  'PUT /companies/{id}': () => ({ name: 'x' }),
  'POST /inboxes': () => ({ name: 'x' }),
  'PUT /inboxes/{id}': () => ({ name: 'x' }),
  'POST /agents': () => ({ name: 'x' }),
  'PUT /agents/{id}': () => ({ name: 'x' }),
  'POST /teams': () => ({ name: 'x' }),
  'PUT /teams/{id}': () => ({ name: 'x' }),
  'POST /canned-responses': () => ({ title: 'x', shortcut: fresh('s'), content: 'x' }),
  'PUT /canned-responses/{id}': () => ({ title: 'x' }),
  'POST /canned-responses/{id}/render': () => ({ conversationId: ids.conversations?.own ?? '' }),
  'POST /automation-rules': () => RULE,
  'PUT /automation-rules/{id}': () => ({ name: 'x' }),
  'POST /automation-rules/{id}/dry-run': () => ({ conversationId: ids.conversations?.own ?? '' }),
  'POST /automation-rules/back-tests': () => ({ ruleId: ids['automation-rules']?.own ?? '' }),
  'POST /views': () => ({ name: 'x', filter: {} }),
  'PUT /views/{id}': () => ({ name: 'x' }),
  'POST /webhooks': () => webhook,
  'PUT /webhooks/{id}': () => ({ ignoreOwnWrites: true }),
  'POST /webhooks/{id}/rotate-secret': () => ({}),
  'POST /webhooks/{id}/replay': () => ({ after: 'start', dryRun: true }),
  'POST /api-keys': () => ({ name: 'x', role: 'analyst' }),
  'PUT /api-keys/{id}': () => ({ name: 'x' }),
};

/** Ids in bodies: what they name must be the organization's own, and another's is answered like nobody's. */
const NAMED_IN_BODIES: readonly (readonly [string, keyof typeof MADE, (id: string) => unknown])[] = [
  ['POST /conversations', 'inboxes', (id) => ({ visitor: {}, message: 'x', inboxId: id })],
  ['POST /conversations', 'conversations', (id) => ({ visitor: {}, message: 'x', previousConversationId: id })],
  ['POST /conversations', 'companies', (id) => ({ visitor: { companyId: id }, message: 'x' })],
  ['PUT /conversations/{id}', 'inboxes', (id) => ({ inboxId: id })],
  ['POST /conversations/{id}/assign', 'agents', (id) => ({ assigneeId: id })],
  ['POST /conversations/{id}/assign', 'teams', (id) => ({ assigneeId: id })],
  ['POST /conversations/bulk', 'teams', (id) => ({ ids: [ids.conversations.own], action: { type: 'assign', assigneeId: id } })],
  ['POST /conversations/bulk', 'inboxes', (id) => ({ ids: [ids.conversations.own], action: { type: 'setInbox', inboxId: id } })],
  ['POST /conversations/{id}/reply', 'canned-responses', (id) => ({ cannedResponseId: id })],
  ['POST /visitors', 'companies', (id) => ({ name: 'x', companyId: id })],
  ['PUT /visitors/{id}', 'companies', (id) => ({ companyId: id })],
  ['POST /visitor-tokens', 'companies', (id) => ({ visitor: { companyId: id } })],
  ['POST /visitor-tokens/revoke', 'visitors', (id) => ({ visitorId: id })],
  ['POST /inboxes', 'agents', (id) => ({ name: 'x', assignment: { mode: 'manual', agentIds: [id] } })],
  ['PUT /inboxes/{id}', 'agents', (id) => ({ assignment: { mode: 'manual', agentIds: [id] } })],
  ['POST /teams', 'agents', (id) => ({ name: 'x', agentIds: [id] })],
  ['PUT /teams/{id}', 'agents', (id) => ({ agentIds: [id] })],
  ['POST /canned-responses/{id}/render', 'conversations', (id) => ({ conversationId: id })],
  ['POST /automation-rules', 'agents', (id) => ({ ...RULE, actions: [{ type: 'assign', assigneeId: id }] })],
  ['POST /automation-rules', 'teams', (id) => ({ ...RULE, conditions: [{ field: 'conversation.teamId', operator: 'equals', value: id }] })],
  [
    'POST /automation-rules',
    'inboxes',
    (id) => ({ ...RULE, conditions: [{ field: 'conversation.inboxId', operator: 'in', value: [id] }] }),
  ],
  ['POST /automation-rules', 'companies', (id) => ({ ...RULE, conditions: [{ field: 'company.id', operator: 'equals', value: id }] })],
  ['PUT /automation-rules/{id}', 'agents', (id) => ({ actions: [{ type: 'assign', assigneeId: id }] })],
  ['POST /automation-rules/{id}/dry-run', 'conversations', (id) => ({ conversationId: id })],
  ['POST /automation-rules/back-tests', 'automation-rules', (id) => ({ ruleId: id })],
  ['POST /api-keys', 'agents', (id) => ({ name: 'x', role: 'agent', agentId: id })],
];

/** Nobody listens there. */
const webhook = { url: 'http://127.0.0.1:9/', events: ['conversation.rated'] };

/** What makes one of each resource. */
const MADE = {
  conversations: () => ({ visitor: { id: fresh('visitor') }, message: 'Hi' }),
  visitors: () => ({ name: 'x' }),
  companies: () => ({ id: fresh('company'), name: 'x' }),
  inboxes: () => ({ name: 'x' }),
  agents: () => ({ name: 'x' }),
  teams: () => ({ name: 'x' }),
  'canned-responses': () => ({ title: 'x', shortcut: fresh('s'), content: 'x' }),
  views: () => ({ name: 'x', filter: {}, shared: true }),
  webhooks: () => webhook,
  'automation-rules': () => RULE,
  'automation-rules/back-tests': () => ({ rule: RULE }),
  'api-keys': () => ({ name: 'x', role: 'analyst' }),
} as const;
type Kind = keyof typeof MADE;

let count = 1_000;
const fresh = (prefix: string) => `${prefix}-${++count}`;

let api: TestApi;
let other: { organizationId: string; adminKey: string };
const keys = {} as Record<CallerRole, string>;
let strangers: Readonly<Record<string, string | null>>;
/** Ids that stay. Nobody's have the shape and the length of another's, so that whole answers can be compared. */
const ids = {} as Record<Kind, { own: string; foreign: string; unknown: string }>;
/** A conversation of the same organization, and of another visitor than the one with the token. */
let anothers: string;

async function make(kind: Kind, key: string): Promise<string> {
  return (await api.expect(kind === 'automation-rules/back-tests' ? 202 : 201, 'POST', `/${kind}`, { key, body: MADE[kind]() })).body.data
    .id as string;
}
const nobodys = (id: string) => {
  const last = id.at(-1) ?? '';
  return `${id.slice(0, -1)}${last === 'a' ? 'b' : 'a'}`;
};

beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  other = await api.otherOrganization();
  for (const role of ROLES) keys[role] = await api.keyFor(role);
  for (const kind of Object.keys(MADE) as Kind[]) {
    const [own, foreign] = [await make(kind, api.adminKey), await make(kind, other.adminKey)];
    ids[kind] = { own, foreign, unknown: nobodys(foreign) };
  }
  anothers = ids.conversations.own;
  const minted = await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: 'with-token' } } });
  keys.visitor = minted.body.data.token as string;
  const revoked = (await api.expect(201, 'POST', '/api-keys', { body: { name: 'x', role: 'admin' } })).body.data;
  expect((await api.call('GET', '/agents', { key: revoked.key })).status).toBe(200);
  await api.expect(204, 'DELETE', `/api-keys/${revoked.id}`);
  const expired = await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: 'revoked-token' } } });
  await api.expect(200, 'POST', '/visitor-tokens/revoke', { body: { visitorId: 'revoked-token' } });
  strangers = {
    'no key': null,
    'a key that is none': `tl_${'x'.repeat(32)}`,
    'a revoked key': revoked.key as string,
    'a revoked token': expired.body.data.token as string,
  };
});
afterAll(() => api.stop());

const ROUTES = routesOf(AppModule.controllers).filter(({ handler }) => declaredRoles(new Reflector(), handler) !== 'public');
const nameOf = ({ method, path }: Route) => `${method} ${path.replace(API_PREFIX, '')}`;
const kindOf = (name: string) => {
  const kind = name.includes('/automation-rules/back-tests/') ? 'automation-rules/back-tests' : (name.split(/[ /]/)[2] as Kind);
  if (name.includes('{id}') && !(kind in MADE)) throw new Error(`say how one of ${kind} is made`);
  return kind;
};

function bodyOf(route: Route): { body?: unknown } {
  if (requestTypesOf(route).body === undefined) return {};
  const body = BODIES[nameOf(route)];
  if (body === undefined) throw new Error(`say what ${nameOf(route)} takes`);
  return { body: body() };
}

/** @param within the id of what the resource has, such as a webhook's delivery */
function send(route: Route, key: string | null, id: string, body = bodyOf(route), within = 'none'): Promise<Answer> {
  const path = route.path
    .replace(API_PREFIX, '')
    .replace('{id}', id)
    .replace('{metric}', 'rating')
    .replace(/\{\w+\}/, within);
  return api.call(route.method, path, { key, ...body });
}

/** All that came, without what names the request: its time, its id, and the id that was asked for. */
function bytes({ status, headers, text }: Answer, id: string) {
  const named = Object.fromEntries([...headers].filter(([name]) => !['date', 'x-request-id'].includes(name)));
  return { status, headers: named, text: text.replaceAll(id, '{id}').replace(/"requestId":"[^"]*"/, '') };
}

test('every resource with an id can be made here', () => {
  for (const route of ROUTES) if (route.path.includes('{')) kindOf(nameOf(route));
});

describe.each(ROUTES.map((route) => [nameOf(route), route] as const))('%s', (name, route) => {
  const roles = declaredRoles(new Reflector(), route.handler) as readonly CallerRole[];
  const hasId = route.path.includes('{id}');
  const idsOf = () => (hasId ? Object.values(ids[kindOf(name)]) : ['']);

  test('is closed to strangers, whatever they ask for', async () => {
    const head = await api.backend.store.head();
    const told = new Set<string>();
    for (const [who, key] of Object.entries(strangers))
      for (const id of idsOf()) {
        const answer = await send(route, key, id);
        expect([who, answer.status]).toEqual([who, 401]);
        told.add(JSON.stringify(bytes(answer, id === '' ? '{id}' : id)));
      }
    expect(told.size).toBe(1);
    expect(await eventsAfter(api, head)).toEqual([]);
  });

  const refused = CALLER_ROLES.filter((role) => !roles.includes(role));
  if (refused.length > 0)
    test(`is closed to ${refused.join(', ')}, whatever they ask for`, async () => {
      const head = await api.backend.store.head();
      for (const role of refused) {
        const told = new Set<string>();
        for (const id of idsOf()) {
          const answer = await send(route, keys[role], id);
          expect([role, answer.status, answer.body.code]).toEqual([role, 403, 'forbidden']);
          told.add(JSON.stringify(bytes(answer, id === '' ? '{id}' : id)));
        }
        expect(told.size).toBe(1);
      }
      expect(await eventsAfter(api, head)).toEqual([]);
    });

  test.each(roles)('lets %s in', async (role) => {
    const own = hasId ? await ownOf(role, kindOf(name)) : '';
    const within = route.path.includes('{deliveryId}') ? await deliveryOf(own) : 'none';
    const answer = await send(route, keys[role], own, bodyOf(route), within);
    expect([401, 403, 404]).not.toContain(answer.status);
    expect(answer.status).toBeLessThan(500);
  });

  if (hasId)
    test.each([...roles, 'another organization'] as const)('tells %s of another’s id what it tells of nobody’s', async (who) => {
      const head = await api.backend.store.head();
      const { own, foreign, unknown } = ids[kindOf(name)];
      const key = who === 'another organization' ? other.adminKey : keys[who];
      const of = (id: string) => send(route, key, id).then((answer) => bytes(answer, id));
      const theirs = who === 'another organization' ? own : foreign;
      const [anothersIs, nobodysIs] = [await of(theirs), await of(who === 'another organization' ? nobodys(own) : unknown)];
      expect(nobodysIs.status).toBe(404);
      expect(anothersIs).toEqual(nobodysIs);
      // Within the organization a visitor is a stranger to every conversation but its own.
      if (who === 'visitor') expect(await of(anothers)).toEqual({ ...nobodysIs, headers: (await of(nobodys(anothers))).headers });
      expect(await eventsAfter(api, head)).toEqual([]);
    });
});

const deliveryOf = async (webhookId: string) => (await api.expect(202, 'POST', `/webhooks/${webhookId}/ping`)).body.data.id as string;

/** A new one, since what one role archives another could not change. */
async function ownOf(role: CallerRole, kind: Kind): Promise<string> {
  // A view is its owner's and the admins'.
  if (role !== 'visitor') return make(kind, kind === 'views' && role === 'agent' ? keys.agent : api.adminKey);
  return (await api.expect(201, 'POST', '/conversations', { key: keys.visitor, body: { visitor: {}, message: 'Hi' } })).body.data
    .id as string;
}

test.each(NAMED_IN_BODIES)('%s names %s of its own organization alone', async (name, kind, body) => {
  const route = ROUTES.find((one) => nameOf(one) === name);
  if (route === undefined) throw new Error(`there is no ${name}`);
  const own = name.includes('{id}') ? await make(kindOf(name), api.adminKey) : '';
  const head = await api.backend.store.head();
  const of = (id: string) => send(route, api.adminKey, own, { body: body(id) }).then((answer) => bytes(answer, id));
  const [foreign, unknown] = [await of(ids[kind].foreign), await of(ids[kind].unknown)];
  expect([404, 422]).toContain(unknown.status);
  expect(foreign).toEqual(unknown);
  expect(await eventsAfter(api, head)).toEqual([]);
  expect((await send(route, api.adminKey, own, { body: body(ids[kind].own) })).status).toBeLessThan(300);
});
