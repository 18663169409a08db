import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { ApiKeyLookup } from '../../src/security/api-key-lookup.js';
import { type OpenDatabase, openDatabase } from '../../src/database/database.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { CLI_MS, threadlog, threadlogHere } from '../support/threadlog.js';

let database: TestDatabase;
let open: OpenDatabase;
let folder: string;
let environment: Record<string, string>;

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 2, name: 'test', onError: () => undefined });
  folder = await mkdtemp(join(tmpdir(), 'threadlog-keys-'));
  environment = { DATABASE_URL: database.url, DATA_DIR: folder, MASTER_KEY: randomBytes(32).toString('base64') };
});

afterAll(async () => {
  await open.close();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

const run = (...given: string[]) => threadlogHere(given, environment);
/** Looked up anew each time, as another process would. */
const recognize = (key: string) => new ApiKeyLookup(open.kysely).recognize(key);

/** The document that a --json command printed, and nothing but it. */
async function json(...given: string[]) {
  const ended = await run(...given, '--json');
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  return JSON.parse(ended.stdout) as { key: string; id: string; adminKey: string };
}

test(
  'organizations and keys are made, listed and revoked; the organization may be left out while there is one',
  async () => {
    expect(await run('api-keys', 'list')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('there is no organization yet'),
    });
    expect(await run('organizations', 'list')).toMatchObject({ code: 0, stdout: 'There is no organization yet.\n' });

    const made = await run('organizations', 'create', 'Acme Ltd', '--id', 'acme');
    expect(made).toMatchObject({ code: 0, stderr: '' });
    const adminKey = /admin key +(tl_\S+)/.exec(made.stdout)?.[1] ?? '';
    expect(await recognize(adminKey)).toMatchObject({ organizationId: 'acme', role: 'admin' });

    // The id is taken: nothing is made, and above all no second admin key.
    expect(await run('organizations', 'create', 'Other', '--id', 'acme')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: 'threadlog organizations: an organization with the id acme exists\n',
    });

    const { key, id } = await json('api-keys', 'create', '--role', 'auditor', '--name', 'Eve');
    expect(await recognize(key)).toMatchObject({ organizationId: 'acme', role: 'auditor', keyName: 'Eve', keyId: id, agentId: null });
    expect(await run('api-keys', 'create', '--role', 'agent', '--agent', 'nobody')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('no agent has the id nobody'),
    });

    const listed = await json('api-keys', 'list');
    expect(listed).toEqual({
      keys: [
        expect.objectContaining({ role: 'admin', prefix: adminKey.slice(0, 8), revokedAt: null }),
        expect.objectContaining({ id, role: 'auditor', name: 'Eve', prefix: key.slice(0, 8), agentId: null, revokedAt: null }),
      ],
    });
    expect(JSON.stringify(listed)).not.toContain(key);

    expect(await run('api-keys', 'revoke', id)).toMatchObject({ code: 0, stdout: `revoked ${id}\n`, stderr: '' });
    expect(await recognize(key)).toBeUndefined();
    expect(await recognize(adminKey)).toBeDefined();
    expect((await run('api-keys', 'list')).stdout).toMatch(new RegExp(`${id} .*revoked \\d{4}-`));
    expect(await run('api-keys', 'revoke', 'nothing')).toMatchObject({
      code: 1,
      stderr: 'threadlog api-keys: no API key has the id nothing in the organization acme\n',
    });

    const second = await json('organizations', 'create', 'Second');
    expect(await recognize(second.adminKey)).toMatchObject({ organizationId: second.id, role: 'admin' });
    expect(await json('organizations', 'list')).toEqual({
      organizations: [
        expect.objectContaining({ id: 'acme', name: 'Acme Ltd' }),
        expect.objectContaining({ id: second.id, name: 'Second' }),
      ],
    });
    const unsaid = await run('api-keys', 'create', '--role', 'admin');
    expect(unsaid).toMatchObject({ code: 1, stdout: '' });
    expect(unsaid.stderr).toContain(`name one with --organization: acme, ${second.id}`);
    expect(await run('api-keys', 'list', '--organization', 'nobody')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no organization has the id nobody; there are acme'),
    });
    const { key: ofSecond } = await json('api-keys', 'create', '--role', 'analyst', '--organization', second.id);
    expect(await recognize(ofSecond)).toMatchObject({ organizationId: second.id, role: 'analyst', keyName: 'analyst' });
  },
  CLI_MS,
);

test(
  'database-url prints the address that is configured',
  async () => {
    expect(await threadlog(['database-url'], environment)).toEqual({ code: 0, signal: null, stdout: `${database.url}\n`, stderr: '' });
    expect(await json('database-url')).toEqual({ url: database.url });
    const { url } = (await json('database-url', '--role', 'analyst', '--organization', 'acme')) as unknown as { url: string };
    const analyst = new pg.Client({ connectionString: url });
    await analyst.connect();
    expect((await analyst.query('select analytics.organization_id() as id')).rows).toEqual([{ id: 'acme' }]);
    await expect(analyst.query('select from log.events')).rejects.toThrow('permission denied');
    await analyst.end();
    // The same address again, so that a notebook may keep it.
    expect(await json('database-url', '--role', 'analyst', '--organization', 'acme')).toEqual({ url });
  },
  CLI_MS,
);
