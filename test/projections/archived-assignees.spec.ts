import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import { TAKE_OFF_ARCHIVED } from '../../projections/archived-assignees.jobs.js';
import { pauseWork } from '../../projections/runtime/lease.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { archiveAssignee, assigneeAggregate } from '../../src/team/assignee.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

const MANY = 2_000;
const environment = { EVENTSTORE_URL: '', MASTER_KEY: randomBytes(32).toString('base64') };

let created: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  created = await createDatabase();
  api = await startApi({ environment, database: created });
});
afterAll(async () => {
  await api.stop();
  await created.drop();
});

async function open(assigneeId: string): Promise<string> {
  const { body } = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'm' } });
  const { id } = body.data as { id: string };
  await api.expect(200, 'POST', `/conversations/${id}/assign`, { body: { assigneeId } });
  return id;
}

const get = async (id: string) => (await api.expect(200, 'GET', `/conversations/${id}`)).body.data as Record<string, unknown>;

/** How often each conversation lost somebody for being archived. */
async function takenOff(): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql<{ id: string; times: number }>`
    select split_part(stream, '.', 2) as id, count(*)::int as times from log.events
    where type in ('ConversationUnassigned', 'ConversationTeamChanged') and data like '%"archived"%' group by 1`.execute(
    api.backend.database,
  );
  return new Map(rows.map(({ id, times }) => [id, times]));
}

const sweepsLeft = async () =>
  (await api.backend.database.selectFrom('keep.jobs').select('id').where('kind', '=', TAKE_OFF_ARCHIVED).execute()).length;

/** More conversations of the same assignee, with nothing personal in them. */
async function copy(id: string, count: number): Promise<void> {
  await sql`
    insert into log.events (position, stream, revision, id, type, data, metadata)
    select (select max(position) from log.events) + 2 * n + e.at - 1, split_part(e.stream, '.', 1) || '.copy-' || n, e.at - 1, gen_random_uuid(),
      e.type, e.data, e.metadata
    from generate_series(1, ${count}::int) n, (
      select *, (row_number() over (order by revision))::int as at from log.events
      where split_part(stream, '.', 2) = ${id} and type in ('ConversationOpened', 'ConversationAssigned')
    ) e`.execute(api.backend.database);
}

it('takes an archived agent off each of 2,000 conversations that have not ended, once, also when ended in between, and off what came late', async () => {
  await api.expect(201, 'POST', '/agents', { body: { id: 'leaves', name: 'Leaves' } });
  const [mine, ended] = [await open('leaves'), await open('leaves')];
  await api.expect(200, 'PUT', `/conversations/${ended}`, { body: { status: 'resolved' } });
  await copy(mine, MANY);
  await api.expect(204, 'DELETE', '/agents/leaves');
  // The second sweep comes when this test says so, however slow the machine is.
  await eventually(async () => {
    const { numAffectedRows } = await sql`
      update keep.jobs set due_at = now() + interval '1 day' where kind = ${TAKE_OFF_ARCHIVED} and key like '%.1'`.execute(
      api.backend.database,
    );
    return numAffectedRows === 1n;
  });
  const began = Number(await api.backend.store.head());
  await eventually(async () => Number(await api.backend.store.head()) > began + 500, 60_000);
  const { adminKey: key } = api;
  const before = (await takenOff()).size;
  await api.stop();
  expect(before).toBeLessThan(MANY);
  api = await startApi({ environment, database: created });
  await eventually(async () => (await sweepsLeft()) === 1, 120_000);

  // A process that still took the agent for active assigned one more.
  await sql`
    insert into log.events (position, stream, revision, id, type, data, metadata)
    select (select max(position) from log.events) + 1, stream, 3, gen_random_uuid(), type, data, metadata
    from log.events where split_part(stream, '.', 2) = 'copy-1' and type = 'ConversationAssigned'`.execute(api.backend.database);
  api.clock.advance(24 * 60 * 60_000);
  await eventually(async () => (await sweepsLeft()) === 0, 60_000);
  expect((await takenOff()).get('copy-1')).toBe(2);
  const times = [...(await takenOff())].filter(([id]) => id !== 'copy-1');
  expect(times).toHaveLength(MANY);
  expect(times.filter(([, n]) => n !== 1)).toEqual([]);
  expect((await api.expect(200, 'GET', `/conversations/${mine}`, { key })).body.data).toMatchObject({ assignee: null, status: 'open' });
  expect((await api.expect(200, 'GET', `/conversations/${ended}`, { key })).body.data).toMatchObject({ assignee: { id: 'leaves' } });
}, 300_000);

