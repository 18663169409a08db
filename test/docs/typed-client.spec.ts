import { readFileSync } from 'node:fs';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { makeTypedClient } from '../support/typed-client.js';
import type { Conversation, ErrorCode, Priority } from './threadlog/index.js';

/*
 * The tour of README.md through a client that a generator of others makes from docs/openapi.json. Every request and every answer is used
 * through its types, without `any` and without a cast, so that a document that says too little does not compile here.
 */

// Imported once it is there.
await makeTypedClient();
const { client } = await import('./threadlog/client.gen.js');
const {
  agentsCreate,
  analyticsConversations,
  analyticsMetric,
  analyticsSixNumbers,
  automationRulesCreate,
  conversationsAddTags,
  conversationsAssign,
  conversationsChange,
  conversationsEvaluations,
  conversationsEvents,
  conversationsGet,
  conversationsList,
  conversationsMessages,
  conversationsOpen,
  conversationsRate,
  conversationsReceive,
  conversationsReply,
  conversationsSnooze,
  conversationsVerify,
  eventsRead,
  liveTicketsMake,
  searchFind,
  teamsCreate,
  webhooksCreate,
} = await import('./threadlog/index.js');

const read = (name: string) => readFileSync(new URL(name, import.meta.url), 'utf8');

let api: TestApi;
beforeAll(async () => {
  api = await startApi({ environment: { WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' } });
  client.setConfig({ baseUrl: api.url, headers: { 'X-API-Key': api.adminKey } });
});
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(api);
  } finally {
    await api.stop();
  }
});

/** For reads that must include a write. */
const since = ({ headers }: Response) => ({ 'X-Min-Position': headers.get('x-position') ?? '' });

