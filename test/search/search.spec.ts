import { sql } from 'kysely';
import { projectionsOf } from '../../projections/registry.js';
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import { batchDecoder } from '../../src/event-decoding.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { searchFeature } from '../../src/search/search.feature.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { type CallOptions, startApi, type TestApi } from '../support/api.js';

/* What a search finds, and what it shows of it. */

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.stop());

interface Hit {
  readonly conversation: { readonly id: string; readonly lastMessage: { readonly content: unknown } | null };
  readonly message?: { readonly id: string; readonly type: string; readonly content: unknown };
  readonly highlights: readonly {
    readonly field: string;
    readonly text: string;
    readonly ranges: readonly (readonly [number, number])[];
  }[];
}

const made = async (path: string, body: object, options: CallOptions = {}) =>
  (await api.expect(201, 'POST', path, { ...options, body })).body.data.id as string;
const opened = (message: unknown, more: object = {}) => made('/conversations', { visitor: {}, message, ...more });
const fresh = async (options: CallOptions = {}) => ({
  ...options,
  headers: { ...options.headers, 'x-min-position': await api.backend.store.head() },
});
const path = (q: string, more = '') => `/search?q=${encodeURIComponent(q)}${more}`;
const search = async (q: string, more = '', options: CallOptions = {}) =>
  (await api.expect(200, 'GET', path(q, more), await fresh(options))).body.data as Hit[];
const found = async (q: string, more = '', options: CallOptions = {}) =>
  (await search(q, more, options)).map(({ conversation: { id } }) => id);
const listed = async (q: string, more = '', options: CallOptions = {}) =>
  (
    (await api.expect(200, 'GET', `/conversations?q=${encodeURIComponent(q)}${more}`, await fresh(options))).body.data as { id: string }[]
  ).map(({ id }) => id);
/** The marked parts of the texts, by field. */
const marked = (hit: Hit | undefined) =>
  (hit?.highlights ?? []).map(({ field, text, ranges }) => [
    field,
    ...ranges.map(([from, to]) => Array.from(text).slice(from, to).join('')),
  ]);

test('a word is found wherever it stands, and shown there', async () => {
  const id = await opened('The zeppelin has not come.', {
    visitor: { name: 'Wanda Quill', email: 'wanda.quill@airship.example' },
    subject: 'Lost dirigible',
    customAttributes: { route: 'Friedrichshafen', flight: 129 },
  });
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['hydrogen'] } });
  await made(`/conversations/${id}/reply`, {
    message: {
      type: 'card',
      content: { title: 'Hangar', description: 'Gate seventeen', actions: [{ label: 'Track ballast', url: 'https://example.com/x' }] },
    },
  });
  await made(`/conversations/${id}/reply`, {
    type: 'note',
    message: {
      type: 'attachment',
      content: 'the gasbag',
      attachments: [{ name: 'blueprint-7.pdf', url: 'https://example.com/b', type: 'application/pdf', size: 1 }],
    },
  });
  for (const [q, field, text] of [
    ['zeppelin', 'message.content', 'zeppelin'],
    ['ZEPP', 'message.content', 'zeppelin'],
    ['wanda', 'visitor.name', 'Wanda'],
    ['dirigible', 'subject', 'dirigible'],
    ['friedrichshafen', 'customAttributes.route', 'Friedrichshafen'],
    ['129', 'customAttributes.flight', '129'],
    ['hydrogen', 'tags', 'hydrogen'],
    ['hangar', 'message.content.title', 'Hangar'],
    ['seventeen', 'message.content.description', 'seventeen'],
    ['ballast', 'message.content.actions[0].label', 'ballast'],
    ['gasbag', 'message.content', 'gasbag'],
    ['blueprint', 'message.attachments[0].name', 'blueprint'],
  ] as const) {
    const [hit, ...others] = await search(q);
    expect({ q, id: hit?.conversation.id, others: others.length }).toEqual({ q, id, others: 0 });
    expect(marked(hit)).toContainEqual([field, text]);
    expect(await listed(q)).toEqual([id]);
  }
  expect(await found('example.com/x')).toEqual([]);
});

