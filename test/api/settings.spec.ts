import { apiKeyAggregate } from '../../src/api-keys/api-key.js';
import { ApiKeyWriter } from '../../src/api-keys/api-key.writer.js';
import { Transactor } from '../../src/commands/transactor.js';
import { createOrganization, organizationAggregate, retireInbox } from '../../src/organizations/organization.js';
import { OrganizationWriter, systemContext } from '../../src/organizations/organization.writer.js';
import { ApiKeyLookup } from '../../src/security/api-key-lookup.js';
import { randomIds } from '../../src/ids.js';
import { ROLES, type Role } from '../../src/security/roles.js';
import type { EventAnswer } from '../../src/read-models/history.js';
import { AssigneeReader } from '../../src/team/assignee.reader.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';

const LONG = 'x'.repeat(201);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Bodies that no resource takes: each wrong in the named field. */
const badName = (body: object, name = 'name'): [string, unknown][] => [
  ...[undefined, null, 5, '', ' \u200b\u202e', LONG].map((value): [string, unknown] => [name, { ...body, [name]: value }]),
  ['archived', { ...body, archived: true }],
  ['organizationId', { ...body, organizationId: 'other' }],
];
const badId = (body: object): [string, unknown][] => [5, '', 'a/b', 'ü', 'x'.repeat(129), ['a']].map((id) => ['id', { ...body, id }]);

interface Resource {
  readonly path: string;
  /** A good body without an id, and the answer's fields that follow from it. */
  readonly body: Record<string, unknown>;
  readonly made: Record<string, unknown>;
  readonly change: Record<string, unknown>;
  readonly changed: Record<string, unknown>;
  /** The types of the events of making, changing and archiving one, and what of its data the change holds. */
  readonly events: readonly [string, string, string];
  readonly changeEvent: Record<string, unknown>;
  readonly id: 'required' | 'optional' | 'none';
  /** The event of bringing one back; absent where that is not possible. */
  readonly unarchived?: string;
  /** A field that no two of them may have alike. */
  readonly unique?: string;
  /** Who may write; everybody but the analyst of API keys may read. */
  readonly writers: readonly Role[];
  /** Who may make one, where these are more than may write to another's. */
  readonly makers?: readonly Role[];
  readonly readers: readonly Role[];
  readonly bad: readonly [string, unknown][];
  readonly badChange: readonly [string, unknown][];
}

const hours = {
  timezone: 'Europe/Berlin',
  schedule: {
    monday: [
      ['09:00', '12:00'],
      ['13:00', '17:00'],
    ],
    friday: [['22:00', '24:00']],
  },
};
const inbox = { name: 'Sales' };
const agent = { name: 'Ada' };
const team = { name: 'First line' };
const company = { id: 'acme', name: 'Acme' };
const apiKey = { name: 'CI', role: 'agent' };
/** Nobody listens there. */
const webhook = { url: 'http://127.0.0.1:9/hook', events: ['conversation.rated'] };
const view = { name: 'Urgent', filter: {} };
const automation = { trigger: 'message.received', conditions: [], actions: [{ type: 'unassign' }] };
const canned = { title: 'Greeting', shortcut: '/bad', content: 'Hi!' };

