import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import pg from 'pg';
import { WrongUsage } from '../../src/cli/command.js';
import { exportCommand } from '../../src/cli/export.command.js';
import { Terminal } from '../../src/cli/terminal.js';
import { verifyCommand } from '../../src/cli/verify.command.js';
import type { EventStore, StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import { chain, CHAIN_START } from '../../src/event-store/hash-chain.js';
import { addHead, headAggregate, HEAD_STREAM, HeadKey, LOG_START, type LogHead, nextFold } from '../../src/event-store/log-head.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import type { CommandContext } from '../../src/commands/command-context.js';
import { Transactor } from '../../src/commands/transactor.js';
import { createInbox, changeInboxFields, inboxAggregate } from '../../src/inboxes/inbox.js';
import { systemClock } from '../../src/clock.js';
import { randomIds } from '../../src/ids.js';
import { MasterKey } from '../../src/security/sealing.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

// A process of the command line compiles its sources.
const SLOW_MS = 120_000;
const ROOT = new URL('../..', import.meta.url).pathname;
const secret = randomBytes(32);
const HEADS = `head-${HEAD_STREAM.organizationId}.${HEAD_STREAM.id}`;

let database: TestDatabase;
let client: pg.Client;
let store: EventStore;
let folder: string;
/** Covers all of the log as beforeAll leaves it. */
let kept: LogHead;
let keptFile: string;
/** Of the same log, packed. */
let exportFile: string;
/** A head of its first events: five, before the first one that the log itself holds. */
let early: LogHead;

beforeAll(async () => {
  database = await createDatabase();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-verify-'));
  store = await openPostgresEventStore({ url: database.url });
  client = new pg.Client({ connectionString: database.url });
  await client.connect();

  const transactor = new Transactor(store, systemClock, randomIds, {
    find: () => Promise.resolve(undefined),
    save: () => Promise.resolve(),
  });
  const context = (organizationId: string): CommandContext => {
    const commandId = randomUUID();
    return { organizationId, actor: { type: 'system', id: 'test' }, commandId, requestHash: '', correlationId: commandId };
  };
  const rename = (id: string, name: string) =>
    transactor.transact(inboxAggregate, id, context('org'), (state) => changeInboxFields({ name })(state));
  const sign = async () => {
    const at = (await everything()).reduce(nextFold, LOG_START);
    const head = new HeadKey(new MasterKey(secret)).sign(at, store.log.id);
    await transactor.transact(headAggregate, HEAD_STREAM.id, context(HEAD_STREAM.organizationId), addHead(head));
  };
  for (const id of ['sales', 'billing', 'returns'])
    await transactor.transact(inboxAggregate, id, context('org'), (state) => createInbox({ name: id })(state));
  for (const name of ['Money', 'Bills']) await rename('billing', name);
  await sign();
  for (const name of ['Back', 'Returned goods']) await rename('returns', name);
  await sign();
  await rename('sales', 'Sales');

  const first = await verify();
  expect(first.answer).toMatchObject({ ok: true, events: 10, streams: 4, bad: [], heads: { right: 2, bad: [] }, against: null });
  kept = first.answer.head as LogHead;
  keptFile = join(folder, 'head.json');
  // The whole answer, as a job would keep it.
  await writeFile(keptFile, first.output);
  exportFile = join(folder, 'export.ndjson.gz');
  const quiet = new PassThrough().resume() as unknown as NodeJS.WriteStream;
  expect(await exportCommand.run([exportFile], new Terminal(quiet, quiet), new AbortController().signal)).toBe(0);
  early = new HeadKey(new MasterKey(secret)).sign((await everything()).slice(0, 4).reduce(nextFold, LOG_START), store.log.id);
}, SLOW_MS);

afterAll(async () => {
  await client.end();
  await store.close();
  await database.drop();
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  await client.query('create table saved as table log.events');
});
afterEach(async () => {
  await client.query('truncate log.events; insert into log.events select * from saved; drop table saved');
});

async function everything(): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  const reading = new AbortController();
  for await (const part of store.feed('start', { maxEvents: 500, signal: reading.signal })) {
    events.push(...part.events);
    if (part.caughtUp) break;
  }
  reading.abort();
  return events;
}

interface Verified {
  readonly code: number | null;
  readonly output: string;
  readonly errors: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- what the JSON holds is what the tests look at
  readonly answer: any;
}

const environment = (masterKey: Buffer) => ({
  DATABASE_URL: database.url,
  DATA_DIR: folder,
  MASTER_KEY: masterKey.toString('base64'),
  EVENTSTORE_URL: '',
});

