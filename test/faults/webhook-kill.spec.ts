import type { ServerResponse } from 'node:http';
import type { Backend } from '../../src/backend.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { endLeasesOfTheDead } from '../support/dead-leases.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { type Received, type Receiver, startReceiver } from '../support/receiver.js';

/*
 * A worker is killed while receivers have its requests and have not answered: whether they have taken them is known to nobody. Another worker
 * sends them again, with the same ids, and nothing is lost or out of order.
 */
const CONVERSATIONS = 6;
const TAKEN_OVER_MS = 30_000;

let database: TestDatabase;
let installation: Installation;
let api: ThreadlogProcess;
let workers: readonly ThreadlogProcess[];
let backend: Backend;
let receiver: Receiver;

beforeAll(async () => {
  process.env['WEBHOOK_ALLOWED_NETWORKS'] = '127.0.0.1/32';
  database = await createDatabase();
  receiver = await startReceiver();
  installation = await makeInstallation({ databaseUrl: database.url });
  api = await installation.start('api');
  workers = await Promise.all([installation.start('worker'), installation.start('worker')]);
  backend = await installation.openBackend();
}, 240_000);
afterAll(async () => {
  delete process.env['WEBHOOK_ALLOWED_NETWORKS'];
  await backend?.close();
  await installation?.dispose();
  await receiver?.stop();
  await database?.drop();
}, 60_000);

async function post(path: string, body: object): Promise<{ id: string; secret: string }> {
  const answer = await fetch(`${api.url}/api/support${path}`, {
    method: 'POST',
    headers: { 'x-api-key': api.key, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const { data } = (await answer.json()) as { data: { id: string; secret: string } };
  expect(answer.status).toBeLessThan(300);
  return data;
}

test('another worker sends what was under way again, under the same id, and then the rest in order', async () => {
  const { secret } = await post('/webhooks', { url: receiver.url, events: ['message.received'] });
  // One good answer, so that more than one is sent at a time.
  await post('/conversations', { visitor: {}, message: 'first' });
  await eventually(() => receiver.got.length === 1, TAKEN_OVER_MS);
  await post('/conversations', { visitor: {}, message: 'second' });
  await eventually(() => receiver.got.length === 2, TAKEN_OVER_MS);

  const held: { request: Received; response: ServerResponse }[] = [];
  const taken: Received[] = [];
  let answers = false;
  receiver.answer((request, response) => {
    if (!answers) return void held.push({ request, response });
    taken.push(request);
    response.writeHead(200).end();
  });
  const ids: string[] = [];
  for (let i = 0; i < CONVERSATIONS; i++) ids.push((await post('/conversations', { visitor: {}, message: '0' })).id);
  for (const id of ids) for (const message of ['1', '2']) await post(`/conversations/${id}/messages`, { message });
  await eventually(() => held.length >= 2, TAKEN_OVER_MS);
  const owners = await backend.database
    .selectFrom('keep.jobs')
    .select(['key', 'owner'])
    .where('kind', '=', 'deliver-webhook')
    .where('owner', 'is not', null)
    .execute();
  const has = ({ pid }: ThreadlogProcess, { headers }: Received) =>
    owners.some(({ key, owner }) => key === headers['webhook-id'] && owner?.split(':')[1] === String(pid));
  const killed = workers.find((worker) => held.some(({ request }) => has(worker, request)));
  if (killed === undefined) throw new Error('nobody has what was sent');
  const sentBy = (worker: ThreadlogProcess) => held.filter(({ request }) => has(worker, request));
  const before = sentBy(killed);
  const others = workers.filter((worker) => worker !== killed).flatMap(sentBy);
  await killed.kill();
  const began = performance.now();
  answers = true;
  // What the other worker has sent would keep it until its fifteen seconds are over.
  for (const { request, response } of others) {
    taken.push(request);
    response.writeHead(200).end();
  }
  await endLeasesOfTheDead(database.url);
  await eventually(() => new Set(taken.map(({ headers }) => headers['webhook-id'])).size === 3 * CONVERSATIONS, TAKEN_OVER_MS);
  expect(performance.now() - began).toBeLessThan(TAKEN_OVER_MS);

  // What the dead worker had sent came again under the same id, with the same body.
  for (const { request } of before) {
    const again = taken.find(({ headers }) => headers['webhook-id'] === request.headers['webhook-id']);
    expect(again?.text).toBe(request.text);
  }
  for (const one of taken) expect(receiver.verified(one, secret)).toEqual(one.body);
  for (const id of ids) {
    const mine = taken.filter(({ body }) => body.conversation.id === id);
    expect(mine.map(({ body }) => body.message.content)).toEqual(['0', '1', '2']);
  }
  await eventually(async () => {
    const left = await backend.database.selectFrom('keep.jobs').select('id').where('kind', '=', 'deliver-webhook').execute();
    return left.length === 0;
  });
}, 240_000);
