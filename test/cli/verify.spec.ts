import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { CLI_MS, threadlog, threadlogHere } from '../support/threadlog.js';
import { dialogue, file } from './import-file.js';

// The log is tampered with behind the port, in SQL: this is about the log in PostgreSQL.
let database: TestDatabase;
let client: pg.Client;
let folder: string;
let environment: Record<string, string>;

interface Verdict {
  ok: boolean;
  events: number;
  streams: number;
  bad: { stream: string; revision: number; position: string; why: string }[];
  badStreams: number;
}

beforeAll(async () => {
  database = await createDatabase();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-verify-'));
  environment = { DATABASE_URL: database.url, DATA_DIR: folder, MASTER_KEY: randomBytes(32).toString('base64'), EVENTSTORE_URL: '' };
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  for (const id of ['one', 'two']) await threadlogHere(['organizations', 'create', id, '--id', id], environment);
  const lines = file(Array.from({ length: 30 }, (_, n) => dialogue(n, 8)));
  for (const id of ['one', 'two']) await threadlog(['import', '-', '--organization', id, '--no-wait'], environment, lines);
}, CLI_MS);

afterAll(async () => {
  await client.end();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

async function verify(...given: string[]) {
  const ended = await threadlogHere(['verify', '--json', ...given], environment);
  expect(ended.stderr).toBe('');
  return { code: ended.code, verdict: JSON.parse(ended.stdout) as Verdict };
}

interface Row {
  stream: string;
  revision: number;
  position: string;
  data: string;
  metadata: string;
}

/** A stream with enough events to be tampered with in the middle. */
async function aStream(organizationId = 'one'): Promise<Row[]> {
  const { rows } = await client.query<Row>(
    `select stream, revision, position, data, metadata from log.events where stream =
       (select stream from log.events where stream like $1 and revision = 8 order by position limit 1) order by revision`,
    [`conversation-${organizationId}.%`],
  );
  expect(rows.length).toBeGreaterThan(8);
  return rows;
}

/** Does something to the log, looks, and undoes it. */
async function tampered(statements: readonly [string, unknown[]][], look: () => Promise<void>): Promise<void> {
  await client.query('create table if not exists public.events_before as table log.events with no data');
  await client.query('truncate public.events_before');
  await client.query('insert into public.events_before table log.events');
  try {
    for (const [statement, values] of statements) {
      const { rowCount } = await client.query(statement, values);
      expect(rowCount).toBe(1);
    }
    await look();
  } finally {
    await client.query('truncate log.events');
    await client.query('insert into log.events table public.events_before');
  }
}

test(
  'an untouched log is proved: whole, by organization and by stream',
  async () => {
    const { rows } = await client.query<{ events: number; streams: number; one: number }>(
      `select count(*)::int as events, count(distinct stream)::int as streams, (count(*) filter (where stream like '%-one.%'))::int as one from log.events`,
    );
    const [stream] = await aStream();
    const [whole, one, single, people] = await Promise.all([
      verify(),
      verify('--organization', 'one'),
      verify('--stream', stream!.stream),
      threadlog(['verify'], environment),
    ]);
    expect(whole).toMatchObject({
      code: 0,
      verdict: { ok: true, events: rows[0]?.events, streams: rows[0]?.streams, bad: [], badStreams: 0 },
    });
    expect(one).toMatchObject({ code: 0, verdict: { ok: true, events: rows[0]?.one } });
    expect(single).toMatchObject({ code: 0, verdict: { ok: true, events: (await aStream()).length, streams: 1 } });
    expect(people).toMatchObject({ code: 0, stderr: '' });
    expect(people.stdout).toContain('every hash, revision and time is as it was written');
    const none = await threadlogHere(['verify', '--stream', 'conversation-one.none'], environment);
    expect(none).toMatchObject({ code: 1, stdout: '', stderr: 'threadlog verify: there is no stream conversation-one.none\n' });
  },
  CLI_MS,
);

const swap = 'update log.events set data = $3, metadata = $4 where stream = $1 and revision = $2';

const TAMPERINGS: [string, (rows: Row[]) => { statements: [string, unknown[]][]; found: number; why: string }][] = [
  [
    'changed data',
    (rows) => ({
      statements: [
        [
          'update log.events set data = $3 where stream = $1 and revision = $2',
          [rows[4]!.stream, 4, rows[4]!.data.replace('text', 'card')],
        ],
      ],
      found: 4,
      why: 'the hash does not follow',
    }),
  ],
  [
    'changed metadata',
    (rows) => ({
      statements: [
        [
          'update log.events set metadata = $3 where stream = $1 and revision = $2',
          [rows[5]!.stream, 5, rows[5]!.metadata.replace('"id":"import"', '"id":"nobody"')],
        ],
      ],
      found: 5,
      why: 'the hash does not follow',
    }),
  ],
  [
    'metadata without its hash',
    (rows) => ({
      statements: [
        [
          'update log.events set metadata = $3 where stream = $1 and revision = $2',
          [rows[2]!.stream, 2, rows[2]!.metadata.replace(/,"hash.*/, '}')],
        ],
      ],
      found: 2,
      why: 'the hash does not follow',
    }),
  ],
  [
    'another type',
    (rows) => ({
      statements: [[`update log.events set type = 'NoteAdded' where stream = $1 and revision = $2`, [rows[4]!.stream, 4]]],
      found: 4,
      why: 'the hash does not follow',
    }),
  ],
  [
    'a removed event',
    (rows) => ({
      statements: [['delete from log.events where stream = $1 and revision = $2', [rows[3]!.stream, 3]]],
      found: 4,
      why: 'revision 3 is missing',
    }),
  ],
  [
    'a removed first event',
    (rows) => ({
      statements: [['delete from log.events where stream = $1 and revision = $2', [rows[0]!.stream, 0]]],
      found: 1,
      why: 'revision 0 is missing',
    }),
  ],
  [
    'a removed event whose place was closed up',
    (rows) => ({
      statements: [
        ['delete from log.events where stream = $1 and revision = $2', [rows[3]!.stream, 3]],
        ...rows
          .slice(4)
          .map((row): [string, unknown[]] => [
            'update log.events set revision = $3 where stream = $1 and revision = $2',
            [row.stream, row.revision, row.revision - 1],
          ]),
      ],
      found: 3,
      why: 'the hash does not follow',
    }),
  ],
  [
    'swapped events',
    (rows) => ({
      statements: [
        [swap, [rows[2]!.stream, 2, rows[4]!.data, rows[4]!.metadata]],
        [swap, [rows[2]!.stream, 4, rows[2]!.data, rows[2]!.metadata]],
      ],
      found: 2,
      why: 'the hash does not follow',
    }),
  ],
];

test.each(TAMPERINGS)(
  '%s: the first bad event is named',
  async (_, tamper) => {
    const rows = await aStream();
    const { statements, found, why } = tamper(rows);
    await tampered(statements, async () => {
      const [whole, one, two, single, people] = await Promise.all([
        verify(),
        verify('--organization', 'one'),
        verify('--organization', 'two'),
        verify('--stream', rows[0]!.stream),
        threadlogHere(['verify'], environment),
      ]);
      const bad = [{ stream: rows[0]!.stream, revision: found, position: expect.any(String), why: expect.stringContaining(why) }];
      for (const asked of [whole, one, single]) expect(asked).toMatchObject({ code: 1, verdict: { ok: false, bad, badStreams: 1 } });
      expect(two).toMatchObject({ code: 0, verdict: { ok: true, bad: [] } });
      expect(people.code).toBe(1);
      expect(people.stdout).toContain(`${rows[0]!.stream} revision ${found} (position `);
    });
  },
  CLI_MS,
);
