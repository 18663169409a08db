import { CannedResponseWriter } from '../../src/canned-responses/canned-response.commands.js';
import { voidShortcutClaim } from '../../src/canned-responses/canned-response.js';
import { systemContext } from '../../src/organizations/organization.writer.js';
import { randomIds } from '../../src/ids.js';
import { type Answer, startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

let database: TestDatabase;
let api: TestApi;
/** Another process’s API over the same log. */
let second: TestApi;
let agentKey: string;
/** A conversation of a visitor with everything, and one of a visitor with nothing. */
let full: string;
let empty: string;

beforeAll(async () => {
  database = await createDatabase();
  api = await startApi({ database });
  second = await startApi({ database, environment: { MASTER_KEY: api.backend.config.MASTER_KEY ?? '' } });
  await api.expect(201, 'POST', '/agents', { body: { id: 'ada', name: 'Ada Ortiz' } });
  await api.expect(201, 'POST', '/companies', { body: { id: 'acme', name: 'Acme' } });
  agentKey = await api.keyFor('agent', { agentId: 'ada' });
  full = await opened({ name: 'Grace', email: 'grace@example.com', companyId: 'acme', attributes: { plan: 'pro', seats: 3 } });
  empty = await opened({});
}, 60_000);
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await second.stop();
    await api.stop();
    await database.drop();
  }
});

const opened = async (visitor: object): Promise<string> =>
  (await api.expect(201, 'POST', '/conversations', { body: { visitor, message: 'Hi' } })).body.data.id as string;

let count = 0;
const fresh = () => `/s${++count}`;
const make = async (content: string, shortcut = fresh()): Promise<string> =>
  (await api.expect(201, 'POST', '/canned-responses', { body: { title: 'T', shortcut, content } })).body.data.id as string;
const head = () => api.backend.store.head();
const rendered = async (id: string, conversationId: string, key = agentKey) =>
  (await api.expect(200, 'POST', `/canned-responses/${id}/render`, { body: { conversationId }, key })).body.data as {
    text: string;
    missing: string[];
  };
const said = (conversation: string, body: object, headers: Record<string, string> = {}) =>
  api.call('POST', `/conversations/${conversation}/reply`, { body, headers, key: agentKey });
const refusal = ({ status, body }: Answer) => [status, body.code];
const messagesOf = async (conversation: string): Promise<{ type: string; content: string }[]> =>
  (await api.expect(200, 'GET', `/conversations/${conversation}`)).body.data.messages;

const ALL = '{{visitor.name}}|{{visitor.email}}|{{agent.name}}|{{company.name}}|{{visitor.attributes.plan}}|{{visitor.attributes.seats}}';

