import { randomBytes } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import { openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { readOnly, readOnlyBatches } from '../../src/database/read-only.js';
import { createLogger } from '../../src/log.js';
import { createDatabase } from '../support/database.js';

const LIMIT = { organizationId: 'one', what: 'search', statementMs: 50, tooLong: 'add a word' };
const REFUSED = { code: 'limit_exceeded', message: 'the search took longer than 0.05 s: add a word' };

let made: Awaited<ReturnType<typeof createDatabase>>;
let database: OpenDatabase;
beforeAll(async () => {
  made = await createDatabase();
  database = openDatabase({ url: made.url, poolSize: 1, name: 'test', onError: () => undefined });
});
afterAll(async () => {
  await database.close();
  await made.drop();
});

const endless = (session: Kysely<Database>) => sql`select pg_sleep(60)`.execute(session);
const timeout = async () => (await sql<{ statement_timeout: string }>`show statement_timeout`.execute(database.kysely)).rows;

test('a statement that takes too long is ended, and its session serves others without that limit', async () => {
  const before = await timeout();
  await expect(readOnly(database.kysely, LIMIT, endless)).rejects.toMatchObject(REFUSED);
  expect(await timeout()).toEqual(before);
});

test('among batches it is ended too, also after a reader has taken some, and a reader that leaves gives the session back', async () => {
  const before = await timeout();
  async function* batches(session: Kysely<Database>) {
    yield await Promise.resolve(1);
    await endless(session);
    yield 2;
  }
  const taken: number[] = [];
  const all = async () => {
    for await (const one of readOnlyBatches(database.kysely, LIMIT, batches)) taken.push(one);
  };
  await expect(all()).rejects.toMatchObject(REFUSED);
  expect(taken).toEqual([1]);
  for await (const one of readOnlyBatches(database.kysely, LIMIT, batches)) if (one === 1) break;
  expect(await timeout()).toEqual(before);
});

test('a question may take longer than a request waits for the database', async () => {
  const config = readConfig({ DATABASE_URL: made.url, MASTER_KEY: randomBytes(32).toString('base64') });
  const backend = await openBackend(config, createLogger('silent'), { name: 'test', queryTimeoutMs: 100 });
  try {
    await expect(endless(backend.database)).rejects.toThrow(/timeout|in time/);
    const limit = { ...LIMIT, statementMs: 300 };
    await expect(readOnly(backend.questions, limit, endless)).rejects.toMatchObject({ code: 'limit_exceeded' });
  } finally {
    await backend.close();
  }
});

test('statements that are quick enough are ended, too, when together they take too long', async () => {
  const limit = { ...LIMIT, statementMs: 300 };
  let ran = 0;
  const many = async (session: Kysely<Database>) => {
    for (; ran < 20; ran++) await sql`select pg_sleep(0.09)`.execute(session);
  };
  const begin = performance.now();
  await expect(readOnly(database.kysely, limit, many)).rejects.toMatchObject({ code: 'limit_exceeded' });
  expect(performance.now() - begin).toBeLessThan(700);
  expect(ran).toBeLessThan(4);
  // What was read in time is answered, however long it is looked at afterwards.
  const slowReader = async (session: Kysely<Database>) => {
    const { rows } = await sql`select 1 as n`.execute(session);
    await new Promise((resolve) => setTimeout(resolve, 350));
    return rows;
  };
  await expect(readOnly(database.kysely, limit, slowReader)).resolves.toEqual([{ n: 1 }]);
});

test('slow questions of one organization keep no session from another, and one more of its own is refused', async () => {
  const pool = openDatabase({ url: made.url, poolSize: 4, name: 'test', onError: () => undefined, connectTimeoutMs: 1_000 });
  try {
    const slow = (session: Kysely<Database>) => sql`select pg_sleep(4)`.execute(session).then(() => 'asked');
    const quick = (session: Kysely<Database>) => sql`select 1`.execute(session).then(() => 'asked');
    const limit = { ...LIMIT, statementMs: 5_000 };
    const asked = Array.from({ length: 6 }, () => readOnly(pool.kysely, limit, slow).catch((error: unknown) => error));
    const begin = performance.now();
    await expect(readOnly(pool.kysely, { ...limit, organizationId: 'other' }, quick)).resolves.toBe('asked');
    expect(performance.now() - begin).toBeLessThan(1_000);
    const answers = await Promise.all(asked);
    expect(answers.slice(0, 2)).toEqual(['asked', 'asked']);
    for (const refused of answers.slice(2)) expect(refused).toMatchObject({ code: 'rate_limited', extra: { retryAfterSeconds: 2 } });
    // Turns come back, also those of questions that failed, and those who wait in time get them.
    const broken = () => Promise.reject(new Error('broken'));
    await Promise.all(Array.from({ length: 5 }, () => expect(readOnly(pool.kysely, limit, broken)).rejects.toThrow('broken')));
    const many = Array.from({ length: 20 }, () => readOnly(pool.kysely, limit, quick));
    await expect(Promise.all(many)).resolves.toEqual(many.map(() => 'asked'));
  } finally {
    await pool.close();
  }
});

test('nothing can be written', async () => {
  const write = (session: Kysely<Database>) => sql`create table written (a int)`.execute(session);
  await expect(readOnly(database.kysely, LIMIT, write)).rejects.toThrow('read-only transaction');
});