/** The command itself, in this process: a process for each would take most of the time to start. */
async function verify(given: readonly string[] = [], masterKey = secret): Promise<Verified> {
  Object.assign(process.env, environment(masterKey));
  const output = new PassThrough();
  const errors = new PassThrough();
  const terminal = new Terminal(output as unknown as NodeJS.WriteStream, errors as unknown as NodeJS.WriteStream);
  const code = await verifyCommand.run(['--json', ...given], terminal, new AbortController().signal);
  output.end();
  errors.end();
  const answer = await text(output);
  return { code, output: answer, errors: await text(errors), answer: JSON.parse(answer) };
}

/** As a person calls it. */
async function threadlog(given: readonly string[], input: string): Promise<Omit<Verified, 'answer'>> {
  const child = spawn(process.execPath, ['--import', './test/support/register.mjs', 'src/cli/main.ts', 'verify', ...given], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], ...environment(secret) },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.end(input);
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [output, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  return { code, output, errors };
}

/** Gives a stream other events, as somebody would who knows how hashes are made: every one of them is right. */
async function rewrite(stream: string, data: (revision: number, data: string) => string): Promise<void> {
  let hash = CHAIN_START;
  for (const { id, type, revision, data: before, metadata } of (await everything()).filter((event) => event.stream === stream)) {
    const body = metadata.replace(/,"hash":"[0-9a-f]{64}"\}$/, '}');
    const next = chain(hash, stream as StreamName, revision, { id, type, data: data(revision, before) }, body);
    hash = next.hash;
    await client.query('update log.events set data = $1, metadata = $2 where stream = $3 and revision = $4', [
      next.stored.data,
      next.stored.metadata,
      stream,
      revision,
    ]);
  }
}

const place = (stream: string, revision: number, position: number) => ({ stream, revision, position: String(position).padStart(19, '0') });

/*
 * The log: 1 sales 0, 2 billing 0, 3 returns 0, 4 billing 1, 5 billing 2, 6 head 0 (over 5), 7 returns 1, 8 returns 2, 9 head 1 (over 8),
 * 10 sales 1; the kept head and the export are over 10.
 */