describe('rendering', () => {
  test('fills in who the conversation is with, who acts, and the visitor’s company', async () => {
    const before = await head();
    const id = await make(ALL);
    const after = await head();
    expect(await rendered(id, full)).toEqual({ text: 'Grace|grace@example.com|Ada Ortiz|Acme|pro|3', missing: [] });
    expect(after).not.toBe(before);
    expect(await head()).toBe(after);
  });

  test('takes the fallback or nothing for what is missing, and tells what', async () => {
    const id = await make('Hi {{visitor.name | "there"}}{{company.name}}{{visitor.attributes.plan | " (free)"}}!');
    expect(await rendered(id, empty)).toEqual({
      text: 'Hi there (free)!',
      missing: ['visitor.name', 'company.name', 'visitor.attributes.plan'],
    });
  });

  test('is of this moment, and for whoever acts', async () => {
    const id = await make('{{visitor.name}} {{agent.name}}');
    const conversation = await opened({ id: 'mover', name: 'Before' });
    await api.expect(200, 'PUT', '/visitors/mover', { body: { name: 'After' } });
    expect((await rendered(id, conversation)).text).toBe('After Ada Ortiz');
    // A key without an agent speaks under its own name.
    expect((await rendered(id, conversation, await api.keyFor('admin'))).text).toBe('After test admin');
    const acting = await api.expect(200, 'POST', `/canned-responses/${id}/render`, {
      body: { conversationId: conversation },
      headers: { 'x-agent-id': 'ada' },
    });
    expect(acting.body.data.text).toBe('After Ada Ortiz');
  });

  test('shows nothing of an erased visitor, and takes the fallback', async () => {
    const id = await make('{{visitor.name | "friend"}}{{visitor.attributes.plan}}');
    const conversation = await opened({ id: 'erased', name: 'Gone', attributes: { plan: 'pro' } });
    await api.backend.database.updateTable('keep.visitor_keys').set({ wrapped: null }).where('visitor_id', '=', 'erased').execute();
    // The other process has not seen the key.
    const answer = await second.expect(200, 'POST', `/canned-responses/${id}/render`, {
      body: { conversationId: conversation },
      key: agentKey,
    });
    expect(answer.body.data).toEqual({ text: 'friend', missing: ['visitor.name', 'visitor.attributes.plan'] });
  });

  test('is the first answer when it is sent again with its key, and no plain text is kept for that', async () => {
    const id = await make('Hi {{visitor.name}}!');
    const conversation = await opened({ id: 'rendered', name: 'Secretive' });
    const ask = (instance: TestApi) =>
      instance.expect(200, 'POST', `/canned-responses/${id}/render`, {
        key: agentKey,
        body: { conversationId: conversation },
        headers: { 'idempotency-key': 'rendered' },
      });
    const first = await ask(api);
    await api.expect(200, 'PUT', '/visitors/rendered', { body: { name: 'Renamed' } });
    for (const instance of [api, second]) expect((await ask(instance)).text).toBe(first.text);
    const kept = await api.backend.database.selectFrom('keep.idempotency').select('answer').execute();
    expect(JSON.stringify(kept)).not.toContain('Secretive');
  });

  test('names a conversation that is there, and a response that is not archived', async () => {
    const id = await make('x');
    const other = await api.otherOrganization();
    const foreign = (
      await api.expect(201, 'POST', '/conversations', { key: other.adminKey, body: { visitor: { name: 'Eve' }, message: 'x' } })
    ).body.data.id as string;
    const render = (response: string, body: unknown, key = agentKey) =>
      api.call('POST', `/canned-responses/${response}/render`, { body, key });
    for (const conversationId of ['nobody', foreign])
      expect(refusal(await render(id, { conversationId }))).toEqual([422, 'unknown_conversation']);
    for (const body of [{}, { conversationId: null }, { conversationId: 'a b' }, { conversationId: full, agentId: 'ada' }])
      expect(refusal(await render(id, body))).toEqual([400, 'validation_failed']);
    expect(refusal(await render('nothing', { conversationId: full }))).toEqual([404, 'not_found']);
    expect(refusal(await render(id, { conversationId: foreign }, other.adminKey))).toEqual([404, 'not_found']);
    for (const role of ['auditor', 'analyst'] as const)
      expect(refusal(await render(id, { conversationId: full }, await api.keyFor(role)))).toEqual([403, 'forbidden']);
    await api.expect(204, 'DELETE', `/canned-responses/${id}`);
    expect(refusal(await render(id, { conversationId: full }))).toEqual([409, 'resource_archived']);
  });
});

