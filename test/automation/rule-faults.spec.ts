import { type Answer, startApi, type TestApi } from '../support/api.js';

/*
 * What is answered when a rule is refused: everything that is wrong, each with its place, in one answer.
 */

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
  await api.expect(201, 'POST', '/agents', { body: { id: 'eve', name: 'Eve' } });
  await api.expect(201, 'POST', '/agents', { body: { id: 'gone', name: 'Gone' } });
  await api.expect(204, 'DELETE', '/agents/gone');
});
afterAll(() => api.stop());

const leaf = { field: 'message.content', operator: 'contains', value: 'x' };
const assign = (assigneeId: string) => ({ type: 'assign', assigneeId });
const good = { trigger: 'message.received', conditions: [leaf], actions: [assign('eve')] };
/** Wrong in every way that there is: in form, in what can never be, and in what it names. */
const bad = {
  name: 7,
  trigger: 'conversation.assigned',
  conditions: {
    all: [
      { ...leaf, field: 'message.colour' },
      {
        any: [
          { ...leaf, operator: 'greater_than' },
          { field: 'previous.tags', operator: 'is_set' },
        ],
      },
      { field: 'conversation.inboxId', operator: 'in', value: ['nowhere', 'nirvana'] },
      { field: 'conversation.teamId', operator: 'equals', value: 'eve' },
    ],
  },
  actions: [assign('nobody'), { type: 'addTag' }, { type: 'snooze', until: '2001-01-01T00:00:00Z' }, assign('gone'), assign('eve')],
};
const BAD = [
  'name',
  'conditions.all[0].field',
  'conditions.all[1].any[0].operator',
  'actions[1].tag',
  'conditions.all[1].any[1].field',
  'actions[2].until',
  'conditions.all[2].value[0]',
  'conditions.all[2].value[1]',
  'conditions.all[3].value',
  'actions[0].assigneeId',
  'actions[3].assigneeId',
];
const fieldsOf = ({ body }: Answer) => (body.errors as { field: string }[]).map(({ field }) => field);
const events = async () =>
  (await api.expect(200, 'GET', '/events?types=RuleCreated&types=RuleChanged', { headers: await settled() })).body.data as unknown[];
const settled = async () => ({ 'x-min-position': String(await api.backend.store.head()) });

test('a rule that is made, one that is changed, and one that is tried on the past are refused with all their faults at once', async () => {
  const { id } = (await api.expect(201, 'POST', '/automation-rules', { body: good })).body.data as { id: string };
  const before = await events();
  const made = await api.expect(400, 'POST', '/automation-rules', { body: bad });
  expect([made.body.code, fieldsOf(made)]).toEqual(['validation_failed', BAD]);
  expect(made.body.errors).toContainEqual({ field: 'actions[0].assigneeId', message: 'no agent or team has the id nobody' });
  expect(made.body.errors).toContainEqual({ field: 'actions[3].assigneeId', message: 'gone is archived' });
  const changed = await api.expect(400, 'PUT', `/automation-rules/${id}`, { body: bad });
  expect(fieldsOf(changed)).toEqual(BAD);
  const tried = await api.expect(400, 'POST', '/automation-rules/back-tests', { body: { rule: bad, from: 'yesterday' } });
  expect(fieldsOf(tried).toSorted()).toEqual(['from', ...BAD.map((field) => `rule.${field}`)].toSorted());
  expect(await events()).toEqual(before);
});

test('what has the right form and can never be is told together with what is unknown', async () => {
  const { name: _name, ...rest } = bad;
  const body = { ...rest, conditions: { all: bad.conditions.all.slice(2) }, actions: bad.actions.filter((_, i) => i !== 1) };
  const refused = await api.expect(400, 'POST', '/automation-rules', { body });
  expect(fieldsOf(refused)).toEqual([
    'actions[1].until',
    'conditions.all[0].value[0]',
    'conditions.all[0].value[1]',
    'conditions.all[1].value',
    'actions[0].assigneeId',
    'actions[2].assigneeId',
  ]);
});

test('where all that is wrong is unknown, the code is that of the first, and all are named', async () => {
  const body = {
    ...good,
    conditions: [{ field: 'company.id', operator: 'equals', value: 'acme' }],
    actions: [assign('nobody'), assign('no-one')],
  };
  const refused = await api.expect(422, 'POST', '/automation-rules', { body });
  expect([refused.body.code, fieldsOf(refused)]).toEqual([
    'unknown_company',
    ['conditions[0].value', 'actions[0].assigneeId', 'actions[1].assigneeId'],
  ]);
});

test('a change is judged with what the rule has already, of which nothing is looked up again', async () => {
  await api.expect(201, 'POST', '/agents', { body: { id: 'leaving', name: 'Leaving' } });
  const { id } = (await api.expect(201, 'POST', '/automation-rules', { body: { ...good, actions: [assign('leaving')] } })).body.data as {
    id: string;
  };
  await api.expect(204, 'DELETE', '/agents/leaving');
  const put = (body: object) => api.call('PUT', `/automation-rules/${id}`, { body });
  expect(fieldsOf(await put({ enabled: 'yes', trigger: 'conversation.created' }))).toEqual(['enabled', 'conditions[0].field']);
  expect(fieldsOf(await put({ enabled: 'yes', actions: [assign('leaving'), assign('nobody')] }))).toEqual([
    'enabled',
    'actions[1].assigneeId',
  ]);
  expect(fieldsOf(await put({ enabled: 'yes' }))).toEqual(['enabled']);
  expect((await put({ actions: [assign('leaving')] })).status).toBe(200);
  // A rule that is not there has no faults but those of the body's form.
  expect(
    fieldsOf(await api.expect(400, 'PUT', '/automation-rules/none-such', { body: { enabled: 'yes', actions: [assign('nobody')] } })),
  ).toEqual(['enabled']);
});

test('another organization is asked about nothing', async () => {
  const { adminKey: key } = await api.otherOrganization();
  const refused = await api.expect(400, 'POST', '/automation-rules', { key, body: { ...good, enabled: 'yes' } });
  expect(fieldsOf(refused)).toEqual(['enabled', 'actions[0].assigneeId']);
});

test('no answer lists more than a hundred, and no more are looked up', async () => {
  const { store } = api.backend;
  const read = store.read.bind(store);
  let reads = 0;
  store.read = (...asked) => {
    reads++;
    return read(...asked);
  };
  try {
    const ids = (n: number) => Array.from({ length: 90 }, (_, i) => `n${n}-${i}`);
    const conditions = [0, 1, 2, 3].map((n) => ({ field: 'conversation.assigneeId', operator: 'in', value: ids(n) }));
    for (const more of [{}, { enabled: 'yes' }]) {
      reads = 0;
      const { body } = await api.call('POST', '/automation-rules', { body: { ...good, conditions, ...more } });
      expect(body.errors).toHaveLength(100);
      expect(reads).toBeLessThanOrEqual(101);
    }
  } finally {
    store.read = read;
  }
});

test('while what it names cannot be looked up, a rule is refused for its form', async () => {
  const { transactor } = api.backend;
  const load = transactor.load.bind(transactor);
  transactor.load = async () => {
    throw new Error('away');
  };
  try {
    expect(fieldsOf(await api.expect(400, 'POST', '/automation-rules', { body: { ...good, name: 7 } }))).toEqual(['name']);
  } finally {
    transactor.load = load;
  }
});
