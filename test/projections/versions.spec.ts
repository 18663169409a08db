import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
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

/** The next build, made as CONTRIBUTING tells: another READ_MODEL_VERSION, read_v1 renamed after it, and one column more. */
async function makeNextBuild(): Promise<void> {
  for (const name of ['src', 'projections', 'migrations', 'test/support'])
    await cp(join(ROOT, name), join(folder, name), { recursive: true });
  await cp(join(ROOT, 'package.json'), join(folder, 'package.json'));
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const file of files) {
    const path = join(file.parentPath, file.name);
    if (!file.isFile() || !path.endsWith('.ts')) continue;
    const text = await readFile(path, 'utf8');
    const next = text
      .replace('READ_MODEL_VERSION = 1;', 'READ_MODEL_VERSION = 2;')
      .replaceAll('read_v1.', 'read_v2.')
      .replace("'updated_at bigint not null',\n", "'updated_at bigint not null',\n  'first_tag text',\n")
      .replace('updated_at: ms(c.updatedAt),\n', 'updated_at: ms(c.updatedAt),\n    first_tag: c.tags[0] ?? null,\n');
    if (next !== text) await writeFile(path, next);
  }
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

const nextRow = async (id: string) => {
  const { rows } = await sql<{ revision: number; first_tag: string | null }>`
    select revision, first_tag from read_v2.conversations where organization_id = ${api.organizationId} and id = ${id}`.execute(
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
  const generations = await api.backend.checkpoints.generations();
  expect(generations.map(({ group, version, live }) => ({ group, version, live }))).toEqual([
    { group: 'core', version: 1, live: true },
    { group: 'core', version: 2, live: true },
  ]);
  expect(new Set(generations.map(({ owner }) => owner)).size).toBe(2);

  // One goes, the other goes on.
  await end();
  const later = await open('after the next build');
  await expectReadModelsEqualFold(api);
  expect(await nextRow(later)).toBeUndefined();
  startNextWorker();
  await eventually(async () => (await nextRow(later)) !== undefined, START_MS);
}, 180_000);