describe('a reply with a canned response', () => {
  test('says the rendered text, as a reply or a note, and may set a status', async () => {
    const id = await make('Hi {{visitor.name | "there"}}, this is {{agent.name}}.');
    const conversation = await opened({ name: 'Grace' });
    const reply = await said(conversation, { cannedResponseId: id, status: 'pending' });
    expect([reply.status, reply.body.data]).toMatchObject([
      201,
      { type: 'agent', contentType: 'text', content: 'Hi Grace, this is Ada Ortiz.', author: { id: 'ada', name: 'Ada Ortiz' } },
    ]);
    expect((await said(conversation, { cannedResponseId: id, type: 'note' })).body.data.type).toBe('note');
    expect((await messagesOf(conversation)).map(({ content }) => content).slice(1)).toEqual(Array(2).fill('Hi Grace, this is Ada Ortiz.'));
    expect((await api.expect(200, 'GET', `/conversations/${conversation}`)).body.data.status).toBe('pending');
  });

  test('stays what it was, whatever becomes of the response and the visitor', async () => {
    const id = await make('Hi {{visitor.name}}!');
    const conversation = await opened({ id: 'changing', name: 'Old' });
    const headers = { 'idempotency-key': 'canned-reply' };
    const first = await said(conversation, { cannedResponseId: id }, headers);
    expect(first.body.data.content).toBe('Hi Old!');
    await api.expect(200, 'PUT', '/visitors/changing', { body: { name: 'New' } });
    await api.expect(200, 'PUT', `/canned-responses/${id}`, { body: { content: 'Bye {{visitor.name}}!' } });
    for (const archived of [false, true]) {
      if (archived) await api.expect(204, 'DELETE', `/canned-responses/${id}`);
      const again = await said(conversation, { cannedResponseId: id }, headers);
      expect([again.status, again.text]).toEqual([201, first.text]);
    }
    expect(await messagesOf(conversation)).toHaveLength(2);
  });

  test('keeps what stands in the values as text', async () => {
    const id = await make('Hi {{visitor.name}}!');
    const conversation = await opened({ name: '{{agent.name}} $& <b>' });
    expect((await said(conversation, { cannedResponseId: id })).body.data.content).toBe('Hi {{agent.name}} $& <b>!');
  });

  test('names one that is there, and no message beside it', async () => {
    const id = await make('{{visitor.name}}');
    const gone = await make('x');
    await api.expect(204, 'DELETE', `/canned-responses/${gone}`);
    const foreign = (
      await api.expect(201, 'POST', '/canned-responses', {
        key: (await api.otherOrganization()).adminKey,
        body: { title: 'T', shortcut: '/x', content: 'x' },
      })
    ).body.data.id as string;
    const long = await make('{{visitor.attributes.long}}'.repeat(60));
    const talkative = await opened({ attributes: { long: 'x'.repeat(1_000) } });
    const before = await head();
    for (const cannedResponseId of ['nothing', foreign])
      expect(refusal(await said(empty, { cannedResponseId }))).toEqual([422, 'unknown_canned_response']);
    expect(refusal(await said(empty, { cannedResponseId: gone }))).toEqual([409, 'resource_archived']);
    for (const body of [
      { cannedResponseId: id, message: 'x' },
      { cannedResponseId: null },
      { cannedResponseId: 5 },
      { cannedResponseId: 'a b' },
      {},
    ])
      expect(refusal(await said(empty, body))).toEqual([400, 'validation_failed']);
    // A name that is missing leaves nothing to say.
    expect(refusal(await said(empty, { cannedResponseId: id }))).toEqual([422, 'unsendable_message']);
    expect(refusal(await said(talkative, { cannedResponseId: long }))).toEqual([422, 'unsendable_message']);
    expect(refusal(await said('nobody', { cannedResponseId: id }))).toEqual([404, 'not_found']);
    expect(await head()).toBe(before);
  });
});

describe('what is saved', () => {
  test('names no variable that is not known', async () => {
    const id = await make('fine', '/fine');
    const before = await head();
    for (const content of [
      '{{constructor}}',
      '{{1 | valueOf}}',
      '{{#each x}}',
      '{{__proto__}}',
      'Hi {{visitor.phone}}',
      'Hi {{visitor.name',
    ]) {
      for (const [method, path, body] of [
        ['POST', '/canned-responses', { title: 'T', shortcut: '/unfine', content }],
        ['PUT', `/canned-responses/${id}`, { content }],
      ] as const) {
        const refused = await api.call(method, path, { body });
        expect(refusal(refused)).toEqual([422, 'unknown_variable']);
        expect(refused.body.errors[0].field).toBe('content');
      }
    }
    expect(await head()).toBe(before);
  });

  test('works as the source of this API shows it', async () => {
    const made = await api.expect(201, 'POST', '/canned-responses', {
      body: {
        title: 'Greeting',
        shortcut: '/hello',
        content: 'Hi {{visitor.name}}! Thanks for reaching out. How can I help you today?',
      },
    });
    expect((await rendered(made.body.data.id, full)).text).toBe('Hi Grace! Thanks for reaching out. How can I help you today?');
  });
});

