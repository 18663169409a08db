// One PostgreSQL for the whole run, and in it a migrated template that every test file clones (test/support/database.ts).
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import './typescript.mjs';
import { findBrowser } from './find-browser.mjs';

const FOLDER = 'threadlog-test-';

export default async function setUp() {
  if (!process.env.EVENTSTORE_URL && !process.env.EVENTSTORE_BIN) {
    process.stderr.write('\n################  EventStoreDB: NOT RUN (set EVENTSTORE_URL or EVENTSTORE_BIN)  ################\n\n');
  }
  if (findBrowser() === undefined) {
    process.stderr.write('\n################  browser: NOT RUN (install chromium-headless-shell, or set CHROMIUM)  ################\n\n');
  }
  // From the sources and not from dist: a test run must never meet a stale build.
  const { findEmbeddedPostgres, startEmbeddedPostgres } = await import('../../src/embedded-postgres/embedded-postgres.ts');
  await removeLeftovers(findEmbeddedPostgres, startEmbeddedPostgres);

  if (!process.env.TEST_POSTGRES_URL) {
    const dataDir = await mkdtemp(join(tmpdir(), `${FOLDER}${process.pid}-`));
    // PostgreSQL runs as another user where the tests run as root, and that user must get in.
    await chmod(dataDir, 0o755);
    const server = await startEmbeddedPostgres({
      dataDir,
      log: (line) => process.stderr.write(`${line}\n`),
      // No test cuts the machine's power, so nothing but time is lost. synchronous_commit stays on: off would hide a lost acknowledgement.
      settings: { fsync: 'off', full_page_writes: 'off', max_connections: '300' },
    });
    globalThis.threadlogTestServer = { server, dataDir };
    process.env.TEST_POSTGRES_URL = server.url;
    await cheapenPassword();
  }

  const migrate = new URL('../../src/database/migrate.ts', import.meta.url);
  if (existsSync(migrate)) {
    // A name of its own, since two runs may share a server that was given to them.
    const template = `threadlog_template_${process.pid}`;
    const url = new URL(process.env.TEST_POSTGRES_URL);
    await asAdmin(async (client) => {
      await client.query(`drop database if exists ${template} with (force)`);
      await client.query(`create database ${template}`);
    });
    globalThis.threadlogTestTemplate = template;
    url.pathname = `/${template}`;
    const { migrateToLatest } = await import(migrate.href);
    await migrateToLatest(url.href);
    // A template with a session in it cannot be cloned.
    await asAdmin((client) => client.query(`alter database ${template} allow_connections false`));
    process.env.TEST_POSTGRES_TEMPLATE = template;
  }
}

/**
 * Lets both sides of a connection compute the password's hash once. The four thousand rounds by which PostgreSQL hinders guessing are a third
 * of what a connection costs, and a run opens thousands.
 */
async function cheapenPassword() {
  const { username, password } = new URL(process.env.TEST_POSTGRES_URL);
  await asAdmin(async (client) => {
    await client.query('set scram_iterations = 1');
    await client.query(
      `alter role ${client.escapeIdentifier(decodeURIComponent(username))} password ${client.escapeLiteral(decodeURIComponent(password))}`,
    );
  });
}

/** Runs `work` on a connection to the database that TEST_POSTGRES_URL names. */
export async function asAdmin(work) {
  const client = new pg.Client({ connectionString: process.env.TEST_POSTGRES_URL });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** A killed run leaves its server running and its folder full; nobody else would ever end them. */
async function removeLeftovers(findEmbeddedPostgres, startEmbeddedPostgres) {
  for (const name of await readdir(tmpdir())) {
    const run = Number(/^threadlog-test-(\d+)-/.exec(name)?.[1]);
    if (!Number.isInteger(run) || isAlive(run)) continue;
    const dataDir = join(tmpdir(), name);
    try {
      if (await findEmbeddedPostgres(dataDir)) await (await startEmbeddedPostgres({ dataDir })).stop();
      await rm(dataDir, { recursive: true, force: true });
    } catch (error) {
      process.stderr.write(`could not remove what an earlier run left in ${dataDir}: ${error.message}\n`);
    }
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
