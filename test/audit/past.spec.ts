import type { DiffAnswer, EventAnswer } from '../../src/read-models/history.js';
import { startApi, type TestApi } from '../support/api.js';
import { writeHistory } from '../support/history.js';
import { faultSeed, type SeededRandom, seededRandom } from '../support/seeded-random.js';

/*
 * Whatever happened, the past is the fold of the events up to then, written here in the plainest way, and the comparison of two revisions
 * leads from the one to the other.
 */

type Fields = Record<string, unknown>;

let api: TestApi;
beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' } });
});
afterAll(() => api.stop());

const get = async (path: string): Promise<Fields> => (await api.expect(200, 'GET', path)).body.data as Fields;
const events = async (path: string): Promise<EventAnswer[]> => (await api.expect(200, 'GET', `${path}/events`)).body.data as EventAnswer[];
const diff = async (path: string, query = ''): Promise<DiffAnswer['data']> =>
  ((await api.expect(200, 'GET', `${path}/events/diff${query}`)).body as DiffAnswer).data;

/** A conversation after some of its events, but for the names of people and the visitor, which are those of now. */
function folded(id: string, past: readonly EventAnswer[]): Fields {
  const c: Fields = {
    id,
    status: 'open',
    assignee: null,
    team: null,
    tags: [],
    snoozedUntil: null,
    rating: null,
    waitingSince: null,
    messages: [],
    messageCount: 0,
    revision: past.length - 1,
    createdAt: past[0]?.occurredAt,
    updatedAt: past.at(-1)?.occurredAt,
  };
  const say = (event: EventAnswer, type: string) => {
    const { messageId, contentType, content = null, attachments, author } = event.data as Fields;
    const { id: authorId, name } = (author ?? {}) as Fields;
    (c['messages'] as Fields[]).push({
      id: messageId,
      type,
      contentType,
      content,
      createdAt: event.occurredAt,
      ...(attachments === undefined ? {} : { attachments }),
      ...(author === undefined ? {} : { author: { id: authorId, name } }),
    });
    c['messageCount'] = (c['messages'] as Fields[]).length;
  };
  for (const event of past) {
    const data = event.data as Fields;
    switch (event.type) {
      case 'ConversationOpened':
        for (const name of ['inboxId', 'channel', 'priority']) c[name] = data[name];
        for (const name of ['subject', 'previousConversationId']) c[name] = data[name] ?? null;
        c['customAttributes'] = data['customAttributes'] ?? {};
        break;
      case 'MessageReceived':
        say(event, 'visitor');
        c['waitingSince'] ??= event.occurredAt;
        break;
      case 'MessageSent': {
        const automatic = (data['author'] as Fields)['type'] === 'automation';
        say(event, automatic ? 'automation' : 'agent');
        if (!automatic) c['waitingSince'] = null;
        break;
      }
      case 'NoteAdded':
        say(event, 'note');
        break;
      case 'ConversationStatusChanged':
        c['status'] = data['to'];
        c['snoozedUntil'] = null;
        if (data['to'] === 'resolved' || data['to'] === 'closed') c['waitingSince'] = null;
        break;
      case 'ConversationSnoozed':
        c['status'] = 'snoozed';
        c['snoozedUntil'] = data['until'];
        break;
      case 'ConversationAssigned':
        c['assignee'] = data['assignee'];
        c['team'] = data['team'];
        break;
      case 'ConversationUnassigned':
        c['assignee'] = null;
        c['team'] = data['team'];
        break;
      case 'ConversationTeamChanged':
        c['team'] = data['to'];
        break;
      case 'TagsAdded':
        c['tags'] = [...(c['tags'] as string[]), ...(data['tags'] as string[])];
        break;
      case 'TagRemoved':
        c['tags'] = (c['tags'] as string[]).filter((tag) => tag !== data['tag']);
        break;
      case 'SubjectChanged':
        c['subject'] = data['subject'];
        break;
      case 'PriorityChanged':
        c['priority'] = data['to'];
        break;
      case 'InboxChanged':
        c['inboxId'] = data['to'];
        break;
      case 'CustomAttributesChanged': {
        const kept = { ...(c['customAttributes'] as Fields), ...(data['set'] as Fields) };
        for (const name of data['removed'] as string[]) delete kept[name];
        c['customAttributes'] = kept;
        break;
      }
      case 'ConversationRated':
        c['rating'] = { rating: data['rating'], comment: data['comment'] ?? null };
        break;
      default:
        throw new Error(`the oracle does not know ${event.type}`);
    }
  }
  return c;
}

