import { CommandBus } from '@nestjs/cqrs';
import { sql } from 'kysely';
import { RULE_ACTION } from '../../projections/rule-actions.jobs.js';
import { RULE_TIMER } from '../../projections/rule-timers.jobs.js';
import { RULE_WAITS } from '../../projections/rule-waits.jobs.js';
import { pauseWork } from '../../projections/runtime/lease.js';
import { MAX_REACTIONS } from '../../src/automation/ask.js';
import { EvaluationReader } from '../../src/automation/evaluation.reader.js';
import { sweepEvaluations } from '../../src/automation/evaluation.store.js';
import { CreateRule, MOST_IN_FORCE } from '../../src/automation/rule.commands.js';
import { VisitorKeys } from '../../src/security/visitor-keys.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { LiveClient } from '../support/live-client.js';

/*
 * Rules on a real server: what triggers them, what they see, what they do, and what is told of it.
 */

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.stop());

// oxlint-disable-next-line typescript/no-explicit-any -- answers of every shape
type Data = Record<string, any>;

const made: string[] = [];
const make = async (body: object): Promise<Data> => {
  const { data } = (await api.expect(201, 'POST', '/automation-rules', { body })).body as { data: Data };
  made.push(data['id'] as string);
  return data;
};
afterEach(async () => {
  for (const id of made.splice(0)) await api.expect(204, 'DELETE', `/automation-rules/${id}`);
});

const open = async (message: string, more: object = {}) => {
  const { data } = (await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Grace' }, message, ...more } })).body as {
    data: Data;
  };
  return data['id'] as string;
};
const put = (id: string, body: object) => api.expect(200, 'PUT', `/conversations/${id}`, { body });
const get = async (id: string) => (await api.expect(200, 'GET', `/conversations/${id}`)).body.data as Data;
const eventsOf = async (id: string) => (await api.expect(200, 'GET', `/conversations/${id}/events`)).body.data as Data[];
/** Everything that rules were asked about a conversation, once all actions are done. */
async function evaluations(id: string, query = ''): Promise<Data[]> {
  const { headers } = await api.expect(200, 'GET', `/conversations/${id}`);
  return eventually(async () => {
    const position = headers.get('x-position') ?? '';
    const { body } = await api.expect(200, 'GET', `/conversations/${id}/evaluations${query}`, { headers: { 'x-min-position': position } });
    const all = body.data as Data[];
    return all.every(({ actions }) => (actions as Data[]).every(({ outcome }) => outcome !== 'pending')) ? all : undefined;
  });
}
const agent = async (name: string) =>
  ((await api.expect(201, 'POST', '/agents', { body: { name } })).body as { data: Data }).data['id'] as string;
/** Keeps new jobs of a kind from being done until they are released. */
async function hold(kind: string): Promise<() => Promise<void>> {
  const { database } = api.backend;
  await sql`
    create function keep.not_now() returns trigger language plpgsql as $$ begin new.due_at = 'infinity'; return new; end $$`.execute(
    database,
  );
  await sql`
    create trigger not_now before insert on keep.jobs for each row when (new.kind = ${sql.lit(kind)}) execute function keep.not_now()`.execute(
    database,
  );
  return async () => {
    await sql`drop function keep.not_now cascade`.execute(database);
    await sql`update keep.jobs set due_at = now() where kind = ${kind} and due_at = 'infinity'`.execute(database);
  };
}
/** The event is the one by which the conversation is open again. */
const isOpenAgain = [
  { field: 'conversation.status', operator: 'equals', value: 'open' },
  { field: 'previous.status', operator: 'is_set' },
];
const outcomes = async (id: string) =>
  (await evaluations(id)).map(({ ruleName, outcome, reason }) => [ruleName, outcome, ...(reason === undefined ? [] : [reason])]);

test('actions are done in turns: those of one organization wait for no thousands of another', async () => {
  const { database } = api.backend;
  await make({ trigger: 'message.received', conditions: [], actions: [{ type: 'addTag', tag: 'in-turn' }] });
  const release = await hold(RULE_ACTION);
  const mine = await open('Hello');
  await eventually(
    async () => (await database.selectFrom('keep.jobs').select('id').where('kind', '=', RULE_ACTION).execute()).length === 1,
  );
  // Due long before; they cannot be read, so each is put off when its turn comes.
  await sql`
    insert into keep.jobs (kind, key, lane, receiver, head, organization_id, payload, due_at)
    select ${RULE_ACTION}, 'busy ' || n, 'busy ' || n, 'busy', true, 'busy', '{}', 'infinity' from generate_series(1, 5000) n`.execute(
    database,
  );
  await sql`update keep.jobs set due_at = to_timestamp(0) where receiver = 'busy'`.execute(database);
  await release();
  await eventually(async () => ((await get(mine))['tags'] as string[]).includes('in-turn'));
  const { rows } = await sql<{ waiting: number }>`
    select count(*) as waiting from keep.jobs where receiver = 'busy' and attempt = 0`.execute(database);
  await sql`delete from keep.jobs where receiver = 'busy'`.execute(database);
  expect(rows[0]?.waiting).toBeGreaterThan(0);
});

test('timers are taken in turns: one of an organization waits for no thousands of another that are due', async () => {
  const { database } = api.backend;
  const seconds = 3_600;
  await make({ trigger: { type: 'unassigned_for', seconds }, conditions: [], actions: [{ type: 'addTag', tag: 'waited' }] });
  const mine = await open('Hello');
  // The rule sets timers for earlier conversations, too.
  const timer = await eventually(
    async () =>
      await database
        .selectFrom('keep.jobs')
        .select(['id', 'due_at'])
        .where('kind', '=', RULE_TIMER)
        .where(sql`payload ->> 'conversationId'`, '=', mine)
        .executeTakeFirst(),
  );
  await sql`update keep.jobs set due_at = 'infinity' where id = ${timer.id}`.execute(database);
  api.clock.advance(seconds * 1_000);
  // Due long before; they cannot be read, so each is put off when its turn comes.
  await sql`
    insert into keep.jobs (kind, key, receiver, head, organization_id, payload, due_at)
    select ${RULE_TIMER}, 'busy ' || n, 'busy', true, 'busy', '{}', 'infinity' from generate_series(1, 10000) n`.execute(database);
  await sql`
    update keep.jobs set due_at = case when receiver = 'busy' then to_timestamp(0) else ${timer.due_at} end
    where receiver = 'busy' or id = ${timer.id}`.execute(database);
  await eventually(async () => ((await get(mine))['tags'] as string[]).includes('waited'));
  const { rows } = await sql<{ waiting: number }>`
    select count(*) as waiting from keep.jobs where receiver = 'busy' and attempt = 0`.execute(database);
  await sql`delete from keep.jobs where receiver = 'busy'`.execute(database);
  expect(rows[0]?.waiting).toBeGreaterThan(0);
});