describe('the first place where a log differs', () => {
  const against = async (file = keptFile) => (await verify(['--against', file])).answer;

  it(
    'is named by a head as far as heads can tell, and the gap that a removed stream or a cut tail leaves',
    async () => {
      await client.query(`delete from log.events where stream = 'inbox-org.returns'`);
      const gap = { after: place('inbox-org.billing', 0, 2), before: place('inbox-org.billing', 1, 4) };
      const { heads, against: kept10 } = await against();
      // The first head covered returns 0; now it is reached one event later.
      expect(heads.bad[0].place).toEqual({ after: null, upTo: place(HEADS, 0, 6), missing: gap, expected: null });
      expect(kept10.place).toEqual({ after: null, upTo: null, missing: gap, expected: null });

      await client.query('truncate log.events; insert into log.events select * from saved');
      await client.query('delete from log.events where position > 9');
      const cut = (await against()).against;
      expect(cut.place).toEqual({
        after: place('inbox-org.returns', 2, 8),
        upTo: null,
        missing: { after: place(HEADS, 1, 9), before: null },
        expected: null,
      });
      const people = await threadlog(['--against', keptFile], '');
      expect(people.output).toContain(`events are missing after ${HEADS} revision 1 (position 0000000000000000009), the log's last`);
    },
    SLOW_MS,
  );

  it(
    'is between the last head that is right and the first that is not, of all heads in the file and in the log',
    async () => {
      await rewrite('inbox-org.returns', (revision, data) => (revision === 2 ? data.replace('Returned goods', 'Gone') : data));
      const file = join(folder, 'heads.ndjson');
      await writeFile(file, [early, kept].map((head) => `${JSON.stringify(head)}\n`).join(''));
      const changed = { after: place('inbox-org.billing', 2, 5), upTo: place('inbox-org.returns', 2, 8), missing: null, expected: null };
      const { heads, against: kept10 } = await against(file);
      expect(heads.bad).toEqual([{ revision: 1, count: 8, why: expect.any(String), place: changed }]);
      expect(kept10).toMatchObject({ count: 10, of: 'head', place: { after: changed.after, missing: null } });

      // Without the heads in the log, the two in the file are all there is.
      await rewrite('inbox-org.billing', (revision, data) => (revision === 2 ? data.replace('Bills', 'Billy') : data));
      await client.query('delete from log.events where stream = $1', [HEADS]);
      const { against: alone } = await against(file);
      expect(alone.place).toMatchObject({ after: place('inbox-org.billing', 1, 4), upTo: null });
    },
    SLOW_MS,
  );

  it(
    'is exactly one event with an export of it: changed with its chain computed anew, removed, put in, cut off',
    async () => {
      expect(await against(exportFile)).toMatchObject({ ok: true, against: { count: 10, of: 'export', why: null, place: null } });
      const restore = () => client.query('truncate log.events; insert into log.events select * from saved');
      const ids = (await everything()).map(({ id }) => id);
      const expected = (stream: string, revision: number, position: number) => ({
        ...place(stream, revision, position),
        eventId: ids[position - 1],
      });

      await rewrite('inbox-org.returns', (revision, data) => (revision === 1 ? data.replace('Back', 'Gone') : data));
      const changed = await against(exportFile);
      expect(changed).toMatchObject({ ok: false, bad: [], head: null });
      expect(changed.against).toEqual({
        count: 10,
        of: 'export',
        why: 'inbox-org.returns revision 1 is not as it was when it was exported: it was changed, with its hash computed anew or not',
        place: {
          after: place(HEADS, 0, 6),
          upTo: place('inbox-org.returns', 1, 7),
          missing: null,
          expected: expected('inbox-org.returns', 1, 7),
        },
      });

      await restore();
      await client.query(`delete from log.events where stream = 'inbox-org.returns'`);
      expect((await against(exportFile)).against.place).toEqual({
        after: place('inbox-org.billing', 0, 2),
        upTo: place('inbox-org.billing', 1, 4),
        missing: null,
        expected: expected('inbox-org.returns', 0, 3),
      });

      await restore();
      await client.query('delete from log.events where position > 7');
      const cut = await threadlog(['--against', exportFile], '');
      expect(cut.output).toContain('inbox-org.returns revision 2 is not as it was when it was exported: the log ends before it');
      expect(cut.output).toContain(
        'first: inbox-org.returns revision 2 (position 0000000000000000008), after inbox-org.returns revision 1 (position 0000000000000000007), where the log ends',
      );
      expect(cut.code).toBe(1);
    },
    SLOW_MS,
  );

  it(
    'is not told by a file that proves nothing',
    async () => {
      const lines = gunzipSync(await readFile(exportFile))
        .toString()
        .trimEnd()
        .split('\n');
      const with_ = async (text: string) => {
        const file = join(folder, 'other.ndjson');
        await writeFile(file, text);
        return file;
      };
      const forged = lines.map((line) => line.replace('Money', 'Honey')).join('\n');
      await expect(against(await with_(forged))).rejects.toThrow(/is not as it was exported with this MASTER_KEY/);
      await expect(against(await with_(lines.slice(0, -1).join('\n')))).rejects.toThrow(/was cut off/);
      await expect(against(await with_(`${lines[0]}\nnonsense`))).rejects.toThrow(/line 2: neither an event nor the end/);
      await expect(against(await with_(`${JSON.stringify(kept)}\nnonsense`))).rejects.toThrow(/it is not JSON/);
      await expect(against(await with_(''))).rejects.toThrow(/it is not JSON/);
      expect((await against(await with_(JSON.stringify(kept, null, 2)))).ok).toBe(true);
    },
    SLOW_MS,
  );
});