test('drives the tour of the README', async () => {
  // What the tour finds on its server.
  await agentsCreate({ body: { id: 'agent-ada', name: 'Ada Ortiz' }, throwOnError: true });
  await teamsCreate({ body: { id: 'team-billing', name: 'Billing', agentIds: ['agent-ada'] }, throwOnError: true });
  const asAda = { 'X-Agent-Id': 'agent-ada' };
  const sent = new Set<string>();
  const watch = client.interceptors.request.use((request) => {
    sent.add(`${request.method} ${new URL(request.url).pathname.replace('/api/support', '').replace(id, '$ID')}`);
    return request;
  });

  let id = '$ID';
  const opened = await conversationsOpen({
    body: {
      visitor: { userId: 'u-42', name: 'Grace Lee', email: 'grace@example.com' },
      subject: 'Refund',
      message: 'I was charged twice.',
    },
    throwOnError: true,
  });
  const conversation: Conversation = opened.data.data;
  expect(opened.data.warnings).toBeUndefined();
  expect(conversation.messages.map(({ type, content }) => [type, content])).toEqual([['visitor', 'I was charged twice.']]);
  ({ id } = conversation);
  const path = { id };

  const listed = await conversationsList({
    query: { status: ['open', 'pending'], limit: 2 },
    headers: since(opened.response),
    throwOnError: true,
  });
  const [newest] = listed.data.data;
  expect([newest?.id, newest?.visitor.name, newest?.assignee, newest?.lastMessage?.type]).toEqual([id, 'Grace Lee', null, 'visitor']);
  expect([listed.data.meta.total, listed.data.meta.nextCursor]).toEqual([1, null]);

  const found = await searchFind({ query: { q: 'charg', status: ['open'] }, headers: since(opened.response), throwOnError: true });
  const [highlight] = found.data.data[0]?.highlights ?? [];
  const [from, to] = highlight?.ranges[0] ?? [0, 0];
  expect([highlight?.field, highlight?.text.slice(from, to)]).toEqual(['message.content', 'charged']);

  api.clock.advance(5_000);
  const reply = () =>
    conversationsReply({
      path,
      headers: { ...asAda, 'Idempotency-Key': 'reply-1' },
      body: { message: 'Sorry! One charge will be refunded today.' },
      throwOnError: true,
    });
  const [once, twice] = [await reply(), await reply()];
  expect(twice.data).toEqual(once.data);
  expect(once.data.data.author?.name).toBe('Ada Ortiz');

  const note = await conversationsReply({
    path,
    headers: asAda,
    body: { type: 'note', message: 'Refund ticket 881.' },
    throwOnError: true,
  });
  expect(note.data.data.type).toBe('note');
  const assigned = await conversationsAssign({ path, body: { assigneeId: 'team-billing' }, throwOnError: true });
  expect(assigned.data.data.assignee).toEqual({ id: 'team-billing', type: 'team', name: 'Billing' });
  const tagged = await conversationsAddTags({ path, body: { tags: ['billing'] }, throwOnError: true });
  expect(tagged.data.data.tags).toEqual(['billing']);

  const snoozed = await conversationsSnooze({ path, body: { until: 'next_reply' }, throwOnError: true });
  expect([snoozed.data.data.status, snoozed.data.data.snoozedUntil]).toEqual(['snoozed', 'next_reply']);
  const resolved = await conversationsChange({ path, body: { status: 'resolved' }, throwOnError: true });
  expect(resolved.data.data.status).toBe('resolved');
  const rated = await conversationsRate({ path, body: { rating: 5, comment: 'Fast!' }, throwOnError: true });
  expect(rated.data.data.rating?.rating).toBe(5);

  const before = await conversationsGet({ path, query: { revision: 1 }, throwOnError: true });
  expect([before.data.data.status, before.data.data.messages.length]).toEqual(['open', 1]);
  const past = await conversationsEvents({ path, throwOnError: true });
  expect(past.data.data.map(({ revision, type, actor }) => `${revision} ${type} by ${actor.type}`)).toEqual([
    '0 ConversationOpened by apiKey',
    '1 MessageReceived by apiKey',
    '2 MessageSent by agent',
    '3 NoteAdded by agent',
    '4 ConversationAssigned by apiKey',
    '5 TagsAdded by apiKey',
    '6 ConversationSnoozed by apiKey',
    '7 ConversationStatusChanged by apiKey',
    '8 ConversationRated by apiKey',
  ]);

  const priority: Priority = 'high';
  const stale = await conversationsChange({ path, headers: { 'If-Match': '"1"' }, body: { priority } });
  // Only after this does the compiler know that there is an error, and which codes it may have.
  if (stale.error === undefined) throw new Error('the conversation was changed');
  const code: ErrorCode = stale.error.code;
  expect([code, stale.error.detail, stale.error.status]).toEqual(['revision_mismatch', 'the revision is 8', stale.response.status]);

  const received = await conversationsReceive({ path, body: { message: 'One more thing' }, throwOnError: true });
  const woken = await conversationsList({ query: { limit: 1 }, headers: since(received.response), throwOnError: true });
  expect(woken.data.data[0]?.status).toBe('open');

  const rule = await automationRulesCreate({
    body: {
      name: 'Refunds',
      trigger: 'message.received',
      conditions: [{ field: 'message.content', operator: 'contains', value: 'refund' }],
      actions: [
        { type: 'reply', message: 'I see you have a question about refunds.' },
        { type: 'addTag', tag: 'refund-request' },
      ],
    },
    throwOnError: true,
  });
  const [action] = rule.data.data.actions;
  if (action?.type !== 'reply') throw new Error('the first action is another');
  expect(action.message).toBe('I see you have a question about refunds.');
  const webhook = await webhooksCreate({ body: { url: 'http://127.0.0.1:9/', events: ['message.sent'] }, throwOnError: true });
  expect(webhook.data.data.secret).toMatch(/^whsec_/);
  const ticket = await liveTicketsMake({ throwOnError: true });
  expect(typeof ticket.data.data.ticket).toBe('string');
  const second = await conversationsOpen({ body: { visitor: { userId: 'u-42' }, message: 'Where is my refund?' }, throwOnError: true });
  const answered = await eventually(async () => {
    const { data } = await conversationsMessages({ path: { id: second.data.data.id }, throwOnError: true });
    return data.data.find(({ type }) => type === 'automation');
  });
  expect(answered.content).toBe(action.message);
  const why = await eventually(async () => {
    const { data } = await conversationsEvaluations({ path: { id: second.data.data.id }, throwOnError: true });
    return data.data.find(({ outcome }) => outcome === 'matched');
  });
  const [condition] = Array.isArray(why.conditions) ? why.conditions : [];
  if (condition === undefined || !('saw' in condition)) throw new Error('no condition was traced');
  expect([condition.field, condition.saw, condition.holds]).toEqual(['message.content', 'Where is my refund?', true]);

  const fresh = since(received.response);
  const numbers = await analyticsSixNumbers({ headers: fresh, throwOnError: true });
  expect([numbers.data.data.totalConversations, numbers.data.data.csat]).toEqual([2, 5]);
  const number = { path: { metric: 'first_response_time' }, headers: fresh, throwOnError: true } as const;
  const times = await analyticsMetric({ ...number, query: { by: 'agent' } });
  const [row] = times.data.data;
  expect([row?.name, row?.count, Math.round(row?.mean ?? 0)]).toEqual(['Ada Ortiz', 1, 5]);
  const behind = await analyticsConversations({ ...number, query: { by: 'agent', key: 'agent-ada', limit: 1 } });
  const [counted] = behind.data.data;
  expect([behind.data.meta.count, counted?.conversationId, counted?.revision]).toEqual([1, id, 2]);
  const event = await conversationsEvents({ path, query: { from: counted?.revision ?? 0, limit: 1 }, throwOnError: true });
  expect(event.data.data[0]?.type).toBe('MessageSent');

  const proof = await conversationsVerify({ path, throwOnError: true });
  expect([proof.data.data.ok, proof.data.data.events, proof.data.data.firstBad]).toEqual([true, 11, null]);
  expect(proof.data.data.hash).toBe((await conversationsEvents({ path, query: { from: 10 }, throwOnError: true })).data.data[0]?.hash);

  client.interceptors.request.eject(watch);
  expect(requestsOfTheTour().filter((one) => !sent.has(one))).toEqual([]);
});