describe('the source document', () => {
  it('answers a message that the conditions fit', async () => {
    const rule = await make({
      trigger: 'message.received',
      conditions: [{ field: 'message.content', operator: 'contains', value: 'refund' }],
      actions: [
        { type: 'reply', message: 'I see you have a question about refunds. Let me connect you with our billing team.' },
        { type: 'addTag', tag: 'refund-request' },
      ],
    });
    const [asked, other] = [await open('Where is my REFUND?'), await open('Hello')];
    const [evaluation] = await evaluations(asked);
    const conversation = await get(asked);
    expect(conversation['tags']).toEqual(['refund-request']);
    expect(conversation['messages']).toMatchObject([
      { type: 'visitor' },
      { type: 'automation', content: expect.stringContaining('about refunds'), author: { id: rule['id'], name: 'Automation' } },
    ]);
    // Only a person ends the wait.
    expect(conversation['waitingSince']).toBe(conversation['messages'][0].createdAt);
    const [, received, sent, tagged] = await eventsOf(asked);
    const caused = {
      actor: { type: 'automation', id: rule['id'] },
      causationId: received?.['id'],
      causationDepth: 1,
      correlationId: received?.['correlationId'],
    };
    expect(sent).toMatchObject({ type: 'MessageSent', ...caused });
    expect(tagged).toMatchObject({ type: 'TagsAdded', ...caused });
    expect(evaluation).toEqual({
      id: expect.any(String),
      ruleId: rule['id'],
      ruleName: null,
      ruleRevision: 0,
      conversationId: asked,
      trigger: 'message.received',
      eventId: received?.['id'],
      position: received?.['position'],
      revision: 1,
      at: received?.['occurredAt'],
      outcome: 'matched',
      conditions: [{ field: 'message.content', operator: 'contains', value: 'refund', saw: 'Where is my REFUND?', holds: true }],
      actions: [
        { type: 'reply', outcome: 'done', eventIds: [sent?.['id']] },
        { type: 'addTag', outcome: 'done', eventIds: [tagged?.['id']] },
      ],
    });
    expect(await evaluations(other)).toMatchObject([{ outcome: 'not_matched', conditions: [{ saw: 'Hello', holds: false }], actions: [] }]);
    expect((await get(other))['messages']).toHaveLength(1);
  });

  it('assigns the new conversations of enterprise customers to a team', async () => {
    await api.expect(201, 'POST', '/teams', { body: { id: 'priority-team-id', name: 'Priority' } });
    await make({
      trigger: 'conversation.created',
      conditions: [{ field: 'visitor.plan', operator: 'equals', value: 'enterprise' }],
      actions: [
        { type: 'assign', assigneeId: 'priority-team-id' },
        { type: 'addTag', tag: 'enterprise' },
      ],
    });
    const [enterprise, free] = [await open('Hi', { visitor: { plan: 'enterprise' } }), await open('Hi', { visitor: { plan: 'free' } })];
    expect((await evaluations(enterprise))[0]).toMatchObject({ outcome: 'matched', actions: [{ outcome: 'done' }, { outcome: 'done' }] });
    expect(await get(enterprise)).toMatchObject({
      assignee: { id: 'priority-team-id', type: 'team' },
      team: { id: 'priority-team-id' },
      tags: ['enterprise'],
    });
    expect((await evaluations(free))[0]).toMatchObject({ outcome: 'not_matched', conditions: [{ saw: 'free' }] });
    expect(await get(free)).toMatchObject({ assignee: null, tags: [] });
  });
});

it('does every action as a command of its own, and goes on after one that is refused or has nothing to do', async () => {
  await api.expect(201, 'POST', '/agents', { body: { id: 'ada', name: 'Ada' } });
  await make({
    name: 'All of it',
    trigger: 'message.received',
    conditions: [],
    actions: [
      { type: 'assign', assigneeId: 'ada' },
      { type: 'unassign' },
      { type: 'addTag', tag: 'one' },
      { type: 'addTag', tag: 'one' },
      { type: 'removeTag', tag: 'one' },
      { type: 'note', message: 'Seen' },
      { type: 'reply', message: { type: 'card', content: { title: 'Status', actions: [{ label: 'See', url: 'https://example.com' }] } } },
      { type: 'setPriority', priority: 'urgent' },
      { type: 'setStatus', status: 'resolved' },
      { type: 'snooze', seconds: 60 },
      { type: 'setStatus', status: 'open' },
      { type: 'snooze', seconds: 3600 },
    ],
  });
  const id = await open('Hi');
  const [evaluation] = await evaluations(id);
  expect(((evaluation?.['actions'] ?? []) as Data[]).map(({ type, outcome, code }) => [type, outcome, code])).toEqual([
    ['assign', 'done', undefined],
    ['unassign', 'done', undefined],
    ['addTag', 'done', undefined],
    ['addTag', 'nothing', undefined],
    ['removeTag', 'done', undefined],
    ['note', 'done', undefined],
    ['reply', 'done', undefined],
    ['setPriority', 'done', undefined],
    ['setStatus', 'done', undefined],
    ['snooze', 'refused', 'transition_not_allowed'],
    ['setStatus', 'done', undefined],
    ['snooze', 'done', undefined],
  ]);
  const conversation = await get(id);
  expect(conversation).toMatchObject({ status: 'snoozed', priority: 'urgent', tags: [], assignee: null });
  expect(Date.parse(conversation['snoozedUntil'] as string)).toBe(Date.parse(evaluation?.['at'] as string) + 3_600_000);
  const events = await eventsOf(id);
  expect(events.filter(({ type }) => type === 'ConversationStatusChanged').map(({ data }) => data.reason)).toEqual([
    'automation',
    'automation',
  ]);
  expect(events.filter(({ type }) => type === 'ConversationSnoozed').map(({ data }) => data.reason)).toEqual(['automation']);
  expect(events.slice(2).every(({ actor }) => actor.type === 'automation')).toBe(true);
});