describe('verify --against', () => {
  it(
    'agrees with a head of the same log, alone or in an answer, also when the log has grown',
    async () => {
      expect(kept).toMatchObject({ count: 10, log: store.log.id });
      expect((await verify(['--against', keptFile])).answer).toMatchObject({ ok: true, against: { count: 10, why: null }, head: kept });
      const last = (await everything()).filter(({ stream }) => stream === 'inbox-org.sales').at(-1);
      const grown = chain(
        /[0-9a-f]{64}(?="\}$)/.exec(last?.metadata ?? '')?.[0] ?? '',
        'inbox-org.sales' as StreamName,
        2,
        { id: randomUUID(), type: 'InboxChanged', data: '{}' },
        (last?.metadata ?? '').replace(/,"hash":"[0-9a-f]{64}"\}$/, '}'),
      );
      await store.append('inbox-org.sales' as StreamName, 1, [grown.stored], AbortSignal.timeout(5_000));
      const { code, output } = await threadlog(['--against', '-'], JSON.stringify(kept));
      expect(output).toContain('The log begins with the 10 events of the head that was kept.');
      expect(output).toContain('2 signed heads in the log');
      const head = JSON.parse(output.trim().split('\n').at(-1) ?? '') as LogHead;
      expect(head.count).toBe(11);
      expect(head.fold).not.toBe(kept.fold);
      expect(code).toBe(0);
    },
    SLOW_MS,
  );

  it(
    'finds a cut tail, which leaves no trace in the log',
    async () => {
      await client.query('delete from log.events where position > 9');
      expect((await verify()).answer).toMatchObject({ ok: true, heads: { right: 2, bad: [] } });
      const { code, answer } = await verify(['--against', keptFile]);
      expect(answer).toMatchObject({ ok: false, bad: [], head: null, against: { count: 10 } });
      expect(answer.against.why).toContain('covers 10 events, and the log has 9');
      expect(code).toBe(1);
    },
    SLOW_MS,
  );

  it(
    'finds a removed stream: the heads in the log do, and the kept one does when they were removed with it',
    async () => {
      await client.query(`delete from log.events where stream = 'inbox-org.returns'`);
      const { code, answer } = await verify();
      expect(answer).toMatchObject({ ok: false, bad: [], head: null, heads: { right: 0, bad: [{ revision: 0 }, { revision: 1 }] } });
      expect(answer.heads.bad[0].why).toContain('not those that it was signed over');
      expect(code).toBe(1);

      await client.query('delete from log.events where stream = $1', [HEADS]);
      expect((await verify()).answer.ok).toBe(true);
      expect((await verify(['--against', keptFile])).answer).toMatchObject({ ok: false, bad: [], against: { count: 10 } });
    },
    SLOW_MS,
  );

  it(
    'finds a stream that was put out of the middle while another was made to fill the count',
    async () => {
      await client.query(`update log.events set stream = 'inbox-org.other' where stream = 'inbox-org.returns'`);
      await rewrite('inbox-org.other', (_, data) => data);
      await client.query('delete from log.events where stream = $1', [HEADS]);
      for (const [position, revision] of [
        [20, 2],
        [21, 3],
      ])
        await client.query(
          `insert into log.events select $1, $2, gen_random_uuid(), stream, type, data, metadata from log.events where stream = 'inbox-org.sales' and revision = 1`,
          [position, revision],
        );
      await rewrite('inbox-org.sales', (_, data) => data);
      expect((await verify()).answer).toMatchObject({ ok: true, events: 10 });
      expect((await verify(['--against', keptFile])).answer.against.why).toContain('the hashes computed anew');
    },
    SLOW_MS,
  );

  it(
    'finds a chain that was computed anew, from the first signed head behind the change on',
    async () => {
      await rewrite('inbox-org.returns', (revision, data) => (revision === 1 ? data.replace('Back', 'Gone') : data));
      expect((await everything()).some(({ data }) => data.includes('Gone'))).toBe(true);
      const inLog = await verify();
      expect(inLog.answer).toMatchObject({ ok: false, bad: [], heads: { right: 1, bad: [{ revision: 1 }] } });

      // Who changes the heads as well has no key to sign them with.
      await rewrite(HEADS, (revision, data) => {
        const head = JSON.parse(data) as LogHead;
        return revision === 0 ? data : JSON.stringify({ ...head, fold: kept.fold });
      });
      const forged = await verify();
      expect(forged.answer.heads.bad).toEqual([{ revision: 1, count: 8, why: 'it was not signed with this MASTER_KEY', place: null }]);

      await client.query('delete from log.events where stream = $1 and revision = 1', [HEADS]);
      expect((await verify()).answer).toMatchObject({ ok: true });
      const { code, answer } = await verify(['--against', keptFile]);
      expect(answer).toMatchObject({ ok: false, bad: [], against: { count: 10 } });
      expect(code).toBe(1);
    },
    SLOW_MS,
  );

  it(
    'signs nothing over a bad event, and takes no head of another key',
    async () => {
      const other = await verify(['--against', keptFile], randomBytes(32));
      expect(other.answer).toMatchObject({ ok: false, head: null, against: { why: 'it was not signed with this MASTER_KEY' } });
      await client.query(`update log.events set data = replace(data, 'Money', 'Honey')`);
      const { code, answer } = await verify();
      expect(answer).toMatchObject({ ok: false, head: null, bad: [{ stream: 'inbox-org.billing', revision: 1 }] });
      expect(code).toBe(1);
    },
    SLOW_MS,
  );

  it(
    'says what is wrong with what it was given',
    async () => {
      await expect(verify(['--against', keptFile, '--organization', 'org'])).rejects.toThrow(WrongUsage);
      await expect(verify(['--against', join(folder, 'nowhere.json')])).rejects.toThrow(/cannot be read/);
      const { code, errors } = await threadlog(['--against', '-'], '{"ok":false,"head":null}');
      expect(errors).toContain('standard input holds no head');
      expect(code).toBe(1);
    },
    SLOW_MS,
  );
});
