import { Agent, request } from 'node:http';
import pg from 'pg';
import { eventually } from '../support/eventually.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';

/*
 * An API process is told to end under clients that keep their connections open and write without a pause, as at every deployment. Its
 * readiness sends them to the other process, as a balancer's checks would; every request that was sent is answered, and done.
 */
const CLIENTS = 8;
/** Bulk requests take far longer than one reply, so that some are in flight whenever the end comes. */
const BULK = 60;

let database: TestDatabase;
let installation: Installation;
let first: ThreadlogProcess;
let second: ThreadlogProcess;
beforeAll(async () => {
  // Longer than the default, since a loaded machine takes longer to notice.
  process.env['SHUTDOWN_DELAY_SECONDS'] = '6';
  database = await createDatabase();
  const { EVENTSTORE_URL } = process.env;
  installation = await makeInstallation({ databaseUrl: database.url, ...(EVENTSTORE_URL ? { eventstoreUrl: EVENTSTORE_URL } : {}) });
  first = await installation.start('api');
  [second] = await Promise.all([installation.start('api'), installation.start('worker')]);
}, 120_000);
afterAll(async () => {
  await installation?.dispose();
  await database?.drop();
}, 60_000);

interface Answer {
  readonly status: number;
  readonly connection: string | undefined;
  readonly retryAfter: string | undefined;
  readonly body: { readonly data: { readonly id: string } & readonly { readonly status: number }[] };
}

function ask(
  server: ThreadlogProcess,
  agent: Agent,
  method: string,
  path: string,
  body?: object,
  idempotencyKey?: string,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(`${server.url}${path}`, {
      method,
      agent,
      headers: {
        'x-api-key': server.key,
        'content-type': 'application/json',
        ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
      },
    });
    asked.on('error', reject);
    asked.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          connection: response.headers.connection,
          retryAfter: response.headers['retry-after'],
          body: JSON.parse(text) as Answer['body'],
        }),
      );
      response.on('error', reject);
    });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

test('under load it goes on answering while it is being left, and no request that was sent fails', async () => {
  const failed: string[] = [];
  const replies: { readonly id: string; readonly content: string }[] = [];
  const afterwards = new Set<number>();
  let stopping = false;
  let balanced = first;

  const client = async (number: number) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const open = () => ask(first, agent, 'POST', '/api/support/conversations', { visitor: { id: `v-${number}` }, message: 'Hello' });
    const { id } = (await open()).body.data;
    const ids = number > 0 ? [] : await Promise.all(Array.from({ length: BULK }, async () => (await open()).body.data.id));
    for (let n = 0; !stopping; n += 1) {
      const content = `${number}-${n}`;
      const [path, body] =
        number > 0
          ? [`/api/support/conversations/${id}/reply`, { message: content }]
          : ['/api/support/conversations/bulk', { ids, action: { type: 'note', message: content } }];
      const server = balanced;
      try {
        const { status, body: answer } = await ask(server, agent, 'POST', path, body);
        if (Math.floor(status / 100) !== 2) failed.push(`${status} ${JSON.stringify(answer)}`);
        else if (number > 0) replies.push({ id, content });
        else failed.push(...answer.data.filter((item) => item.status !== 201).map((item) => JSON.stringify(item)));
        if (server === second) afterwards.add(number);
      } catch (error) {
        failed.push(`${server.name}: ${String(error)}`);
      }
    }
    agent.destroy();
  };
  const checks = new Agent({ keepAlive: true, maxSockets: 1 });
  const clients = Array.from({ length: CLIENTS }, (_, number) => client(number));
  try {
    await eventually(() => replies.length > 50, 60_000);
    await eventually(async () => (await ask(first, checks, 'GET', '/health/ready')).status === 200, 60_000);
    expect((await ask(first, checks, 'GET', '/health/live')).connection).toBe('keep-alive');
    const ended = first.stop();
    await eventually(async () => (await ask(first, checks, 'GET', '/health/ready')).status === 503);
    expect((await ask(first, checks, 'GET', '/health/live')).connection).toBe('close');
    // It still takes what a balancer that has not checked yet sends.
    const written = replies.length;
    await eventually(() => replies.length > written);
    balanced = second;
    expect(await ended).toBe(0);
    await eventually(() => afterwards.size === CLIENTS, 30_000);
  } finally {
    stopping = true;
    await Promise.all(clients);
  }
  expect(failed).toEqual([]);
  for (const id of new Set(replies.map((one) => one.id))) {
    const told = replies.filter((one) => one.id === id).map(({ content }) => content);
    expect((await said(second, id)).sort()).toEqual(told.sort());
  }
}, 120_000);

