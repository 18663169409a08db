import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import pg from 'pg';
import { WrongUsage } from '../../src/cli/command.js';
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
      expect(forged.answer.heads.bad).toEqual([{ revision: 1, count: 8, why: 'it was not signed with this MASTER_KEY' }]);

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