it('asks in order, and not after a rule that stops; a rule that is off is not asked', async () => {
  const action = { actions: [{ type: 'addTag', tag: 'x' }] };
  const always = { trigger: 'message.received', conditions: [], ...action };
  await make({ ...always, name: 'third', order: 3 });
  const stops = await make({ ...always, name: 'second', order: 2, stopOnMatch: true });
  await make({ ...always, name: 'first', order: 1, conditions: { any: [] }, stopOnMatch: true });
  await make({ ...always, name: 'off', enabled: false });
  const id = await open('Hi');
  expect((await evaluations(id)).reverse()).toMatchObject([
    { ruleName: 'first', outcome: 'not_matched', conditions: { any: [] } },
    { ruleName: 'second', outcome: 'matched' },
    { ruleName: 'third', outcome: 'not_asked', reason: 'stopped_by', byRules: [stops['id']], conditions: null, actions: [] },
  ]);
});

it('judges each event by the state and the rules at that event, however late', async () => {
  const { database } = api.backend;
  const rule = await make({
    name: 'early',
    trigger: 'conversation.updated',
    conditions: {
      all: [
        { field: 'previous.priority', operator: 'equals', value: 'normal' },
        { field: 'conversation.priority', operator: 'equals', value: 'high' },
        { not: { field: 'conversation.tags', operator: 'contains', value: 'late' } },
        { field: 'visitor.plan', operator: 'equals', value: 'pro' },
        { field: 'visitor.name', operator: 'starts_with', value: 'gr' },
        { field: 'company.name', operator: 'ends_with', value: 'corp' },
        { field: 'inbox.withinWorkingHours', operator: 'equals', value: true },
        { field: 'actor.type', operator: 'in', value: ['apiKey'] },
        { field: 'conversation.customAttributes.cart', operator: 'greater_than', value: 10 },
      ],
    },
    actions: [{ type: 'note', message: 'as it was' }],
  });
  await api.expect(201, 'POST', '/companies', { body: { id: 'acme', name: 'Acme Corp' } });
  const id = await open('Hi', {
    visitor: { userId: 'grace-1', name: 'Grace', plan: 'pro', companyId: 'acme' },
    customAttributes: { cart: 12 },
  });
  const { visitor, inboxId } = await get(id);
  // The reactor stands at another event, and stands again once it has written what that one leads to: by then it has handled all later ones
  // in vain, and is given them a second time.
  const other = await open('Other');
  await sql`
    create function keep.pause_rules() returns trigger language plpgsql as $$
    begin
      update keep.reactors set paused = true where name = 'rules';
      return null;
    end
    $$`.execute(database);
  await sql`
    create trigger pause_rules after insert on keep.rule_evaluations for each row when (new.conversation_id = ${sql.lit(other)})
    execute function keep.pause_rules()`.execute(database);
  await pauseWork(database, { reactor: 'rules' }, true);
  await put(other, { priority: 'low' });
  await eventually(() => api.logged().includes('reactor paused'));
  await put(id, { priority: 'high' });
  // All that the rule looks at, and the rule itself, change before it is asked.
  await put(id, { priority: 'low', customAttributes: { cart: 1 } });
  await api.expect(200, 'POST', `/conversations/${id}/tags`, { body: { tags: ['late'] } });
  await api.expect(200, 'PUT', `/visitors/${visitor.id}`, { body: { name: 'Other', plan: 'free' } });
  await api.expect(200, 'PUT', '/companies/acme', { body: { name: 'Renamed' } });
  await api.expect(200, 'PUT', `/inboxes/${inboxId}`, { body: { workingHours: { timezone: 'UTC', schedule: {} } } });
  await api.expect(200, 'PUT', `/automation-rules/${rule['id']}`, { body: { name: 'late', actions: [{ type: 'addTag', tag: 'wrong' }] } });
  await pauseWork(database, { reactor: 'rules' }, false);
  await eventually(() => api.logged().split('reactor paused').length > 2);
  await sql`drop trigger pause_rules on keep.rule_evaluations`.execute(database);
  await pauseWork(database, { reactor: 'rules' }, false);
  const asked = (await evaluations(id)).reverse();
  expect(asked[0]).toMatchObject({ ruleName: 'early', ruleRevision: 0, outcome: 'matched', actions: [{ type: 'note', outcome: 'done' }] });
  expect(asked[0]?.['conditions'].all).toMatchObject([
    { saw: 'normal' },
    { saw: 'high' },
    { not: { saw: [], holds: false } },
    { saw: 'pro' },
    { saw: 'Grace' },
    { saw: 'Acme Corp' },
    { saw: true },
    { saw: 'apiKey' },
    { saw: 12 },
  ]);
  expect(asked.slice(1).map(({ outcome }) => outcome)).not.toContain('matched');
  expect((await get(id))['tags']).toEqual(['late']);
  await api.expect(200, 'PUT', `/inboxes/${inboxId}`, { body: { workingHours: null } });
});

