import pg from 'pg';
import { makeAnalystRole } from '../../src/analytics/analyst.roles.js';
import { PresenceSeal, SEALABLE_BYTES } from '../../src/security/presence-seal.js';
import { MasterKey } from '../../src/security/sealing.js';
import type { TestApi } from '../support/api.js';
import { startApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { LiveClient } from '../support/live-client.js';

// Two API processes' worth of program over one database: each has its own sockets.
let database: TestDatabase;
let one: TestApi;
let other: TestApi;
let id: string;
let visitorId: string;
let lea: string;
let seal: PresenceSeal;
let teller: pg.Client;
beforeAll(async () => {
  database = await createDatabase();
  const environment = { MASTER_KEY: Buffer.alloc(32, 7).toString('base64') };
  one = await startApi({ database, environment });
  other = await startApi({ database, environment: { ...environment, PROJECTIONS: 'off' } });
  seal = new PresenceSeal(one.backend.masterKey);
  teller = new pg.Client({ connectionString: database.url });
  await teller.connect();
  await one.expect(201, 'POST', '/agents', { body: { id: 'lea', name: 'Lea' } });
  lea = await one.keyFor('agent', { agentId: 'lea' });
  const made = await one.expect(201, 'POST', '/conversations', { body: { visitor: { email: 'ada@example.com' }, message: 'Hello' } });
  ({
    id,
    visitor: { id: visitorId },
  } = made.body.data);
});
afterAll(async () => {
  await teller.end();
  await one.stop();
  await other.stop();
  await database.drop();
});

const presenceOf = (client: LiveClient) =>
  client.frames.filter(({ type }) => type.startsWith('presence.')).map(({ type, data, position }) => ({ type, data, position }));
const visitorToken = async (visitor = visitorId) =>
  (await one.expect(201, 'POST', '/visitor-tokens', { body: { visitor: { id: visitor } } })).body.data.token as string;

test('who looks and who types is told across processes, to the team whole and to the visitor in part, and ends by itself', async () => {
  const agent = await LiveClient.open(one, lea);
  const colleague = await LiveClient.open(other, one.adminKey);
  const analyst = await LiveClient.open(other, await one.keyFor('analyst'));
  const elsewhere = await LiveClient.open(other, one.adminKey, '?inboxId=no-such-inbox');
  const visitor = await LiveClient.open(other, await visitorToken());
  const stranger = await LiveClient.open(
    other,
    await visitorToken((await one.expect(201, 'POST', '/visitors', { body: { email: 'eve@example.com' } })).body.data.id),
  );
  const tenant = await one.otherOrganization();
  const foreigner = await LiveClient.open(other, tenant.adminKey);

  agent.send({ type: 'viewing', conversationId: id });
  agent.send({ type: 'typing', conversationId: id });
  const people = [{ id: 'lea', name: 'Lea' }];
  const told = [
    { type: 'presence.viewing', data: { conversationId: id, agents: people }, position: undefined },
    { type: 'presence.typing', data: { conversationId: id, agents: people }, position: undefined },
  ];
  for (const client of [agent, colleague, analyst])
    await eventually(() => (presenceOf(client).length === 2 ? true : undefined)).then(() => expect(presenceOf(client)).toEqual(told));
  await eventually(() => presenceOf(visitor).length > 0);
  expect(presenceOf(visitor)).toEqual([
    { type: 'presence.typing', data: { conversationId: id, agents: [{ name: 'Lea' }] }, position: undefined },
  ]);

  const late = await LiveClient.open(other, one.adminKey, `?conversationId=${id}`);
  await eventually(() => presenceOf(late).length === 2);
  expect(presenceOf(late)).toEqual(told);

  // Renewed, it goes on, and nothing is told again.
  one.clock.advance(10_000);
  other.clock.advance(10_000);
  agent.send({ type: 'typing', conversationId: id });
  one.clock.advance(15_000);
  other.clock.advance(15_000);
  await eventually(() => presenceOf(colleague).length === 3);
  expect(presenceOf(colleague)[2]).toEqual({
    type: 'presence.viewing',
    data: { conversationId: id, agents: [] },
    position: undefined,
  });
  one.clock.advance(20_000);
  other.clock.advance(20_000);
  await eventually(() => presenceOf(visitor).length === 2 && presenceOf(colleague).length === 4);
  expect(presenceOf(visitor)[1]).toEqual({ type: 'presence.typing', data: { conversationId: id, agents: [] }, position: undefined });
  expect([elsewhere, stranger, foreigner].flatMap(presenceOf)).toEqual([]);

  // Nothing of it was stored.
  const events = (await one.expect(200, 'GET', `/conversations/${id}/events`)).body.data as unknown[];
  expect(events).toHaveLength(2);
  for (const client of [agent, colleague, analyst, elsewhere, visitor, stranger, foreigner, late]) await client.close();
});

test('where a conversation goes its presence goes, too: who sees it no longer sees nobody there', async () => {
  for (const inbox of ['sales', 'care']) await one.expect(201, 'POST', '/inboxes', { body: { id: inbox, name: inbox } });
  await one.expect(201, 'POST', '/agents', { body: { id: 'kim', name: 'Kim' } });
  const { id: moving } = (
    await one.expect(201, 'POST', '/conversations', { body: { visitor: { email: 'ada@example.com' }, message: 'Hi', inboxId: 'sales' } })
  ).body.data as { id: string };
  const [agent, whole, sales, care, kims] = await Promise.all([
    LiveClient.open(one, lea),
    LiveClient.open(other, one.adminKey, `?conversationId=${moving}`),
    LiveClient.open(other, one.adminKey, '?inboxId=sales'),
    LiveClient.open(other, one.adminKey, '?inboxId=care'),
    LiveClient.open(other, one.adminKey, '?assigneeId=kim'),
  ]);
  agent.send({ type: 'viewing', conversationId: moving });
  const seen = (client: LiveClient) => presenceOf(client).map(({ data }) => data.agents.map((one: { id: string }) => one.id));
  await eventually(() => seen(sales).length === 1 && seen(whole).length === 1);
  await one.expect(200, 'PUT', `/conversations/${moving}`, { body: { inboxId: 'care' } });
  await eventually(() => seen(sales).length === 2 && seen(care).length === 1);
  await one.expect(200, 'POST', `/conversations/${moving}/assign`, { body: { assigneeId: 'kim' } });
  await eventually(() => seen(kims).length === 1);
  await one.expect(200, 'POST', `/conversations/${moving}/assign`, { body: { assigneeId: 'lea' } });
  await eventually(() => seen(kims).length === 2);
  expect([sales, care, kims, whole].map(seen)).toEqual([[['lea'], []], [['lea']], [['lea'], []], [['lea']]]);
  for (const client of [agent, whole, sales, care, kims]) await client.close();
});

const wordOf = (organizationId: string, n: number) => ({
  organizationId,
  conversationId: `c${n}`,
  type: 'presence.viewing',
  id: `p${n}`,
  name: '',
  isAgent: true,
  visitorId: 'v',
  inboxId: 'i',
  assigneeId: null,
  revision: 0,
});
/** As another process says it. */
const tellPresence = async (words: readonly object[]) => await notify(teller, seal.seal(JSON.stringify(words), await numberOf(teller)));
const notify = async (session: pg.Client, payload: string) =>
  void (await session.query(`select pg_notify('threadlog_presence', $1)`, [payload]));
const numberOf = async (session: pg.Client) =>
  (await session.query<{ number: number }>('select pg_backend_pid() as number')).rows[0]?.number ?? 0;

test('whoever may only use the database reads no presence, and says none', async () => {
  const tenant = await one.otherOrganization();
  const { role, password } = await makeAnalystRole(one.backend.database, one.backend.masterKey, tenant.organizationId);
  const url = new URL(database.url);
  url.username = role;
  url.password = password;
  const analyst = new pg.Client({ connectionString: url.href });
  await analyst.connect();
  const heard: string[] = [];
  analyst.on('notification', ({ payload }) => heard.push(payload ?? ''));
  for (const channel of ['presence', 'feed', 'jobs', 'log']) await analyst.query(`listen threadlog_${channel}`);
  const agent = await LiveClient.open(one, lea);
  const colleague = await LiveClient.open(other, one.adminKey, `?conversationId=${id}`);
  agent.send({ type: 'viewing', conversationId: id });
  await eventually(() => presenceOf(colleague).length === 1);
  await eventually(() => heard.find((payload) => payload !== ''));
  for (const secret of [one.organizationId, id, 'lea', 'Lea', 'viewing'])
    expect(heard.map((payload) => payload + Buffer.from(payload, 'base64').toString('latin1')).join('\n')).not.toContain(secret);

  // What it makes up, what it seals with a key of its own, and what it has heard and tells again.
  const [said] = heard.filter((payload) => payload !== '');
  other.clock.advance(25_000);
  await eventually(() => presenceOf(colleague).length === 2);
  const forged = JSON.stringify([{ ...wordOf(one.organizationId, 1), conversationId: id }]);
  const mine = new PresenceSeal(new MasterKey(Buffer.alloc(32, 8)));
  for (const payload of [forged, '', 'A', mine.seal(forged, await numberOf(analyst)), said ?? ''])
    for (let i = 0; i < 20; i++) await notify(analyst, payload);
  await tellPresence([{ ...wordOf(one.organizationId, 2), conversationId: id }]);
  await eventually(() => presenceOf(colleague).length > 2);
  expect(presenceOf(colleague).slice(2)).toEqual([
    { type: 'presence.viewing', data: { conversationId: id, agents: [{ id: 'p2', name: '' }] }, position: undefined },
  ]);
  // A flood of it is a line a minute.
  expect(
    other
      .logged()
      .split('\n')
      .filter((line) => line.includes('not understood')),
  ).toHaveLength(1);
  // For the tests after it, nobody is there any more, also at the process that said so.
  one.clock.advance(25_000);
  other.clock.advance(25_000);
  await eventually(() => presenceOf(colleague).length === 4);
  for (const client of [agent, colleague]) await client.close();
  await analyst.end();
});

test('as many words as are told at once fit into a notification', async () => {
  const payload = seal.seal('a'.repeat(SEALABLE_BYTES), 4_194_304);
  expect(payload.length).toBeLessThan(8_000);
  await notify(teller, payload);
});

test('the presence of an organization is bounded, and costs another organization nothing', async () => {
  const tenant = await one.otherOrganization();
  const [crowded, quiet] = [await LiveClient.open(other, tenant.adminKey), await LiveClient.open(other, one.adminKey)];
  const told = tellPresence;
  const word = (n: number) => wordOf(tenant.organizationId, n);
  for (let n = 0; n < 5_000; n += 25) await told(Array.from({ length: 25 }, (_, i) => word(n + i)));
  await eventually(() => presenceOf(crowded).length === 5_000);
  await told([word(5_000)]);
  const agent = await LiveClient.open(one, lea);
  agent.send({ type: 'viewing', conversationId: id });
  await eventually(() => presenceOf(quiet).length === 1);
  expect(presenceOf(crowded)).toHaveLength(5_000);
  for (const client of [crowded, quiet, agent]) await client.close();
});

test('a conversation that is not there, or of another organization, is answered the same way, and the socket goes on', async () => {
  const tenant = await one.otherOrganization();
  const client = await LiveClient.open(one, tenant.adminKey);
  client.send({ type: 'typing', conversationId: id });
  client.send({ type: 'typing', conversationId: 'nothing' });
  const errors = await eventually(() => {
    const said = client.frames.filter(({ type }) => type === 'error').map(({ text }) => text);
    return said.length === 2 ? said : undefined;
  });
  expect(errors[0]).toBe(errors[1]);
  expect(client.ws.readyState).toBe(1);
  await client.close();
});

test('who sends too much is not heard, and who goes on in spite of it is sent away', async () => {
  const client = await LiveClient.open(one, one.adminKey);
  for (let i = 0; i < 10_000 && client.ws.readyState === 1; i++) {
    client.send({ type: 'typing', conversationId: id });
    if (i % 25 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await client.closed).code).toBe(4429);
});

test('organizations that are crowded leave another one its part of all presences', async () => {
  // Nobody leaves meanwhile. It comes last, since all places are taken afterwards.
  other.clock.stopAt(other.clock.now());
  const tenant = await one.otherOrganization();
  const quiet = await LiveClient.open(other, tenant.adminKey);
  for (let organization = 0; organization < 10; organization++)
    for (let n = 0; n < 5_000; n += 25) await tellPresence(Array.from({ length: 25 }, (_, i) => wordOf(`crowded-${organization}`, n + i)));
  await tellPresence([wordOf('crowded-10', 0), wordOf(tenant.organizationId, 1)]);
  await eventually(() => presenceOf(quiet).length === 1);
  // Twelve have a part of a twelfth each.
  for (let n = 0; n < 4_500; n += 25) await tellPresence(Array.from({ length: 25 }, (_, i) => wordOf('crowded-10', n + i)));
  for (let n = 25; n < 4_500; n += 25) await tellPresence(Array.from({ length: 25 }, (_, i) => wordOf(tenant.organizationId, n + i)));
  await tellPresence([{ ...wordOf(tenant.organizationId, 1), type: 'presence.typing', revision: 1 }]);
  const most = await eventually(() => (presenceOf(quiet).length > 3_000 ? presenceOf(quiet).length : undefined));
  expect(most).toBeLessThanOrEqual(50_000 / 12 + 1);
  other.clock.goOn();
  await quiet.close();
});