test('words, beginnings, phrases and minus', async () => {
  const first = await opened('alpha beta gamma');
  const second = await opened('beta alphabet');
  expect(new Set(await found('beta'))).toEqual(new Set([first, second]));
  expect(await found('alpha beta')).toEqual([first]);
  expect(new Set(await found('beta alpha'))).toEqual(new Set([first, second]));
  expect(new Set(await found('alpha* beta'))).toEqual(new Set([first, second]));
  expect(await found('"beta gamma"')).toEqual([first]);
  expect(await found('"alpha gamma"')).toEqual([]);
  expect(await found('"alph"')).toEqual([]);
  expect(await found('beta -gamma')).toEqual([second]);
  expect(await found('beta -"alpha beta"')).toEqual([second]);
  expect(await listed('beta -gamma')).toEqual([second]);
  // All words must meet in one message.
  const third = await opened('delta one');
  await made(`/conversations/${third}/messages`, { message: 'epsilon two' });
  expect(await found('delta epsilon')).toEqual([]);
  // A minus excludes messages, and another one of the conversation may match.
  await made(`/conversations/${third}/messages`, { message: 'delta again, zeta' });
  expect(await found('delta -zeta')).toEqual([third]);
  expect(await found('delta -one')).toEqual([third]);
  expect((await search('delta -one'))[0]?.message?.content).toBe('delta again, zeta');
});

test('parts of names, addresses and codes', async () => {
  const id = await opened('Order AB-1234 and ticket #98765, see https://shop.example.net/basket/item_77', {
    visitor: { name: 'Jean-Luc Marchbanks', email: 'jl.marchbanks@posthorn.example' },
  });
  for (const q of [
    'AB-1234',
    '1234',
    '#98765',
    '98765',
    'basket',
    'item_77',
    'shop.example.net',
    'archban',
    'JL.march',
    'hbanks@post',
    'posthorn',
  ])
    expect([q, await found(q)]).toEqual([q, [id]]);
  expect(await found('"archban"')).toEqual([]);
  expect(await found('AB-4321')).toEqual([]);
  expect(marked((await search('archban'))[0])).toEqual([
    ['visitor.name', 'archban'],
    ['visitor.email', 'archban'],
  ]);
});

test('a name comes first, then those that begin so, then texts by rank, then the newest', async () => {
  const mentioned = await opened('Somebody named Orlando Finch wrote');
  const often = await opened('orlando finch, orlando finch, orlando finch');
  const begins = await opened('x', { visitor: { name: 'Orlando Finchley' } });
  const exact = await opened('x', { visitor: { name: 'Orlando Finch' } });
  const newer = await opened('y', { visitor: { email: 'finch@orlando.example', name: 'ORLANDO  FINCH' } });
  expect(await found('orlando finch')).toEqual([newer, exact, begins, often, mentioned]);
  expect((await found('finch@orlando.example'))[0]).toBe(newer);
});

test('own fields meet across the conversation and its visitor', async () => {
  const id = await opened('x', { visitor: { name: 'Petronella Vane' }, subject: 'Velocipede' });
  const other = await opened('x', { visitor: { name: 'Petronella Oak' }, subject: 'Tandem' });
  expect(await found('petronella velocipede')).toEqual([id]);
  expect(await found('petronella -velocipede')).toEqual([other]);
  await api.expect(200, 'PUT', `/conversations/${id}`, { body: { subject: null } });
  expect(await found('velocipede')).toEqual([]);
});

test('pages, totals and cursors as lists have them', async () => {
  for (let i = 0; i < 7; i++) await opened(`pagination ${i}`);
  const whole = await found('pagination');
  expect(whole).toHaveLength(7);
  const first = await api.expect(200, 'GET', path('pagination', '&limit=3'), await fresh());
  expect(first.body.meta).toMatchObject({ page: 1, limit: 3, total: 7, totalIsExact: true, hasMore: true });
  await opened('pagination new');
  const second = await api.expect(
    200,
    'GET',
    path('pagination', `&limit=3&cursor=${first.body.meta.nextCursor}&total=none`),
    await fresh(),
  );
  expect((second.body.data as Hit[]).map(({ conversation }) => conversation.id)).toEqual(whole.slice(3, 6));
  expect(second.body.meta).not.toHaveProperty('total');
  expect((await api.call('GET', path('other', `&cursor=${first.body.meta.nextCursor}`))).status).toBe(400);
  expect(await found('pagination', '&page=3&limit=3')).toHaveLength(2);
});

