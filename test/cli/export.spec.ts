import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { gunzipSync, gzipSync } from 'node:zlib';
import { sql } from 'kysely';
import { ApiKeyWriter } from '../../src/api-keys/api-key.writer.js';
import { type Backend, openBackend } from '../../src/backend.js';
import { exportCommand } from '../../src/cli/export.command.js';
import { importCommand } from '../../src/cli/import.command.js';
import { type Exported, exportLog } from '../../src/cli/log-export.js';
import { Terminal } from '../../src/cli/terminal.js';
import { readConfig } from '../../src/config.js';
import { conversationsTable } from '../../src/conversations/conversation.table.js';
import { parseStreamName, streamName } from '../../src/event-store/event-store.js';
import { eventsUntil } from '../../src/event-store/events-until.js';
import { addHead, headAggregate, HEAD_STREAM, HeadKey, LOG_START, nextFold } from '../../src/event-store/log-head.js';
import { OrganizationWriter, systemContext } from '../../src/organizations/organization.writer.js';
import { ApiKeyLookup } from '../../src/security/api-key-lookup.js';
import { randomIds } from '../../src/ids.js';
import { createLogger } from '../../src/log.js';
import { KEEP_TABLES } from '../../src/database/keep-tables.js';
import { pauseWork } from '../../projections/runtime/lease.js';
import { AssigneeReader } from '../../src/team/assignee.reader.js';
import { startApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { CLI_MS, startThreadlog, threadlog } from '../support/threadlog.js';
import { countEvents, dialogue, eventCount, file, history } from './import-file.js';

/*
 * An instance with two organizations and a history of some hundred conversations, exported once. The log is PostgreSQL's whatever server
 * is given: an export goes into an empty instance, and a shared server is none. test/faults/same-answers.spec.ts has both stores.
 */
let folder: string;
let masterKey: string;
let source: Instance;
let exportFile: string;
let lines: string[];
let adminKey: string;
let otherKey: string;

interface Instance {
  readonly database: TestDatabase;
  readonly environment: Record<string, string>;
  readonly backend: Backend;
  close(): Promise<void>;
}

async function instance(key = masterKey): Promise<Instance> {
  const database = await createDatabase();
  const environment = { DATABASE_URL: database.url, DATA_DIR: folder, MASTER_KEY: key, EVENTSTORE_URL: '' };
  const backend = await openBackend(readConfig(environment), createLogger('silent'), { name: 'test' });
  return {
    database,
    environment,
    backend,
    async close() {
      await backend.close();
      await database.drop();
    },
  };
}

function services({ backend }: Instance) {
  const { transactor, database, keys, masterKey: master } = backend;
  const apiKeys = new ApiKeyWriter(transactor, database, new ApiKeyLookup(database), master, new AssigneeReader(transactor));
  return { apiKeys, organizations: new OrganizationWriter(transactor, database, keys, apiKeys) };
}

async function events({ backend }: Instance) {
  const found = [];
  for await (const batch of eventsUntil(backend.store, await backend.store.head(), new AbortController().signal)) found.push(...batch);
  return found;
}

const unplaced = async (one: Instance) => (await events(one)).map(({ position: _position, ...event }) => event);

async function kept({ backend }: Instance): Promise<Record<string, unknown[]>> {
  const tables: Record<string, unknown[]> = {};
  for (const [table, how] of Object.entries(KEEP_TABLES)) {
    if ('staysBecause' in how) continue;
    const { rows } = await sql<{ row: unknown }>`select to_jsonb(t) as row from keep.${sql.table(table)} t order by 1`.execute(
      backend.database,
    );
    tables[table] = rows.map(({ row }) => row);
  }
  return tables;
}

/** A command in this process: a process for each would take most of the time to start. */
async function run(command: typeof exportCommand, given: readonly string[], one: Pick<Instance, 'environment'>) {
  Object.assign(process.env, one.environment);
  const output = new PassThrough();
  const errors = new PassThrough();
  const answered = text(output);
  const terminal = new Terminal(output, errors);
  const outcome = await command.run(given, terminal, new AbortController().signal).then(
    (code) => ({ code, why: '' }),
    (error: unknown) => ({ code: 1, why: error instanceof Error ? error.message : String(error) }),
  );
  output.end();
  return { ...outcome, answer: await answered };
}

const signed = () => ({
  ...systemContext(HEAD_STREAM.organizationId, randomIds.next()),
  actor: { type: 'system', id: 'test' } as const,
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'threadlog-export-'));
  masterKey = randomBytes(32).toString('base64');
  source = await instance();
  const { organizations } = services(source);
  ({ adminKey } = await organizations.createOrganization('First', { id: 'first' }));
  const dialogues = Array.from({ length: 120 }, (_, n) => dialogue(n, n === 7 ? 700 : undefined));
  const imported = await threadlog(['import', '-', '--organization', 'first', '--no-wait'], source.environment, file(dialogues));
  expect(imported).toMatchObject({ code: 0, stderr: '' });
  ({ adminKey: otherKey } = await organizations.createOrganization('Other', { id: 'other' }));
  const { backend } = source;
  const fold = (await events(source)).reduce(nextFold, LOG_START);
  const head = new HeadKey(backend.masterKey).sign(fold, backend.store.log.id);
  await backend.transactor.transact(headAggregate, HEAD_STREAM.id, signed(), addHead(head));
  const keyed = { ...systemContext('other', randomIds.next()), requestHash: 'x', keyed: true as const };
  const gone = await services(source).apiKeys.create(keyed, { name: 'Gone', role: 'agent' });
  await services(source).apiKeys.revoke(systemContext('other', randomIds.next()), gone.id);
  await backend.unchangedAnswers.save(randomIds.next(), { requestHash: 'x' }, { stream: streamName('inbox', 'other', 'i'), revision: 0 });

  exportFile = join(folder, 'export.ndjson.gz');
  const exported = await threadlog(['export', exportFile, '--json'], source.environment);
  expect(exported).toMatchObject({ code: 0, stderr: '' });
  lines = gunzipSync(await readFile(exportFile))
    .toString()
    .trimEnd()
    .split('\n');
  const answer = JSON.parse(exported.stdout) as Record<string, unknown>;
  expect(answer).toMatchObject({
    file: exportFile,
    organizationId: null,
    events: await eventCount(backend),
    kept: { organization_secrets: 2, api_keys: 3, idempotency: 2 },
    bytes: (await stat(exportFile)).size,
    head: { count: await eventCount(backend) },
  });
}, CLI_MS);

