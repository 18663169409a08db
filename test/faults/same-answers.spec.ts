import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { sql } from 'kysely';
import { batchDecoder } from '../../src/event-decoding.js';
import { projectionsOf } from '../../projections/registry.js';
import { ProjectionGroup } from '../../projections/runtime/group.js';
import { WORKER_SESSION } from '../../projections/runtime/lease.js';
import { AppModule } from '../../src/app.module.js';
import { type Backend, openBackend } from '../../src/backend.js';
import { type Exported, exportLog, headerOf } from '../../src/cli/log-export.js';
import { LogImport } from '../../src/cli/log-import.js';
import { readLines } from '../../src/cli/ndjson-lines.js';
import { readConfig } from '../../src/config.js';
import { conversationsTable } from '../../src/conversations/conversation.table.js';
import { parseStreamName, type StoredEvent } from '../../src/event-store/event-store.js';
import { eventsUntil } from '../../src/event-store/events-until.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { Transactor } from '../../src/commands/transactor.js';
import { openDatabase } from '../../src/database/database.js';
import { createHttpApp } from '../../src/http/http-app.js';
import { createLogger } from '../../src/log.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase } from '../support/database.js';
import { startEventStoreDb } from '../support/eventstoredb-server.js';
import { asLongAsAsked, timeLimit } from '../support/fault-length.js';
import { eventually } from '../support/eventually.js';
import { type MadeResources, writeHistory } from '../support/history.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { faultSeed, seededRandom } from '../support/seeded-random.js';
import { CORE_SCHEMA } from '../support/read-schema.js';

/*
 * One history, written over HTTP into one log, exported, and imported into others: from store to store and back. Everywhere the read models
 * are made anew in batches of 1, 7 and 5,000 events. Whatever the API can be asked must be answered with the same bytes, every row of the
 * read models and every hash must be the same; only positions are others, and those are mapped by the order of the events.
 * FAULT_MINUTES makes the history longer, FAULT_SEED repeats it.
 */
const SEED = faultSeed();
const COMMANDS = asLongAsAsked(150, 600);
const LIMIT_MS = timeLimit(240_000);
const BATCHES = [1, 7, 5_000];
const executable = process.env['EVENTSTORE_BIN'];
const given = process.env['EVENTSTORE_URL'];

let folder: string;
let origin: Instance;
let file: string;
let expected: Seen;

/** A backend and what is to be ended with it. */
interface Instance {
  readonly name: string;
  readonly backend: Backend;
  stop(): Promise<void>;
}

/** Everything that can be seen of an instance. */
interface Seen {
  readonly events: readonly Omit<StoredEvent, 'position'>[];
  readonly positions: readonly string[];
  readonly rows: ReadonlyMap<string, readonly string[]>;
  readonly answers: ReadonlyMap<string, string>;
}

let api: TestApi;
let made: MadeResources;
let keys: Readonly<Record<'admin' | 'auditor' | 'analyst', string>>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'threadlog-same-answers-'));
  api = await startApi({ environment: { RATE_LIMIT_PER_MINUTE: '0' } });
  origin = { name: api.backend.store.log.adapter, backend: api.backend, stop: () => api.stop() };
  made = await writeHistory(api, seededRandom(SEED), COMMANDS);
  keys = { admin: api.adminKey, auditor: await api.keyFor('auditor'), analyst: await api.keyFor('analyst') };
  // Waits until the timer has woken what is due, too: from here on nothing is written any more.
  await expectReadModelsEqualFold(api);
  await settled(api.backend);
  await expectReadModelsEqualFold(api);
  expected = await see(origin.backend, api.url);
  file = await exported(origin, 'origin');
}, LIMIT_MS);

afterAll(async () => {
  await origin.stop();
  await rm(folder, { recursive: true, force: true });
});