const RESOURCES: readonly Resource[] = [
  {
    path: '/inboxes',
    id: 'optional',
    body: {
      name: 'Sales',
      description: 'Offers',
      email: 'sales@example.com',
      color: '#aa00ff',
      icon: '💶',
      assignment: { mode: 'least_busy', cap: 5 },
      workingHours: hours,
      autoResponder: { enabled: true, message: 'Soon.' },
    },
    made: {
      name: 'Sales',
      description: 'Offers',
      email: 'sales@example.com',
      color: '#aa00ff',
      icon: '💶',
      isDefault: false,
      assignment: { mode: 'least_busy', agentIds: [], cap: 5 },
      workingHours: hours,
      autoResponder: { enabled: true, message: 'Soon.', delaySeconds: 0, onlyOutsideWorkingHours: false },
      archived: false,
    },
    change: { name: 'Deals', description: null, workingHours: null, assignment: { mode: 'manual' } },
    changed: { name: 'Deals', description: null, workingHours: null, assignment: { mode: 'manual', agentIds: [], cap: null }, icon: '💶' },
    unarchived: 'InboxUnarchived',
    events: ['InboxCreated', 'InboxChanged', 'InboxArchived'],
    changeEvent: { name: 'Deals', description: null, workingHours: null },
    writers: ['admin'],
    readers: ROLES,
    bad: [
      ...badName(inbox),
      ...badId(inbox),
      ['description', { ...inbox, description: 'x'.repeat(2_001) }],
      ['email', { ...inbox, email: 'nobody' }],
      ['color', { ...inbox, color: 'x'.repeat(51) }],
      ['icon', { ...inbox, icon: 5 }],
      ['isDefault', { ...inbox, isDefault: 'true' }],
      ['assignment', { ...inbox, assignment: [] }],
      ['assignment', { ...inbox, assignment: 'manual' }],
      ['assignment.mode', { ...inbox, assignment: {} }],
      ['assignment.mode', { ...inbox, assignment: { mode: 'random' } }],
      ['assignment.agentIds', { ...inbox, assignment: { mode: 'manual', agentIds: 'ada' } }],
      ['assignment.agentIds[1]', { ...inbox, assignment: { mode: 'manual', agentIds: ['ada', 'ada'] } }],
      ['assignment.agentIds[0]', { ...inbox, assignment: { mode: 'manual', agentIds: [null] } }],
      ['assignment.agentIds', { ...inbox, assignment: { mode: 'manual', agentIds: Array.from({ length: 501 }, (_, n) => `a${n}`) } }],
      ['assignment.cap', { ...inbox, assignment: { mode: 'manual', cap: 0 } }],
      ['assignment.cap', { ...inbox, assignment: { mode: 'manual', cap: 1.5 } }],
      ['assignment.members', { ...inbox, assignment: { mode: 'manual', members: [] } }],
      ['workingHours', { ...inbox, workingHours: [] }],
      ['workingHours.timezone', { ...inbox, workingHours: { ...hours, timezone: 'Mars/Olympus' } }],
      ['workingHours.timezone', { ...inbox, workingHours: { schedule: {} } }],
      ['workingHours.schedule', { ...inbox, workingHours: { timezone: 'UTC' } }],
      ['workingHours.schedule.monday[0]', { ...inbox, workingHours: { timezone: 'UTC', schedule: { monday: [['17:00', '09:00']] } } }],
      ['workingHours.schedule.mon', { ...inbox, workingHours: { timezone: 'UTC', schedule: { mon: [] } } }],
      ['autoResponder.enabled', { ...inbox, autoResponder: { message: 'Soon.' } }],
      ['autoResponder.message', { ...inbox, autoResponder: { enabled: true, message: '' } }],
      ['autoResponder.delaySeconds', { ...inbox, autoResponder: { enabled: true, message: 'Soon.', delaySeconds: -1 } }],
      ['autoResponder.onlyOutsideWorkingHours', { ...inbox, autoResponder: { enabled: true, message: 'x', onlyOutsideWorkingHours: 1 } }],
    ],
    badChange: [
      ['name', { name: null }],
      ['id', { id: 'other' }],
      ['assignment', { assignment: null }],
      ['isDefault', { isDefault: null }],
    ],
  },
  {
    path: '/agents',
    id: 'optional',
    body: { name: 'Ada', email: 'ada@example.com', availability: 'away' },
    made: { name: 'Ada', email: 'ada@example.com', availability: 'away', archived: false },
    change: { availability: 'online', email: null },
    changed: { name: 'Ada', email: null, availability: 'online' },
    unarchived: 'AssigneeUnarchived',
    events: ['AgentCreated', 'AgentChanged', 'AssigneeArchived'],
    changeEvent: { availability: 'online', email: null },
    writers: ['admin'],
    readers: ROLES,
    bad: [
      ...badName(agent),
      ...badId(agent),
      ['email', { ...agent, email: 'ada' }],
      ['availability', { ...agent, availability: 'busy' }],
      ['agentIds', { ...agent, agentIds: [] }],
    ],
    badChange: [
      ['name', { name: null }],
      ['id', { id: 'other' }],
      ['availability', { availability: null }],
    ],
  },
  {
    path: '/teams',
    id: 'optional',
    body: { name: 'First line' },
    made: { name: 'First line', agentIds: [], archived: false },
    change: { name: 'Second line' },
    changed: { name: 'Second line', agentIds: [] },
    unarchived: 'AssigneeUnarchived',
    events: ['TeamCreated', 'TeamChanged', 'AssigneeArchived'],
    changeEvent: { name: 'Second line' },
    writers: ['admin'],
    readers: ROLES,
    bad: [
      ...badName(team),
      ...badId(team),
      ['agentIds[1]', { ...team, agentIds: ['a', 'a'] }],
      ['agentIds[0]', { ...team, agentIds: ['a b'] }],
      ['agentIds', { ...team, agentIds: { 0: 'a' } }],
      ['agentIds', { ...team, agentIds: Array.from({ length: 501 }, (_, n) => `a${n}`) }],
      ['availability', { ...team, availability: 'away' }],
    ],
    badChange: [
      ['name', { name: null }],
      ['id', { id: 'other' }],
      ['agentIds', { agentIds: null }],
    ],
  },
  {
    path: '/companies',
    id: 'required',
    body: { name: 'Acme', attributes: { plan: 'pro', seats: 5, vip: true } },
    made: { name: 'Acme', attributes: { plan: 'pro', seats: 5, vip: true }, archived: false },
    change: { attributes: { plan: null, seats: 6 } },
    changed: { name: 'Acme', attributes: { seats: 6, vip: true } },
    unarchived: 'CompanyUnarchived',
    events: ['CompanyCreated', 'CompanyChanged', 'CompanyArchived'],
    changeEvent: { attributes: { set: { seats: 6 }, removed: ['plan'] } },
    writers: ['admin', 'agent'],
    readers: ROLES,
    bad: [
      ...badName(company),
      ...badId(company),
      ['id', { name: 'Acme' }],
      ['id', { name: 'Acme', id: null }],
      ['attributes', { ...company, attributes: [] }],
      ['attributes.plan', { ...company, attributes: { plan: ['pro'] } }],
      [`attributes.${'x'.repeat(64)}…`, { ...company, attributes: { ['x'.repeat(65)]: 1 } }],
      ['attributes', { ...company, attributes: Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`a${n}`, n])) }],
    ],
    badChange: [
      ['name', { name: null }],
      ['id', { id: 'other' }],
      ['attributes', { attributes: null }],
    ],
  },
  {
    path: '/automation-rules',
    id: 'none',
    body: { name: 'Refunds', ...automation },
    made: { name: 'Refunds', ...automation, enabled: true, order: 0, stopOnMatch: false, archived: false },
    change: { name: null, order: 5, actions: [{ type: 'snooze', seconds: 60 }] },
    changed: { name: null, ...automation, actions: [{ type: 'snooze', seconds: 60 }], order: 5 },
    unarchived: 'RuleUnarchived',
    events: ['RuleCreated', 'RuleChanged', 'RuleArchived'],
    changeEvent: { name: null, order: 5, actions: [{ type: 'snooze', seconds: 60 }] },
    writers: ['admin'],
    readers: ROLES,
    bad: [
      ...badName(automation).filter(
        ([, body]) => ((body as { name?: string | null }).name ?? null) !== null || 'archived' in (body as object),
      ),
      ['id', { ...automation, id: 'mine' }],
      ['trigger', { ...automation, trigger: 'message.lost' }],
      ['trigger.seconds', { ...automation, trigger: { type: 'unassigned_for', seconds: 0 } }],
      ['trigger', { conditions: [], actions: automation.actions }],
      ['conditions', { ...automation, conditions: null }],
      ['conditions[0].field', { ...automation, conditions: [{ field: 'message.colour', operator: 'equals', value: 'x' }] }],
      ['conditions[0].operator', { ...automation, conditions: [{ field: 'message.content', operator: 'like', value: 'x' }] }],
      ['conditions[0].field', { ...automation, conditions: [{ field: 'previous.status', operator: 'equals', value: 'open' }] }],
      ['actions', { ...automation, actions: [] }],
      ['actions[0]', { ...automation, actions: ['unassign'] }],
      ['actions[0].type', { ...automation, actions: [{ type: 'explode' }] }],
      ['actions[0].type', { ...automation, actions: [{}] }],
      ['actions[1].tag', { ...automation, actions: [{ type: 'unassign' }, { type: 'addTag' }] }],
      ['actions[0].more', { ...automation, actions: [{ type: 'unassign', more: 1 }] }],
      ['actions[0].message', { ...automation, actions: [{ type: 'reply', message: '' }] }],
      ['actions[0].message.content.title', { ...automation, actions: [{ type: 'note', message: { type: 'card', content: {} } }] }],
      ['actions[0].status', { ...automation, actions: [{ type: 'setStatus', status: 'snoozed' }] }],
      ['actions[0].seconds', { ...automation, actions: [{ type: 'snooze', until: 'next_reply', seconds: 5 }] }],
      ['actions[0].until', { ...automation, actions: [{ type: 'snooze' }] }],
      ['actions[0].until', { ...automation, actions: [{ type: 'snooze', until: '2020-01-01T00:00:00Z' }] }],
      ['enabled', { ...automation, enabled: 'false' }],
      ['order', { ...automation, order: 1.5 }],
    ],
    badChange: [
      ['trigger', { trigger: null }],
      ['conditions', { conditions: null }],
      ['actions', { actions: null }],
      ['stopOnMatch', { stopOnMatch: null }],
      ['conditions[0].field', { conditions: [{ field: 'previous.tags', operator: 'is_set' }] }],
    ],
  },
  {
    path: '/canned-responses',
    id: 'none',
    unique: 'shortcut',
    body: { title: 'Greeting', content: 'Hi {{visitor.name | "there"}}!' },
    made: { title: 'Greeting', content: 'Hi {{visitor.name | "there"}}!', archived: false },
    change: { title: 'Hello' },
    changed: { title: 'Hello', content: 'Hi {{visitor.name | "there"}}!' },
    unarchived: 'CannedResponseUnarchived',
    events: ['CannedResponseCreated', 'CannedResponseChanged', 'CannedResponseArchived'],
    changeEvent: { title: 'Hello' },
    writers: ['admin', 'agent'],
    readers: ROLES,
    bad: [
      ...badName(canned, 'title'),
      ...badName(canned, 'content').filter(([, body]) => (body as typeof canned).content !== LONG),
      ...badName(canned, 'shortcut'),
      ['shortcut', { ...canned, shortcut: 'x'.repeat(51) }],
      ['shortcut', { ...canned, shortcut: 'two words' }],
      ['shortcut', { ...canned, shortcut: '/x\u00a0y' }],
      ['content', { ...canned, content: 'x'.repeat(10_001) }],
      ['content', { ...canned, content: ['x'] }],
      ['id', { ...canned, id: 'mine' }],
      ['name', { ...canned, name: 'x' }],
    ],
    badChange: [
      ['title', { title: null }],
      ['shortcut', { shortcut: null }],
      ['content', { content: '' }],
      ['id', { id: 'other' }],
    ],
  },
  {
    path: '/views',
    id: 'optional',
    body: {
      name: 'Urgent',
      filter: { status: ['open'], createdAfter: '2026-01-01T01:00:00+01:00' },
      sort: { by: 'priority' },
      shared: true,
    },
    made: {
      name: 'Urgent',
      filter: { status: ['open'], createdAfter: '2026-01-01T00:00:00.000Z' },
      sort: { by: 'priority', order: 'asc' },
      shared: true,
      owner: { type: 'apiKey' },
      archived: false,
    },
    change: { name: 'Late', filter: { priority: ['urgent'] } },
    changed: { name: 'Late', filter: { priority: ['urgent'] }, sort: { by: 'priority', order: 'asc' }, shared: true },
    unarchived: 'ViewUnarchived',
    events: ['ViewCreated', 'ViewChanged', 'ViewArchived'],
    changeEvent: { name: 'Late', filter: { priority: ['urgent'] } },
    writers: ['admin'],
    makers: ['admin', 'agent'],
    readers: ROLES,
    bad: [
      ...badName(view),
      ...badId(view),
      ['filter', { name: 'Urgent' }],
      ['filter', { ...view, filter: null }],
      ['filter', { ...view, filter: [] }],
      ['filter.status[0]', { ...view, filter: { status: ['new'] } }],
      ['filter.tag', { ...view, filter: { tag: [] } }],
      ['filter.createdAfter', { ...view, filter: { createdAfter: '2026-01-01' } }],
      ['filter.page', { ...view, filter: { page: '1' } }],
      ['filter.customAttributes.seats', { ...view, filter: { customAttributes: { seats: 5 } } }],
      ['sort.by', { ...view, sort: {} }],
      ['sort.by', { ...view, sort: { by: 'name' } }],
      ['sort.order', { ...view, sort: { by: 'createdAt', order: 'up' } }],
      ['shared', { ...view, shared: 'true' }],
      ['owner', { ...view, owner: { type: 'agent', id: 'ada' } }],
    ],
    badChange: [
      ['name', { name: null }],
      ['filter', { filter: null }],
      ['sort', { sort: null }],
      ['shared', { shared: null }],
      ['id', { id: 'other' }],
    ],
  },
  {
    path: '/webhooks',
    id: 'none',
    body: { ...webhook, filters: { inboxId: 'inbox-1', tag: ' vip ' } },
    made: {
      ...webhook,
      filters: { inboxId: 'inbox-1', tag: 'vip' },
      ignoreOwnWrites: false,
      enabled: true,
      disabled: null,
      owner: { type: 'apiKey' },
      archived: false,
    },
    change: { events: ['*'], filters: {} },
    changed: { ...webhook, events: ['*'], filters: {} },
    events: ['WebhookCreated', 'WebhookChanged', 'WebhookDeleted'],
    changeEvent: { events: ['*'], filters: {} },
    writers: ['admin'],
    readers: ['admin', 'auditor'],
    bad: [
      ['url', { events: ['*'] }],
      ['url', { ...webhook, url: 5 }],
      ['url', { ...webhook, url: 'your-server.com/hook' }],
      ['url', { ...webhook, url: 'ftp://127.0.0.1/hook' }],
      ['url', { ...webhook, url: 'http://me:secret@127.0.0.1/hook' }],
      ['url', { ...webhook, url: 'https://1.1.1.1:5432/hook' }],
      ['url', { ...webhook, url: 'http://1.1.1.1/hook' }],
      ['url', { ...webhook, url: 'https://10.0.0.1/hook' }],
      ['url', { ...webhook, url: `https://your-server.com/${'x'.repeat(2_048)}` }],
      ['events', { url: webhook.url }],
      ['events', { ...webhook, events: [] }],
      ['events[0]', { ...webhook, events: ['conversation.deleted'] }],
      ['events[1]', { ...webhook, events: ['*', '*'] }],
      ['filters', { ...webhook, filters: [] }],
      ['filters.inboxId', { ...webhook, filters: { inboxId: 'a b' } }],
      ['filters.assigneeId', { ...webhook, filters: { assigneeId: 'agent-1' } }],
      ['ignoreOwnWrites', { ...webhook, ignoreOwnWrites: 'yes' }],
      ['secret', { ...webhook, secret: 'whsec_mine' }],
      ['id', { ...webhook, id: 'mine' }],
    ],
    badChange: [
      ['url', { url: null }],
      ['url', { url: 'https://10.0.0.1/hook' }],
      ['events', { events: null }],
      ['filters', { filters: null }],
      ['enabled', { enabled: 'no' }],
      ['secret', { secret: 'whsec_mine' }],
    ],
  },
  {
    path: '/api-keys',
    id: 'none',
    body: { name: 'CI', role: 'auditor', expiresAt: '2099-01-01T00:00:00+01:00' },
    made: { name: 'CI', role: 'auditor', agentId: null, expiresAt: '2098-12-31T23:00:00.000Z', revokedAt: null },
    change: { name: 'CD' },
    changed: { name: 'CD', role: 'auditor' },
    events: ['ApiKeyCreated', 'ApiKeyRenamed', 'ApiKeyRevoked'],
    changeEvent: { name: 'CD' },
    writers: ['admin'],
    readers: ['admin', 'auditor'],
    bad: [
      ...badName(apiKey),
      ['role', { name: 'CI' }],
      ['role', { ...apiKey, role: 'root' }],
      ['agentId', { ...apiKey, agentId: 'a b' }],
      ['expiresAt', { ...apiKey, expiresAt: '2099-01-01' }],
      ['expiresAt', { ...apiKey, expiresAt: 4_070_908_800_000 }],
      ['id', { ...apiKey, id: 'mine' }],
      ['key', { ...apiKey, key: 'tl_mine' }],
    ],
    badChange: [
      ['name', { name: null }],
      ['role', { role: 'admin' }],
      ['expiresAt', { expiresAt: null }],
    ],
  },
];

