import { randomUUID } from 'node:crypto';
import type { ConversationEvent, Status } from '../../src/conversations/conversation.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { asLongAsAsked, timeLimit } from '../support/fault-length.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';
import { faultSeed, type SeededRandom, seededRandom } from '../support/seeded-random.js';
import { findFaults, type Operation } from './version-oracle.js';

/*
 * Thirty clients send commands that exclude each other to five conversations, through two processes with a memory each. Whatever they were
 * answered must be what one after the other would have given: the log's revisions are the order, and the oracle holds every answer,
 * refusals too, against the revisions that were current while it was under way. FAULT_MINUTES makes it longer, FAULT_SEED repeats it.
 */
const SEED = faultSeed();
const CLIENTS = 30;
const CONVERSATIONS = 5;
const OPERATIONS = asLongAsAsked(300, 3_000);

let database: TestDatabase;
let first: TestApi;
let second: TestApi;

beforeAll(async () => {
  database = await createDatabase();
  first = await startApi({ database });
  second = await startApi({ database, environment: { MASTER_KEY: first.backend.config.MASTER_KEY ?? '' } });
}, 60_000);
afterAll(async () => {
  try {
    await expectReadModelsEqualFold(first);
  } finally {
    await second.stop();
    await first.stop();
    await database.drop();
  }
});

async function open(body: object = {}): Promise<{ id: string; visitorId: string }> {
  const made = await first.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'Ada' }, message: 'Hi', ...body } });
  return { id: made.body.data.id as string, visitorId: made.body.data.visitor.id as string };
}

it(
  `answers ${OPERATIONS} conflicting commands of ${CLIENTS} clients as one after the other would be (seed ${SEED})`,
  async () => {
    const conversations = await Promise.all(Array.from({ length: CONVERSATIONS }, () => open()));
    await Promise.all(['bo', 'cy'].map((id) => first.call('POST', '/agents', { body: { id, name: id } })));
    const operations: Operation[] = [];
    let left = OPERATIONS;
    await Promise.all(
      Array.from({ length: CLIENTS }, async (_, client) => {
        const random = seededRandom(SEED + client);
        // What the client saw last of each, for If-Match: often stale by the time it is used.
        const seen = new Map<string, number>();
        while (left-- > 0) {
          const { id } = random.pick(conversations);
          const operation = choose(random, id, seen.get(id));
          operations.push(operation);
          const api = client % 2 === 0 ? first : second;
          const answer = await api.call(operation.method, operation.path, {
            key: first.adminKey,
            body: operation.body,
            headers: {
              'x-request-id': operation.name,
              ...(operation.ifMatch === undefined ? {} : { 'if-match': `"${operation.ifMatch}"` }),
            },
          });
          operation.answered = performance.now();
          operation.status = answer.status;
          operation.code = answer.body.code as string | undefined;
          const revision = /^"(\d+)"$/.exec(answer.headers.get('etag') ?? '')?.[1];
          operation.revision = revision === undefined ? undefined : Number(revision);
          if (operation.revision !== undefined) seen.set(id, operation.revision);
        }
      }),
    );

    const faults: string[] = [];
    for (const { id } of conversations) {
      const events = await history(id);
      faults.push(
        ...findFaults(
          operations.filter((one) => one.conversation === id),
          events,
        ),
      );
    }
    expect(faults).toEqual([]);
    const told = new Map<string, number>();
    for (const { status, code = '' } of operations) told.set(`${status} ${code}`, (told.get(`${status} ${code}`) ?? 0) + 1);
    process.stderr.write(
      `conflicting commands, seed ${SEED}: ${OPERATIONS}, answered ${JSON.stringify(Object.fromEntries(told))}; faults 0\n`,
    );
    // Without refusals of every kind nothing would have been at odds.
    for (const [answer, least] of [
      ['200 ', 5],
      ['409 transition_not_allowed', 30],
      ['412 revision_mismatch', 30],
    ] as const)
      expect([answer, (told.get(answer) ?? 0) >= OPERATIONS / least]).toEqual([answer, true]);
  },
  timeLimit(60_000),
);

