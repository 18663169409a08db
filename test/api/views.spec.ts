import type { EventAnswer } from '../../src/read-models/history.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * Who sees, changes and counts which view. What views have in common with other settings, settings.spec.ts holds against them too.
 */

interface View {
  readonly id: string;
  readonly owner: { readonly type: string; readonly id: string };
  readonly count?: number;
  readonly countIsExact?: boolean;
}

let api: TestApi;
let other: { organizationId: string; adminKey: string };
/** Who calls: a key, and for the admin's the agent it acts for. */
const callers = {} as Record<'ada' | 'bo' | 'adminAsAda' | 'admin' | 'program' | 'auditor' | 'analyst', { key: string; headers?: object }>;
type Caller = keyof typeof callers;
const views = {} as Record<'adas' | 'adasShared' | 'bos' | 'programs', View>;

const as = (caller: Caller, options: { body?: unknown; headers?: Record<string, string> } = {}) => ({
  ...options,
  key: callers[caller].key,
  headers: { ...callers[caller].headers, ...options.headers } as Record<string, string>,
});
const settled = async () => ({ 'x-min-position': await api.backend.store.head() });
/** What an answer says, without what names the request. */
const bare = ({ status, body }: Answer) => {
  const { instance: _instance, requestId: _requestId, ...rest } = body as Record<string, unknown>;
  return { status, ...rest };
};

async function make(caller: Caller, body: object): Promise<View> {
  return (await api.expect(201, 'POST', '/views', as(caller, { body: { name: 'View', filter: {}, ...body } }))).body.data as View;
}
async function list(caller: Caller, query = ''): Promise<View[]> {
  return (await api.expect(200, 'GET', `/views?limit=100${query}`, as(caller, { headers: await settled() }))).body.data as View[];
}
const idsOf = (found: readonly View[]) => found.map(({ id }) => id).sort();
const ids = (...names: (keyof typeof views)[]) => names.map((name) => views[name].id).sort();

beforeAll(async () => {
  api = await startApi();
  other = await api.otherOrganization();
  for (const id of ['ada', 'bo']) await api.expect(201, 'POST', '/agents', { body: { id, name: id } });
  callers.ada = { key: await api.keyFor('agent', { agentId: 'ada' }) };
  callers.bo = { key: await api.keyFor('agent', { agentId: 'bo' }) };
  callers.adminAsAda = { key: api.adminKey, headers: { 'x-agent-id': 'ada' } };
  callers.admin = { key: api.adminKey };
  callers.program = { key: await api.keyFor('agent') };
  callers.auditor = { key: await api.keyFor('auditor') };
  callers.analyst = { key: await api.keyFor('analyst') };
  views.adas = await make('ada', { name: 'Mine' });
  views.adasShared = await make('adminAsAda', { name: 'Ours', shared: true });
  views.bos = await make('bo', { name: 'Bo' });
  views.programs = await make('program', { name: 'Program' });
});
afterAll(() => api.stop());

test('a view belongs to the agent of the key, the agent that it acts for, or the key', () => {
  expect(views.adas.owner).toEqual({ type: 'agent', id: 'ada' });
  expect(views.adasShared.owner).toEqual({ type: 'agent', id: 'ada' });
  expect(views.programs.owner).toEqual({ type: 'apiKey', id: expect.any(String) as unknown });
});

test.each<[Caller, (keyof typeof views)[]]>([
  ['ada', ['adas', 'adasShared']],
  ['adminAsAda', ['adas', 'adasShared']],
  ['bo', ['bos', 'adasShared']],
  ['admin', ['adasShared']],
  ['program', ['programs', 'adasShared']],
  ['analyst', ['adasShared']],
  ['auditor', ['adas', 'adasShared', 'bos', 'programs']],
])('%s sees %j, in the list and one by one, and of the others nothing', async (caller, seen) => {
  expect(idsOf(await list(caller))).toEqual(ids(...seen));
  expect(idsOf(await list(caller, '&shared=true'))).toEqual(ids('adasShared'));
  expect(idsOf(await list(caller, '&shared=false'))).toEqual(ids(...seen.filter((name) => name !== 'adasShared')));
  const total = await api.expect(200, 'GET', '/views?limit=1', as(caller, { headers: await settled() }));
  expect(total.body.meta.total).toBe(seen.length);
  const nobodys = bare(await api.call('GET', '/views/nobody', as(caller)));
  for (const [name, { id }] of Object.entries(views)) {
    const one = await api.call('GET', `/views/${id}`, as(caller));
    if (seen.includes(name as keyof typeof views)) expect([one.status, one.body.data.id]).toEqual([200, id]);
    else expect(bare(one)).toEqual(nobodys);
    if (caller === 'analyst') continue;
    const history = await api.call('GET', `/views/${id}/events`, as(caller));
    if (seen.includes(name as keyof typeof views)) expect((history.body.data as EventAnswer[])[0]?.type).toBe('ViewCreated');
    else expect(bare(history)).toEqual(nobodys);
  }
});