/** What a conversation holds beyond its first message. */
async function said(server: ThreadlogProcess, id: string): Promise<string[]> {
  const agent = new Agent({ keepAlive: true });
  const contents: string[] = [];
  for (let before = ''; ;) {
    const path = `/api/support/conversations/${id}/messages?limit=200${before}`;
    const { data, meta } = (await ask(server, agent, 'GET', path)).body as unknown as {
      data: { id: string; content: string }[];
      meta: { hasMore: boolean };
    };
    contents.push(...data.map((message) => message.content));
    if (!meta.hasMore) break;
    before = `&before=${data[0]?.id ?? ''}`;
  }
  agent.destroy();
  return contents.filter((content) => content !== 'Hello');
}

/*
 * The end comes while two hundred requests wait for the log, whose lock another session holds: so all of them are in flight when the process
 * stops listening, whatever the speed of the machine. That needs the log in PostgreSQL.
 */
describe('two hundred requests in flight', () => {
  const IN_FLIGHT = 200;
  const CONVERSATIONS = 40;
  let own: TestDatabase;
  let log: pg.Client;
  let ownInstallation: Installation;
  let stays: ThreadlogProcess;
  beforeAll(async () => {
    process.env['SHUTDOWN_DELAY_SECONDS'] = '1';
    own = await createDatabase();
    log = new pg.Client({ connectionString: own.url });
    await log.connect();
    ownInstallation = await makeInstallation({ databaseUrl: own.url });
    stays = await ownInstallation.start('api');
  }, 120_000);
  afterAll(async () => {
    await ownInstallation?.dispose();
    await log?.end();
    await own?.drop();
  }, 60_000);

  const inFlight = async (server: ThreadlogProcess) =>
    Number(/^threadlog_commands_in_flight (\d+)$/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);
  const listens = (server: ThreadlogProcess) =>
    fetch(`${server.url}/health/live`).then(
      () => true,
      () => false,
    );

  test.each([
    ['are all done and answered when the log goes on', 'while it drains'],
    ['are all answered when the log does not, and each is done by its key elsewhere', 'too late'],
  ])(
    '%s',
    async (_, released) => {
      const { rows } = await log.query<{ key: string }>(
        `select substring(pg_get_functiondef('log.append_many'::regproc) from 'pg_advisory_xact_lock\\((\\d+)\\)') as key`,
      );
      const leaving = await ownInstallation.start('api');
      const openers = new Agent({ keepAlive: true, maxSockets: 10 });
      const ids = await Promise.all(
        Array.from({ length: CONVERSATIONS }, async (__, i) => {
          const body = { visitor: { id: `v-${i}` }, message: 'Hello' };
          return (await ask(leaving, openers, 'POST', '/api/support/conversations', body)).body.data.id;
        }),
      );
      const agent = new Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
      // Some wait for the log, the others behind them for their conversation.
      const wishes = Array.from({ length: IN_FLIGHT }, (__, i) => ({ id: ids[i % CONVERSATIONS] ?? '', content: `${leaving.name}-${i}` }));
      const send = (server: ThreadlogProcess, { id, content }: { readonly id: string; readonly content: string }) =>
        ask(server, agent, 'POST', `/api/support/conversations/${id}/reply`, { message: content }, content);
      let answers: PromiseSettledResult<Answer>[];
      await log.query('begin');
      try {
        await log.query('select pg_advisory_xact_lock($1)', [rows[0]?.key]);
        const asked = Promise.allSettled(wishes.map((wish) => send(leaving, wish)));
        await eventually(async () => (await inFlight(leaving)) === IN_FLIGHT, 8_000);
        const ended = leaving.stop();
        await eventually(async () => !(await listens(leaving)), 8_000);
        const began = performance.now();
        if (released === 'too late') answers = await asked;
        await log.query(released === 'too late' ? 'savepoint held' : 'commit');
        answers = await asked;
        expect(performance.now() - began).toBeLessThan(12_000);
        expect(await ended).toBe(0);
        // What a request may take, and the answer of the log that its last append waits for.
        expect(performance.now() - began).toBeLessThan(released === 'too late' ? 14_000 : 10_000);
      } finally {
        await log.query('rollback');
      }
      // Not one connection broke.
      expect(answers.flatMap((answer) => (answer.status === 'rejected' ? [String(answer.reason)] : []))).toEqual([]);
      const statuses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
      const told = released === 'too late' ? { status: 503, retryAfter: '1' } : { status: 201, retryAfter: undefined };
      expect(new Set(statuses.map(({ status, retryAfter }) => JSON.stringify({ status, retryAfter })))).toEqual(
        new Set([JSON.stringify(told)]),
      );
      // The same key at the process that stays: done there, or answered as it was done.
      const again = await Promise.all(wishes.map((wish) => send(stays, wish)));
      expect(again.filter(({ status }) => status !== 201)).toEqual([]);
      for (const id of ids) {
        const wished = wishes.filter((wish) => wish.id === id).map(({ content }) => content);
        expect((await said(stays, id)).sort()).toEqual(wished.sort());
      }
      agent.destroy();
      openers.destroy();
    },
    90_000,
  );
});
