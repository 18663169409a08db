import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { LiveClient, type ReceivedFrame } from '../support/live-client.js';

// Two API processes and a worker, each a process of its own.
let database: TestDatabase;
let installation: Installation;
let apis: readonly [ThreadlogProcess, ThreadlogProcess];
beforeAll(async () => {
  database = await createDatabase();
  installation = await makeInstallation({ databaseUrl: database.url });
  const first = await installation.start('api');
  await installation.start('worker');
  apis = [first, await installation.start('api')];
}, 300_000);
afterAll(async () => {
  await installation.dispose();
  await database.drop();
});

const call = async (api: ThreadlogProcess, method: string, path: string, body: unknown) => {
  const response = await fetch(`${api.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': installation.key, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return (await response.json()) as { data: { id: string } };
};

test('a client whose process is killed goes on at another, or at the same when it is back, without a hole or a double', async () => {
  const [first, second] = apis;
  const { id } = (await call(second, 'POST', '/conversations', { visitor: { email: 'ada@example.com' }, message: '0' })).data;
  const told: ReceivedFrame[] = [];
  let client = await LiveClient.open(first, installation.key, '?since=start&types=message.received');
  await client.expectTold(1);

  let written = 0;
  const write = async (count: number) => {
    for (let i = 0; i < count; i++) await call(second, 'POST', `/conversations/${id}/messages`, { message: String(++written) });
  };
  const goOn = async (api: ThreadlogProcess) => {
    await client.closed;
    told.push(...client.told);
    client = await LiveClient.open(api, installation.key, `?since=${told.at(-1)?.position ?? 'start'}&types=message.received`);
  };
  const writing = write(30);
  await eventually(() => client.told.length > 5);
  await first.kill();
  await goOn(second);
  await writing;
  await first.start();
  await write(5);
  client.ws.terminate();
  await goOn(first);
  await write(5);
  await eventually(() => told.length + client.told.length >= 41);
  told.push(...client.told);
  expect(told.map(({ data }) => data.message.content)).toEqual(Array.from({ length: 41 }, (_, i) => String(i)));

  // Asked to end, a process says so to its clients.
  const stopping = await LiveClient.open(first, installation.key);
  const ended = first.stop();
  expect((await stopping.closed).code).toBe(1012);
  expect(await ended).toBe(0);
  client.ws.terminate();
}, 240_000);