let api: TestApi;
let other: { organizationId: string; adminKey: string };
const keys = new Map<Role, string>();

beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32' } });
  other = await api.otherOrganization();
  for (const role of ROLES) keys.set(role, await api.keyFor(role));
});
afterAll(() => api.stop());

let count = 0;
const fresh = () => `Own.id_${++count}:@-x`;
/** A body that makes a new resource, with an id of its own where there can be one. */
const bodyOf = ({ body, id, unique }: Resource): Record<string, unknown> => ({
  ...body,
  ...(id === 'none' ? {} : { id: fresh() }),
  ...(unique === undefined ? {} : { [unique]: fresh() }),
});
/** Where the log ends: the same before and after when nothing was written. */
const head = () => api.backend.store.head();
const etag = (answer: Answer) => answer.headers.get('etag');
const settled = (answer: Answer) => ({ headers: { 'x-min-position': answer.headers.get('x-position') ?? '' } });

/** A problem without what names the request: what two callers who must not be told apart may see. */
const bare = ({ status, body }: Answer) => {
  const { instance: _instance, requestId: _requestId, ...rest } = body as Record<string, unknown>;
  return { status, ...rest };
};

async function keyed(path: string, key: string, body: unknown): Promise<Answer> {
  return api.call('POST', path, { body, headers: { 'idempotency-key': key } });
}