afterAll(async () => {
  await source.close();
  await rm(folder, { recursive: true, force: true });
});

describe('an export, imported into an empty instance', () => {
  let copy: Instance;

  beforeAll(async () => {
    copy = await instance();
  });
  afterAll(async () => {
    await copy.close();
  });

  it(
    'makes the same events in the same order, and the same keys, that open what is in them',
    async () => {
      const ended = await threadlog(['import', exportFile, '--json'], copy.environment);
      expect(ended).toMatchObject({ code: 0, stderr: '' });
      expect(JSON.parse(ended.stdout)).toMatchObject({
        events: await eventCount(source.backend),
        present: 0,
        from: source.backend.store.log.id,
        log: copy.backend.store.log.id,
      });
      expect(await unplaced(copy)).toEqual(await unplaced(source));
      expect(await kept(copy)).toEqual(await kept(source));
      expect(await history(copy.backend, 'first')).toEqual(await history(source.backend, 'first'));
      const known = new ApiKeyLookup(copy.backend.database);
      expect(await known.recognize(adminKey)).toMatchObject({ organizationId: 'first', role: 'admin' });
      expect(await known.recognize(otherKey)).toMatchObject({ organizationId: 'other', role: 'admin' });
      // The projections have run, and nothing but them: what reactors append comes with the first server or worker.
      const rows = await copy.backend.database.selectFrom(copy.backend.readModels.view(conversationsTable).as('c')).select('id').execute();
      expect(rows).toHaveLength(120);
    },
    CLI_MS,
  );

  it(
    'is right for verify, with the heads that it brought along and the one at its end',
    async () => {
      const head = await threadlog(['verify', '--against', '-', '--json'], copy.environment, lines.at(-1) ?? '');
      expect(JSON.parse(head.stdout)).toMatchObject({ ok: true, heads: { right: 1, bad: [] }, against: { why: null } });
      const original = await threadlog(['verify', '--json'], source.environment);
      const [own, before] = [head, original].map(({ stdout }) => (JSON.parse(stdout) as { head: Record<string, unknown> }).head);
      expect({ count: own?.['count'], fold: own?.['fold'] }).toEqual({ count: before?.['count'], fold: before?.['fold'] });
    },
    CLI_MS,
  );

  it('imported again, also after it went on, adds nothing', async () => {
    const known = await services(copy).organizations.listOrganizations();
    expect(known.map(({ id }) => id)).toEqual(['first', 'other']);
    const before = await eventCount(copy.backend);
    const again = await run(importCommand, [exportFile, '--no-wait', '--json'], copy);
    expect(again).toMatchObject({ code: 0, why: '' });
    expect(JSON.parse(again.answer)).toMatchObject({ events: 0, present: before });
    // As an editor of another system may have stored it.
    const edited = join(folder, 'crlf.ndjson');
    await writeFile(edited, `\ufeff${lines.join('\r\n')}\r\n`);
    const fromEdited = await run(importCommand, [edited, '--no-wait', '--json'], copy);
    expect(fromEdited).toMatchObject({ code: 0, why: '' });
    expect(JSON.parse(fromEdited.answer)).toMatchObject({ events: 0, present: before });
    await copy.backend.transactor.transact(headAggregate, HEAD_STREAM.id, signed(), () => [
      {
        type: 'HeadSigned' as const,
        data: new HeadKey(copy.backend.masterKey).sign({ ...LOG_START, count: 1e6 }, copy.backend.store.log.id),
      },
    ]);
    expect(JSON.parse((await run(importCommand, [exportFile, '--no-wait', '--json'], copy)).answer)).toMatchObject({
      events: 0,
      present: before,
    });
    expect(await eventCount(copy.backend)).toBe(before + 1);
  });
});