it('ends rules that set each other off, and names them', async () => {
  const swap = async (name: string, from: string, to: string) =>
    make({
      name,
      trigger: 'conversation.updated',
      conditions: [{ field: 'conversation.priority', operator: 'equals', value: from }],
      actions: [{ type: 'setPriority', priority: to }],
    });
  const [ping, pong] = [await swap('ping', 'high', 'low'), await swap('pong', 'low', 'high')];
  const id = await open('Hi');
  await put(id, { priority: 'high' });
  await eventually(async () => (await outcomes(id)).some(([, , reason]) => reason === 'depth'));
  const asked = await evaluations(id);
  expect((await eventsOf(id)).filter(({ actor }) => actor.type === 'automation').map(({ causationDepth }) => causationDepth)).toEqual([
    1, 2, 3, 4, 5, 6, 7, 8,
  ]);
  const last = asked.filter(({ reason }) => reason === 'depth');
  expect(last.map(({ ruleName, byRules }) => [ruleName, byRules])).toEqual(
    ['pong', 'ping'].map((name) => [name, [pong, ping, pong, ping, pong, ping, pong, ping].map((rule) => rule['id'])]),
  );
});

it('ends a rule that answers itself', async () => {
  await make({ trigger: 'message.sent', conditions: [], actions: [{ type: 'reply', message: 'Again' }] });
  const id = await open('Hi');
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Hello' } });
  await eventually(async () => (await outcomes(id)).some(([, , reason]) => reason === 'depth'));
  expect((await get(id))['messages']).toHaveLength(2 + 8);
});

it('ends a rule that multiplies, by all that was done since a person last did something', async () => {
  const reply = { type: 'reply', message: 'Again' };
  const rule = await make({ trigger: 'message.sent', conditions: [], actions: [reply, reply, reply] });
  const id = await open('Hi');
  const saysHello = () => api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Hello' } });
  const replies = async () => (await eventsOf(id)).filter(({ actor }) => (actor as Data)['id'] === rule['id']).length;
  const many = 3 * (1 + MAX_REACTIONS);
  await saysHello();
  await eventually(async () => (await replies()) === many, 20_000);
  expect(await evaluations(id, '?outcome=matched&limit=100')).toHaveLength(1 + MAX_REACTIONS);
  expect((await outcomes(id))[0]).toEqual([null, 'not_asked', 'depth']);
  expect(await replies()).toBe(many);
}, 40_000);

it('does what a rule said when it matched, although it was changed and archived while its actions waited', async () => {
  const release = await hold('rule-action');
  const rule = await make({ trigger: 'message.received', conditions: [], actions: [{ type: 'addTag', tag: 'then' }] });
  const id = await open('Hi');
  await eventually(async () => (await api.expect(200, 'GET', `/conversations/${id}/evaluations`)).body.data.length === 1);
  await api.expect(200, 'PUT', `/automation-rules/${rule['id']}`, { body: { actions: [{ type: 'addTag', tag: 'later' }] } });
  await api.expect(204, 'DELETE', `/automation-rules/${rule['id']}`);
  await release();
  expect(await evaluations(id)).toMatchObject([{ ruleRevision: 0, actions: [{ outcome: 'done' }] }]);
  expect((await get(id))['tags']).toEqual(['then']);
});

it('ends a rule and an inbox that set each other off, and names the rule alone', async () => {
  const agents = [await agent('Bo'), await agent('Cy')];
  const { data: inbox } = (
    await api.expect(201, 'POST', '/inboxes', { body: { name: 'Turns', assignment: { mode: 'round_robin', agentIds: agents } } })
  ).body as { data: Data };
  const rule = await make({ trigger: 'conversation.assigned', conditions: [], actions: [{ type: 'unassign' }] });
  const id = await open('Hi', { inboxId: inbox['id'] });
  const last = await eventually(async () => (await evaluations(id)).find(({ reason }) => reason === 'depth'));
  const depths = (await eventsOf(id)).filter(({ type }) => /Assigned$|Unassigned$/.test(type as string));
  expect(depths.map(({ type, causationDepth }) => [type, causationDepth])).toEqual(
    [1, 2, 3, 4, 5, 6, 7, 8, 9]
      .slice(0, depths.length)
      .map((depth) => [`Conversation${depth % 2 === 1 ? 'Assigned' : 'Unassigned'}`, depth]),
  );
  expect(depths).toHaveLength(9);
  expect(last['byRules']).toEqual(Array.from({ length: 4 }, () => rule['id']));
  await api.expect(204, 'DELETE', `/inboxes/${inbox['id']}`);
});

it('ends a rule that snoozes what wakes', async () => {
  await make({ trigger: 'conversation.updated', conditions: isOpenAgain, actions: [{ type: 'snooze', seconds: 60 }] });
  const id = await open('Hi');
  await api.expect(200, 'POST', `/conversations/${id}/snooze`, { body: { until: new Date(api.clock.now() + 60_000).toISOString() } });
  for (let depth = 1; depth < 8; depth += 2) {
    api.clock.advance(61_000);
    await eventually(async () =>
      (await eventsOf(id)).some(({ type, causationDepth }) => type === 'ConversationSnoozed' && causationDepth === depth + 1),
    );
  }
  // Nobody was asked about the last snooze either, so what ends the loop is that nobody is asked about the waking that follows.
  api.clock.advance(61_000);
  await eventually(async () => (await get(id))['status'] === 'open');
  const woken = (await eventsOf(id)).at(-1);
  expect(woken).toMatchObject({ type: 'ConversationStatusChanged', causationDepth: 9 });
  expect((await evaluations(id))[0]).toMatchObject({ eventId: woken?.['id'], outcome: 'not_asked', reason: 'depth' });
  expect(await get(id)).toMatchObject({ status: 'open' });
});

