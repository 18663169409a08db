import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

export interface TestDatabase {
  readonly url: string;
  /** Ends every session in it. Safe to call twice. */
  drop(): Promise<void>;
}

/** A database of its own for a test file: migrated, empty, about 40 ms. */
export async function createDatabase(): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  const template = process.env['TEST_POSTGRES_TEMPLATE'];
  await asAdmin((client) => clone(client, name, template));
  const url = new URL(serverUrl());
  url.pathname = `/${name}`;
  return {
    url: url.href,
    drop: () =>
      asAdmin(async (client) => {
        await client.query(`drop database if exists ${name} with (force)`);
      }),
  };
}

async function clone(client: pg.Client, name: string, template: string | undefined): Promise<void> {
  // wal_log copies within the server's memory; file_copy would force two checkpoints.
  const from = template === undefined ? '' : ` template ${template} strategy wal_log`;
  for (const until = Date.now() + 10_000; ; await sleep(50)) {
    try {
      await client.query(`create database ${name}${from}`);
      return;
    } catch (error) {
      // object_in_use: an autovacuum worker looks at the template just now.
      if (!(error instanceof pg.DatabaseError) || error.code !== '55006' || Date.now() > until) throw error;
    }
  }
}

async function asAdmin(work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: serverUrl() });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

function serverUrl(): string {
  const url = process.env['TEST_POSTGRES_URL'];
  if (url === undefined) throw new Error('TEST_POSTGRES_URL is not set: run tests through jest, whose global setup starts a PostgreSQL');
  return url;
}
