import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { shortShape } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const START_MS = 60_000;

let api: TestApi;
let folder: string;
let worker: ChildProcess | undefined;

beforeAll(async () => {
  api = await startApi();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-next-'));
});
afterAll(async () => {
  await end();
  await api.stop();
  await rm(folder, { recursive: true, force: true });
});

async function end(): Promise<void> {
  const running = worker;
  worker = undefined;
  if (running === undefined || running.exitCode !== null) return;
  const exited = once(running, 'exit');
  running.kill('SIGTERM');
  await exited;
}

/** The next build, made as CONTRIBUTING tells: one column more, in one file. */
async function makeNextBuild(): Promise<void> {
  for (const name of ['src', 'projections', 'migrations', 'test/support'])
    await cp(join(ROOT, name), join(folder, name), { recursive: true });
  await cp(join(ROOT, 'package.json'), join(folder, 'package.json'));
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const path = join(folder, 'src/conversations/conversation.table.ts');
  const text = await readFile(path, 'utf8');
  const next = text
    .replace('  updated_at: number;\n', '  updated_at: number;\n  first_tag: string | null;\n')
    .replace("updated_at: 'bigint not null',\n", "updated_at: 'bigint not null',\n    first_tag: 'text',\n")
    .replace('updated_at: ms(c.updatedAt),\n', 'updated_at: ms(c.updatedAt),\n    first_tag: c.tags[0] ?? null,\n');
  expect(next.split('\n').length).toBe(text.split('\n').length + 3);
  await writeFile(path, next);
}

function startNextWorker(): void {
  const { DATABASE_URL = '', EVENTSTORE_URL = '', DATA_DIR, MASTER_KEY = '' } = api.backend.config;
  worker = spawn(process.execPath, ['--import', join(folder, 'test/support/typescript.mjs'), join(folder, 'projections/main.ts')], {
    cwd: folder,
    env: { ...process.env, DATABASE_URL, EVENTSTORE_URL, DATA_DIR, MASTER_KEY, LOG_LEVEL: 'warn' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

const open = async (message: string) =>
  (await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message } })).body.data.id as string;

/** Undefined before the next build has begun. */
const next = async () => (await api.backend.checkpoints.generations()).find(({ ofThisBuild }) => !ofThisBuild);

const nextRow = async (id: string) => {
  const made = await next();
  if (made === undefined) return undefined;
  const schema = `read_core_${shortShape(made.shape)}`;
  const { rows } = await sql<{ revision: number; first_tag: string | null }>`
    select revision, first_tag from ${sql.table(`${schema}.conversations`)} where organization_id = ${api.organizationId} and id = ${id}`.execute(
    api.backend.database,
  );
  return rows[0];
};

it('a build with other read models fills its own beside those of the old build, and both follow the log', async () => {
  const old = await open('before the next build');
  await api.expect(200, 'POST', `/conversations/${old}/tags`, { body: { tags: ['vip'] } });
  await expectReadModelsEqualFold(api);
  const [before] = await api.backend.checkpoints.health();
  await makeNextBuild();
  startNextWorker();
  // Filled from the log's first day on, with the column that the old build does not know.
  await eventually(async () => (await nextRow(old))?.first_tag === 'vip', START_MS);

  const fresh = await open('beside the next build');
  await api.expect(200, 'POST', `/conversations/${fresh}/tags`, { body: { tags: ['new'] } });
  await eventually(async () => (await nextRow(fresh))?.first_tag === 'new');
  // The old build has its own views, place and lease, and has noticed nothing.
  await expectReadModelsEqualFold(api);
  const [after] = await api.backend.checkpoints.health();
  expect(after).toMatchObject({ generation: before?.generation, owner: before?.owner, stopped: null });
  const generations = (await api.backend.checkpoints.generations()).filter(({ group }) => group === 'core');
  expect(generations.map(({ group, ofThisBuild, live }) => ({ group, ofThisBuild, live }))).toEqual([
    { group: 'core', ofThisBuild: true, live: true },
    { group: 'core', ofThisBuild: false, live: true },
  ]);
  expect(new Set(generations.map(({ owner }) => owner)).size).toBe(2);
  // People see the newest that is whole, with the new column behind the old ones.
  await eventually(async () => (await next())?.phase === null);
  await eventually(async () => {
    const { rows } = await sql<{ column: string }>`
      select column_name as column from information_schema.columns where table_schema = 'threadlog' and table_name = 'conversations'
      order by ordinal_position`.execute(api.backend.database);
    return rows.at(-1)?.column === 'first_tag';
  });

  // One goes, the other goes on.
  await end();
  const later = await open('after the next build');
  await expectReadModelsEqualFold(api);
  expect(await nextRow(later)).toBeUndefined();
  startNextWorker();
  await eventually(async () => (await nextRow(later)) !== undefined, START_MS);
}, 180_000);

it('says that it is not ready until its read models have caught up for the first time', async () => {
  const ready = async () => {
    const answer = await fetch(`${api.url}/health/ready`);
    const { projections } = (await answer.json()) as { projections: { group: string; status: string }[] };
    return { status: answer.status, core: projections.find(({ group }) => group === 'core')?.status };
  };
  const own = api.backend.database.updateTable('read.checkpoints').where('shape', '=', api.backend.readModels.shapes.get('core') ?? '');
  await expectReadModelsEqualFold(api);
  expect(await ready()).toEqual({ status: 200, core: 'ok' });
  await own.set({ phase: 'filling' }).execute();
  expect(await ready()).toEqual({ status: 503, core: 'filling' });
  // Whoever takes it up finds that nothing is missing.
  await own.set((eb) => ({ epoch: eb('epoch', '+', 1), lease_until: sql<Date>`now()` })).execute();
  await open('wakes the worker');
  await eventually(async () => (await ready()).core === 'ok');
  // No worker has made them at all.
  await own.set({ live: false }).execute();
  expect(await ready()).toEqual({ status: 503, core: 'filling' });
  await own.set({ live: true }).execute();
  await expectReadModelsEqualFold(api);
});