describe.each(RESOURCES)('$path', (resource) => {
  const { path } = resource;
  const make = async () => (await api.expect(201, 'POST', path, { body: bodyOf(resource) })).body.data as { id: string };

  it('makes one, answers it alone and in the list, and says where in the log it is', async () => {
    const body = bodyOf(resource);
    const made = await api.expect(201, 'POST', path, { body });
    const { key: _key, secret: _secret, ...data } = made.body.data as Record<string, unknown>;
    expect(data).toMatchObject({ ...resource.made, revision: 0 });
    if ('id' in body) expect(data['id']).toBe(body['id']);
    expect(etag(made)).toBe('"0"');
    expect(made.headers.get('location')).toBe(`/api/support${path}/${String(data['id'])}`);
    const one = await api.expect(200, 'GET', `${path}/${String(data['id'])}`);
    expect(one.body.data).toEqual(data);
    expect(etag(one)).toBe('"0"');
    expect(one.headers.get('x-position')).toMatch(/./);
    const list = await api.expect(200, 'GET', path, settled(made));
    expect(list.body.data).toContainEqual(data);
  });

  it('changes the named fields only, and nothing when they are the same', async () => {
    const { id } = await make();
    const changed = await api.expect(200, 'PUT', `${path}/${id}`, { body: resource.change });
    expect(changed.body.data).toMatchObject({ ...resource.changed, id, revision: 1 });
    expect(etag(changed)).toBe('"1"');
    const before = await head();
    const again = await api.expect(200, 'PUT', `${path}/${id}`, { body: resource.change });
    expect(again.body).toEqual(changed.body);
    expect(again.headers.get('x-position')).toBe(changed.headers.get('x-position'));
    await api.expect(200, 'PUT', `${path}/${id}`, { body: {} });
    expect(await head()).toBe(before);
    const list = await api.expect(200, 'GET', path, settled(changed));
    expect(list.body.data).toContainEqual(changed.body.data);
  });

  it('refuses a stale If-Match and takes the current one', async () => {
    const { id } = await make();
    const before = await head();
    for (const stale of ['"1"', '"7"', 'W/"0"', '0'])
      for (const method of ['PUT', 'DELETE']) {
        const body = method === 'PUT' ? { body: resource.change } : {};
        const refused = await api.expect(412, method, `${path}/${id}`, { ...body, headers: { 'if-match': stale } });
        expect(refused.body.code).toBe('revision_mismatch');
      }
    // What is not there has no revision to compare with.
    for (const method of ['PUT', 'DELETE']) {
      const body = method === 'PUT' ? { body: resource.change } : {};
      await api.expect(404, method, `${path}/nobody`, { ...body, headers: { 'if-match': '"0"' } });
    }
    expect(await head()).toBe(before);
    expect((await api.expect(200, 'GET', `${path}/${id}`)).body.data).toMatchObject(resource.made);
    await api.expect(200, 'PUT', `${path}/${id}`, { body: resource.change, headers: { 'if-match': '"0"' } });
    await api.expect(204, 'DELETE', `${path}/${id}`, { headers: { 'if-match': '"1"' } });
  });

  it('archives: it is still there, and takes no more changes', async () => {
    const body = bodyOf(resource);
    const { id } = (await api.expect(201, 'POST', path, { body })).body.data as { id: string };
    const gone = await api.expect(204, 'DELETE', `${path}/${id}`);
    expect(gone.text).toBe('');
    const archived = (await api.expect(200, 'GET', `${path}/${id}`)).body.data;
    if (path === '/api-keys') expect(archived.revokedAt).toEqual(archived.updatedAt);
    else expect(archived).toMatchObject({ ...resource.made, archived: true });
    const before = await head();
    expect((await api.expect(409, 'PUT', `${path}/${id}`, { body: resource.change })).body.code).toBe('resource_archived');
    await api.expect(204, 'DELETE', `${path}/${id}`);
    if (resource.id !== 'none') expect((await api.expect(409, 'POST', path, { body })).body.code).toBe('id_taken');
    expect(await head()).toBe(before);
    const ids = async (query: string) =>
      ((await api.expect(200, 'GET', `${path}?limit=100${query}`, settled(gone))).body.data as { id: string }[]).map((row) => row.id);
    expect(await ids('')).not.toContain(id);
    expect(await ids('&archived=true')).toContain(id);
  });

  it('comes back from the archive as it was, or is told not to be able to', async () => {
    const { id } = await make();
    await api.expect(200, 'PUT', `${path}/${id}`, { body: resource.change });
    const { unarchived } = resource;
    const unarchive = (options: object = {}) => api.call('POST', `${path}/${id}/unarchive`, options);
    if (unarchived === undefined) {
      expect((await unarchive()).status).toBe(404);
      return;
    }
    const before = await head();
    // Nothing to bring back.
    expect((await unarchive()).status).toBe(200);
    expect(await head()).toBe(before);
    await api.expect(204, 'DELETE', `${path}/${id}`);
    expect((await unarchive({ headers: { 'if-match': '"1"' } })).body.code).toBe('revision_mismatch');
    expect((await unarchive({ key: other.adminKey })).body.code).toBe('not_found');
    for (const role of ROLES) if (!resource.writers.includes(role)) expect((await unarchive({ key: keys.get(role) })).status).toBe(403);
    const back = await unarchive({ headers: { 'idempotency-key': `back-${id}` } });
    expect([back.status, back.body.data]).toMatchObject([200, { ...resource.changed, id, archived: false, revision: 3 }]);
    expect(etag(back)).toBe('"3"');
    expect((await api.expect(200, 'GET', `${path}/${id}`)).body).toEqual(back.body);
    const events = (await api.expect(200, 'GET', `${path}/${id}/events?from=3`)).body.data as EventAnswer[];
    expect(events.map(({ type, data }) => [type, data])).toEqual([[unarchived, {}]]);
    expect((await api.expect(200, 'GET', `${path}?limit=100`, settled(back))).body.data).toContainEqual(back.body.data);
    expect((await api.expect(200, 'GET', `${path}?limit=100&archived=true`, settled(back))).body.data).not.toContainEqual(
      expect.objectContaining({ id }),
    );
    // It changes and ends again, and the request that brought it back is not done again.
    await api.expect(204, 'DELETE', `${path}/${id}`);
    const end = await head();
    expect((await unarchive({ headers: { 'idempotency-key': `back-${id}` } })).text).toBe(back.text);
    expect(await head()).toBe(end);
  });

  it('answers the same keyed request alike, and writes once', async () => {
    const body = bodyOf(resource);
    const first = await keyed(path, `same ${path}`.replace(' ', '-'), body);
    expect(first.status).toBe(201);
    const before = await head();
    const { id } = first.body.data as { id: string };
    const again = await keyed(path, `same ${path}`.replace(' ', '-'), body);
    expect(again.text).toBe(first.text);
    expect(again.status).toBe(201);
    expect(again.headers.get('x-position')).toBe(first.headers.get('x-position'));
    expect((await keyed(path, `same ${path}`.replace(' ', '-'), { ...body, name: 'Another' })).body.code).toBe('idempotency_key_reused');
    expect(await head()).toBe(before);
    // Also after it was changed: the first answer, not the present one.
    await api.expect(200, 'PUT', `${path}/${id}`, { body: resource.change });
    expect((await keyed(path, `same ${path}`.replace(' ', '-'), body)).text).toBe(first.text);
  });

  it.each(['GET', 'PUT', 'DELETE'])('tells nobody a foreign id from an unknown one: %s', async (method) => {
    const { id } = await make();
    const before = await head();
    const send = { ...(method === 'PUT' ? { body: resource.change } : {}), key: other.adminKey };
    const foreign = await api.expect(404, method, `${path}/${id}`, send);
    const unknown = await api.expect(404, method, `${path}/no-such-id`, send);
    expect(bare(foreign)).toEqual(bare(unknown));
    expect(foreign.body.code).toBe('not_found');
    for (const shape of ['%00', 'a%2Fb', '%F0%9F%98%80', 'x'.repeat(129), '%20', '__proto__', 'x'.repeat(400)])
      expect(bare(await api.call(method, `${path}/${shape}`, send))).toEqual(bare(unknown));
    expect(await head()).toBe(before);
  });

  it('keeps the lists of organizations apart', async () => {
    const made = await api.expect(201, 'POST', path, { body: bodyOf(resource) });
    const list = await api.expect(200, 'GET', `${path}?limit=100`, { ...settled(made), key: other.adminKey });
    expect((list.body.data as { id: string }[]).map((row) => row.id)).not.toContain(made.body.data.id);
  });

  if (resource.id !== 'none')
    it('takes an id once in an organization, and tells upper from lower case', async () => {
      const id = fresh();
      await api.expect(201, 'POST', path, { body: { ...resource.body, id } });
      const before = await head();
      expect((await api.expect(409, 'POST', path, { body: { ...resource.body, id } })).body.code).toBe('id_taken');
      // A refusal is repeated, too.
      for (let n = 0; n < 2; n++) expect((await keyed(path, `taken-${path}`, { ...resource.body, id })).body.code).toBe('id_taken');
      expect(await head()).toBe(before);
      await api.expect(201, 'POST', path, { body: { ...resource.body, id: id.toUpperCase() } });
      await api.expect(201, 'POST', path, { body: { ...resource.body, id }, key: other.adminKey });
    });

  if (resource.id !== 'required')
    it('makes a lower-case id when none is given', async () => {
      const { id: _id, ...body } = bodyOf(resource);
      const made = await api.expect(201, 'POST', path, { body });
      expect(made.body.data.id).toMatch(UUID);
    });

  it.each(resource.bad.map(([field, body]) => [field, JSON.stringify(body).slice(0, 100), body] as const))(
    'refuses a new one for its %s: %s',
    async (field, _, body) => {
      const before = await head();
      const refused = await api.expect(400, 'POST', path, { body });
      expect(refused.body.code).toBe('validation_failed');
      expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
      expect(await head()).toBe(before);
    },
  );

  it('refuses changes of the wrong shape', async () => {
    const { id } = await make();
    const before = await head();
    for (const [field, body] of resource.badChange) {
      const refused = await api.expect(400, 'PUT', `${path}/${id}`, { body });
      expect((refused.body.errors as { field: string }[]).map((error) => error.field)).toContain(field);
    }
    for (const raw of ['[]', 'null', '"x"', '{', '{"name":"a","name":"b"}', '{"__proto__":{}}', '{"name":"\\u0000"}', '{"name":"\\ud800"}'])
      await api.expect(400, 'PUT', `${path}/${id}`, { raw });
    expect(await head()).toBe(before);
  });

  it('tells its history: what was done, by whom, in which request, each event chained to the one before', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    const made = await api.expect(201, 'POST', path, { body: bodyOf(resource), headers: { 'x-request-id': 'made' } });
    const { id, key } = made.body.data as { id: string; key?: string };
    const changed = await api.expect(200, 'PUT', `${path}/${id}`, {
      body: resource.change,
      headers: { 'x-agent-id': ada, 'x-request-id': 'changed' },
    });
    const gone = await api.expect(204, 'DELETE', `${path}/${id}`, { key: keys.get('admin') ?? null });
    const answer = await api.expect(200, 'GET', `${path}/${id}/events`, { key: keys.get('auditor') ?? null });
    expect(answer.body.meta).toEqual({ limit: 1_000, hasMore: false });
    expect(answer.headers.get('x-position')).toBe(gone.headers.get('x-position'));
    const events = answer.body.data as EventAnswer[];
    expect(events.map(({ revision, type }) => [revision, type])).toEqual(resource.events.map((type, revision) => [revision, type]));
    expect(events.map(({ actor }) => actor.type)).toEqual(['apiKey', 'agent', 'apiKey']);
    expect(events[1]?.actor.id).toBe(ada);
    expect(events[2]?.actor.id).not.toBe(events[0]?.actor.id);
    expect(events.map(({ correlationId }) => correlationId).slice(0, 2)).toEqual(['made', 'changed']);
    expect(events.map(({ position }) => position)).toEqual([made, changed, gone].map((one) => one.headers.get('x-position')));
    expect(events[1]?.data).toMatchObject(resource.changeEvent);
    expect(new Set(events.map(({ hash }) => hash)).size).toBe(3);
    for (const { causationId, commandId, causationDepth, imported } of events)
      expect([causationId, causationDepth, imported]).toEqual([commandId, 0, false]);
    if (key !== undefined) expect(answer.text).not.toContain(key.slice(8));

    const from = await api.expect(200, 'GET', `${path}/${id}/events?from=1&limit=1`);
    expect(from.body).toEqual({ data: [events[1]], meta: { limit: 1, hasMore: true } });
    expect((await api.expect(200, 'GET', `${path}/${id}/events?from=3`)).body.data).toEqual([]);
  });

  it('keeps its history from others, and refuses queries of the wrong shape', async () => {
    const { id } = await make();
    const foreign = await api.expect(404, 'GET', `${path}/${id}/events`, { key: other.adminKey });
    const unknown = await api.expect(404, 'GET', `${path}/no-such-id/events`, { key: other.adminKey });
    expect(bare(foreign)).toEqual(bare(unknown));
    expect(bare(await api.call('GET', `${path}/%00/events`, { key: other.adminKey }))).toEqual(bare(unknown));
    for (const query of ['from=-1', 'from=1.5', 'from=01', 'from=', 'from=1&from=2', 'from=9007199254740993'])
      expect((await api.expect(400, 'GET', `${path}/${id}/events?${query}`)).body.errors[0].field).toBe('from');
    for (const query of ['limit=0', 'limit=1001', 'limit=1e2', 'limit=x', 'limit=1&limit=2'])
      expect((await api.expect(400, 'GET', `${path}/${id}/events?${query}`)).body.errors[0].field).toBe('limit');
    expect((await api.expect(400, 'GET', `${path}/${id}/events?page=1`)).body.errors[0].field).toBe('page');
    await api.expect(405, 'POST', `${path}/${id}/events`, { body: {} });
  });

  describe('for each role', () => {
    const { readers, writers, makers = writers } = resource;
    const routes = [
      ['POST', '', makers],
      ['GET', '', readers],
      ['GET', '/:id', readers],
      ['PUT', '/:id', writers],
      ['DELETE', '/:id', writers],
      ['GET', '/:id/events', ROLES.filter((role) => role !== 'analyst' && readers.includes(role))],
      ['GET', '/:id/events/diff', ROLES.filter((role) => role !== 'analyst' && readers.includes(role))],
      ['GET', '/:id/verify', ROLES.filter((role) => ['admin', 'auditor'].includes(role))],
    ] as const;
    it.each(routes.flatMap((route) => ROLES.map((role) => [route[0], path + route[1], role, route[2].includes(role)] as const)))(
      '%s %s as %s: %s',
      async (method, route, role, allowed) => {
        const { id } = await make();
        const before = await head();
        const body = method === 'POST' ? { body: bodyOf(resource) } : method === 'PUT' ? { body: resource.change } : {};
        const answer = await api.call(method, route.replace(':id', id), { ...body, key: keys.get(role) ?? null });
        if (allowed) expect(answer.status).toBe({ POST: 201, GET: 200, PUT: 200, DELETE: 204 }[method]);
        else {
          expect(answer.status).toBe(403);
          expect(answer.body.code).toBe('forbidden');
          expect(await head()).toBe(before);
        }
      },
    );

    it('answers 401 without a key', async () => {
      const { id } = await make();
      for (const [method, route] of routes)
        for (const key of [null, 'tl_unknown'])
          await api.expect(401, method, path + route.replace(':id', id), {
            key,
            ...(method === 'PUT' || method === 'POST' ? { body: {} } : {}),
          });
    });
  });
});