it('a visitor is told the same, byte for byte, with and without rules that note, tag, assign and rank', async () => {
  const assigneeId = await agent('Dee');
  const run = async (conditions: object) => {
    await make({
      trigger: 'message.received',
      conditions,
      actions: [
        { type: 'note', message: 'Psst' },
        { type: 'addTag', tag: 'inner' },
        { type: 'assign', assigneeId },
        { type: 'setPriority', priority: 'urgent' },
      ],
    });
    const { visitor, id } = (await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Grace' }, message: 'Hello' } }))
      .body.data as Data;
    const { token } = (await api.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: visitor.id } } })).body.data as Data;
    const socket = await LiveClient.open(api, token as string);
    const answers: string[] = [];
    for (const [path, body] of [
      ['messages', { message: 'Second' }],
      ['reply', { message: 'Hi' }],
      ['messages', { message: 'Third' }],
    ] as const) {
      await api.expect(201, 'POST', `/conversations/${id}/${path}`, { body });
      await evaluations(id as string);
      const { text, headers } = await api.expect(200, 'GET', `/conversations/${id}`, { key: token as string });
      answers.push(`${headers.get('etag')} ${text}`);
    }
    await socket.expectTold(3);
    await socket.close();
    const ids: string[] = [];
    return [...answers, ...socket.told.map(({ text }) => text)].map((text) =>
      text
        .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, (one) => `id ${ids.includes(one) ? ids.indexOf(one) : ids.push(one) - 1}`)
        .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'an instant')
        .replaceAll(/"position":"[^"]+"/g, 'a position'),
    );
  };
  const without = await run({ any: [] });
  expect(await run([])).toEqual(without);
  expect(without).toHaveLength(6);
});

it('refuses a rule beyond those that an organization may have in force, and names the field', async () => {
  const { organizationId, adminKey: key } = await api.otherOrganization();
  const commands = api.app.get(CommandBus);
  const always = {
    name: null,
    trigger: 'note.added',
    conditions: [],
    actions: [{ type: 'unassign' }],
    order: 0,
    stopOnMatch: false,
  } as const;
  const { ids } = api.backend;
  const making = Array.from({ length: MOST_IN_FORCE }, () => {
    const commandId = ids.next();
    const actor = { type: 'system', id: 'test' } as const;
    return commands.execute(
      new CreateRule({ organizationId, actor, commandId, requestHash: '', correlationId: commandId }, { ...always, enabled: true }),
    );
  });
  const [first] = await Promise.all(making);
  const call = (method: string, path: string, body?: object) =>
    api.call(method, `/automation-rules${path}`, { key, ...(body === undefined ? {} : { body }) });
  const refused = { code: 'limit_exceeded', errors: [{ field: 'enabled' }] };
  expect((await call('POST', '', always)).body).toMatchObject(refused);
  const { data: off } = (await call('POST', '', { ...always, enabled: false })).body as { data: Data };
  expect((await call('PUT', `/${off['id']}`, { enabled: true })).body).toMatchObject(refused);
  expect((await call('DELETE', `/${first?.id}`)).status).toBe(204);
  expect((await call('PUT', `/${off['id']}`, { enabled: true })).status).toBe(200);
  expect((await call('POST', `/${first?.id}/unarchive`)).body).toMatchObject(refused);
});

it('seals what it saw of a visitor, and forgets it with the visitor’s key', async () => {
  await make({
    name: 'personal',
    trigger: 'message.received',
    conditions: {
      any: [{ field: 'message.content', operator: 'contains', value: 'canary' }, { not: { field: 'visitor.email', operator: 'is_set' } }],
    },
    actions: [{ type: 'addTag', tag: 'seen' }],
  });
  const id = await open('A cnry-4711 canary', { visitor: { email: 'cnry-4712@example.com' } });
  const [before] = await evaluations(id);
  expect(before?.['conditions'].any).toMatchObject([{ saw: 'A cnry-4711 canary' }, { not: { saw: 'cnry-4712@example.com' } }]);
  const { database } = api.backend;
  const stored = await database.selectFrom('keep.rule_evaluations').selectAll().where('conversation_id', '=', id).execute();
  expect(JSON.stringify(stored)).not.toContain('cnry');
  const jobs = await database.selectFrom('keep.jobs').selectAll().execute();
  expect(JSON.stringify(jobs)).not.toContain('cnry');
  const { visitor } = await get(id);
  await database
    .updateTable('keep.visitor_keys')
    .set({ wrapped: null })
    .where('visitor_id', '=', visitor.id as string)
    .execute();
  const { backend } = api;
  // A process that has not seen the key yet.
  const reader = new EvaluationReader(database, backend.cursors, new VisitorKeys(database, backend.masterKey));
  const { data } = await reader.page(api.organizationId, { conversationId: id }, { outcome: undefined, cursor: undefined, limit: 10 });
  expect(data[0]?.conditions).toMatchObject({ any: [{ saw: '[erased]', holds: true }, { not: { saw: '[erased]' } }] });
});

it('pages evaluations newest first, by outcome, of a rule and of a conversation', async () => {
  const rule = await make({
    trigger: 'message.received',
    conditions: [{ field: 'message.content', operator: 'starts_with', value: 'yes' }],
    actions: [{ type: 'addTag', tag: 't' }],
  });
  const id = await open('yes 0');
  for (let i = 1; i <= 6; i++)
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: `${i % 2 === 0 ? 'yes' : 'no'} ${i}` } });
  await eventually(async () => (await evaluations(id)).length === 7);
  for (const path of [`/conversations/${id}/evaluations`, `/automation-rules/${rule['id']}/evaluations`]) {
    const saw: string[] = [];
    let cursor = '';
    for (let pages = 0; pages < 3; pages++) {
      const { body } = await api.expect(200, 'GET', `${path}?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`);
      saw.push(...(body.data as Data[]).map(({ conditions }) => conditions[0].saw as string));
      expect(body.meta).toMatchObject({ limit: 3, hasMore: pages < 2 });
      cursor = body.meta.nextCursor as string;
    }
    expect(saw).toEqual(['yes 6', 'no 5', 'yes 4', 'no 3', 'yes 2', 'no 1', 'yes 0']);
    const { body } = await api.expect(200, 'GET', `${path}?outcome=not_matched`);
    expect((body.data as Data[]).map(({ conditions }) => conditions[0].saw)).toEqual(['no 5', 'no 3', 'no 1']);
    const { body: page } = await api.expect(200, 'GET', `${path}?limit=1`);
    await api.expect(400, 'GET', `${path}?outcome=matched&cursor=${page.meta.nextCursor}`);
    await api.expect(400, 'GET', `${path}?outcome=perhaps`);
  }
  await api.expect(404, 'GET', '/automation-rules/none-such/evaluations');
  await api.expect(404, 'GET', '/conversations/none-such/evaluations');
  const { adminKey: key } = await api.otherOrganization();
  await api.expect(404, 'GET', `/automation-rules/${rule['id']}/evaluations`, { key });
  await api.expect(404, 'GET', `/conversations/${id}/evaluations`, { key });
});