test('another organization sees and changes none of them', async () => {
  const list = await api.expect(200, 'GET', '/views', { key: other.adminKey, headers: await settled() });
  expect(list.body.data).toEqual([]);
  for (const method of ['GET', 'PUT', 'DELETE'])
    await api.expect(404, method, `/views/${views.adasShared.id}`, {
      key: other.adminKey,
      ...(method === 'PUT' ? { body: { name: 'x' } } : {}),
    });
});

test('another’s private view cannot be written or guessed, also by an admin and with If-Match', async () => {
  const head = await api.backend.store.head();
  for (const caller of ['bo', 'admin', 'program'] as const)
    for (const headers of [{}, { 'if-match': '"7"' }] as Record<string, string>[])
      for (const [method, path, body] of [
        ['PUT', '', { name: 'x' }],
        ['DELETE', '', undefined],
        ['POST', '/unarchive', undefined],
      ] as const) {
        const options = as(caller, { headers, ...(body === undefined ? {} : { body }) });
        const refused = await api.expect(404, method, `/views/${views.adas.id}${path}`, options);
        expect(bare(refused)).toEqual(bare(await api.call(method, `/views/nobody${path}`, options)));
      }
  expect(await api.backend.store.head()).toBe(head);
});

test('an id that another’s private view has is taken, whatever revision is asked for, and a filter has the limits of the list', async () => {
  for (const headers of [{}, { 'if-match': '"0"' }, { 'if-match': '"44"' }] as Record<string, string>[]) {
    const body = { id: views.adas.id, name: 'x', filter: {} };
    expect((await api.expect(409, 'POST', '/views', as('bo', { headers, body }))).body.code).toBe('id_taken');
  }
  for (const filter of [{ customAttributes: { plan: 'x'.repeat(1_001) } }, { createdAfter: '9999-12-31T23:59:59.999-23:59' }])
    await api.expect(400, 'POST', '/views', as('bo', { body: { name: 'x', filter } }));
  const wrong = await api.expect(400, 'GET', '/views?counts=yes&shared=maybe&x=1', as('bo'));
  expect((wrong.body.errors as { field: string }[]).map(({ field }) => field)).toEqual(['counts', 'shared', 'x']);
});

test('a shared view is changed by its owner and admins, and made private by its owner alone', async () => {
  const { id } = await make('ada', { shared: true });
  for (const caller of ['bo', 'program'] as const) {
    expect((await api.expect(403, 'PUT', `/views/${id}`, as(caller, { body: { name: 'x' } }))).body.code).toBe('forbidden');
    await api.expect(403, 'DELETE', `/views/${id}`, as(caller));
    await api.expect(403, 'POST', `/views/${id}/unarchive`, as(caller));
  }
  await api.expect(403, 'PUT', `/views/${id}`, as('auditor', { body: { name: 'x' } }));
  const renamed = await api.expect(200, 'PUT', `/views/${id}`, as('admin', { body: { name: 'Renamed' }, headers: { 'if-match': '"0"' } }));
  expect(renamed.body.data).toMatchObject({ name: 'Renamed', owner: { id: 'ada' }, revision: 1 });
  await api.expect(412, 'PUT', `/views/${id}`, as('admin', { body: { name: 'x' }, headers: { 'if-match': '"0"' } }));
  await api.expect(403, 'PUT', `/views/${id}`, as('admin', { body: { name: 'x', shared: false } }));
  await api.expect(204, 'DELETE', `/views/${id}`, as('admin'));
  expect(idsOf(await list('bo', '&archived=true'))).toContain(id);
  expect(idsOf(await list('bo'))).not.toContain(id);
  await api.expect(200, 'POST', `/views/${id}/unarchive`, as('admin', { body: undefined }));

  // Private again, it is gone for everybody else, its history too.
  await api.expect(200, 'PUT', `/views/${id}`, as('ada', { body: { shared: false } }));
  for (const path of ['', '/events']) await api.expect(404, 'GET', `/views/${id}${path}`, as('admin'));
  expect(idsOf(await list('admin'))).not.toContain(id);
  const events = (await api.expect(200, 'GET', `/views/${id}/events`, as('auditor'))).body.data as EventAnswer[];
  expect(events.map(({ type, data }) => [type, data])).toEqual([
    ['ViewCreated', expect.objectContaining({ shared: true, owner: { type: 'agent', id: 'ada' } })],
    ['ViewChanged', { name: 'Renamed' }],
    ['ViewArchived', {}],
    ['ViewUnarchived', {}],
    ['ViewChanged', { shared: false }],
  ]);
  await api.expect(204, 'DELETE', `/views/${id}`, as('ada'));
});

