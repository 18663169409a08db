import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import { ASSIGN_WAITING } from '../../projections/inbox-assignment.jobs.js';
import { INBOX_ASSIGNMENT } from '../../projections/inbox-assignment.reactor.js';
import { addTags, conversationAggregate, open as openConversation } from '../../src/conversations/conversation.js';
import { type StoredEvent, streamName } from '../../src/event-store/event-store.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

const environment = { MASTER_KEY: randomBytes(32).toString('base64') };

let created: TestDatabase;
let api: TestApi;
/** Of the organization of all tests: an API that is started again makes another. */
let organizationId: string;
let key: string;
let number = 0;

beforeAll(async () => {
  created = await createDatabase();
  api = await startApi({ environment, database: created });
  ({ organizationId, adminKey: key } = api);
});
afterEach(async () => {
  await settled();
  await expectReadModelsEqualFold(api, organizationId);
});
afterAll(async () => {
  await api.stop();
  await created.drop();
});

/** Sends a request that must be answered with this status, and gives its data. */
async function ask<T>(status: number, method: string, path: string, body?: object): Promise<T> {
  const answer = await api.expect(status, method, path, { key, ...(body === undefined ? {} : { body }) });
  return (answer.body as { data: T } | undefined)?.data as T;
}
const made = <T = unknown>(path: string, body: object) => ask<T>(201, 'POST', path, body);
const post = (path: string, body: object) => ask(200, 'POST', path, body);
const put = (path: string, body: object) => ask(200, 'PUT', path, body);
const archive = (path: string) => ask(204, 'DELETE', path);

interface Shown {
  readonly id: string;
  readonly status: string;
  readonly createdAt: string;
  readonly assignee: { readonly id: string; readonly name: string } | null;
}

/** New agents, and an inbox of theirs that assigns by itself. */
async function inboxOf(
  mode: 'round_robin' | 'least_busy' | 'manual',
  members: number,
  given: { cap?: number } = {},
): Promise<{ inboxId: string; agents: readonly string[] }> {
  const nr = ++number;
  const agents = Array.from({ length: members }, (_, i) => `agent-${nr}-${i}`);
  for (const id of agents) await made('/agents', { id, name: `Name of ${id}` });
  const inboxId = `inbox-${nr}`;
  await made('/inboxes', { id: inboxId, name: inboxId, assignment: { mode, agentIds: agents, ...given } });
  return { inboxId, agents };
}

async function open(inboxId: string): Promise<string> {
  return (await made<Shown>('/conversations', { visitor: { name: 'V' }, inboxId, message: 'Hello' })).id;
}

const get = (id: string) => ask<Shown>(200, 'GET', `/conversations/${id}`);
/** Who has each conversation, as soon as all of them have somebody. */
const assigned = (ids: readonly string[]) =>
  eventually(async () => {
    const all = await Promise.all(ids.map(get));
    return all.every(({ assignee }) => assignee !== null) ? all.map(({ assignee }) => assignee?.id ?? '') : undefined;
  });

it('gives each conversation that is opened to the next member in turn, and says why', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 3);
  const ids: string[] = [];
  const got: string[] = [];
  for (let n = 0; n < 7; n++) {
    ids.push(await open(inboxId));
    got.push(...(await assigned(ids.slice(-1))));
  }
  expect(got).toEqual([0, 1, 2, 0, 1, 2, 0].map((nr) => agents[nr]));
  const events = await ask<{ id: string; type: string }[]>(200, 'GET', `/conversations/${ids[0]}/events`);
  const event = events.find(({ type }) => type === 'ConversationAssigned');
  expect(event).toMatchObject({
    actor: { type: 'automation', id: inboxId },
    causationId: events[0]?.id,
    data: {
      assignee: { id: agents[0], type: 'agent', name: `Name of ${agents[0]}` },
      team: null,
      reason: { type: 'round_robin', inboxId },
    },
  });
});

/** Everything that was written to a conversation's assignment, oldest first: who has it from then on, and why. */
async function assignments(id: string): Promise<readonly { readonly to: string | null; readonly by: string; readonly reason?: string }[]> {
  const events = await ask<
    { type: string; actor: { type: string }; data: { assignee?: { id: string }; reason?: { type: string } | string } }[]
  >(200, 'GET', `/conversations/${id}/events`);
  return events
    .filter(({ type }) => type === 'ConversationAssigned' || type === 'ConversationUnassigned')
    .map(({ actor, data: { assignee, reason } }) => ({
      to: assignee?.id ?? null,
      by: actor.type,
      ...(typeof reason === 'object' ? { reason: reason.type } : {}),
    }));
}