describe('a dry run', () => {
  it('answers what the rule would see at an event, and writes nothing', async () => {
    const rule = await make({
      enabled: false,
      trigger: 'message.received',
      conditions: [{ field: 'message.content', operator: 'matches', value: '^second$' }],
      actions: [{ type: 'addTag', tag: 't' }],
    });
    const id = await open('first');
    await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'second' } });
    await put(id, { priority: 'high' });
    const run = async (body: object, status = 200) =>
      (await api.expect(status, 'POST', `/automation-rules/${rule['id']}/dry-run`, { body: { conversationId: id, ...body } })).body
        .data as Data;
    const head = await api.backend.store.head();
    expect(await run({})).toMatchObject({
      revision: 2,
      outcome: 'matched',
      conditions: [{ saw: 'second' }],
      actions: [{ type: 'addTag', outcome: 'pending' }],
    });
    expect(await run({ revision: 1 })).toMatchObject({ revision: 1, outcome: 'not_matched', conditions: [{ saw: 'first' }], actions: [] });
    expect(await run({ revision: 3 })).toMatchObject({
      revision: 3,
      outcome: 'not_asked',
      reason: 'trigger',
      conditions: [{ saw: 'second' }],
    });
    expect(
      (await api.call('POST', `/automation-rules/${rule['id']}/dry-run`, { body: { conversationId: id, revision: 4 } })).body,
    ).toMatchObject({
      code: 'validation_failed',
      errors: [{ field: 'revision' }],
    });
    expect((await api.call('POST', `/automation-rules/${rule['id']}/dry-run`, { body: { conversationId: 'none-such' } })).body.code).toBe(
      'unknown_conversation',
    );
    expect(await api.backend.store.head()).toBe(head);
    expect(await evaluations(id)).toEqual([]);
  });
});

it('a dry run of a time trigger sees what there is when the wait is over', async () => {
  const rule = await make({
    enabled: false,
    trigger: { type: 'no_agent_reply_for', seconds: 600 },
    conditions: [
      { field: 'conversation.priority', operator: 'equals', value: 'high' },
      { field: 'visitor.name', operator: 'equals', value: 'Ada' },
    ],
    actions: [{ type: 'addTag', tag: 't' }],
  });
  const id = await open('first');
  const run = async (body: object = {}) =>
    (await api.expect(200, 'POST', `/automation-rules/${rule['id']}/dry-run`, { body: { conversationId: id, ...body } })).body.data as Data;
  api.clock.advance(300_000);
  await put(id, { priority: 'high' });
  const { visitor } = await get(id);
  await api.expect(200, 'PUT', `/visitors/${visitor.id}`, { body: { name: 'Ada' } });
  const [, first] = await eventsOf(id);
  const over = {
    eventId: first?.['id'],
    revision: 2,
    at: new Date(Date.parse(first?.['occurredAt'] as string) + 600_000).toISOString(),
    outcome: 'matched',
    conditions: [{ saw: 'high' }, { saw: 'Ada' }],
  };
  expect(await run()).toMatchObject(over);
  api.clock.advance(400_000);
  await put(id, { priority: 'low' });
  await api.expect(200, 'PUT', `/visitors/${visitor.id}`, { body: { name: 'Later' } });
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Here' } });
  expect(await run({ revision: 1 })).toMatchObject(over);
  expect(await run()).toMatchObject(over);
  expect(await run({ revision: 0 })).toMatchObject({ outcome: 'not_asked', reason: 'trigger' });
  // A wait that ended before its time.
  await api.expect(201, 'POST', `/conversations/${id}/messages`, { body: { message: 'Thanks' } });
  await api.expect(201, 'POST', `/conversations/${id}/reply`, { body: { message: 'Welcome' } });
  expect(await run({ revision: 5 })).toMatchObject({ outcome: 'not_asked', reason: 'trigger', actions: [] });
});

