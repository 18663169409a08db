import { ANSWER_VISITOR } from '../../projections/auto-responder.jobs.js';
import { AUTO_RESPONDER } from '../../projections/auto-responder.reactor.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

const HOUR = 3_600_000;

let api: TestApi;
let number = 0;

beforeAll(async () => {
  api = await startApi();
});
afterEach(async () => {
  api.clock.goOn();
  await expectReadModelsEqualFold(api);
});
afterAll(async () => {
  await api.stop();
});

interface Said {
  readonly type: string;
  readonly content: string;
  readonly author?: { readonly id: string; readonly name: string };
}
interface Shown {
  readonly id: string;
  readonly status: string;
  readonly waitingSince: string | null;
  readonly messages: readonly Said[];
}

async function ask<T>(status: number, method: string, path: string, body?: object): Promise<T> {
  const answer = await api.expect(status, method, path, body === undefined ? {} : { body });
  return (answer.body as { data: T } | undefined)?.data as T;
}
const put = (path: string, body: object) => ask(200, 'PUT', path, body);
const get = (id: string) => ask<Shown>(200, 'GET', `/conversations/${id}`);
const says = (id: string, message: string) => ask(201, 'POST', `/conversations/${id}/messages`, { message });
const replies = (id: string, type: 'reply' | 'note' = 'reply') => ask(201, 'POST', `/conversations/${id}/reply`, { message: 'R', type });
const answers = async (id: string) => (await get(id)).messages.filter(({ type }) => type === 'automation');

async function inboxWith(autoResponder: object, more: object = {}): Promise<string> {
  const id = `inbox-${++number}`;
  await ask(201, 'POST', '/inboxes', {
    id,
    name: `Desk ${number}`,
    autoResponder: { enabled: true, message: 'We are back soon.', ...autoResponder },
    ...more,
  });
  return id;
}
const open = async (inboxId: string, as: 'visitor' | 'agent' = 'visitor') =>
  (await ask<Shown>(201, 'POST', '/conversations', { visitor: { name: 'V' }, inboxId, message: 'Hello', as })).id;

const jobs = () => api.backend.database.selectFrom('keep.jobs').select(['key', 'due_at']).where('kind', '=', ANSWER_VISITOR).execute();
/** The reactor has handled everything, and of its jobs only those that are not due are left. */
async function settled(): Promise<void> {
  const { store, checkpoints } = api.backend;
  for (;;) {
    const head = await store.head();
    await eventually(async () => {
      const reactor = (await checkpoints.reactors()).find(({ reactor }) => reactor === AUTO_RESPONDER);
      return reactor !== undefined && reactor.position >= head;
    }, 30_000);
    await eventually(async () => (await jobs()).every(({ due_at }) => Number(due_at) > api.clock.now()), 30_000);
    if ((await store.head()) === head) return;
  }
}

it("answers a visitor once in an episode, in the inbox's name, and leaves the visitor waiting", async () => {
  const inboxId = await inboxWith({});
  const id = await open(inboxId);
  await eventually(async () => (await answers(id)).length > 0);
  await says(id, 'Anybody?');
  await settled();
  const { messages, status, waitingSince } = await get(id);
  expect(messages.map(({ type, content }) => `${type}: ${content}`).toSorted()).toEqual([
    'automation: We are back soon.',
    'visitor: Anybody?',
    'visitor: Hello',
  ]);
  expect((await answers(id))[0]?.author).toEqual({ id: inboxId, name: `Desk ${number}` });
  expect(status).toBe('open');
  expect(waitingSince).not.toBeNull();
  const events = await ask<{ id: string; type: string; actor: object; causationId: string }[]>(200, 'GET', `/conversations/${id}/events`);
  expect(events.find(({ type }) => type === 'MessageSent')).toMatchObject({
    actor: { type: 'automation', id: inboxId },
    causationId: events.find(({ type }) => type === 'MessageReceived')?.id,
  });

  // A day later nobody remembers the first command but the stream.
  api.clock.advance(25 * HOUR);
  await says(id, 'Still nobody?');
  await settled();
  expect(await answers(id)).toHaveLength(1);

  await put(`/conversations/${id}`, { status: 'resolved' });
  await says(id, 'Again');
  await eventually(async () => (await answers(id)).length === 2);
  await settled();
  expect(await answers(id)).toHaveLength(2);
}, 60_000);