describe('the default inbox', () => {
  const defaults = async () => {
    const inboxes = (await api.expect(200, 'GET', '/inboxes?limit=100', { headers: { 'x-min-position': String(await head()) } })).body.data;
    return (inboxes as { id: string; isDefault: boolean }[]).filter((row) => row.isDefault).map((row) => row.id);
  };

  it('is one, and moves to the inbox that is told to be it', async () => {
    const before = await defaults();
    expect(before).toHaveLength(1);
    const first = (await api.expect(201, 'POST', '/inboxes', { body: { name: 'New default', isDefault: true } })).body.data;
    expect(first.isDefault).toBe(true);
    expect(await defaults()).toEqual([first.id]);
    expect((await api.expect(200, 'GET', `/inboxes/${before[0]}`)).body.data.isDefault).toBe(false);
    const moved = await api.expect(200, 'PUT', `/inboxes/${before[0]}`, { body: { isDefault: true } });
    expect(moved.body.data.isDefault).toBe(true);
    const list = await api.expect(200, 'GET', '/inboxes?limit=100', settled(moved));
    expect((list.body.data as { id: string; isDefault: boolean }[]).filter((row) => row.isDefault).map((row) => row.id)).toEqual(before);
    const end = await head();
    await api.expect(200, 'PUT', `/inboxes/${before[0]}`, { body: { isDefault: true } });
    await api.expect(200, 'PUT', `/inboxes/${first.id}`, { body: { isDefault: false } });
    expect(await head()).toBe(end);
  });

  it('cannot be taken away or archived', async () => {
    const [id] = await defaults();
    const before = await head();
    expect((await api.expect(409, 'PUT', `/inboxes/${id}`, { body: { isDefault: false, name: 'x' } })).body.code).toBe(
      'default_inbox_required',
    );
    expect((await api.expect(409, 'DELETE', `/inboxes/${id}`)).body.code).toBe('default_inbox_required');
    expect(await head()).toBe(before);
  });

  it('is never an archived one, even while both are asked for at once', async () => {
    for (let round = 0; round < 10; round++) {
      const [previous] = await defaults();
      const { id } = (await api.expect(201, 'POST', '/inboxes', { body: { name: `Race ${round}` } })).body.data as { id: string };
      const [archived, chosen] = await Promise.all([
        api.call('DELETE', `/inboxes/${id}`),
        api.call('PUT', `/inboxes/${id}`, { body: { isDefault: true } }),
      ]);
      expect([archived.status, chosen.status].filter((status) => status < 300)).toHaveLength(1);
      const after = (await api.expect(200, 'GET', `/inboxes/${id}`)).body.data;
      expect(after).toMatchObject(chosen.status === 200 ? { isDefault: true, archived: false } : { isDefault: false, archived: true });
      await api.expect(200, 'PUT', `/inboxes/${previous}`, { body: { isDefault: true } });
    }
  });

  it('is set once by a keyed request, though another took it since', async () => {
    const [previous] = await defaults();
    const first = await keyed('/inboxes', 'new-default', { name: 'Keyed', isDefault: true });
    await api.expect(200, 'PUT', `/inboxes/${previous}`, { body: { isDefault: true } });
    expect((await keyed('/inboxes', 'new-default', { name: 'Keyed', isDefault: true })).text).toBe(first.text);
    expect(await defaults()).toEqual([previous]);
  });
});

