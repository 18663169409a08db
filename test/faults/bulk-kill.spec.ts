import type { BulkItem } from '../../src/conversations/bulk.commands.js';
import { ask } from '../support/ask.js';
import { endLeasesOfTheDead } from '../support/dead-leases.js';
import { faultSeed, seededRandom } from '../support/seeded-random.js';
import { type ServerProcess, startServerProcess } from '../support/server-process.js';

/*
 * kill -9 in the middle of a bulk request. The request comes again with its Idempotency-Key: what was done is answered, what was not is done,
 * and no conversation gets anything twice. With EVENTSTORE_URL the log is on that server.
 */
const SEED = faultSeed();
const SIZE = 500;

let server: ServerProcess;
let ids: string[];
beforeAll(async () => {
  const { EVENTSTORE_URL = '' } = process.env;
  server = await startServerProcess({ EVENTSTORE_URL });
  await server.ready();
  ids = [];
  while (ids.length < SIZE) ids.push(...(await Promise.all(Array.from({ length: 20 }, openConversation))));
}, 240_000);
afterAll(() => server?.dispose(), 60_000);

function call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  return ask(`${server.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': server.key, 'content-type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

async function openConversation(): Promise<string> {
  const { text } = await call('POST', '/conversations', { visitor: { id: 'ada' }, message: 'Hello' });
  return (JSON.parse(text) as { data: { id: string } }).data.id;
}

/** How often each conversation was told this. */
async function told(content: string): Promise<number[]> {
  const counts: number[] = [];
  for (let i = 0; i < ids.length; i += 20)
    counts.push(
      ...(await Promise.all(
        ids.slice(i, i + 20).map(async (id) => {
          const { data } = JSON.parse((await call('GET', `/conversations/${id}/messages`)).text) as { data: { content: string }[] };
          return data.filter((message) => message.content === content).length;
        }),
      )),
    );
  return counts;
}

test(`a bulk request that was killed is completed by its retry, and nothing is done twice (seed ${SEED})`, async () => {
  const random = seededRandom(SEED);
  let halves = 0;
  for (let attempt = 0; halves < 2; attempt++) {
    if (attempt === 12) throw new Error('in twelve attempts no kill came in the middle');
    const content = `round-${attempt}`;
    // Said again, it would be there twice, as a tag would not.
    const body = { ids, action: { type: 'reply', message: content } };
    const headers = { 'idempotency-key': content };
    const answered = call('POST', '/conversations/bulk', body, headers).then(
      (response) => response.status,
      () => undefined,
    );
    await new Promise((resolve) => setTimeout(resolve, 30 + random.int(400)));
    await server.killNode();
    await server.start();
    await endLeasesOfTheDead(await server.databaseUrl());
    await server.ready();
    const before = await told(content);
    const done = before.filter((count) => count > 0).length;
    if ((await answered) === undefined && done > 0 && done < SIZE) halves++;

    const again = await call('POST', '/conversations/bulk', body, headers);
    expect(again.status).toBe(200);
    const { text } = again;
    const { data, meta } = JSON.parse(text) as { data: BulkItem[]; meta: object };
    expect(meta).toEqual({ total: SIZE, succeeded: SIZE, failed: 0 });
    expect(data.map(({ id }) => id)).toEqual(ids);
    expect(await told(content)).toEqual(ids.map(() => 1));
    expect((await call('POST', '/conversations/bulk', body, headers)).text).toBe(text);
    process.stderr.write(`bulk, killed after ${done} of ${SIZE}\n`);
  }
}, 300_000);