/** Without what a conversation shows of other streams, as they are now. */
function own(conversation: Fields): Fields {
  const { visitor: _visitor, assignee, team, ...fields } = conversation;
  const nameless = (one: unknown) => (one === null ? null : { ...(one as Fields), name: 'as it is now' });
  return { ...fields, assignee: nameless(assignee), team: nameless(team) };
}

/** The same with null for what is not there, as a comparison has it. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).flatMap(([name, one]) => (one === null ? [] : [[name, plain(one)]])));
}

/** The answer after the changes: each is put where its path says, if it was there as the change says. */
function applied(changes: DiffAnswer['data']['changes'], to: Fields): Fields {
  const result = structuredClone(to);
  for (const { field, before, after } of changes) {
    const path = [...field.matchAll(/([^.[\]"\s]+)|\[("(?:[^"\\]|\\.)*")\]/g)].map(([, name, quoted]) =>
      quoted === undefined ? (name ?? '') : (JSON.parse(quoted) as string),
    );
    const last = path.pop() ?? '';
    const place = path.reduce((within, name) => within[name] as Fields, result);
    expect(plain({ [last]: place[last] ?? null })).toEqual(plain({ [last]: before }));
    place[last] = after;
  }
  return result;
}

const summaryOf = ({ messages, revision: _revision, ...conversation }: Fields): Fields => ({
  ...conversation,
  lastMessage: (messages as Fields[]).at(-1) ?? null,
});

/** Some pairs from <= to, the first revision and the latest among them. */
function pairs(random: SeededRandom, latest: number): [number, number][] {
  const some = Array.from({ length: 3 }, () => [random.int(latest + 2) - 1, random.int(latest + 2) - 1].sort((a, b) => a - b));
  return [[-1, latest], [-1, 0], [latest - 1, latest], ...some] as [number, number][];
}

test('the past is the fold of the events up to then, and a comparison leads from one revision to another', async () => {
  const random = seededRandom(faultSeed());
  try {
    const made = await writeHistory(api, random, 150);
    let versions = 0;
    for (const id of made.conversations) {
      const path = `/conversations/${id}`;
      const past = await events(path);
      const states: Fields[] = [];
      for (const [revision, { occurredAt }] of past.entries()) {
        const was = await get(`${path}?revision=${revision}`);
        expect(own(was)).toEqual(own(folded(id, past.slice(0, revision + 1))));
        states.push(was);
        const until = past.findLastIndex((event) => event.occurredAt <= occurredAt);
        expect(own(await get(`${path}?at=${occurredAt}`))).toEqual(own(folded(id, past.slice(0, until + 1))));
        versions++;
      }
      for (const [from, to] of pairs(random, past.length - 1)) {
        const { changes, ...said } = await diff(path, `?from=${from}&to=${to}`);
        expect(said).toEqual({ from, to, events: past.slice(from + 1, to + 1) });
        const before = from < 0 ? {} : summaryOf(states[from] ?? {});
        expect(plain(applied(changes, before))).toEqual(plain(to < 0 ? {} : summaryOf(states[to] ?? {})));
      }
    }
    expect(versions).toBeGreaterThan(60);

    const { conversations: _conversations, ...others } = made;
    for (const [kind, ids] of Object.entries(others))
      for (const id of new Set(ids)) {
        const path = `/${kind}/${id}`;
        if ((await api.call('GET', path)).status === 404) continue;
        const past = await events(path);
        const latest = past.length - 1;
        const upTo = async (to: number) => applied((await diff(path, `?to=${to}`)).changes, {});
        // The inbox's own answer also says what the organization decides, and revisions are what is compared.
        const { revision, isDefault: _isDefault, ...now } = await get(path);
        expect(revision).toBe(latest);
        expect(plain(await upTo(latest))).toEqual(plain(now));
        for (const [from, to] of pairs(random, latest)) {
          const { changes, ...said } = await diff(path, `?from=${from}&to=${to}`);
          expect(said).toEqual({ from, to, events: past.slice(from + 1, to + 1) });
          expect(plain(applied(changes, await upTo(from)))).toEqual(plain(await upTo(to)));
        }
      }
  } catch (error) {
    throw new Error(`with FAULT_SEED=${random.seed}`, { cause: error });
  }
}, 120_000);

describe('a comparison of a conversation', () => {
  const open = async () => {
    const body = { visitor: { name: 'Ada' }, subject: 'Refund', message: 'Hi', customAttributes: { plan: 'free', 'a.b': 1 } };
    return `/conversations/${(await api.expect(201, 'POST', '/conversations', { body })).body.data.id}`;
  };

  test('names the fields that differ by their paths, with the events that changed them', async () => {
    await api.expect(201, 'POST', '/agents', { body: { id: 'ada', name: 'Ada Ortiz' } });
    await api.expect(201, 'POST', '/agents', { body: { id: 'bo', name: 'Bo' } });
    const path = await open();
    await api.expect(200, 'POST', `${path}/assign`, { body: { assigneeId: 'ada' } });
    await api.expect(200, 'POST', `${path}/tags`, { body: { tags: ['vip'] } });
    await api.expect(200, 'PUT', path, { body: { customAttributes: { plan: 'pro', 'a.b': 2 }, priority: 'high' } });
    await api.expect(200, 'POST', `${path}/assign`, { body: { assigneeId: 'bo' } });
    await api.expect(201, 'POST', `${path}/reply`, { body: { message: 'Done' } });

    const { from, to, events: between, changes } = await diff(path, '?from=2&to=7');
    expect([from, to]).toEqual([2, 7]);
    expect(between.map(({ type }) => type)).toEqual([
      'TagsAdded',
      'PriorityChanged',
      'CustomAttributesChanged',
      'ConversationAssigned',
      'MessageSent',
    ]);
    const time = expect.stringMatching(/Z$/) as string;
    const messageId = expect.any(String) as string;
    expect(changes.map(({ field, before, after }) => [field, before, after])).toEqual([
      ['assignee.id', 'ada', 'bo'],
      ['assignee.name', 'Ada Ortiz', 'Bo'],
      ['tags', [], ['vip']],
      ['customAttributes.plan', 'free', 'pro'],
      ['customAttributes["a.b"]', 1, 2],
      ['priority', 'normal', 'high'],
      ['updatedAt', time, time],
      ['waitingSince', time, null],
      ['messageCount', 1, 2],
      ['lastMessage.id', messageId, messageId],
      ['lastMessage.type', 'visitor', 'agent'],
      ['lastMessage.content', 'Hi', 'Done'],
      ['lastMessage.createdAt', time, time],
      ['lastMessage.author', null, { id: expect.any(String), name: 'Admin' }],
    ]);

    // By default from before the first event to the latest.
    const all = await diff(path);
    expect([all.from, all.to, all.events.length]).toEqual([-1, 7, 8]);
    expect(all.changes.find(({ field }) => field === 'assignee')).toMatchObject({
      before: null,
      after: { id: 'bo', type: 'agent', name: 'Bo' },
    });
    expect(all.changes.find(({ field }) => field === 'subject')).toMatchObject({ before: null, after: 'Refund' });
    expect(all.changes.filter(({ before }) => before !== null)).toEqual([]);
    expect(await diff(path, '?from=3&to=3')).toEqual({ from: 3, to: 3, events: [], changes: [] });
    expect(await diff(path, '?to=-1')).toEqual({ from: -1, to: -1, events: [], changes: [] });
  });

  test('shows at most as many events as asked for, and compares over all of them', async () => {
    const path = await open();
    for (const tag of ['a', 'b', 'c']) await api.expect(200, 'POST', `${path}/tags`, { body: { tags: [tag] } });
    const { body } = await api.expect(200, 'GET', `${path}/events/diff?from=1&limit=2`);
    const { data, meta } = body as DiffAnswer;
    expect(data.events.map(({ revision }) => revision)).toEqual([2, 3]);
    expect(data.changes[0]).toEqual({ field: 'tags', before: [], after: ['a', 'b', 'c'] });
    expect(meta).toEqual({ limit: 2, hasMore: true });
    expect(((await api.expect(200, 'GET', `${path}/events/diff?from=1&limit=3`)).body as DiffAnswer).meta).toEqual({
      limit: 3,
      hasMore: false,
    });
  });

  test.each([
    ['from=2', 'from', 'is a revision that was not reached: the latest is 1'],
    ['to=2', 'to', 'is a revision that was not reached: the latest is 1'],
    ['from=1&to=0', 'from', 'must not be above to, which is 0'],
    ['to=999999999', 'to', 'is a revision that was not reached: the latest is 1'],
    ['from=-2', 'from', undefined],
    ['from=1.5', 'from', undefined],
    ['to=01', 'to', undefined],
    ['to=', 'to', undefined],
    ['to=latest', 'to', undefined],
    ['from=0&from=1', 'from', undefined],
    ['limit=0', 'limit', undefined],
    ['limit=1001', 'limit', undefined],
    ['at=2026-01-01T00:00:00Z', 'at', undefined],
  ])('with %s is refused, and names the field', async (query, field, message) => {
    const { body } = await api.expect(400, 'GET', `${await open()}/events/diff?${query}`);
    expect(body.errors).toEqual([{ field, message: message ?? expect.any(String) }]);
  });
});

test('a private view is compared and proved for those who see it', async () => {
  await api.expect(201, 'POST', '/agents', { body: { id: 'owner', name: 'Owner' } });
  const key = await api.keyFor('agent', { agentId: 'owner' });
  const auditor = await api.keyFor('auditor');
  const body = { name: 'A secret view', filter: { tag: ['canary'] } };
  const { id } = (await api.expect(201, 'POST', '/views', { body, key })).body.data as { id: string };
  await api.expect(200, 'PUT', `/views/${id}`, { body: { name: 'Renamed' }, key });
  for (const part of ['events', 'events/diff', 'verify']) {
    const hidden = await api.expect(404, 'GET', `/views/${id}/${part}`);
    const unknown = await api.expect(404, 'GET', `/views/nobody/${part}`);
    expect(hidden.text.replaceAll(/"(instance|requestId)":"[^"]*"/g, '')).toBe(
      unknown.text.replaceAll(/"(instance|requestId)":"[^"]*"/g, ''),
    );
    await api.expect(200, 'GET', `/views/${id}/${part}`, { key: auditor });
  }
  const own = (await api.expect(200, 'GET', `/views/${id}/events/diff?from=0`, { key })).body as DiffAnswer;
  expect(own.data.changes[0]).toEqual({ field: 'name', before: 'A secret view', after: 'Renamed' });
  await api.expect(403, 'GET', `/views/${id}/verify`, { key });
});

test('secrets are never compared, personal fields of an erased visitor not any more, and another organization is not there', async () => {
  const secrets: string[] = [];
  const hook = await api.expect(201, 'POST', '/webhooks', { body: { url: 'http://127.0.0.1:9/', events: ['message.sent'] } });
  secrets.push(hook.body.data.secret as string);
  secrets.push((await api.expect(200, 'POST', `/webhooks/${hook.body.data.id}/rotate-secret`, { body: {} })).body.data.secret as string);
  const made = await api.expect(201, 'POST', '/api-keys', { body: { name: 'A key', role: 'agent' } });
  secrets.push((made.body.data.key as string).slice(8));
  for (const path of [`/webhooks/${hook.body.data.id}`, `/api-keys/${made.body.data.id}`]) {
    const { text } = await api.expect(200, 'GET', `${path}/events/diff`);
    for (const secret of secrets) expect(text).not.toContain(secret);
  }

  const visitor = { id: 'erased-1', name: 'Grace Canary', attributes: { rank: 'admiral canary' } };
  const opened = await api.expect(201, 'POST', '/conversations', { body: { visitor, subject: 'canary subject', message: 'canary words' } });
  const path = `/conversations/${opened.body.data.id}`;
  await api.expect(200, 'PUT', path, { body: { subject: 'canary again' } });
  expect((await diff(path, '?from=1')).changes[0]).toEqual({ field: 'subject', before: 'canary subject', after: 'canary again' });
  expect((await diff('/visitors/erased-1')).changes).toContainEqual({ field: 'name', before: null, after: 'Grace Canary' });
  await api.backend.database.updateTable('keep.visitor_keys').set({ wrapped: null }).where('visitor_id', '=', 'erased-1').execute();
  // Another process, which has not seen the key.
  const later = await startApi({
    database: { url: api.backend.databaseUrl },
    environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' },
  });
  try {
    for (const erased of [path, '/visitors/erased-1'])
      for (const part of ['events/diff', 'events', 'verify']) {
        const { text } = await later.expect(200, 'GET', `${erased}/${part}`, { key: api.adminKey });
        expect(text).not.toMatch(/canary|admiral/i);
      }
    const { body } = await later.expect(200, 'GET', `${path}/events/diff`, { key: api.adminKey });
    expect((body as DiffAnswer).data.changes).toContainEqual({ field: 'subject', before: null, after: '[erased]' });
    expect((await later.expect(200, 'GET', `${path}/verify`, { key: api.adminKey })).body.data.ok).toBe(true);
  } finally {
    await later.stop();
  }

  const other = await api.otherOrganization();
  for (const part of ['events/diff', 'verify'])
    for (const foreign of [path, '/visitors/erased-1', `/webhooks/${hook.body.data.id}`, `/api-keys/${made.body.data.id}`]) {
      const bare = (text: string) => text.replaceAll(/"(instance|requestId)":"[^"]*"/g, '');
      const hidden = await api.expect(404, 'GET', `${foreign}/${part}`, { key: other.adminKey });
      const unknown = await api.expect(404, 'GET', `${foreign.replace(/[^/]+$/, 'nobody')}/${part}`, { key: other.adminKey });
      expect(bare(hidden.text)).toBe(bare(unknown.text));
    }
  const organization = await api.expect(200, 'GET', '/organization/events/diff', { key: other.adminKey });
  expect(organization.text).not.toContain(api.organizationId);
});