/** The requests of the commands in the README, such as `GET /conversations/$ID`. */
function requestsOfTheTour(): string[] {
  const [, tour = ''] = /^## Five minutes with curl$([^]*?)^## /m.exec(read('../../README.md')) ?? [];
  const number = /^NUMBER=\$API(\S+)$/m.exec(tour)?.[1] ?? '';
  const requests = tour
    .replaceAll('$NUMBER', `$API${number}`)
    .split('curl ')
    .flatMap((command) => {
      const path = /\$API(\/[^\s"?;]+)/.exec(command)?.[1];
      const method = /-X (\w+)/.exec(command)?.[1] ?? (command.includes(" -d '") ? 'POST' : 'GET');
      return path === undefined ? [] : [`${method} ${path}`];
    });
  expect(requests.length).toBeGreaterThan(20);
  return requests;
}

test('sends lists, attributes and paths as the API reads them', async () => {
  const name = 'a/b & c?';
  const { data } = await conversationsOpen({
    body: { visitor: { name }, message: { type: 'text', content: 'Hi' }, customAttributes: { 'plan name': 'pro & more', seats: 5 } },
    throwOnError: true,
  });
  const path = { id: data.data.id };
  const { response } = await conversationsAddTags({ path, body: { tags: [name, 'x'] }, throwOnError: true });
  const listed = await conversationsList({
    query: { tag: [name, 'x'], tagMatch: 'all', customAttributes: { 'plan name': 'pro & more', seats: '5' }, total: 'none' },
    headers: since(response),
    throwOnError: true,
  });
  expect(listed.data.data.map(({ id }) => id)).toEqual([data.data.id]);
  const { conversationsRemoveTag } = await import('./threadlog/index.js');
  expect((await conversationsRemoveTag({ path: { ...path, tag: name }, throwOnError: true })).data.data.tags).toEqual(['x']);
});

test('reads a stream of another form with fetch, at an address that is checked', async () => {
  const url = client.buildUrl({ url: '/api/support/events', query: { format: 'ndjson', types: ['ConversationOpened'] } });
  const lines = (await (await fetch(url, { headers: { 'X-API-Key': api.adminKey } })).text()).trim().split('\n');
  const page = await eventsRead({ query: { types: ['ConversationOpened'] }, throwOnError: true });
  expect(lines.slice(0, -1).map((line): unknown => JSON.parse(line))).toEqual(page.data.data);
});

test('the example of docs/api.md works as it is written', async () => {
  expect(read('../../docs/api.md')).toContain(`\`\`\`ts\n${read('client-example.ts')}\`\`\``);
  Object.assign(process.env, { THREADLOG_URL: api.url, THREADLOG_KEY: api.adminKey });
  const { welcome } = await import('./client-example.js');
  const [once, twice] = [await welcome('u-7'), await welcome('u-7')];
  expect(twice).toEqual(once);
  expect(once.messages.map(({ content }) => content)).toEqual(['Is anybody there?', 'Yes, hello!']);
});

/** Never called. Each request is wrong, and `npm run typecheck` fails where the types do not say so. */
export const refused = {
  // @ts-expect-error the message is missing
  body: () => conversationsOpen({ body: { visitor: { userId: 'u-42' } } }),
  // @ts-expect-error there is no such field
  field: () => conversationsChange({ path: { id: 'x' }, body: { state: 'open' } }),
  // @ts-expect-error snoozing has a route of its own
  status: () => conversationsChange({ path: { id: 'x' }, body: { status: 'snoozed' } }),
  // @ts-expect-error there is no such status
  filter: () => conversationsList({ query: { status: ['opened'] } }),
  // @ts-expect-error a search needs a question
  query: () => searchFind(),
  // @ts-expect-error there is no such metric
  metric: () => analyticsMetric({ path: { metric: 'first_reply_time' } }),
  // @ts-expect-error an instant is a text
  from: () => analyticsSixNumbers({ query: { from: 5 } }),
  // @ts-expect-error a tree has conditions
  conditions: () => automationRulesCreate({ body: { trigger: 'message.received', conditions: { all: ['x'] }, actions: [] } }),
  // @ts-expect-error the action names no tag
  action: () => automationRulesCreate({ body: { trigger: 'message.received', conditions: [], actions: [{ type: 'addTag' }] } }),
  // @ts-expect-error the path has an id
  path: () => conversationsGet({}),
};