/** All jobs that the events up to now lead to are done. */
async function settled(): Promise<void> {
  const { store, checkpoints, database } = api.backend;
  for (;;) {
    const head = await store.head();
    await eventually(async () => {
      const reactor = (await checkpoints.reactors()).find(({ reactor }) => reactor === INBOX_ASSIGNMENT);
      return reactor !== undefined && reactor.position >= head;
    }, 30_000);
    await eventually(
      async () => (await database.selectFrom('keep.jobs').select('id').where('kind', '=', ASSIGN_WAITING).execute()).length === 0,
      30_000,
    );
    if ((await store.head()) === head) return;
  }
}

it('gives nobody more than the cap when 32 are opened at once, and the others in their order as places become free', async () => {
  const { inboxId, agents } = await inboxOf('least_busy', 3, { cap: 4 });
  const ids = await Promise.all(Array.from({ length: 32 }, () => open(inboxId)));
  await settled();
  const byAge = (await Promise.all(ids.map(get))).toSorted((a, b) => (a.createdAt < b.createdAt ? -1 : 1));
  const had = byAge.filter(({ assignee }) => assignee !== null);
  for (const agent of agents) expect(had.filter(({ assignee }) => assignee?.id === agent)).toHaveLength(4);

  // Each way to free a place: ended, put off, taken by somebody outside, given away by unassigning it.
  const waits = () => Promise.all(byAge.map(({ id }) => get(id))).then((all) => all.filter(({ assignee }) => assignee === null).length);
  await made('/agents', { id: `outsider-${inboxId}`, name: 'O', availability: 'away' });
  const frees: readonly ((id: string) => Promise<unknown>)[] = [
    (id) => put(`/conversations/${id}`, { status: 'resolved' }),
    (id) => put(`/conversations/${id}`, { status: 'pending' }),
    (id) => post(`/conversations/${id}/snooze`, { until: 'next_reply' }),
    (id) => post(`/conversations/${id}/assign`, { assigneeId: `outsider-${inboxId}` }),
  ];
  for (const [nr, free] of frees.entries()) {
    await free((had[nr] as Shown).id);
    await settled();
    expect(await waits()).toBe(20 - nr - 1);
  }
  for (const { id } of byAge.slice(0, 16)) expect((await assignments(id))[0]).toMatchObject({ by: 'automation', reason: 'least_busy' });
  for (const { id } of byAge.slice(16)) expect(await assignments(id)).toEqual([]);
  const now = await Promise.all(byAge.map(({ id }) => get(id)));
  for (const agent of agents) expect(now.filter(({ status, assignee }) => status === 'open' && assignee?.id === agent)).toHaveLength(4);
}, 60_000);

it('waits for a member to come online, and gives nothing to who is away, archived or no member', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 3);
  const [away, archived, member] = agents as [string, string, string];
  await put(`/agents/${away}`, { availability: 'away' });
  await archive(`/agents/${archived}`);
  await put(`/inboxes/${inboxId}`, { assignment: { mode: 'round_robin', agentIds: [away, archived] } });
  const first = await open(inboxId);
  await settled();
  expect(await assignments(first)).toEqual([]);

  await put(`/agents/${away}`, { availability: 'online' });
  expect(await assigned([first])).toEqual([away]);
  await put(`/agents/${away}`, { availability: 'away' });
  const second = await open(inboxId);
  await settled();
  await post(`/agents/${archived}/unarchive`, {});
  expect(await assigned([second])).toEqual([archived]);

  await put(`/agents/${archived}`, { availability: 'away' });
  const third = await open(inboxId);
  await settled();
  await put(`/inboxes/${inboxId}`, { assignment: { mode: 'round_robin', agentIds: [member] } });
  expect(await assigned([third])).toEqual([member]);

  await archive(`/inboxes/${inboxId}`);
  await post(`/conversations/${third}/assign`, { assigneeId: null });
  await settled();
  expect(await get(third)).toMatchObject({ assignee: null });
});

