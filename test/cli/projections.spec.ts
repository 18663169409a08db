import { sql } from 'kysely';
import { shortShape } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { CLI_MS, threadlog, threadlogHere } from '../support/threadlog.js';
import { coreGroup } from '../support/read-schema.js';

let api: TestApi;
let environment: Record<string, string>;

beforeAll(async () => {
  api = await startApi();
  const { DATABASE_URL = '', DATA_DIR, MASTER_KEY = '' } = api.backend.config;
  environment = {
    DATABASE_URL,
    DATA_DIR,
    MASTER_KEY,
    ...(process.env['EVENTSTORE_URL'] ? { EVENTSTORE_URL: process.env['EVENTSTORE_URL'] } : {}),
  };
});
afterAll(() => api.stop());

async function json(...given: string[]): Promise<Record<string, unknown>> {
  // A rebuild gives its process a lower priority, which the tests of this one are not to run at.
  const ended = await (given[1] === 'rebuild' ? threadlog : threadlogHere)([...given, '--json'], environment);
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  return JSON.parse(ended.stdout) as Record<string, unknown>;
}

const ready = async () => {
  const answer = await fetch(`${api.url}/health/ready`);
  const { projections } = (await answer.json()) as { projections: { group: string; status: string }[] };
  return { status: answer.status, core: projections.find(({ group }) => group === 'core')?.status };
};

const open = (message: string) => api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message } });

/** The database's clock, for what it remembers of the group. */
const passTime = (seconds: number) =>
  sql`update read.checkpoints set progress_at = progress_at - ${`${seconds} s`}::interval`.execute(api.backend.database);

test(
  'a paused group handles nothing until it is resumed, and readiness says so',
  async () => {
    await open('before');
    await expectReadModelsEqualFold(api);
    expect(await json('projections', 'pause', 'core')).toEqual({ groups: [{ group: 'core', paused: true }], reactors: [] });
    const again = await threadlogHere(['projections', 'pause', 'core'], environment);
    expect(again).toMatchObject({ code: 0, stdout: 'core is paused already\n' });
    expect(await ready()).toEqual({ status: 200, core: 'paused' });
    // With nothing to handle it is not behind, however long it lasts.
    const position = (await open('meanwhile')).headers.get('x-position') ?? '';
    const page = await api.call('GET', '/conversations', { headers: { 'x-min-position': position } });
    expect(page).toMatchObject({ status: 503, body: { code: 'read_model_behind' } });
    const groups = (await json('projections', 'list'))['groups'] as Record<string, unknown>[];
    expect(groups.map(({ group }) => group)).toEqual(['core', 'insight']);
    const listed = groups.filter(({ group }) => group === 'core');
    expect(listed).toMatchObject([
      { group: 'core', shape: shortShape(coreGroup.shape), live: true, status: 'paused', lagIsExact: true, parked: 0, rebuild: null },
    ]);
    expect(listed[0]?.['lag']).toBeGreaterThan(0);
    expect(listed[0]?.['owner']).toEqual(expect.any(String));
    await passTime(31);
    expect(await ready()).toEqual({ status: 503, core: 'paused' });

    // Without a name it is all of them.
    expect(await json('projections', 'resume')).toEqual({
      groups: [
        { group: 'core', paused: false },
        { group: 'insight', paused: false },
      ],
      reactors: [],
    });
    expect(await ready()).toEqual({ status: 200, core: 'ok' });
    await api.expect(200, 'GET', '/conversations', { headers: { 'x-min-position': position } });
    await expectReadModelsEqualFold(api);
  },
  CLI_MS,
);

test(
  'a rebuild shows a new generation with the same rows, and keeps a pause',
  async () => {
    await open('to be folded again');
    await expectReadModelsEqualFold(api);
    const [before] = await api.backend.checkpoints.health();
    await json('projections', 'pause', 'core');
    const { rebuilt } = await json('projections', 'rebuild', 'core');
    expect(rebuilt).toMatchObject([{ group: 'core', parked: 0, oldDropped: true }]);
    const generation = (rebuilt as { generation: number }[])[0]?.generation;
    expect(generation).toBeGreaterThan(before?.generation ?? 0);
    expect(await ready()).toMatchObject({ core: 'paused' });
    await json('projections', 'resume', 'core');
    await eventually(async () => (await ready()).core === 'ok');
    await expectReadModelsEqualFold(api);
    // The rows are complete before anyone has taken the new generation up.
    await eventually(async () => (await api.backend.checkpoints.generations()).every(({ owner }) => owner !== null));
    const { stdout } = await threadlog(['projections', 'list'], environment);
    expect(stdout).toMatch(new RegExp(`^core +${generation} +${shortShape(coreGroup.shape)} +working +\\d+`, 'm'));
  },
  CLI_MS,
);

test('a group that is behind and does not move for 30 seconds reddens readiness, a parked stream does not', async () => {
  await expectReadModelsEqualFold(api);
  const { database } = api.backend;
  const [core] = await api.backend.checkpoints.health();
  await database
    .insertInto('keep.parked')
    .values({
      group_name: 'core',
      generation: core?.generation ?? 0,
      stream: `conversation-${api.organizationId}.nowhere`,
      revision: 3,
      position: '',
      event_id: '00000000-0000-4000-8000-000000000000',
      type: 'Happened',
      error: 'Error',
    })
    .execute();
  await passTime(31);
  // Its worker lives and says that there is nothing to do.
  expect(await ready()).toEqual({ status: 200, core: 'ok' });
  await database.deleteFrom('keep.parked').execute();

  // A worker that holds the lease and does not move, as one that hangs.
  await database
    .updateTable('read.checkpoints')
    .set((eb) => ({
      owner: 'a worker that hangs',
      epoch: eb('epoch', '+', 1),
      lease_until: sql<Date>`now() + interval '15 s'`,
      progress_at: sql<Date>`now()`,
    }))
    .execute();
  await open('unseen');
  expect((await ready()).status).toBe(200);
  // Real time goes by too, and on a busy machine more than a second of it.
  await passTime(20);
  expect((await ready()).status).toBe(200);
  await passTime(11);
  expect(await ready()).toEqual({ status: 503, core: 'stalled' });
  await database
    .updateTable('read.checkpoints')
    .set({ lease_until: sql<Date>`now()` })
    .execute();
  await eventually(async () => (await ready()).core === 'ok');
  await expectReadModelsEqualFold(api);
});