describe('a back-test', () => {
  const begin = async (body: object) => (await api.expect(202, 'POST', '/automation-rules/back-tests', { body })).body.data['id'] as string;
  const found = (id: string) =>
    eventually(async () => {
      const { data } = (await api.expect(200, 'GET', `/automation-rules/back-tests/${id}`)).body as { data: Data };
      return data['status'] === 'running' ? undefined : data;
    });

  it('finds what the live rule has found, and what a rule that was never saved would have', async () => {
    const rule = await make({
      trigger: 'message.received',
      conditions: [{ field: 'message.content', operator: 'contains', value: 'parcel' }],
      actions: [
        { type: 'addTag', tag: 'parcel' },
        { type: 'addTag', tag: 'post' },
      ],
    });
    const from = new Date(api.clock.now()).toISOString();
    const ids = [await open('My parcel'), await open('No'), await open('The PARCEL!')];
    for (const id of ids) await evaluations(id);
    const { body } = await api.expect(200, 'GET', `/automation-rules/${rule['id']}/evaluations?outcome=matched`);
    const live = (body.data as Data[])
      .map(({ conversationId, eventId, position, revision, at }) => ({ conversationId, eventId, position, revision, at }))
      .reverse();
    const test = await found(await begin({ ruleId: rule['id'], from }));
    expect(test).toEqual({
      id: expect.any(String),
      status: 'done',
      looked: 3,
      matched: 2,
      actions: [{ type: 'addTag', count: 4 }],
      matches: live,
    });
    const { trigger, conditions, actions } = rule;
    expect(await found(await begin({ rule: { trigger, conditions, actions }, from, to: from }))).toMatchObject({
      looked: 0,
      matched: 0,
      matches: [],
    });
    expect((await api.call('POST', '/automation-rules/back-tests', { body: { ruleId: 'none-such' } })).body.code).toBe('unknown_rule');
    expect((await api.call('POST', '/automation-rules/back-tests', { body: {} })).body.errors).toMatchObject([{ field: 'rule' }]);
    const bad = { rule: { trigger, conditions, actions: [{ type: 'assign', assigneeId: 'nobody' }] } };
    expect((await api.call('POST', '/automation-rules/back-tests', { body: bad })).body).toMatchObject({
      code: 'unknown_assignee',
      errors: [{ field: 'rule.actions[0].assigneeId' }],
    });
    const { adminKey: key } = await api.otherOrganization();
    await api.expect(404, 'GET', `/automation-rules/back-tests/${test['id']}`, { key });
  });

  it('is listed with those of its rule, newest first, in pages, and not with those of a rule that is not saved or another one', async () => {
    const body = { trigger: 'note.added', conditions: [], actions: [{ type: 'addTag', tag: 'noted' }] };
    const [rule, other] = [await make(body), await make(body)];
    const from = '2026-01-01T00:00:00.000Z';
    const begun: string[] = [];
    for (let n = 0; n < 5; n++) {
      begun.push(await begin({ ruleId: rule['id'], ...(n === 0 ? {} : { from }) }));
      await found(await begin({ rule: body }));
    }
    for (const id of begun) await found(id);
    const path = `/automation-rules/${rule['id']}/back-tests`;
    const { data, meta } = (await api.expect(200, 'GET', path)).body as { data: Data[]; meta: Data };
    expect([data.map(({ id }) => id as string), meta]).toEqual([begun.toReversed(), { limit: 25, hasMore: false, nextCursor: null }]);
    const { matches: _matches, ...told } = await found(String(begun[0]));
    expect(data[4]).toEqual({ ...told, from: null, to: expect.any(String), createdAt: expect.any(String) });
    expect(data[0]?.['from']).toBe(from);

    const paged: string[] = [];
    let cursor = '';
    do {
      const page = (await api.expect(200, 'GET', `${path}?limit=2${cursor}`)).body as { data: Data[]; meta: Data };
      // What is begun meanwhile shifts no page.
      if (cursor === '') await found(await begin({ ruleId: rule['id'] }));
      paged.push(...page.data.map(({ id }) => id as string));
      cursor = page.meta['nextCursor'] === null ? '' : `&cursor=${page.meta['nextCursor']}`;
    } while (cursor !== '');
    expect(paged).toEqual(begun.toReversed());
    const theirs = `/automation-rules/${other['id']}/back-tests`;
    expect((await api.expect(200, 'GET', theirs)).body.data).toEqual([]);
    const { meta: first } = (await api.expect(200, 'GET', `${path}?limit=1`)).body as { meta: Data };
    for (const wrong of ['limit=0', 'limit=101', 'cursor=x', 'page=2']) await api.expect(400, 'GET', `${path}?${wrong}`);
    await api.expect(400, 'GET', `${theirs}?cursor=${first['nextCursor']}`);
    await api.expect(404, 'GET', '/automation-rules/none-such/back-tests');
    const { adminKey: key } = await api.otherOrganization();
    await api.expect(404, 'GET', path, { key });
  });

  it('is refused while ten of the organization have not ended', async () => {
    const { adminKey: key } = await api.otherOrganization();
    const rule = { trigger: 'note.added', conditions: [], actions: [{ type: 'unassign' }] };
    const ask = () => api.call('POST', '/automation-rules/back-tests', { key, body: { rule } });
    const release = await hold('rule-back-test');
    for (let n = 0; n < 10; n++) expect((await ask()).status).toBe(202);
    expect((await ask()).body).toMatchObject({ code: 'limit_exceeded' });
    await release();
  });
});

it('removes all evaluations that have been kept long enough, however many they are, and no other', async () => {
  const { database } = api.backend;
  await sql`
    insert into keep.rule_evaluations (nr, organization_id, id, rule_id, rule_revision, conversation_id, key_id, trigger, event_id, position,
      revision, at, outcome, actions, created_at)
    overriding system value
    select -n, 'swept', 'e' || n, 'r', 0, 'c', 'k', 'note.added', 'e' || n, '0', 0, now(), 'not_matched', '[]',
      now() - interval '91 days' * (n > 3)::int
    from generate_series(1, 12000) n`.execute(database);
  await sweepEvaluations(database, new AbortController().signal);
  const left = await database
    .selectFrom('keep.rule_evaluations')
    .select('id')
    .where('organization_id', '=', 'swept')
    .orderBy('id')
    .execute();
  expect(left.map((row) => row.id)).toEqual(['e1', 'e2', 'e3']);
});