test('every filter of the list combines with it', async () => {
  const inbox = await made('/inboxes', { name: 'Filtered' });
  const visitorId = await made('/visitors', { name: 'Filter' });
  const ids = [
    await opened('sieve', { inboxId: inbox, priority: 'urgent', customAttributes: { plan: 'gold' } }),
    await opened('sieve', { visitor: { id: visitorId } }),
    await opened('sieve'),
  ];
  await api.expect(200, 'POST', `/conversations/${ids[2]}/tags`, { body: { tags: ['mesh'] } });
  await api.expect(200, 'PUT', `/conversations/${ids[1]}`, { body: { status: 'pending' } });
  for (const [filter, i] of [
    [`&inboxId=${inbox}`, 0],
    ['&priority=urgent', 0],
    ['&customAttributes[plan]=gold', 0],
    [`&visitorId=${visitorId}`, 1],
    ['&status=pending', 1],
    ['&tag=mesh', 2],
  ] as const) {
    expect([filter, await found('sieve', filter)]).toEqual([filter, [ids[i]]]);
    expect([filter, await listed('sieve', filter)]).toEqual([filter, [ids[i]]]);
  }
  expect(await found('sieve', '&createdBefore=2020-01-01T00:00:00Z')).toEqual([]);
});

test('any text is a question, and none breaks the answer', async () => {
  for (const q of [
    '&',
    '|',
    '!',
    '()',
    "'",
    '"',
    '\\',
    '%',
    '_',
    '*',
    '-',
    '--',
    '-x',
    '-"x y"',
    ':*',
    '<->',
    "a' & 'b",
    'x:* | y',
    '\u{1f44d}',
    'a'.repeat(1_000),
    '漢'.repeat(1_000),
    '" " "',
    "'); drop table x; --",
    '{}',
    '[1,2]',
    '\\u0000',
    'ＦＵＬＬ',
    '٣',
    '½',
    '‍a',
    'İ',
    'a\u0308\u0308',
  ])
    expect([
      q,
      (await api.call('GET', path(q))).status,
      (await api.call('GET', `/conversations?q=${encodeURIComponent(q)}`)).status,
    ]).toEqual([q, 200, 200]);
  for (const q of ['', ' ', 'a\0b', 'a'.repeat(1_001), 'a '.repeat(51)]) {
    expect((await api.call('GET', path(q))).status).toBe(400);
    expect((await api.call('GET', `/conversations?q=${encodeURIComponent(q)}`)).status).toBe(400);
  }
  expect((await api.call('GET', '/search')).status).toBe(400);
  expect((await api.call('GET', '/search?q=a&q=b')).status).toBe(400);
});

test('notes are for the team; analysts search without messages; visitors do not search', async () => {
  const visitorId = await made('/visitors', { name: 'Nolan Noted' });
  const id = await opened('outspoken', { visitor: { id: visitorId }, subject: 'Whisper' });
  await made(`/conversations/${id}/reply`, { type: 'note', message: 'confidential aside' });
  for (const role of ['admin', 'agent', 'auditor'] as const) {
    const [hit] = await search('confidential', '', { key: await api.keyFor(role) });
    expect(hit?.message).toMatchObject({ type: 'note', content: 'confidential aside' });
  }
  const analyst = await api.keyFor('analyst');
  expect(await found('confidential', '', { key: analyst })).toEqual([]);
  expect(await listed('outspoken', '', { key: analyst })).toEqual([]);
  const [hit] = await search('whisper nolan', '', { key: analyst });
  expect(hit?.conversation.id).toBe(id);
  expect(hit?.conversation.lastMessage?.content).toBeNull();
  expect(hit).not.toHaveProperty('message');
  expect(await listed('whisper', '', { key: analyst })).toEqual([id]);
  const { token } = (await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: visitorId } } })).body.data as {
    token: string;
  };
  expect((await api.call('GET', '/search?q=outspoken', { key: token })).status).toBe(403);
  expect((await api.call('GET', '/conversations?q=outspoken', { key: token })).status).toBe(400);
});