it('of one organization, it holds that one alone', async () => {
  const path = join(folder, 'other.ndjson');
  expect(await run(exportCommand, [path, '--organization', 'other'], source)).toMatchObject({ code: 0 });
  const given = await readFile(path, 'utf8');
  expect(given).not.toContain('first');
  const copy = await instance();
  try {
    expect(await run(importCommand, [path, '--no-wait'], copy)).toMatchObject({ code: 0, why: '' });
    const own = (await unplaced(source)).filter(({ stream }) => parseStreamName(stream)?.organizationId === 'other');
    expect(own.length).toBeGreaterThan(4);
    expect(await unplaced(copy)).toEqual(own);
    expect(Object.fromEntries(Object.entries(await kept(copy)).map(([table, rows]) => [table, rows.length]))).toEqual({
      organization_secrets: 1,
      skipped: 0,
      webhook_secrets: 0,
      visitor_keys: 0,
      api_keys: 2,
      idempotency: 2,
    });
    expect(await new ApiKeyLookup(copy.backend.database).recognize(otherKey)).toMatchObject({ organizationId: 'other' });
    expect(await new ApiKeyLookup(copy.backend.database).recognize(adminKey)).toBeUndefined();
  } finally {
    await copy.close();
  }
});

it('holds what was in the log when it began, while others go on writing', async () => {
  const busy = await instance();
  try {
    const { apiKeys, organizations } = services(busy);
    await organizations.createOrganization('Busy', { id: 'busy' });
    const before = await eventCount(busy.backend);
    const exported: Exported = { events: 0, kept: {}, head: undefined };
    const { store, database, masterKey: master } = busy.backend;
    const parts = { store, database, masterKey: master, now: 0 };
    const chunks = exportLog(parts, exported, new AbortController().signal);
    let whole = '';
    // Between the header and the rows: the new key's row is there when the rows are read, and its event is not in the export.
    const header = await chunks.next();
    whole += header.value ?? '';
    const late = await apiKeys.create(systemContext('busy', randomIds.next()), { name: 'Late', role: 'admin' });
    for await (const chunk of chunks) whole += chunk;
    expect(exported).toMatchObject({ events: before, kept: { api_keys: 1 }, head: { count: before } });
    expect(whole).not.toContain(late.id);
    const copy = await instance();
    try {
      const path = join(folder, 'busy.ndjson');
      await writeFile(path, whole);
      expect(await run(importCommand, [path, '--no-wait'], copy)).toMatchObject({ code: 0, why: '' });
      expect(await unplaced(copy)).toEqual((await unplaced(busy)).slice(0, before));
    } finally {
      await copy.close();
    }
  } finally {
    await busy.close();
  }
});