describe('time triggers', () => {
  const hour = 3_600_000;
  const timers = () => api.backend.database.selectFrom('keep.jobs').select('due_at').where('kind', '=', 'rule-timer').execute();

  it('ask when the wait is over, once, and not when it has ended', async () => {
    await make({
      name: 'unattended',
      trigger: { type: 'no_agent_reply_for', seconds: 3_600 },
      conditions: [{ field: 'conversation.status', operator: 'equals', value: 'open' }],
      actions: [{ type: 'setPriority', priority: 'urgent' }],
    });
    const [waits, answered] = [await open('Hello?'), await open('Hello?')];
    await api.expect(201, 'POST', `/conversations/${waits}/messages`, { body: { message: 'Anybody?' } });
    await evaluations(waits);
    api.clock.advance(hour / 2);
    await api.expect(201, 'POST', `/conversations/${answered}/reply`, { body: { message: 'Here' } });
    await evaluations(answered);
    await eventually(async () => (await timers()).every(({ due_at: due }) => due.getTime() > api.clock.now()));
    expect(await evaluations(waits)).toEqual([]);
    api.clock.advance(hour / 2 + 1_000);
    const [evaluation] = await eventually(async () => {
      const all = await evaluations(waits);
      return all.length > 0 ? all : undefined;
    });
    const [, first] = await eventsOf(waits);
    expect(evaluation).toMatchObject({
      trigger: 'no_agent_reply_for',
      eventId: first?.['id'],
      revision: 2,
      at: new Date(Date.parse(first?.['occurredAt'] as string) + hour).toISOString(),
      outcome: 'matched',
      actions: [{ type: 'setPriority', outcome: 'done' }],
    });
    expect((await eventsOf(waits)).at(-1)).toMatchObject({ causationId: first?.['id'], causationDepth: 1 });
    api.clock.advance(24 * hour);
    await eventually(async () => (await timers()).length === 0);
    expect(await evaluations(answered)).toEqual([]);
    expect(await evaluations(waits)).toHaveLength(1);
  });

  it('count waits that had begun before the rule was saved, and a changed rule’s new time', async () => {
    const id = await open('Old');
    await put(id, { status: 'resolved' });
    api.clock.advance(8 * 24 * hour);
    const later = await open('Later');
    await put(later, { status: 'resolved' });
    const rule = await make({
      trigger: { type: 'in_status_for', seconds: 7 * 24 * 3_600, status: 'resolved' },
      conditions: [],
      actions: [{ type: 'setStatus', status: 'closed' }],
    });
    await eventually(async () => (await get(id))['status'] === 'closed');
    expect((await get(later))['status']).toBe('resolved');
    await api.expect(200, 'PUT', `/automation-rules/${rule['id']}`, {
      body: { trigger: { type: 'in_status_for', seconds: 60, status: 'resolved' } },
    });
    await evaluations(later);
    api.clock.advance(61_000);
    await eventually(async () => (await get(later))['status'] === 'closed');
  });

  /** The rules' timers and actions, and the waits that a saved rule looks for, up to now. Back-tests go on through a log of whatever length. */
  const KINDS = [RULE_TIMER, RULE_ACTION, RULE_WAITS];
  const looked = async () => {
    const { store, checkpoints, database } = api.backend;
    const head = await store.head();
    await eventually(async () => (await checkpoints.ofReactor('rules')) >= head);
    await eventually(async () => {
      const open = await database.selectFrom('keep.jobs').select('due_at').where('kind', 'in', KINDS).execute();
      return open.every(({ due_at: due }) => due.getTime() > api.clock.now());
    });
  };

  it('ask about a wait again when the trigger was changed, and not when the rule was only saved, or was off for a while', async () => {
    const rule = await make({
      trigger: { type: 'no_agent_reply_for', seconds: 60 },
      conditions: [],
      actions: [{ type: 'note', message: 'Still nobody' }],
    });
    const change = (body: object) => api.expect(200, 'PUT', `/automation-rules/${rule['id']}`, { body });
    const notes = async () => (await eventsOf(id)).filter(({ type }) => type === 'NoteAdded').length;
    const id = await open('Hello?');
    const times = async (n: number) => {
      await looked();
      expect([await notes(), (await evaluations(id)).length]).toEqual([n, n]);
    };
    await looked();
    api.clock.advance(61_000);
    await times(1);
    await change({ name: 'another' });
    await change({ enabled: false });
    await change({ enabled: true });
    await times(1);
    await change({ trigger: { type: 'no_agent_reply_for', seconds: 7_200 } });
    await times(1);
    api.clock.advance(2 * hour);
    await times(2);
    await change({ trigger: { type: 'no_agent_reply_for', seconds: 60 } });
    await times(2);
  });

  it('ask about what was over while the rule was off, also when a timer comes late; and never again about what was asked too long ago to be kept', async () => {
    const rule = await make({
      trigger: { type: 'in_status_for', seconds: 60, status: 'pending' },
      conditions: [],
      actions: [{ type: 'addTag', tag: 'late' }],
    });
    const enable = (enabled: boolean) => api.expect(200, 'PUT', `/automation-rules/${rule['id']}`, { body: { enabled } });
    const id = await open('Hello?');
    await put(id, { status: 'pending' });
    await looked();
    await enable(false);
    const { database } = api.backend;
    // The timer stays where it is, as when all workers are down.
    await sql`update keep.jobs set due_at = due_at + interval '1 hour' where kind = 'rule-timer'`.execute(database);
    api.clock.advance(61_000);
    await enable(true);
    await looked();
    api.clock.advance(2 * hour);
    const tagged = await eventually(async () => ((await get(id))['tags'] as string[]).includes('late'));
    expect(tagged).toBe(true);
    await looked();
    expect(await evaluations(id)).toHaveLength(1);

    await api.expect(200, 'DELETE', `/conversations/${id}/tags/late`);
    await database.deleteFrom('keep.rule_evaluations').where('conversation_id', '=', id).execute();
    await enable(false);
    await enable(true);
    await looked();
    expect(await evaluations(id)).toEqual([]);
    expect((await get(id))['tags']).toEqual([]);
  });

  it('are found by a back-test as they were live', async () => {
    const from = new Date(api.clock.now()).toISOString();
    const trigger = { type: 'unassigned_for', seconds: 600 };
    const rule = await make({ trigger, conditions: [], actions: [{ type: 'addTag', tag: 'lonely' }] });
    const [lonely, taken] = [await open('A'), await open('B')];
    await api.expect(200, 'POST', `/conversations/${taken}/assign`, { body: { assigneeId: 'ada' } });
    api.clock.advance(601_000);
    await eventually(async () => (await get(lonely))['tags'].includes('lonely'));
    const { body } = await api.expect(200, 'GET', `/automation-rules/${rule['id']}/evaluations?outcome=matched`);
    const live = (body.data as Data[]).map(({ conversationId, eventId, revision, at }) => ({ conversationId, eventId, revision, at }));
    const { body: begun } = await api.expect(202, 'POST', '/automation-rules/back-tests', { body: { ruleId: rule['id'], from } });
    const test = await eventually(async () => {
      const { data } = (await api.expect(200, 'GET', `/automation-rules/back-tests/${begun.data.id}`)).body as { data: Data };
      return data['status'] === 'done' ? data : undefined;
    });
    const ofTest = (test['matches'] as Data[]).map(({ conversationId, eventId, revision, at }) => ({
      conversationId,
      eventId,
      revision,
      at,
    }));
    expect(ofTest).toEqual(expect.arrayContaining(live.filter(({ conversationId }) => conversationId === lonely)));
    expect(ofTest.some(({ conversationId }) => conversationId === taken)).toBe(false);
  });
});