describe('shortcuts', () => {
  test('are found in whatever letters, and sorted by title', async () => {
    const key = (await api.otherOrganization()).adminKey;
    const rows = [];
    for (const [title, shortcut] of [
      ['banana', '/B'],
      ['Apple', '/a'],
      ['cherry', '/C'],
    ])
      rows.push(await api.expect(201, 'POST', '/canned-responses', { key, body: { title, shortcut, content: 'x' } }));
    const headers = { 'x-min-position': rows[2]!.headers.get('x-position')! };
    const list = async (query: string) =>
      ((await api.expect(200, 'GET', `/canned-responses?${query}`, { key, headers })).body.data as { title: string }[]).map(
        ({ title }) => title,
      );
    expect(await list('')).toEqual(['cherry', 'Apple', 'banana']);
    expect(await list('sort=title')).toEqual(['Apple', 'banana', 'cherry']);
    expect(await list('sort=title&order=desc&limit=2')).toEqual(['cherry', 'banana']);
    expect(await list('shortcut=%2Fb')).toEqual(['banana']);
    expect(await list('shortcut=%2Fnone')).toEqual([]);
    await api.expect(400, 'GET', '/canned-responses?sort=name', { key });
    await api.expect(400, 'GET', '/agents?sort=title', { key });
  });

  test('are one in every spelling, in making and in finding', async () => {
    const id = await make('x', ' /cafe\u0301\u200b ');
    expect((await api.expect(200, 'GET', `/canned-responses/${id}`)).body.data.shortcut).toBe('/caf\u00e9');
    expect(
      refusal(await api.call('POST', '/canned-responses', { body: { title: 'x', shortcut: '/CAF\u00c9\u00a0', content: 'x' } })),
    ).toEqual([409, 'shortcut_taken']);
    for (const shortcut of ['/caf\u00e9', '/cafe\u0301', '/ca\u200bf\u00e9']) {
      const headers = { 'x-min-position': String(await head()) };
      const list = await api.expect(200, 'GET', `/canned-responses?shortcut=${encodeURIComponent(shortcut)}`, { headers });
      expect(list.body.data).toMatchObject([{ id }]);
    }
    await api.expect(400, 'POST', '/canned-responses', { body: { title: 'x', shortcut: 'two words', content: 'x' } });
  });

  test('asked for at once by two processes, in making and in changing, are one request’s', async () => {
    for (let round = 0; round < 5; round++) {
      const shortcut = fresh();
      const changing = await make('x');
      const answers = await Promise.all(
        Array.from({ length: 6 }, (_, i) => {
          const instance = i % 2 === 0 ? api : second;
          return i === 0
            ? instance.call('PUT', `/canned-responses/${changing}`, { body: { shortcut }, key: api.adminKey })
            : instance.call('POST', '/canned-responses', {
                body: { title: `${i}`, shortcut: i % 3 === 0 ? shortcut.toUpperCase() : shortcut, content: 'x' },
                key: api.adminKey,
              });
        }),
      );
      expect(answers.filter(({ status }) => status < 300)).toHaveLength(1);
      for (const answer of answers) if (answer.status >= 300) expect(refusal(answer)).toEqual([409, 'shortcut_taken']);
      const list = await api.expect(200, 'GET', `/canned-responses?shortcut=${encodeURIComponent(shortcut)}`, {
        headers: { 'x-min-position': String(await head()) },
      });
      expect(list.body.data).toHaveLength(1);
    }
  });

  test('of an archived one are free', async () => {
    const id = await make('x', '/free');
    await api.expect(204, 'DELETE', `/canned-responses/${id}`);
    const other = await make('y', '/FREE');
    expect((await api.expect(200, 'GET', `/canned-responses/${id}`)).body.data).toMatchObject({ shortcut: '/free', archived: true });
    const taken = await make('z');
    expect(refusal(await api.call('PUT', `/canned-responses/${taken}`, { body: { shortcut: '/Free' } }))).toEqual([409, 'shortcut_taken']);
    await api.expect(200, 'PUT', `/canned-responses/${other}`, { body: { shortcut: '/moved' } });
    await api.expect(200, 'PUT', `/canned-responses/${taken}`, { body: { shortcut: '/Free' } });
  });

  test('that were claimed for one that was never made leave it nowhere to be seen', async () => {
    await api.app
      .get(CannedResponseWriter)
      .write(systemContext(api.organizationId, randomIds.next()), 'never', voidShortcutClaim('/never'));
    for (const path of ['/canned-responses/never', '/canned-responses/never/events']) await api.expect(404, 'GET', path);
    for (const archived of [true, false]) {
      const list = await api.expect(200, 'GET', `/canned-responses?limit=100&archived=${archived}`, {
        headers: { 'x-min-position': String(await head()) },
      });
      expect((list.body.data as { id: string }[]).map(({ id }) => id)).not.toContain('never');
    }
    for (const [method, body] of [['PUT', { title: 'x' }], ['DELETE'], ['POST', { conversationId: full }]] as const)
      expect(
        refusal(await api.call(method, `/canned-responses/never${method === 'POST' ? '/render' : ''}`, body === undefined ? {} : { body })),
      ).toEqual([404, 'not_found']);
    expect(refusal(await said(full, { cannedResponseId: 'never' }))).toEqual([422, 'unknown_canned_response']);
  });
});
