import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { CLI_MS, threadlog } from '../support/threadlog.js';

let folder: string;

beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'threadlog-cli-')));
  // PostgreSQL runs as another user where the tests run as root, and that user must get in.
  await chmod(folder, 0o755);
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

test(
  'the embedded PostgreSQL is started for as long as a command needs it, and joined where it runs',
  async () => {
    const dataDir = join(folder, 'data');
    // The log too is in the embedded server, also where the tests run on an EventStoreDB.
    const environment = { DATA_DIR: dataDir, EVENTSTORE_URL: '' };
    // Nothing runs: the command starts it, and takes it down again.
    const made = await threadlog(['organizations', 'create', 'Acme', '--id', 'acme', '--json'], environment);
    expect(made).toMatchObject({ code: 0 });
    expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
    expect(await threadlog(['database-url'], environment)).toMatchObject({ code: 1, stdout: '' });

    const server = await startEmbeddedPostgres({ dataDir });
    try {
      const listed = await threadlog(['organizations', 'list', '--json'], environment);
      expect(listed).toMatchObject({ code: 0, stderr: '' });
      expect(JSON.parse(listed.stdout)).toMatchObject({ organizations: [{ id: 'acme' }] });
      const { stdout } = await threadlog(['database-url'], environment);
      const client = new pg.Client({ connectionString: stdout.trim() });
      await client.connect();
      // The command has left the server to whoever runs it.
      const { rows } = await client.query<{ events: number }>('select count(*)::int as events from log.events');
      expect(rows[0]?.events).toBeGreaterThan(0);
      await client.end();
    } finally {
      await server.stop();
    }
  },
  2 * CLI_MS,
);
