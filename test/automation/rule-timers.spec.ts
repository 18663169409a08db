import { randomBytes } from 'node:crypto';
import { RULE_TIMER } from '../../projections/rule-timers.jobs.js';
import { WAKE_CONVERSATION } from '../../projections/snooze-timer.jobs.js';
import { startApi, type TestApi } from '../support/api.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';

/*
 * Timers of rules and of snoozes that were due while everything was down, and two processes that do them when everything is up again.
 */

const environment = { MASTER_KEY: randomBytes(32).toString('base64') };
const MINUTE = 60_000;
const CONVERSATIONS = 40;

let created: TestDatabase;
const running: TestApi[] = [];
/** Set timers. A log that was given may have other work waiting, such as its head to be signed. */
const timers = async ({ backend: { database } }: TestApi): Promise<number> =>
  (await database.selectFrom('keep.jobs').select('id').where('kind', 'in', [RULE_TIMER, WAKE_CONVERSATION]).execute()).length;
const start = async (laterMs: number): Promise<TestApi> => {
  const api = await startApi({ environment, database: created });
  api.clock.advance(laterMs);
  running.push(api);
  return api;
};

beforeAll(async () => {
  created = await createDatabase();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((api) => api.stop()));
});
afterAll(() => created.drop());

// oxlint-disable-next-line typescript/no-explicit-any -- answers of every shape
type Data = Record<string, any>;

it('after an hour in which everything was down, each timer fires once and within 5 s, in whichever of two processes', async () => {
  const before = await start(0);
  const { adminKey: key } = before;
  const ask = async (api: TestApi, status: number, method: string, path: string, body?: object) =>
    (await api.expect(status, method, path, { key, ...(body === undefined ? {} : { body }) })).body?.data as Data;
  const rule = await ask(before, 201, 'POST', '/automation-rules', {
    trigger: { type: 'no_agent_reply_for', seconds: 1_800 },
    conditions: [{ field: 'conversation.priority', operator: 'not_equals', value: 'low' }],
    actions: [{ type: 'note', message: 'Nobody has answered' }],
  });
  const opened = await Promise.all(
    Array.from({ length: CONVERSATIONS }, () => ask(before, 201, 'POST', '/conversations', { visitor: {}, message: 'Hello?' })),
  );
  const [answered, ...waiting] = opened.map(({ id }) => id as string);
  await ask(before, 201, 'POST', `/conversations/${answered}/reply`, { message: 'Here' });
  const snoozed = (await ask(before, 201, 'POST', '/conversations', { visitor: {}, message: 'Later' })).id as string;
  const until = new Date(before.clock.now() + 30 * MINUTE).toISOString();
  await ask(before, 200, 'POST', `/conversations/${snoozed}/snooze`, { until });
  // That of each waiting conversation, of the snoozed conversation, and of its snooze.
  await eventually(async () => (await timers(before)) === waiting.length + 2);
  await Promise.all(running.splice(0).map((api) => api.stop()));

  const [here, there] = await Promise.all([start(60 * MINUTE), start(60 * MINUTE)]);
  const up = performance.now();
  const evaluations = (api: TestApi) =>
    api.expect(200, 'GET', `/automation-rules/${rule.id}/evaluations?limit=100`, { key }).then(({ body }) => body.data as Data[]);
  const all = await eventually(async () => {
    const found = await evaluations(here);
    const done = found.every(({ actions }) => (actions as Data[]).every(({ outcome }) => outcome !== 'pending'));
    return found.length >= waiting.length + 1 && done ? found : undefined;
  });
  await eventually(async () => (await ask(there, 200, 'GET', `/conversations/${snoozed}`)).status === 'open');
  // Within 5 s, on a machine that does nothing else; beside other tests it gets twice as long.
  expect(performance.now() - up).toBeLessThan(10_000);
  expect(all.map(({ conversationId }) => conversationId as string).sort()).toEqual([...waiting, snoozed].sort());
  for (const id of waiting.slice(0, 5)) {
    const [, received, ...caused] = await ask(here, 200, 'GET', `/conversations/${id}/events`).then((data) => data as Data[]);
    expect(caused.map(({ type }) => type)).toEqual(['NoteAdded']);
    const at = Date.parse(received?.occurredAt as string) + 30 * MINUTE;
    // It saw what there was when the wait was over, and acted when it was up again.
    expect(all.find(({ conversationId }) => conversationId === id)).toMatchObject({ at: new Date(at).toISOString(), outcome: 'matched' });
    expect(Date.parse(caused[0]?.occurredAt as string)).toBeGreaterThan(at + 29 * MINUTE);
  }
  const woken = (await ask(here, 200, 'GET', `/conversations/${snoozed}/events`)) as unknown as Data[];
  expect(woken.filter(({ type }) => type === 'ConversationStatusChanged').map(({ data }) => data.reason)).toEqual(['snooze_elapsed']);
  await eventually(async () => (await timers(here)) === 0);
});