it('assigns what is reopened, woken, moved in, or left by an archived agent, and leaves what has somebody', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 2);
  const manual = (await inboxOf('manual', 0)).inboxId;
  const [one, two] = agents as [string, string];
  const [reopened, woken, moved] = [await open(manual), await open(manual), await open(manual)];
  await put(`/conversations/${reopened}`, { status: 'resolved', inboxId });
  await post(`/conversations/${woken}/snooze`, { until: new Date(api.clock.now() + 60_000).toISOString() });
  await put(`/conversations/${woken}`, { inboxId });
  await settled();
  for (const id of [reopened, woken, moved]) expect(await assignments(id)).toEqual([]);

  await made(`/conversations/${reopened}/messages`, { message: 'Again' });
  expect(await assigned([reopened])).toEqual([one]);
  api.clock.advance(61_000);
  expect(await assigned([woken])).toEqual([two]);
  await put(`/conversations/${moved}`, { inboxId });
  expect(await assigned([moved])).toEqual([one]);

  // Whoever has it keeps it, away or not.
  await put(`/agents/${one}`, { availability: 'away' });
  await put(`/conversations/${moved}`, { status: 'resolved' });
  await made(`/conversations/${moved}/messages`, { message: 'Once more' });
  await settled();
  expect(await assignments(moved)).toHaveLength(1);
  await archive(`/agents/${one}`);
  await eventually(async () => (await get(moved)).assignee?.id === two && (await get(reopened)).assignee?.id === two);
});

it('does not give a conversation back to the agent from whom it was taken, until it is opened again', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 2);
  const [one, two] = agents as [string, string];
  await put(`/agents/${two}`, { availability: 'away' });
  const [id, next] = [await open(inboxId), await open(inboxId)];
  expect(await assigned([id, next])).toEqual([one, one]);
  for (const taken of [id, next]) await post(`/conversations/${taken}/assign`, { assigneeId: null });
  await settled();
  expect((await get(id)).assignee).toBeNull();
  await put(`/agents/${two}`, { availability: 'online' });
  expect(await assigned([id])).toEqual([two]);
  await put(`/agents/${two}`, { availability: 'away' });
  await post(`/conversations/${id}/assign`, { assigneeId: null });
  await put(`/conversations/${id}`, { status: 'pending' });
  await settled();
  await made(`/conversations/${id}/messages`, { message: 'Anybody?' });
  expect(await assigned([id])).toEqual([one]);
});

it('gives a conversation in the queue of a team to a member of both, and leaves alone what the team itself has', async () => {
  const { inboxId, agents } = await inboxOf('least_busy', 3);
  const teamId = `team-${inboxId}`;
  await made('/teams', { id: teamId, name: 'T', agentIds: [] });
  const others = await inboxOf('manual', 0);
  const [queued, kept] = [await open(others.inboxId), await open(others.inboxId)];
  await post(`/conversations/${queued}/assign`, { teamId });
  await post(`/conversations/${kept}/assign`, { assigneeId: teamId });
  for (const id of [queued, kept]) await put(`/conversations/${id}`, { inboxId });
  await settled();
  expect(await get(queued)).toMatchObject({ assignee: null, team: { id: teamId } });
  await put(`/teams/${teamId}`, { agentIds: [agents[2]] });
  expect(await assigned([queued])).toEqual([agents[2]]);
  await settled();
  expect(await get(queued)).toMatchObject({ team: { id: teamId } });
  expect(await get(kept)).toMatchObject({ assignee: { id: teamId } });
  // Out of the queue it is anybody's.
  const other = await open(others.inboxId);
  await post(`/conversations/${other}/assign`, { teamId });
  await put(`/teams/${teamId}`, { agentIds: [] });
  await put(`/conversations/${other}`, { inboxId });
  await settled();
  expect((await get(other)).assignee).toBeNull();
  await post(`/conversations/${other}/assign`, { teamId: null });
  expect(await assigned([other])).toEqual([agents[0]]);
});

it('keeps the order of turns over a restart', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 3);
  const first = await open(inboxId);
  expect(await assigned([first])).toEqual([agents[0]]);
  await settled();
  await api.stop();
  api = await startApi({ environment, database: created });
  expect(await assigned([await open(inboxId), await open(inboxId), await open(inboxId)])).toEqual([agents[1], agents[2], agents[0]]);
});

/** How many jobs were ever added. */
async function jobsEver(): Promise<number> {
  const { rows } = await sql<{ last: string }>`
    select pg_sequence_last_value(pg_get_serial_sequence('keep.jobs', 'id')::regclass) as last`.execute(api.backend.database);
  return Number(rows[0]?.last ?? 0);
}