it('has a history worth the name', () => {
  expect(new Set(expected.events.map(({ type }) => type)).size).toBeGreaterThan(20);
  expect(expected.answers.size).toBeGreaterThan(150);
  // What is there has an answer. What is not there, what is not for analysts, and an agent's private view have none.
  const refused = [...expected.answers].filter(([, answer]) => answer.startsWith('4')).map(([request]) => request);
  expect(refused.length).toBeGreaterThan(1);
  expect(refused.filter((request) => !/\/nobody|^admin GET \/views\//.test(request))).toEqual(['analyst GET /api-keys?limit=100']);
});

it(
  `answers the same on another PostgreSQL log, and from memory (seed ${SEED}, ${COMMANDS} commands)`,
  async () => {
    const second = await postgres();
    try {
      await importInto(second, file);
      await expectSame(second, BATCHES);
      const third = await memory();
      try {
        await importInto(third, await exported(second, 'second'));
        await expectSame(third, [7]);
      } finally {
        await third.stop();
      }
    } finally {
      await second.stop();
    }
  },
  LIMIT_MS,
);

if (executable) {
  it(
    `answers the same on EventStoreDB, and back on PostgreSQL (seed ${SEED}, ${COMMANDS} commands)`,
    async () => {
      const server = await startEventStoreDb(executable);
      const there = await onDatabase({ EVENTSTORE_URL: server.url }, 'eventstoredb');
      try {
        await importInto(there, file);
        await expectSame(there, BATCHES);
        const back = await postgres();
        try {
          await importInto(back, await exported(there, 'there'));
          await expectSame(back, [7]);
        } finally {
          await back.stop();
        }
      } finally {
        await there.stop();
        await server.dispose();
      }
    },
    LIMIT_MS,
  );
} else {
  it('EventStoreDB: NOT RUN as the log that is imported into, because EVENTSTORE_BIN is not set', () => {
    const how = given
      ? 'EVENTSTORE_URL was exported from; an import needs an empty server, which EVENTSTORE_BIN starts'
      : 'nothing was set';
    process.stderr.write(`EventStoreDB: NOT RUN (test/faults/same-answers.spec.ts: ${how})\n`);
    expect(executable).toBeFalsy();
  });
}

/** @param environment where the log is */
async function onDatabase(environment: Record<string, string>, name: string): Promise<Instance> {
  const database = await createDatabase();
  const config = readConfig({
    DATABASE_URL: database.url,
    DATA_DIR: folder,
    MASTER_KEY: api.backend.config.MASTER_KEY,
    RATE_LIMIT_PER_MINUTE: '0',
    ...environment,
  });
  const backend = await openBackend(config, createLogger('silent'), { name: 'test', clock: api.clock });
  return {
    name,
    backend,
    async stop() {
      await backend.close();
      await database.drop();
    },
  };
}

const postgres = () => onDatabase({}, 'postgres');

/** A log in memory beside a database for everything else. */
async function memory(): Promise<Instance> {
  const beside = await postgres();
  const { backend } = beside;
  const store = new MemoryEventStore();
  const transactor = new Transactor(store, backend.clock, backend.ids, backend.unchangedAnswers);
  return {
    name: 'memory',
    backend: { ...backend, store, transactor },
    async stop() {
      await store.close();
      await beside.stop();
    },
  };
}

/** Of the organization alone where the server is shared. */
async function exported({ backend }: Instance, name: string): Promise<string> {
  const path = join(folder, `${name}.ndjson`);
  const told: Exported = { events: 0, kept: {}, head: undefined };
  const { store, database, masterKey, clock } = backend;
  const organization = given ? { organizationId: api.organizationId } : {};
  const lines = exportLog({ store, database, masterKey, now: clock.now(), ...organization }, told, new AbortController().signal);
  await pipeline(Readable.from(lines), createWriteStream(path));
  return path;
}

async function importInto({ backend }: Instance, path: string): Promise<void> {
  const { signal } = new AbortController();
  const { store, database, masterKey } = backend;
  const first = await readLines(path, signal).next();
  const header = headerOf(first.value?.text ?? '');
  if (header === undefined) throw new Error('no export');
  await new LogImport({ store, database, masterKey, patiently: (work) => work() }, header, signal).run(readLines(path, signal));
}

/** No snooze is due that the timer has yet to end. */
async function settled(backend: Backend): Promise<void> {
  const { database, clock } = backend;
  await eventually(async () => {
    const due = await database
      .selectFrom(backend.readModels.view(conversationsTable).as('c'))
      .select('id')
      // An ISO instant; `next_reply` sorts behind all of them.
      .where('snoozed_until', '<=', new Date(clock.now()).toISOString())
      .execute();
    return due.length === 0;
  }, 20_000);
}

async function expectSame(instance: Instance, batches: readonly number[]): Promise<void> {
  for (const size of batches) {
    await makeReadModels(instance.backend, size);
    const app = await createHttpApp(AppModule.over(instance.backend) as never, { logger: createLogger('silent'), trustProxy: 0 });
    try {
      await app.listen({ port: 0, host: '127.0.0.1' });
      const { port } = app.getHttpServer().address() as { port: number };
      const seen = await see(instance.backend, `http://127.0.0.1:${port}`);
      const where = `${instance.name}, batches of ${size}, seed ${SEED}`;
      expect({ where, events: seen.events }).toEqual({ where, events: expected.events });
      const position = new Map(expected.positions.map((from, i) => [from, seen.positions[i] ?? '']));
      const mapped = (text: string) =>
        text.replaceAll(/"position": ?"([^"]+)"/g, (_, from: string) => `"position":"${position.get(from)}"`);
      const plain = (text: string) => text.replaceAll(/"position": ?"/g, '"position":"');
      for (const [table, rows] of expected.rows)
        expect({ where, table, rows: seen.rows.get(table)?.map(plain).toSorted() }).toEqual({
          where,
          table,
          rows: rows.map(mapped).toSorted(),
        });
      expect([...seen.answers.keys()]).toEqual([...expected.answers.keys()]);
      for (const [request, answer] of expected.answers)
        expect({ where, request, answer: seen.answers.get(request) }).toEqual({ where, request, answer: mapped(answer) });
    } finally {
      await app.close();
    }
  }
}

/** As docs/operating.md has it, and then one worker's work in batches of a size, up to the log's end. */
async function makeReadModels({ database, databaseUrl, store, keys: visitorKeys }: Backend, maxEvents: number): Promise<void> {
  const { rows } = await sql<{
    name: string;
  }>`select tablename as name from pg_tables where schemaname = 'read' and tablename ~ '_g[0-9]+$'`.execute(database);
  for (const { name } of rows) await sql`drop table read.${sql.table(name)} cascade`.execute(database);
  await sql`delete from read.checkpoints`.execute(database);
  const sessions = openDatabase({ url: databaseUrl, poolSize: 3, name: 'test-worker', settings: WORKER_SESSION, onError: () => undefined });
  const ending = new AbortController();
  const group = new ProjectionGroup({
    name: CORE_GROUP,
    projections: projectionsOf(CORE_GROUP),
    decode: batchDecoder(visitorKeys),
    store,
    database: sessions.kysely,
    log: createLogger('silent'),
    maxEvents,
  });
  try {
    await group.prepare();
    const running = group.run(ending.signal);
    const head = await store.head();
    if (head === 'start') throw new Error('nothing was imported');
    const reached = () => database.selectFrom('read.checkpoints').select('position').where('position', '>=', head).executeTakeFirst();
    await eventually(async () => (await reached()) !== undefined, LIMIT_MS);
    ending.abort();
    await running;
  } finally {
    ending.abort();
    await sessions.close();
  }
}

async function see(backend: Backend, url: string): Promise<Seen> {
  const events: Omit<StoredEvent, 'position'>[] = [];
  const positions: string[] = [];
  for await (const batch of eventsUntil(backend.store, await backend.store.head(), new AbortController().signal))
    for (const { position, ...event } of batch) {
      if (given && parseStreamName(event.stream)?.organizationId !== api.organizationId) continue;
      events.push(event);
      positions.push(position);
    }
  return { events, positions, rows: await rowsOf(backend), answers: await answersOf(url) };
}

async function rowsOf({ database }: Backend): Promise<Map<string, string[]>> {
  const rows = new Map<string, string[]>();
  const { rows: views } = await sql<{ name: string }>`
    select table_name as name from information_schema.views where table_schema = ${CORE_SCHEMA} order by 1`.execute(database);
  for (const { name } of views) {
    const found = await sql<{ row: string }>`
      select to_jsonb(t)::text as row from ${sql.table(`${CORE_SCHEMA}.${name}`)} t where organization_id = ${api.organizationId}`.execute(
      database,
    );
    rows.set(
      name,
      found.rows.map(({ row }) => row),
    );
  }
  return rows;
}

/** Every GET over every id, list, page, revision and moment. */
async function answersOf(url: string): Promise<Map<string, string>> {
  const answers = new Map<string, string>();
  const ask = async (path: string, key: keyof typeof keys = 'admin'): Promise<unknown> => {
    const answer = await fetch(`${url}/api/support${path}`, { headers: { 'x-api-key': keys[key], 'x-request-id': 'same' } });
    const text = await answer.text();
    const { headers } = answer;
    const told = ['etag', 'x-position', 'content-type', 'link'].map((name) =>
      JSON.stringify({ [name.replace('x-', '')]: headers.get(name) }),
    );
    answers.set(`${key} GET ${path}`, [answer.status, ...told, text].join('\n'));
    return JSON.parse(text) as unknown;
  };
  const pages = async (path: string, key?: keyof typeof keys) => {
    const more = path.includes('?') ? '&' : '?';
    for (let cursor: string | null = ''; cursor !== null;) {
      const { meta } = (await ask(`${path}${cursor === '' ? '' : `${more}cursor=${encodeURIComponent(cursor)}`}`, key)) as {
        meta?: { nextCursor?: string | null };
      };
      cursor = meta?.nextCursor ?? null;
    }
  };

  for (const key of ['admin', 'auditor', 'analyst'] as const) {
    await pages('/conversations?limit=7', key);
    await pages('/visitors?limit=50', key);
    await ask('/api-keys?limit=100', key);
    await ask('/views?limit=100&counts=true', key);
  }
  for (const sort of ['updatedAt', 'createdAt', 'waitingSince', 'priority'])
    for (const order of ['asc', 'desc']) await pages(`/conversations?limit=20&sort=${sort}&order=${order}`);
  for (const filter of [
    ...['open', 'pending', 'snoozed', 'resolved', 'closed'].map((status) => `status=${status}`),
    ...['urgent', 'high', 'normal', 'low'].map((priority) => `priority=${priority}`),
    'assigneeId=none',
    'tag=billing&tag=%C3%BCber&tagMatch=all',
    'customAttributes[plan]=pro',
    'page=2&limit=5',
    ...[...made.agents, ...made.teams].map((id) => `assigneeId=${id}`),
    ...made.inboxes.map((id) => `inboxId=${id}`),
    ...made.visitors.map((id) => `visitorId=${id}`),
  ])
    await ask(`/conversations?${filter}`);
  for (const kind of [
    'visitors',
    'companies',
    'inboxes',
    'agents',
    'teams',
    'api-keys',
    'canned-responses',
    'views',
    'automation-rules',
  ] as const) {
    await pages(`/${kind}?limit=2`);
    await all([...made[kind], 'nobody'], async (id) => {
      await ask(`/${kind}/${id}`);
      await ask(`/${kind}/${id}/events`, 'auditor');
    });
  }
  await all([...made.conversations, 'nobody'], async (id) => {
    for (const key of ['admin', 'analyst'] as const) {
      await ask(`/conversations/${id}`, key);
      await ask(`/conversations/${id}/messages?limit=2`, key);
    }
    const { data = [] } = (await ask(`/conversations/${id}/events?limit=100`)) as { data?: { revision: number; occurredAt: string }[] };
    for (const { revision, occurredAt } of data) {
      await ask(`/conversations/${id}?revision=${revision}`);
      await ask(`/conversations/${id}?at=${encodeURIComponent(occurredAt)}`, 'auditor');
    }
  });
  return new Map([...answers].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Some at a time. */
async function all(ids: readonly string[], work: (id: string) => Promise<void>): Promise<void> {
  const left = [...ids];
  const next = async () => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) await work(id);
  };
  await Promise.all(Array.from({ length: 6 }, next));
}