it('waits for its delay, and stays silent when a person was faster, the episode has ended, or it was switched off or moved away', async () => {
  const inboxId = await inboxWith({ delaySeconds: 600 });
  const other = await inboxWith({ enabled: false });
  const names = ['nobody', 'note', 'replied', 'replied and asked again', 'ended', 'moved'] as const;
  const ids = await Promise.all(names.map(() => open(inboxId)));
  const [nobody, note, replied, again, ended, moved] = ids as [string, string, string, string, string, string];
  await settled();
  expect(await jobs()).toHaveLength(6);
  for (const id of ids) expect(await answers(id)).toEqual([]);
  await replies(note, 'note');
  await replies(replied);
  await replies(again);
  await put(`/conversations/${ended}`, { status: 'resolved' });
  await put(`/conversations/${moved}`, { inboxId: other });
  api.clock.advance(300_000);
  await says(again, 'One more thing');
  api.clock.advance(300_000);
  await settled();
  const count = () => Promise.all(ids.map(async (id) => (await answers(id)).length));
  expect(await count()).toEqual([1, 1, 0, 0, 0, 0]);
  // The message after the person's reply has its own time.
  api.clock.advance(301_000);
  await settled();
  expect(await count()).toEqual([1, 1, 0, 1, 0, 0]);
  expect(nobody).toBeDefined();

  const late = await open(inboxId);
  await settled();
  await put(`/inboxes/${inboxId}`, { autoResponder: { enabled: false, message: 'Off' } });
  api.clock.advance(601_000);
  await settled();
  expect(await answers(late)).toEqual([]);
}, 60_000);

it('answers only outside the working hours where that is set, by the time of the message', async () => {
  const workingHours = { timezone: 'Europe/Berlin', schedule: { wednesday: [['09:00', '17:00']] } };
  const inboxId = await inboxWith({ onlyOutsideWorkingHours: true, delaySeconds: 3_600 }, { workingHours });
  const always = await inboxWith({ onlyOutsideWorkingHours: true });
  const wednesday = Date.UTC(Math.max(2027, new Date(api.clock.now()).getUTCFullYear() + 1), 0, 1, 12);
  const noon = wednesday + ((3 - new Date(wednesday).getUTCDay() + 7) % 7) * 24 * HOUR;
  const sixteen = noon + 3.5 * HOUR;
  api.clock.stopAt(sixteen);
  const [inside, open24] = [await open(inboxId), await open(always)];
  await settled();
  // Its hour ends after five, and that does not matter.
  api.clock.stopAt(sixteen + HOUR);
  await settled();
  const outside = await open(inboxId);
  await settled();
  api.clock.stopAt(noon + 23 * HOUR);
  await settled();
  expect(await answers(inside)).toEqual([]);
  expect(await answers(open24)).toEqual([]);
  expect(await answers(outside)).toHaveLength(1);
  // The next message of the same episode, written in the evening.
  await says(inside, 'Evening');
  api.clock.stopAt(noon + 25 * HOUR);
  await settled();
  expect(await answers(inside)).toHaveLength(1);
}, 60_000);

it('answers no team, wakes nothing, and does nothing in an organization or inbox without it', async () => {
  const inboxId = await inboxWith({ delaySeconds: 60 });
  const plain = await inboxWith({ enabled: false });
  const [byTeam, snoozed, without] = [await open(inboxId, 'agent'), await open(inboxId), await open(plain)];
  await ask(200, 'POST', `/conversations/${snoozed}/snooze`, { until: 'next_reply' });
  api.clock.advance(61_000);
  await settled();
  expect(await answers(byTeam)).toEqual([]);
  expect(await answers(without)).toEqual([]);
  expect(await answers(snoozed)).toHaveLength(1);
  expect(await get(snoozed)).toMatchObject({ status: 'snoozed' });
}, 60_000);