it('adds no job in an organization where no inbox assigns by itself, from the first event that comes after the last was switched off', async () => {
  const { organizationId: other, adminKey } = await api.otherOrganization();
  const inOther = async (status: number, method: string, path: string, body: object) =>
    (await api.expect(status, method, path, { key: adminKey, body })).body as { data: { id: string } };
  const busy = async () => {
    const { data } = await inOther(201, 'POST', '/conversations', { visitor: {}, message: 'Hello' });
    await inOther(200, 'PUT', `/conversations/${data.id}`, { status: 'resolved' });
    await settled();
    return data.id;
  };
  // The first event may come before the read model has the organization's inboxes.
  await busy();
  const before = await jobsEver();
  await busy();
  expect(await jobsEver()).toBe(before);
  const { data: agent } = await inOther(201, 'POST', '/agents', { name: 'A' });
  const assignment = { mode: 'round_robin', agentIds: [agent.id] };
  const { data: inbox } = await inOther(201, 'POST', '/inboxes', { name: 'Automatic', assignment });
  await busy();
  const during = await jobsEver();
  expect(during).toBeGreaterThan(before);
  await inOther(200, 'PUT', `/inboxes/${inbox.id}`, { assignment: { mode: 'manual', agentIds: [] } });
  await busy();
  expect(await jobsEver()).toBe(during);
  await expectReadModelsEqualFold(api, other);
});

it('counts on from the depth of the conversation, whatever event the job was made for', async () => {
  const { inboxId, agents } = await inboxOf('round_robin', 1);
  await put(`/agents/${agents[0]}`, { availability: 'away' });
  const id = await open(inboxId);
  const { transactor, ids } = api.backend;
  const commandId = ids.next();
  const actor = { type: 'automation', id: 'a-rule' } as const;
  const context = { organizationId, actor, commandId, requestHash: '', correlationId: commandId, causationDepth: 7 };
  await transactor.transact(conversationAggregate, id, context, addTags(['deep']));
  await put(`/agents/${agents[0]}`, { availability: 'online' });
  await assigned([id]);
  const events = await ask<{ id: string; type: string }[]>(200, 'GET', `/conversations/${id}/events`);
  expect(events.at(-1)).toMatchObject({
    type: 'ConversationAssigned',
    causationDepth: 8,
    causationId: events.at(-2)?.id,
    correlationId: commandId,
  });
});

it('gives out the others when a conversation cannot be read', async () => {
  const { organizationId: other, adminKey } = await api.otherOrganization();
  const inOther = async (status: number, method: string, path: string, body: object) =>
    ((await api.expect(status, method, path, { key: adminKey, body })).body as { data: Shown }).data;
  const agent = await inOther(201, 'POST', '/agents', { name: 'A', availability: 'away' });
  const inbox = await inOther(201, 'POST', '/inboxes', { name: 'I', assignment: { mode: 'round_robin', agentIds: [agent.id] } });
  const opening = { visitor: { name: 'V' }, inboxId: inbox.id, message: 'Hello' };
  const [bad, good] = [await inOther(201, 'POST', '/conversations', opening), await inOther(201, 'POST', '/conversations', opening)];
  const stream = streamName(conversationAggregate.kind, other, bad.id);
  let last: StoredEvent | undefined;
  for await (const batch of api.backend.store.read(stream)) last = batch.at(-1) ?? last;
  if (last === undefined) throw new Error('there is no conversation');
  // As of a later build.
  const unknown = { id: api.backend.ids.next(), type: 'ConversationSplit', data: '{}', metadata: last.metadata };
  await api.backend.store.append(stream, last.revision, [unknown], AbortSignal.timeout(5_000));
  await inOther(200, 'PUT', `/agents/${agent.id}`, { availability: 'online' });
  await eventually(
    async () => (await api.expect(200, 'GET', `/conversations/${good.id}`, { key: adminKey })).body.data.assignee?.id === agent.id,
  );
});

it('does nothing about imported events', async () => {
  const { inboxId } = await inboxOf('round_robin', 1);
  await settled();
  const before = await jobsEver();
  const { transactor, ids } = api.backend;
  const commandId = ids.next();
  await transactor.transact(
    conversationAggregate,
    `imported-${inboxId}`,
    {
      organizationId,
      actor: { type: 'system', id: 'import' },
      commandId,
      requestHash: '',
      correlationId: commandId,
      imported: true,
    },
    openConversation({ visitorId: 'nobody', inboxId, channel: 'import' }),
  );
  await settled();
  expect(await jobsEver()).toBe(before);
});
