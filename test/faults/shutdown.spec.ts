import { Agent, request } from 'node:http';
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
  process.env['SHUTDOWN_DELAY_SECONDS'] = '4';
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
  readonly body: { readonly data: { readonly id: string } & readonly { readonly status: number }[] };
}

function ask(server: ThreadlogProcess, agent: Agent, method: string, path: string, body?: object): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(`${server.url}${path}`, {
      method,
      agent,
      headers: { 'x-api-key': server.key, 'content-type': 'application/json' },
    });
    asked.on('error', reject);
    asked.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          connection: response.headers.connection,
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
    await eventually(() => replies.length > written + CLIENTS);
    balanced = second;
    expect(await ended).toBe(0);
    await eventually(() => afterwards.size === CLIENTS, 30_000);
  } finally {
    stopping = true;
    await Promise.all(clients);
  }
  expect(failed).toEqual([]);
  const agent = new Agent({ keepAlive: true });
  for (const id of new Set(replies.map((one) => one.id))) {
    const said: string[] = [];
    for (let before = ''; ;) {
      const path = `/api/support/conversations/${id}/messages?limit=200${before}`;
      const { data, meta } = (await ask(second, agent, 'GET', path)).body as unknown as {
        data: { id: string; content: string }[];
        meta: { hasMore: boolean };
      };
      said.push(...data.map((message) => message.content));
      if (!meta.hasMore) break;
      before = `&before=${data[0]?.id ?? ''}`;
    }
    const told = replies.filter((one) => one.id === id).map(({ content }) => content);
    expect(said.filter((content) => content !== 'Hello').sort()).toEqual(told.sort());
  }
  agent.destroy();
}, 120_000);