it('causes nothing by what happened before it, and the reactors that start then go by the state that it ends with', async () => {
  const HOUR = 3_600_000;
  const DAY = 24 * HOUR;
  const [before, moved] = [await createDatabase(), await instance()];
  const path = join(folder, 'moved.ndjson');
  const [woken, due, later, assigned] = ['woken', 'due', 'later', 'assigned'];
  const ids: Record<string, string> = {};
  const old = await startApi({ environment: { ...moved.environment, DATABASE_URL: before.url }, database: before });
  try {
    // What falls due before the import is due by the real clock, since the old installation's is ten days behind.
    old.clock.advance(-10 * DAY);
    await old.expect(201, 'POST', '/agents', { body: { id: 'gone', name: 'Gone' } });
    for (const name of [woken, due, later, assigned]) {
      const { body } = await old.expect(201, 'POST', '/conversations', { body: { visitor: {}, message: name } });
      ids[name] = (body as { data: { id: string } }).data.id;
    }
    const snooze = (name: string, ms: number) =>
      old.expect(200, 'POST', `/conversations/${ids[name]}/snooze`, { body: { until: new Date(old.clock.now() + ms).toISOString() } });
    await snooze(woken, HOUR);
    old.clock.advance(HOUR + 1_000);
    await eventually(async () => (await old.expect(200, 'GET', `/conversations/${ids[woken]}`)).body.data.status === 'open');
    await snooze(due, DAY);
    await snooze(later, 20 * DAY);
    await old.expect(200, 'POST', `/conversations/${ids[assigned]}/assign`, { body: { assigneeId: 'gone' } });
    // The agent is archived, and nothing has come of it yet.
    await pauseWork(old.backend.database, { reactor: 'archived-assignees' }, true);
    await old.expect(204, 'DELETE', '/agents/gone');
    expect(await run(exportCommand, [path], { environment: { ...moved.environment, DATABASE_URL: before.url } })).toMatchObject({
      code: 0,
    });
  } finally {
    await old.stop();
    await before.drop();
  }

  expect(await run(importCommand, [path, '--no-wait'], moved)).toMatchObject({ code: 0, why: '' });
  const conversations = async () => (await events(moved)).filter(({ stream }) => stream.startsWith('conversation-'));
  const imported = await conversations();
  const api = await startApi({ environment: moved.environment, database: moved.database });
  try {
    await eventually(async () => (await conversations()).length > imported.length);
    // A file of conversations is told to the reactors as well, which are live, and is no reason for any of them to act.
    const dialogues = join(folder, 'dialogues.ndjson');
    await writeFile(dialogues, file([dialogue(0), dialogue(3), dialogue(4)]));
    expect(await run(importCommand, [dialogues, '--organization', api.organizationId, '--no-wait'], moved)).toMatchObject({ code: 0 });
    const head = await moved.backend.store.head();
    const { database } = moved.backend;
    await eventually(async () => (await moved.backend.checkpoints.reactors()).every(({ position }) => position === head));
    const jobs = () => database.selectFrom('keep.jobs').select(['kind', 'key']).execute();
    await eventually(async () => (await jobs()).length === 1);
    expect(await jobs()).toMatchObject([{ kind: 'wake-conversation', key: expect.stringContaining(ids[later] ?? '') }]);
    expect((await conversations()).slice(imported.length).filter(({ metadata }) => !metadata.includes('"imported":true'))).toMatchObject([
      { stream: expect.stringContaining(ids[due] ?? ''), type: 'ConversationStatusChanged' },
    ]);
  } finally {
    await api.stop();
    await moved.close();
  }
});