test("another organization's texts are never found", async () => {
  const other = await api.otherOrganization();
  const key = other.adminKey;
  const id = await made(
    '/conversations',
    {
      visitor: { name: 'Canary Bird', email: 'canary@other.example' },
      message: 'canary sings',
      subject: 'canary',
      customAttributes: { canary: 'canary' },
    },
    { key },
  );
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { key, body: { tags: ['canary'] } });
  for (const q of ['canary', 'anar', 'canar*', '"canary sings"', 'canary@other.example', 'canary bird', 'sings'])
    expect([q, await found(q), await listed(q)]).toEqual([q, [], []]);
  expect(await found('canary', '', { key })).toEqual([id]);
  expect(await listed('canary', '', { key })).toEqual([id]);
});

test('German, French and Japanese are found as people type them', async () => {
  const german = await opened('Die Straße zum Müller ist gesperrt, Grüße aus Österreich', { visitor: { name: 'Jörg Weiß' } });
  const french = await opened("L'été dernier, la commande n'était pas arrivée à Besançon. Cœur", { visitor: { name: 'Zoé Lefèvre' } });
  const japanese = await opened('注文した商品がまだ届きません。配送状況を教えてください。', { visitor: { name: '田中太郎' } });
  for (const [q, id] of [
    ['strasse', german],
    ['STRASSE', german],
    ['Straße', german],
    ['muller', german],
    ['Mueller', german],
    ['gruesse', german],
    ['österreich', german],
    ['joerg', german],
    ['weiss', german],
    ['ete', french],
    ["l'été", french],
    ['L’ÉTÉ', french],
    ['arrivee', french],
    ['besancon', french],
    ['coeur', french],
    ['lefevre', french],
    ['efev', french],
    ['配送', japanese],
    ['配送状況', japanese],
    ['商品', japanese],
    ['届', japanese],
    ['田中', japanese],
    ['太郎', japanese],
    ['"教えて"', japanese],
  ] as const)
    expect([q, await found(q)]).toEqual([q, [id]]);
  expect(await found('状況配送')).toEqual([]);
  expect(marked((await search('strasse'))[0])).toEqual([['message.content', 'Straße']]);
  expect(marked((await search('配送状況'))[0])).toEqual([['message.content', '配送状況']]);
  expect(marked((await search('届'))[0])).toEqual([['message.content', '届']]);
});

test('long texts are shown in part, with places in code points', async () => {
  const id = await opened(`${'\u{1f600} filler '.repeat(500)}monocle \u{1f600} end`);
  const [hit] = await search('monocle');
  expect(hit?.conversation.id).toBe(id);
  const [highlight] = hit?.highlights ?? [];
  expect(Array.from(highlight?.text ?? '').length).toBeLessThanOrEqual(300);
  expect(marked(hit)).toEqual([['message.content', 'monocle']]);
  // Every word of a text of ten thousand is found.
  const many = await opened(Array.from({ length: 8_000 }, (_, i) => `w${i}`).join(' '));
  expect(await found('"w7999"')).toEqual([many]);
});

test('what was erased is in no index, whatever is filled anew', async () => {
  const visitorId = await made('/visitors', { name: 'Vanished Person', email: 'vanished@person.example' });
  const id = await opened('vanishing words', {
    visitor: { id: visitorId },
    subject: 'vanished subject',
    customAttributes: { vanished: 'vanished value' },
  });
  expect(await found('vanish')).toEqual([id]);
  const { backend } = api;
  await backend.database.updateTable('keep.visitor_keys').set({ wrapped: null }).where('visitor_id', '=', visitorId).execute();
  for (const group of [CORE_GROUP, INSIGHT_GROUP])
    await rebuildGroup({
      group,
      projections: projectionsOf(group),
      // Without the memory of this process, which has seen the key.
      decode: batchDecoder(new VisitorKeys(backend.database, backend.masterKey)),
      store: backend.store,
      databaseUrl: backend.databaseUrl,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      signal: new AbortController().signal,
    });
  for (const q of ['vanish', 'anishe', 'erased']) expect([q, await found(q), await listed(q)]).toEqual([q, [], []]);
  for (const { name } of searchFeature.tables) {
    const { rows } = await sql<{ row: string }>`select t::text as row from ${sql.table(`threadlog.${name}`)} t`.execute(backend.database);
    expect(rows.filter(({ row }) => /vanish/i.test(row))).toEqual([]);
  }
});