test('counts what the list of conversations counts by the same filter, whatever the role', async () => {
  await api.expect(201, 'POST', '/companies', { body: { id: 'acme', name: 'Acme' } });
  for (let i = 0; i < 12; i++) {
    const opened = await api.expect(201, 'POST', '/conversations', {
      body: {
        visitor: i % 4 === 0 ? { companyId: 'acme' } : {},
        message: 'Hi',
        priority: i % 3 === 0 ? 'urgent' : 'low',
        customAttributes: { plan: i % 2 === 0 ? 'pro' : 'free' },
      },
    });
    const { id } = opened.body.data as { id: string };
    if (i % 2 === 0)
      await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: i % 4 === 0 ? ['vip', 'late'] : ['vip'] } });
    if (i % 5 === 0) await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId: 'bo' } });
    if (i % 6 === 0) await api.expect(200, 'PUT', `/conversations/${id}`, { body: { status: 'resolved' } });
    api.clock.advance(60_000);
  }
  const half = new Date(api.clock.now() - 6 * 60_000).toISOString();
  const filters: [object, string][] = [
    [{}, ''],
    [{ status: ['open'] }, 'status=open'],
    [{ priority: 'urgent', assigneeId: ['none', 'bo'] }, 'priority=urgent&assigneeId=none&assigneeId=bo'],
    [{ assigneeId: ['bo'] }, 'assigneeId=bo'],
    [{ tag: ['vip', 'late'], tagMatch: 'all' }, 'tag=vip&tag=late&tagMatch=all'],
    [{ companyId: ['acme'] }, 'companyId=acme'],
    [{ customAttributes: { plan: 'pro' }, status: ['open', 'resolved'] }, 'customAttributes[plan]=pro&status=open&status=resolved'],
    [{ createdAfter: half }, `createdAfter=${half}`],
    [{ inboxId: ['no such inbox'] }, 'inboxId=no+such+inbox'],
  ];
  const made = new Map<string, string>();
  for (const [filter, query] of filters) made.set((await make('ada', { filter, shared: true })).id, query);
  const totals = new Map<string, number>();
  for (const [id, query] of made) {
    const answer = await api.expect(200, 'GET', `/conversations?limit=1&${query}`, { headers: await settled() });
    totals.set(id, answer.body.meta.total as number);
  }
  expect(new Set(totals.values()).size).toBeGreaterThan(5);
  for (const caller of ['ada', 'analyst', 'auditor'] as const) {
    const counted = (await list(caller, '&counts=true')).filter(({ id }) => made.has(id));
    expect(new Map(counted.map(({ id, count }) => [id, count]))).toEqual(totals);
    expect(counted.every(({ countIsExact }) => countIsExact === true)).toBe(true);
  }
  for (const view of await list('ada', '&counts=false')) expect(view).not.toHaveProperty('count');
  for (const bad of ['counts=1', 'counts=true&counts=true', 'shared=1', 'owner=ada'])
    expect((await api.expect(400, 'GET', `/views?${bad}`)).body.errors[0].field).toBe(bad.split('=')[0]);
  // An empty list of views has nothing to count.
  expect((await api.expect(200, 'GET', '/views?counts=true', { key: other.adminKey })).body.data).toEqual([]);
  for (const id of made.keys()) await api.expect(204, 'DELETE', `/views/${id}`, as('ada'));
});

test('a page leads to the next one, for those alone who see the same views', async () => {
  const { length } = await list('ada', '&sort=name');
  const found: string[] = [];
  let cursor = '';
  do {
    const page = await api.expect(200, 'GET', `/views?limit=1&sort=name&counts=true${cursor}`, as('ada'));
    found.push(...(page.body.data as View[]).map(({ id }) => id));
    const next = page.body.meta.nextCursor as string | null;
    if (next !== null) await api.expect(400, 'GET', `/views?limit=1&sort=name&cursor=${next}`, as('bo'));
    cursor = next === null ? '' : `&cursor=${next}`;
  } while (cursor !== '');
  expect([new Set(found).size, found.length]).toEqual([length, length]);
});

test('sent again, it is made once and answered alike, also once it is private to another', async () => {
  const body = { name: 'Again', filter: { tag: 'vip' }, shared: true };
  const send = () => api.call('POST', '/views', as('bo', { body, headers: { 'idempotency-key': 'again' } }));
  const first = await send();
  const { id } = first.body.data as View;
  expect(first.body.data.filter).toEqual({ tag: ['vip'] });
  await api.expect(204, 'DELETE', `/views/${id}`, as('admin'));
  const unarchive = () => api.call('POST', `/views/${id}/unarchive`, as('admin', { headers: { 'idempotency-key': 'back' } }));
  const back = await unarchive();
  expect(back.status).toBe(200);
  await api.expect(200, 'PUT', `/views/${id}`, as('bo', { body: { shared: false } }));
  const head = await api.backend.store.head();
  expect((await send()).text).toBe(first.text);
  expect((await unarchive()).text).toBe(back.text);
  expect(await api.backend.store.head()).toBe(head);
});

test('its rows are the fold of its events', () => expectReadModelsEqualFold(api));