describe('is refused, and nothing is written,', () => {
  let empty: Instance;
  beforeAll(async () => {
    empty = await instance();
  });
  afterEach(async () => {
    expect(await eventCount(empty.backend)).toBe(0);
    expect(Object.values(await kept(empty)).flat()).toEqual([]);
  });
  afterAll(async () => {
    await empty.close();
  });

  const changed = async (change: (lines: string[]) => string[]): Promise<string> => {
    const path = join(folder, 'changed.ndjson');
    await writeFile(path, `${change([...lines]).join('\n')}\n`);
    return path;
  };
  const firstLine = (part: object) =>
    changed(([header = '', ...rest]) => [JSON.stringify({ ...(JSON.parse(header) as object), ...part }), ...rest]);

  it('when it is cut off, wherever that is', async () => {
    for (const at of [1, 2, 100, 130, 400, lines.length - 1])
      expect(await run(importCommand, [await changed((all) => all.slice(0, at))], empty)).toMatchObject({
        code: 1,
        why: expect.stringContaining('cut off'),
      });
    const packed = join(folder, 'cut.ndjson.gz');
    await writeFile(packed, (await readFile(exportFile)).subarray(0, 5_000));
    expect(await run(importCommand, [packed], empty)).toMatchObject({ code: 1, why: expect.stringContaining('cannot be read after line') });
  });

  it('when a line is missing from it', async () => {
    for (const at of [1, 50, lines.length - 20])
      expect(await run(importCommand, [await changed((all) => all.toSpliced(at, 1))], empty)).toMatchObject({
        code: 1,
        why: expect.stringContaining('lines are missing'),
      });
  });

  it('under another MASTER_KEY', async () => {
    const environment = { ...empty.environment, MASTER_KEY: randomBytes(32).toString('base64') };
    expect(await run(importCommand, [exportFile], { environment })).toMatchObject({
      code: 1,
      why: expect.stringContaining('another MASTER_KEY'),
    });
  });

  it('when a row of it was changed or put in, such as the hash of somebody’s own key', async () => {
    const at = lines.findIndex((line) => line.startsWith('{"keep":"api_keys"'));
    const path = await changed((all) => all.with(at, (all[at] ?? '').replace(/"hash":"[^"]+"/, String.raw`"hash":"\\x00"`)));
    expect(await run(importCommand, [path], empty)).toMatchObject({
      code: 1,
      why: expect.stringContaining('not those that were exported'),
    });
  });

  it('when this build cannot read it', async () => {
    expect((await run(importCommand, [await firstLine({ format: 2 })], empty)).why).toContain('in the format 2');
    expect((await run(importCommand, [await firstLine({ migration: '9999_later' })], empty)).why).toContain('newer build');
    expect((await run(importCommand, [await firstLine({ extra: 1 })], empty)).why).toContain('first line is damaged');
  });

  it('by options that are for conversations', async () => {
    for (const option of [
      ['--organization', 'first'],
      ['--on-bad-line', 'skip'],
    ])
      expect((await run(importCommand, [exportFile, ...option], empty)).why).toContain('are for conversations');
  });
});

it('is refused by an instance with a history or keys of its own, which stays as it is', async () => {
  const other = await instance();
  try {
    await services(other).organizations.createOrganization('First', { id: 'first' });
    const before = [await unplaced(other), await kept(other)];
    expect(await run(importCommand, [exportFile], other)).toMatchObject({
      code: 1,
      why: expect.stringMatching(/into an empty instance, and this one is not: .*Nothing was written/),
    });
    expect([await unplaced(other), await kept(other)]).toEqual(before);
    // Without its events, as a database whose log was in another store.
    await sql`truncate log.events`.execute(other.backend.database);
    expect(await run(importCommand, [exportFile], other)).toMatchObject({
      code: 1,
      why: expect.stringContaining('keep.organization_secrets holds'),
    });
    expect([await unplaced(other), await kept(other)]).toEqual([[], before[1]]);
  } finally {
    await other.close();
  }
});

it('is refused by a log with other events, whatever keys it has', async () => {
  const copy = await instance();
  try {
    await run(importCommand, [exportFile, '--no-wait'], copy);
    const changed = sql`update log.events set data = data || ' ' where position = 300`;
    await changed.execute(copy.backend.database);
    expect(await run(importCommand, [exportFile, '--no-wait'], copy)).toMatchObject({
      code: 1,
      why: expect.stringContaining('the event at position 0000000000000000300 is not the export'),
    });
  } finally {
    await copy.close();
  }
});

it('is stopped at the first event that does not follow from the one before it', async () => {
  const copy = await instance();
  try {
    const at = lines.findIndex((line) => line.includes('"type":"MessageSent"'));
    const path = join(folder, 'altered.ndjson');
    await writeFile(path, lines.with(at, (lines[at] ?? '').replace('MessageSent', 'NoteAdded')).join('\n'));
    const { code, why } = await run(importCommand, [path, '--no-wait'], copy);
    expect({ code, why }).toMatchObject({ code: 1, why: expect.stringContaining(`damaged at line ${at + 1}: conversation-first.`) });
    expect(why).toContain('one of the two was altered');
    // The unchanged one goes on from there.
    expect(await run(importCommand, [exportFile, '--no-wait'], copy)).toMatchObject({ code: 0 });
    expect(await unplaced(copy)).toEqual(await unplaced(source));
  } finally {
    await copy.close();
  }
});

it(
  'from a pipe that breaks off it is imported as far as it goes, and the whole one goes on',
  async () => {
    const copy = await instance();
    try {
      const cut = await threadlog(['import', '-', '--no-wait'], copy.environment, `${lines.slice(0, -300).join('\n')}\n`);
      expect(cut).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('cut off') });
      const whole = await threadlog(['import', '-', '--no-wait', '--json'], copy.environment, gzipSync(`${lines.join('\n')}\n`));
      expect(whole).toMatchObject({ code: 0, stderr: '' });
      expect(await unplaced(copy)).toEqual(await unplaced(source));
    } finally {
      await copy.close();
    }
  },
  CLI_MS,
);