async function history(id: string): Promise<{ revision: number; correlationId: string; event: ConversationEvent }[]> {
  const events: { revision: number; correlationId: string; event: ConversationEvent }[] = [];
  for (let from = 0, more = true; more; from = events.length) {
    const page = await first.expect(200, 'GET', `/conversations/${id}/events?limit=1000&from=${from}`);
    for (const { revision, correlationId, type, data } of page.body.data)
      events.push({ revision, correlationId, event: { type, data } as ConversationEvent });
    more = page.body.meta.hasMore as boolean;
  }
  return events;
}

function choose(random: SeededRandom, conversation: string, seen: number | undefined): Operation {
  const base = `/conversations/${conversation}`;
  const common = { name: randomUUID(), conversation, begun: performance.now(), answered: Infinity, status: 0 } as const;
  const ifMatch = seen !== undefined && random.int(3) === 0 ? seen : undefined;
  const put = (to: Status): Operation => ({
    ...common,
    kind: { is: 'status', to },
    method: 'PUT',
    path: base,
    body: { status: to },
    ifMatch,
  });
  switch (random.int(8)) {
    case 0:
      return put('open');
    case 1:
    case 2:
      return put('pending');
    case 3:
    case 4:
      return put('resolved');
    case 5:
      return { ...common, kind: { is: 'snooze' }, method: 'POST', path: `${base}/snooze`, body: { until: 'next_reply' }, ifMatch };
    case 6: {
      const to = random.pick(['bo', 'cy', null] as const);
      return { ...common, kind: { is: 'assign', to }, method: 'POST', path: `${base}/assign`, body: { assigneeId: to }, ifMatch };
    }
    default: {
      const tag = random.pick(['a', 'b', 'c']);
      return random.int(2) === 0
        ? { ...common, kind: { is: 'tag', tag }, method: 'POST', path: `${base}/tags`, body: { tags: [tag] }, ifMatch }
        : { ...common, kind: { is: 'untag', tag }, method: 'DELETE', path: `${base}/tags/${tag}`, body: undefined, ifMatch };
    }
  }
}

it('makes one visitor and as many conversations as requests, when twenty people open one in the same name at once', async () => {
  const email = `${randomUUID()}@example.com`;
  const userId = randomUUID();
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      (i % 2 === 0 ? first : second).expect(201, 'POST', '/conversations', {
        key: first.adminKey,
        body: { visitor: { email, userId }, message: `first ${i}` },
      }),
    ),
  );
  expect(new Set(answers.map(({ body }) => body.data.id as string)).size).toBe(20);
  expect(new Set(answers.map(({ body }) => body.data.visitor.id as string)).size).toBe(1);
  const visitorId = answers[0]?.body.data.visitor.id as string;
  const headers = { 'x-min-position': String(await first.backend.store.head()) };
  const listed = await first.expect(200, 'GET', `/conversations?visitorId=${visitorId}&limit=100`, { headers });
  expect(listed.body.data).toHaveLength(20);
  const visitors = await first.expect(200, 'GET', `/visitors?email=${encodeURIComponent(email)}`, { headers });
  expect(visitors.body.data).toHaveLength(1);
  expect(visitors.body.data[0]).toMatchObject({ id: visitorId, userId });
});

it('gives two organizations that use one Idempotency-Key an answer each, and neither the other’s', async () => {
  const other = await first.otherOrganization();
  const send = (key: string, body: object) =>
    first.expect(201, 'POST', '/conversations', { key, body, headers: { 'idempotency-key': 'shared-by-two' } });
  const body = { visitor: { name: 'Ada' }, message: 'the same' };
  const mine = await send(first.adminKey, body);
  const theirs = await send(other.adminKey, body);
  expect(theirs.body.data.id).not.toBe(mine.body.data.id);
  // Another body with the key that the other organization used is no reuse of it.
  const another = await first.expect(201, 'POST', '/visitors', {
    key: other.adminKey,
    body: { name: 'x' },
    headers: { 'idempotency-key': 'only-theirs' },
  });
  const own = await first.expect(201, 'POST', '/visitors', { body: { name: 'y' }, headers: { 'idempotency-key': 'only-theirs' } });
  expect([another.body.data.name, own.body.data.name]).toEqual(['x', 'y']);
  expect((await send(first.adminKey, body)).body.data.id).toBe(mine.body.data.id);
});