describe('an agent who is archived by another process', () => {
  it('acts by no key, also by one that is made before this process knows', async () => {
    const { backend } = api;
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    // As another process would: it remembers the agent, and is told nothing.
    const transactor = new Transactor(backend.store, backend.clock, backend.ids, backend.unchangedAnswers);
    const keys = new ApiKeyWriter(
      transactor,
      backend.database,
      new ApiKeyLookup(backend.database),
      backend.masterKey,
      new AssigneeReader(transactor),
    );
    const make = () => keys.create(systemContext(api.organizationId, backend.ids.next()), { name: 'k', role: 'agent', agentId: ada });
    await api.expect(200, 'GET', '/conversations', { key: (await make()).key });
    await api.expect(204, 'DELETE', `/agents/${ada}`);
    const { id, key } = await make();
    await api.expect(401, 'GET', '/conversations', { key });
    expect((await api.expect(200, 'GET', `/api-keys/${id}`)).body.data.revokedAt).toEqual(expect.any(String));
  });
});

describe('an inbox whose archiving was refused half way', () => {
  it('becomes the default all the same', async () => {
    const { id, revision } = (await api.expect(201, 'POST', '/inboxes', { body: { name: 'Kept' } })).body.data as {
      id: string;
      revision: number;
    };
    const before = (await api.expect(200, 'GET', '/organization')).body.data.defaultInboxId as string;
    // What a DELETE leaves that another request overtook, or that the log refused, after its first step.
    await api.backend.transactor.transact(
      organizationAggregate,
      api.organizationId,
      systemContext(api.organizationId, randomIds.next()),
      (state) => retireInbox(id, revision)(state),
    );
    const renamed = await api.expect(200, 'PUT', `/inboxes/${id}`, { body: { name: 'Kept on', isDefault: true } });
    expect(renamed.body.data).toMatchObject({ name: 'Kept on', isDefault: true, archived: false });
    await api.expect(200, 'PUT', `/inboxes/${before}`, { body: { isDefault: true } });
    await api.expect(204, 'DELETE', `/inboxes/${id}`);
    await api.expect(409, 'PUT', `/inboxes/${id}`, { body: { isDefault: true } });
  });
});

