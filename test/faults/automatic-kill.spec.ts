import { pauseWork } from '../../projections/runtime/lease.js';
import type { Backend } from '../../src/backend.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { endLeasesOfTheDead } from '../support/dead-leases.js';
import { eventsAfter } from '../support/events-after.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';

/*
 * Two workers assign and answer for an inbox, and the one that does so is killed in the middle, while people take conversations by hand.
 */
const MEMBERS = 3;
const CAP = 8;
const OPENED = 40;
const BY_HAND = 8;
const TAKEN_OVER_MS = 30_000;

let database: TestDatabase;
let installation: Installation;
let api: ThreadlogProcess;
let workers: readonly ThreadlogProcess[];
let backend: Backend;

beforeAll(async () => {
  database = await createDatabase();
  installation = await makeInstallation({ databaseUrl: database.url });
  api = await installation.start('api');
  workers = await Promise.all([installation.start('worker'), installation.start('worker')]);
  backend = await installation.openBackend();
}, 120_000);
afterAll(async () => {
  await backend?.close();
  await installation?.dispose();
  await database?.drop();
}, 60_000);

async function ask(method: string, path: string, body: object): Promise<{ id: string }> {
  const answer = await fetch(`${api.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': api.key, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const { data } = (await answer.json()) as { data: { id: string } };
  expect(answer.status).toBeLessThan(300);
  return data;
}

interface Told {
  readonly stream: string;
  readonly type: string;
  readonly data: { assignee?: { id: string }; reason?: object | string; author?: { type: string } };
}
const told = async (): Promise<Told[]> =>
  (await eventsAfter({ backend, organizationId: installation.organizationId }, 'start')).map(({ stream, type, data }) => ({
    stream,
    type,
    data: JSON.parse(data) as Told['data'],
  }));
const automatic = ({ type, data }: Told) => type === 'ConversationAssigned' && data.reason !== undefined;
const answered = ({ type, data }: Told) => type === 'MessageSent' && data.author?.type === 'automation';

const jobs = () =>
  backend.database.selectFrom('keep.jobs').select(['owner', 'kind']).where('kind', 'in', ['assign-waiting', 'answer-visitor']).execute();

test('another goes on in its place: no member has more than the cap at any moment, no conversation is given twice, each is answered once', async () => {
  const agents = Array.from({ length: MEMBERS }, (_, i) => `member-${i}`);
  for (const id of [...agents, 'outsider']) await ask('POST', '/agents', { id, name: id });
  await ask('POST', '/inboxes', {
    id: 'busy',
    name: 'Busy',
    assignment: { mode: 'least_busy', agentIds: agents, cap: CAP },
    autoResponder: { enabled: true, message: 'Soon.' },
  });
  const reactors = ['inbox-assignment', 'auto-responder'];
  for (const reactor of reactors) await eventually(() => pauseWork(backend.database, { reactor }, true));
  const ids: string[] = [];
  for (let n = 0; n < OPENED; n++) ids.push((await ask('POST', '/conversations', { visitor: {}, message: 'Hi', inboxId: 'busy' })).id);
  for (const reactor of reactors) await pauseWork(backend.database, { reactor }, false);

  // One of them is in the middle of it.
  const owner = await eventually(async () => {
    if (!(await told()).some(automatic)) return undefined;
    return (await jobs()).find(({ kind, owner }) => kind === 'assign-waiting' && owner !== null)?.owner ?? undefined;
  }, 30_000);
  const killed = workers.find(({ pid }) => owner.split(':').includes(String(pid)));
  const people = Promise.all(ids.slice(0, BY_HAND).map((id) => ask('POST', `/conversations/${id}/assign`, { assigneeId: 'outsider' })));
  await killed?.kill();
  expect(killed).toBeDefined();
  await people;
  const assigned = (await told()).filter(automatic).length;
  expect(assigned).toBeLessThan(MEMBERS * CAP);
  await endLeasesOfTheDead(database.url);

  await eventually(async () => (await jobs()).length === 0, TAKEN_OVER_MS);
  const events = await eventually(async () => {
    const all = await told();
    const open = new Map<string, string>();
    for (const { stream, type, data } of all) if (type === 'ConversationAssigned') open.set(stream, data.assignee?.id ?? '');
    return [...open.values()].filter((id) => id !== 'outsider').length === MEMBERS * CAP ? all : undefined;
  }, TAKEN_OVER_MS);

  // As the log tells it, one event after the other.
  const has = new Map<string, string>();
  const load = (agent: string) => [...has.values()].filter((id) => id === agent).length;
  for (const one of events) {
    if (one.type !== 'ConversationAssigned') continue;
    if (automatic(one)) expect(has.get(one.stream)).toBeUndefined();
    has.set(one.stream, one.data.assignee?.id ?? '');
    for (const agent of agents) expect(load(agent)).toBeLessThanOrEqual(CAP);
  }
  expect(agents.map(load)).toEqual(agents.map(() => CAP));
  expect(load('outsider')).toBe(BY_HAND);
  const answers = events.filter(answered).map(({ stream }) => stream);
  expect(answers).toHaveLength(OPENED);
  expect(new Set(answers).size).toBe(OPENED);
}, 180_000);
