import pg from 'pg';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { signal } from '../support/processes.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

/*
 * An API process is killed right before and right after the append of its commands, all kinds of them at once: the log's lock is held, so that
 * their appends are on their way and not done when the process dies. Then either the server ends their sessions, and nothing was written; or
 * it gets the lock, and finishes for a client that is gone. Asked again by its key at another process, each command is done once. That needs
 * the log in PostgreSQL.
 */
let database: TestDatabase;
let sql: pg.Pool;
let holder: pg.Client;
let installation: Installation;
let stays: ThreadlogProcess;
beforeAll(async () => {
  database = await createDatabase();
  sql = new pg.Pool({ connectionString: database.url, max: 2 });
  holder = new pg.Client({ connectionString: database.url });
  await holder.connect();
  installation = await makeInstallation({ databaseUrl: database.url });
  stays = await installation.start('api');
  await installation.start('worker');
}, 180_000);
afterAll(async () => {
  await installation?.dispose();
  await sql?.end();
  await holder?.end();
  await database?.drop();
}, 60_000);

// Nobody else may wait for the lock when a test fails.
afterEach(() => holder.query('rollback'));

interface Answered {
  readonly status: number;
  readonly text: string;
  readonly data: { readonly id: string };
}

async function ask(server: ThreadlogProcess, path: string, body: object, key?: string): Promise<Answered> {
  const response = await fetch(`${server.url}/api/support${path}`, {
    method: 'POST',
    headers: { 'x-api-key': server.key, 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, text, data: (JSON.parse(text) as { data: Answered['data'] }).data };
}

const until = new Date(Date.now() + 86_400_000).toISOString();
/** Each kind of command by its request, its answer, and what it leaves in the stream of its conversation. */
const COMMANDS: readonly [name: string, path: string, body: object, status: number, stored: readonly string[]][] = [
  ['reply', '/conversations/{id}/reply', { message: 'answer', status: 'pending' }, 201, ['MessageSent', 'ConversationStatusChanged']],
  ['note', '/conversations/{id}/reply', { message: 'inside', type: 'note' }, 201, ['NoteAdded']],
  ['message', '/conversations/{id}/messages', { message: 'more' }, 201, ['MessageReceived']],
  ['assign', '/conversations/{id}/assign', { assigneeId: 'bo' }, 200, ['ConversationAssigned']],
  ['snooze', '/conversations/{id}/snooze', { until }, 200, ['ConversationSnoozed']],
  ['tag', '/conversations/{id}/tags', { tags: ['late', 'later'] }, 200, ['TagsAdded']],
  ['rate', '/conversations/{id}/rating', { rating: 4 }, 200, ['ConversationRated']],
  // The kill meets its first append, which claims the visitor's address.
  ['open', '/conversations', { visitor: { email: 'new@example.com' }, message: 'Hello' }, 201, ['ConversationOpened', 'MessageReceived']],
];

const types = async (conversation: string) => {
  const { rows } = await sql.query<{ type: string }>('select type from log.events where stream like $1 order by revision', [
    `conversation-%.${conversation}`,
  ]);
  return rows.map(({ type }) => type);
};
const appenders = async () => {
  const { rows } = await sql.query<{ pid: number }>(`
    select a.pid from pg_stat_activity a join pg_locks l using (pid)
    where a.application_name like '%:append' and a.datname = current_database() and l.locktype = 'advisory' and not l.granted`);
  return rows.map(({ pid }) => pid);
};

test.each(['before', 'after'] as const)(
  'commands of a process that is killed right %s their append are each done once by their keys',
  async (moment) => {
    expect([201, 409]).toContain((await ask(stays, '/agents', { id: 'bo', name: 'Bo' })).status);
    const killed = await installation.start('api');
    const wishes = await Promise.all(
      COMMANDS.map(async ([name, path, given, status, stored]) => {
        const body = 'visitor' in given ? { ...given, visitor: { email: `${moment}@example.com` } } : given;
        const key = `${moment}-${name}`;
        if (!path.includes('{id}')) return { name, key, path, body, status, stored, id: undefined, before: [] };
        const { data } = await ask(killed, '/conversations', { visitor: { name }, message: 'Hi' });
        if (name === 'rate') {
          const resolved = await fetch(`${killed.url}/api/support/conversations/${data.id}`, {
            method: 'PUT',
            headers: { 'x-api-key': killed.key, 'content-type': 'application/json' },
            body: JSON.stringify({ status: 'resolved' }),
          });
          expect(resolved.status).toBe(200);
        }
        return { name, key, path: path.replace('{id}', data.id), body, status, stored, id: data.id, before: await types(data.id) };
      }),
    );
    const count = async () => (await sql.query<{ n: number }>('select count(*)::int as n from log.events')).rows[0]?.n ?? 0;
    const visitors = async () =>
      (await sql.query<{ n: number }>(`select count(distinct stream)::int as n from log.events where stream like 'visitor-%'`)).rows[0]
        ?.n ?? 0;
    const [events, known] = [await count(), await visitors()];
    const { rows } = await sql.query<{ key: string }>(
      `select substring(pg_get_functiondef('log.append_many'::regproc) from 'pg_advisory_xact_lock\\((\\d+)\\)') as key`,
    );
    await holder.query('begin');
    await holder.query('select pg_advisory_xact_lock($1)', [rows[0]?.key]);
    const asked = wishes.map((wish) =>
      ask(killed, wish.path, wish.body, wish.key).then(
        () => 'answered',
        () => 'broken',
      ),
    );
    await eventually(async () => {
      const text = await (await fetch(`${killed.url}/metrics`)).text();
      // That of the claim is one within that of the visitor.
      return text.includes(`threadlog_commands_in_flight ${COMMANDS.length + 1}\n`);
    });
    // One waits for the lock with the first of them, another with all that came while it waited.
    const sessions = await eventually(async () => {
      const found = await appenders();
      return found.length === 2 ? found : undefined;
    });
    signal(killed.pid ?? 0, 'SIGKILL');
    expect(await Promise.all(asked)).toEqual(wishes.map(() => 'broken'));
    if (moment === 'before') {
      for (const pid of sessions) await sql.query('select pg_terminate_backend($1)', [pid]);
      await eventually(async () => (await appenders()).length === 0);
    }
    await holder.query('commit');
    if (moment === 'before') expect(await count()).toBe(events);
    // The server finishes what it was sent, and has nobody to answer.
    else await eventually(async () => (await count()) > events);

    for (const wish of wishes) {
      const { name, path, body, key, status, before, stored } = wish;
      const again = await ask(stays, path, body, key);
      expect({ name, ...again }).toMatchObject({ name, status });
      const { id = again.data.id } = wish;
      expect({ name, types: await types(id) }).toEqual({ name, types: [...before, ...stored] });
      const after = await count();
      expect(await ask(stays, path, body, key)).toEqual(again);
      expect(await count()).toBe(after);
    }
    expect(await visitors()).toBe(known + 1);
    const backend = await installation.openBackend();
    try {
      await expectReadModelsEqualFold({ backend, organizationId: installation.organizationId });
    } finally {
      await backend.close();
    }
  },
  90_000,
);