describe('the organization', () => {
  it('says who it is, and who chose its default inbox', async () => {
    const before = await api.expect(200, 'GET', '/organization', { key: await api.keyFor('analyst') });
    const { id, name, defaultInboxId, revision } = before.body.data;
    expect([id, name, before.headers.get('etag')]).toEqual([api.organizationId, 'Test', `"${revision}"`]);
    const moved = await api.expect(201, 'POST', '/inboxes', {
      body: { name: 'Chosen', isDefault: true },
      headers: { 'x-request-id': 'chosen' },
    });
    const auditor = await api.keyFor('auditor');
    const after = await api.expect(200, 'GET', '/organization', { key: auditor });
    expect(after.body.data).toMatchObject({ defaultInboxId: moved.body.data.id, revision: revision + 1 });
    expect(after.headers.get('x-position')).toBe(moved.headers.get('x-position'));
    const history = await api.expect(200, 'GET', `/organization/events?from=${revision + 1}`, { key: auditor });
    expect(history.body.data).toMatchObject([
      { type: 'DefaultInboxChanged', actor: { type: 'apiKey' }, correlationId: 'chosen', data: { inboxId: moved.body.data.id } },
    ]);
    const first = (await api.expect(200, 'GET', '/organization/events?limit=1')).body;
    expect(first).toMatchObject({ data: [{ type: 'OrganizationCreated', data: { name: 'Test' } }], meta: { limit: 1, hasMore: true } });
    await api.expect(200, 'PUT', `/inboxes/${defaultInboxId}`, { body: { isDefault: true } });
  });

  it('is the one of the key, and no other', async () => {
    const theirs = (await api.expect(200, 'GET', '/organization', { key: other.adminKey })).body.data;
    expect(theirs.id).toBe(other.organizationId);
    const events = (await api.expect(200, 'GET', '/organization/events', { key: other.adminKey })).body.data as EventAnswer[];
    expect(JSON.stringify(events)).not.toContain((await api.expect(200, 'GET', '/organization')).body.data.defaultInboxId);
    await api.expect(404, 'GET', `/organization/${other.organizationId}`);
  });
});

describe('those who are named by others', () => {
  it('must be agents of the organization who are not archived', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    const gone = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    await api.expect(204, 'DELETE', `/agents/${gone}`);
    const foreign = (await api.expect(201, 'POST', '/agents', { body: agent, key: other.adminKey })).body.data.id as string;
    const line = (await api.expect(201, 'POST', '/teams', { body: { ...team, agentIds: [ada] } })).body.data as { id: string };
    const box = (await api.expect(201, 'POST', '/inboxes', { body: { ...inbox, assignment: { mode: 'round_robin', agentIds: [ada] } } }))
      .body.data as { id: string };
    const before = await head();
    for (const id of [gone, foreign, line.id, 'nobody']) {
      const members = { agentIds: [ada, id] };
      const assignment = { assignment: { mode: 'manual', ...members } };
      for (const [method, path, body] of [
        ['POST', '/teams', { ...team, ...members }],
        ['PUT', `/teams/${line.id}`, members],
        ['POST', '/inboxes', { ...inbox, ...assignment }],
        ['PUT', `/inboxes/${box.id}`, assignment],
        ['POST', '/api-keys', { ...apiKey, agentId: id }],
      ] as const)
        expect([id, (await api.call(method, path, { body })).body.code]).toEqual([id, id === gone ? 'resource_archived' : 'unknown_agent']);
    }
    expect(await head()).toBe(before);
  });

  it('stay where they are named when they are archived, so that what was read can be written back', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    const line = (await api.expect(201, 'POST', '/teams', { body: { ...team, agentIds: [ada] } })).body.data as { id: string };
    await api.expect(204, 'DELETE', `/agents/${ada}`);
    const read = (await api.expect(200, 'GET', `/teams/${line.id}`)).body.data;
    expect(read.agentIds).toEqual([ada]);
    await api.expect(200, 'PUT', `/teams/${line.id}`, { body: { name: 'Renamed', agentIds: read.agentIds } });
  });

  it('share one id space as agents and teams, each found under its own path', async () => {
    const id = fresh();
    await api.expect(201, 'POST', '/agents', { body: { ...agent, id } });
    expect((await api.expect(409, 'POST', '/teams', { body: { ...team, id } })).body.code).toBe('id_taken');
    for (const [method, body] of [['GET'], ['PUT', { body: { name: 'x' } }], ['DELETE']] as const)
      await api.expect(404, method, `/teams/${id}`, body);
    await api.expect(404, 'GET', `/teams/${id}/events`);
    await api.expect(200, 'GET', `/agents/${id}/events`);
    const list = await api.expect(200, 'GET', '/teams?limit=100', { headers: { 'x-min-position': String(await head()) } });
    expect((list.body.data as { id: string }[]).map((row) => row.id)).not.toContain(id);
  });
});