it('leaves what is back from the archive by then, and takes a team out of the queue too', async () => {
  const { database } = api.backend;
  const before = (await takenOff()).size;
  for (const id of ['back', 'gone']) await api.expect(201, 'POST', '/teams', { body: { id, name: id } });
  const [kept, left] = [await open('back'), await open('gone')];
  expect(await pauseWork(database, { reactor: 'archived-assignees' }, true)).toBe(true);
  for (const id of ['back', 'gone']) await api.expect(204, 'DELETE', `/teams/${id}`);
  await api.expect(200, 'POST', '/teams/back/unarchive');
  await pauseWork(database, { reactor: 'archived-assignees' }, false);
  await eventually(async () => (await get(left))['team'] === null, 30_000);
  api.clock.advance(15_000);
  await eventually(async () => (await sweepsLeft()) === 0, 30_000);
  expect(await get(left)).toMatchObject({ assignee: null, team: null });
  expect(await get(kept)).toMatchObject({ assignee: { id: 'back' } });
  expect((await takenOff()).size).toBe(before + 1);
}, 60_000);

it('is moved and repeated by nothing when all read models are dropped under it and made again, and finds in the new ones what it looks for', async () => {
  const { database } = api.backend;
  await api.expect(201, 'POST', '/agents', { body: { id: 'meanwhile', name: 'M' } });
  const [mine, snoozed] = [await open('meanwhile'), await open('meanwhile')];
  const until = new Date(api.clock.now() + 24 * 3_600_000).toISOString();
  const { headers } = await api.expect(200, 'POST', `/conversations/${snoozed}/snooze`, { body: { until } });
  // Every reactor has passed it, so that their checkpoints have nowhere left to go.
  const reactors = () =>
    database.selectFrom('keep.reactors').select(['name', 'position', 'events', 'epoch', 'state']).orderBy('name').execute();
  const jobs = () => database.selectFrom('keep.jobs').select(['id', 'kind', 'key', 'attempt', 'due_at']).orderBy('id').execute();
  const position = headers.get('x-position') ?? '';
  await eventually(async () => (await reactors()).every((one) => one.position >= position));
  await expectReadModelsEqualFold(api);
  const before = { reactors: await reactors(), jobs: await jobs(), head: await api.backend.store.head(), takenOff: await takenOff() };
  expect(before.jobs).toHaveLength(1);

  const filled = async () => (await api.backend.checkpoints.health()).find(({ filling }) => !filling)?.generation ?? 0;
  const dropped = await filled();
  await sql`
    do $$ declare one record; begin
      for one in select nspname as name from pg_namespace where nspname ~ '^(read_|threadlog$)' loop
        execute format('drop schema %I cascade', one.name);
      end loop;
      for one in select tablename as name from pg_tables where schemaname = 'read' and tablename ~ '_g\\d+$' loop
        execute format('drop table read.%I', one.name);
      end loop;
      delete from read.checkpoints;
      create schema threadlog;
    end $$`.execute(database);
  await eventually(async () => (await filled()) > dropped, 30_000);
  await expectReadModelsEqualFold(api);
  expect({ reactors: await reactors(), jobs: await jobs(), head: await api.backend.store.head(), takenOff: await takenOff() }).toEqual(
    before,
  );

  await api.expect(204, 'DELETE', '/agents/meanwhile');
  await eventually(async () => (await get(mine))['assignee'] === null && (await get(snoozed))['assignee'] === null, 30_000);
  expect(await get(snoozed)).toMatchObject({ status: 'snoozed' });
  expect([...(await takenOff())].filter(([id]) => !before.takenOff.has(id))).toEqual(
    expect.arrayContaining([
      [mine, 1],
      [snoozed, 1],
    ]),
  );
}, 60_000);

it('revokes the keys of an archived agent that the request which archived it did not get to', async () => {
  await api.expect(201, 'POST', '/agents', { body: { id: 'locked', name: 'Locked' } });
  const keys = await Promise.all(
    ['whole', 'half'].map(async (name) => {
      const { body } = await api.expect(201, 'POST', '/api-keys', { body: { name, role: 'agent', agentId: 'locked' } });
      return body.data as { id: string; key: string };
    }),
  );
  const [whole, half] = keys as [{ id: string; key: string }, { id: string; key: string }];
  const { database, transactor, ids } = api.backend;
  // As after two crashes: between the row of a key and its event, and between the archiving and the first key.
  await database.updateTable('keep.api_keys').set({ revoked_at: new Date() }).where('id', '=', half.id).execute();
  const commandId = ids.next();
  await transactor.transact(
    assigneeAggregate,
    'locked',
    { organizationId: api.organizationId, actor: { type: 'system', id: 'test' }, commandId, requestHash: '', correlationId: commandId },
    archiveAssignee('agent'),
  );
  await eventually(async () => (await api.call('GET', '/conversations', { key: whole.key })).status === 401);
  for (const { id } of keys)
    await eventually(async () => {
      const { body } = await api.expect(200, 'GET', `/api-keys/${id}`);
      return (body.data as { revokedAt: string | null }).revokedAt !== null;
    });
});