it(
  'killed at any point and imported again, it makes what an undisturbed import makes',
  async () => {
    const copy = await instance();
    const arrived = await countEvents(copy.backend);
    // Larger than one block, so that there is something to kill between two of them.
    const big = await instance();
    try {
      const path = join(folder, 'big.ndjson');
      const many = Array.from({ length: 400 }, (_, n) => dialogue(n, 20));
      await services(big).organizations.createOrganization('Big', { id: 'big' });
      await threadlog(['import', '-', '--organization', 'big', '--no-wait'], big.environment, file(many));
      expect(await run(exportCommand, [path], big)).toMatchObject({ code: 0 });
      const total = await eventCount(big.backend);
      let killed = 0;
      for (const share of [0, 0.3, 0.5]) {
        const running = startThreadlog(['import', path, '--no-wait'], copy.environment);
        await eventually(() => arrived.count() > share * total, CLI_MS);
        running.child.kill('SIGKILL');
        if ((await running.ended).signal === 'SIGKILL') killed++;
      }
      expect(killed).toBeGreaterThan(0);
      expect(arrived.count()).toBeGreaterThan(0);
      const finished = await threadlog(['import', path, '--json'], copy.environment);
      expect(finished).toMatchObject({ code: 0, stderr: '' });
      const { events: added, present } = JSON.parse(finished.stdout) as { events: number; present: number };
      expect(added + present).toBe(total);
      expect(present).toBeGreaterThan(0);
      expect(await unplaced(copy)).toEqual(await unplaced(big));
      expect(await kept(copy)).toEqual(await kept(big));
    } finally {
      await arrived.stop();
      await copy.close();
      await big.close();
    }
  },
  CLI_MS,
);

it('leaves the file that was there, and nothing beside it, when it does not come to its end', async () => {
  const damagedSource = await instance();
  try {
    await run(importCommand, [exportFile, '--no-wait'], damagedSource);
    await sql`update log.events set data = replace(data, '{', '{ ') where position = 250`.execute(damagedSource.backend.database);
    const path = join(folder, 'kept.ndjson');
    await writeFile(path, 'the one before');
    const ended = await run(exportCommand, [path], damagedSource);
    expect(ended).toMatchObject({ code: 1, why: expect.stringMatching(/position 0+250\): the hash does not follow/) });
    expect(await readFile(path, 'utf8')).toBe('the one before');
    expect((await readdir(folder)).filter((name) => name.includes('.part'))).toEqual([]);
    expect(await run(exportCommand, [join(folder, 'none', 'x')], damagedSource)).toMatchObject({
      code: 1,
      why: expect.stringContaining('cannot be written'),
    });
  } finally {
    await damagedSource.close();
  }
});

it('says of every table of the schema keep whether it goes along', async () => {
  const { rows } = await sql<{
    name: string;
  }>`select table_name as name from information_schema.tables where table_schema = 'keep'`.execute(source.backend.database);
  expect(Object.keys(KEEP_TABLES).toSorted()).toEqual(rows.map(({ name }) => name).toSorted());
});