describe('an API key', () => {
  it('is shown once, works, and is nowhere in the log, the database or what was logged', async () => {
    const made = (await api.expect(201, 'POST', '/api-keys', { body: { name: 'Shown', role: 'admin' } })).body.data as {
      id: string;
      key: string;
      prefix: string;
    };
    expect(made.key).toMatch(/^tl_[A-Za-z0-9_-]{32}$/);
    expect(made.prefix).toBe(made.key.slice(0, 8));
    await api.expect(200, 'GET', '/agents', { key: made.key });
    await api.expect(200, 'GET', '/agents', { key: null, headers: { authorization: `Bearer ${made.key}` } });
    const secret = made.key.slice(8);
    for (const path of [`/api-keys/${made.id}`, '/api-keys?limit=100'])
      expect((await api.expect(200, 'GET', path, { headers: { 'x-min-position': String(await head()) } })).text).not.toContain(secret);
    for await (const event of api.backend.transactor.history(apiKeyAggregate, api.organizationId, made.id))
      expect(JSON.stringify(event)).not.toContain(secret);
    const row = await api.backend.database.selectFrom('keep.api_keys').selectAll().where('id', '=', made.id).executeTakeFirstOrThrow();
    expect(row.hash).toHaveLength(32);
    expect(JSON.stringify({ ...row, hash: row.hash.toString('latin1') })).not.toContain(secret);
    expect(api.logged()).not.toContain(secret);
  });

  it('is answered again to a keyed request, and kept for that in no form that can be read', async () => {
    const first = await keyed('/api-keys', 'one-key', apiKey);
    const { id, key } = first.body.data as { id: string; key: string };
    expect((await keyed('/api-keys', 'one-key', apiKey)).text).toBe(first.text);
    await api.expect(200, 'GET', '/agents', { key });
    const rows = await api.backend.database.selectFrom('keep.idempotency').selectAll().execute();
    const kept = rows.filter((row) => JSON.stringify(row.answer).includes(id));
    expect(kept).toHaveLength(1);
    expect(JSON.stringify(kept)).not.toContain(key.slice(8));
    expect(JSON.stringify(kept)).not.toContain(Buffer.from(key).toString('base64').slice(0, 12));
    // An Idempotency-Key that is no longer remembered makes another key.
    await api.backend.database
      .updateTable('keep.idempotency')
      .set({ created_at: new Date(0) })
      .where('command_id', '=', kept[0]!.command_id)
      .execute();
    const later = await keyed('/api-keys', 'one-key', apiKey);
    expect(later.status).toBe(201);
    expect(later.body.data.id).not.toBe(id);
    await api.expect(200, 'GET', '/agents', { key: later.body.data.key as string });
    await api.expect(200, 'GET', '/agents', { key });
  });

  it('ends at once when it is revoked', async () => {
    const made = (await api.expect(201, 'POST', '/api-keys', { body: apiKey })).body.data as { id: string; key: string };
    await api.expect(200, 'GET', '/agents', { key: made.key });
    await api.expect(204, 'DELETE', `/api-keys/${made.id}`);
    await api.expect(401, 'GET', '/agents', { key: made.key });
  });

  it('has to expire in the future', async () => {
    const before = await head();
    const refused = await api.expect(422, 'POST', '/api-keys', { body: { ...apiKey, expiresAt: '2020-01-01T00:00:00Z' } });
    expect(refused.body.code).toBe('expiry_in_past');
    expect(await head()).toBe(before);
  });

  it('stays revoked when the agent that it was bound to comes back, also after a crash while that was archived', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    const [bound, left] = [await api.keyFor('agent', { agentId: ada }), await api.keyFor('agent', { agentId: ada })];
    await api.expect(204, 'DELETE', `/agents/${ada}`);
    // As if the process had ended before the keys were revoked.
    await api.backend.database.updateTable('keep.api_keys').set({ revoked_at: null }).where('agent_id', '=', ada).execute();
    await api.expect(200, 'POST', `/agents/${ada}/unarchive`);
    for (const key of [bound, left]) await api.expect(401, 'GET', '/agents', { key });
    await api.expect(200, 'GET', '/agents', { key: await api.keyFor('agent', { agentId: ada }) });
  });

  it('ends with the agent that it is bound to', async () => {
    const ada = (await api.expect(201, 'POST', '/agents', { body: agent })).body.data.id as string;
    const bound = (await api.expect(201, 'POST', '/api-keys', { body: { ...apiKey, agentId: ada } })).body.data as {
      id: string;
      key: string;
    };
    await api.expect(200, 'GET', '/agents', { key: bound.key });
    expect((await api.expect(200, 'GET', '/agents', { headers: { 'x-agent-id': ada } })).status).toBe(200);
    await api.expect(204, 'DELETE', `/agents/${ada}`);
    await api.expect(401, 'GET', '/agents', { key: bound.key });
    expect((await api.expect(200, 'GET', `/api-keys/${bound.id}`)).body.data.revokedAt).not.toBeNull();
    expect((await api.expect(409, 'GET', '/agents', { headers: { 'x-agent-id': ada } })).body.code).toBe('resource_archived');
  });

  it('speaks under the name that it has now', async () => {
    const made = (await api.expect(201, 'POST', '/api-keys', { body: apiKey })).body.data as { id: string; key: string };
    await api.expect(200, 'PUT', `/api-keys/${made.id}`, { body: { name: 'Renamed' } });
    const row = await api.backend.database.selectFrom('keep.api_keys').select('name').where('id', '=', made.id).executeTakeFirstOrThrow();
    expect(row.name).toBe('Renamed');
  });

  it('stays revoked when its making is repeated after a crash between event and row', async () => {
    const first = await keyed('/api-keys', 'half-made', apiKey);
    const { id, key } = first.body.data as { id: string; key: string };
    const row = api.backend.database;
    await row.deleteFrom('keep.api_keys').where('id', '=', id).execute();
    expect((await keyed('/api-keys', 'half-made', apiKey)).text).toBe(first.text);
    await api.expect(200, 'GET', '/agents', { key });
    await row.deleteFrom('keep.api_keys').where('id', '=', id).execute();
    await api.expect(204, 'DELETE', `/api-keys/${id}`);
    expect((await keyed('/api-keys', 'half-made', apiKey)).status).toBe(201);
    await api.expect(401, 'GET', '/agents', { key });
  });
});

describe('an organization', () => {
  const service = () => api.app.get(OrganizationWriter);
  // A log outlives a test's database: on a server that is there already, the ids of an earlier run are taken.
  const run = randomIds.next().slice(0, 8);
  const own = (id: string) => `${id}-${run}`;

  it('is made whole, and what was half made is completed by making it again', async () => {
    const adminKey = `chosen_${'k'.repeat(40)}`;
    const made = await service().createOrganization('Acme', { id: own('acme'), adminKey });
    expect(made).toEqual({ organizationId: own('acme'), adminKey, adminKeyId: made.adminKeyId });
    const inboxes = async () =>
      (await api.expect(200, 'GET', '/inboxes', { key: adminKey, headers: { 'x-min-position': String(await head()) } })).body.data;
    expect(await inboxes()).toMatchObject([{ name: 'Inbox', isDefault: true, archived: false }]);
    const before = await head();
    expect(await service().createOrganization('Renamed', { id: own('acme'), adminKey })).toEqual(made);
    expect(await head()).toBe(before);
    expect(await service().listOrganizations()).toContainEqual(expect.objectContaining({ id: own('acme'), name: 'Acme' }));
  });

  it('is completed from wherever a crash left it', async () => {
    await api.backend.keys.hashKey(own('half'));
    expect((await service().listOrganizations()).map(({ id }) => id)).not.toContain(own('half'));
    await api.backend.transactor.transact(organizationAggregate, own('half'), systemContext(own('half'), randomIds.next()), (state) =>
      createOrganization('Half')(state),
    );
    const { adminKey } = await service().createOrganization('Half', { id: own('half') });
    const list = await api.expect(200, 'GET', '/inboxes', { key: adminKey, headers: { 'x-min-position': String(await head()) } });
    expect(list.body.data).toMatchObject([{ name: 'Inbox', isDefault: true }]);
  });

  it('keeps the default inbox that an admin chose when it is made again a week later', async () => {
    const adminKey = `week_${'k'.repeat(40)}`;
    await service().createOrganization('Week', { id: own('week'), adminKey });
    // The streams remember commands for a day of their own time: what is done again after that is decided again.
    api.clock.advance(7 * 24 * 60 * 60 * 1000);
    const chosen = (await api.expect(201, 'POST', '/inboxes', { body: { ...inbox, isDefault: true }, key: adminKey })).body.data
      .id as string;
    await service().createOrganization('Week', { id: own('week'), adminKey });
    expect((await api.expect(200, 'GET', `/inboxes/${chosen}`, { key: adminKey })).body.data.isDefault).toBe(true);
  });

  it('does not take a key that opens another one', async () => {
    const adminKey = `mine_${'k'.repeat(40)}`;
    await service().createOrganization('Mine', { id: own('mine'), adminKey });
    await expect(service().createOrganization('Thief', { id: own('thief'), adminKey })).rejects.toThrow('another organization');
  });

  it.each(['', 'Acme', 'a.b', '-a', 'a'.repeat(65), 'a b'])('cannot have the id %j', async (id) => {
    await expect(service().createOrganization('Acme', { id })).rejects.toThrow('organization id');
  });
});
