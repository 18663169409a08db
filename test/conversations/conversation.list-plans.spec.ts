import { randomBytes } from 'node:crypto';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { AutomaticAssignmentReader, type WaitingConversation } from '../../src/conversations/automatic-assignment.reader.js';
import { ListQueryDto } from '../../src/conversations/list-query.dto.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { instanceOf } from '../../src/http/validation.js';
import {
  CountConversations,
  CountConversationsHandler,
  ListConversations,
  ListConversationsHandler,
  SORTS,
} from '../../src/conversations/conversation.list.js';
import { Cursors, TOTAL_LIMIT } from '../../src/read-models/paging.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { makeManyConversations, MANY, manyQuestions } from '../support/many-conversations.js';
import { buffers, nodes, type Plan, planOf, type Statement } from '../support/plans.js';
import { coreGroup, readModels } from '../support/read-schema.js';

/** Enough that reading all of it is dearer than any index, and few enough to be made in a few seconds. */
const COUNT = 30_000;
const ORGANIZATION = 'many';
/** Pages of 8 kB that the choice of one page's rows may look at; the table has some 9,000, each index some hundred. */
const MOST_BUFFERS = 1_500;

let database: TestDatabase;
let open: OpenDatabase;
let lists: ListConversationsHandler;
let counts: CountConversationsHandler;
let kysely: Kysely<Database>;
let client: pg.Client;
/** The statements of the last list. */
const statements: Statement[] = [];

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 2, name: 'test', onError: () => undefined });
  await makeLiveGeneration(open.kysely, coreGroup, { id: 'log', empty: true });
  // Another tenant's rows lie between: an index that does not begin with the organization would read them too.
  await makeManyConversations(database.url, 'neighbour', COUNT);
  await makeManyConversations(database.url, ORGANIZATION, COUNT);
  kysely = new Kysely<Database>({
    dialect: new PostgresDialect({ pool: open.pool }),
    log: ({ query }) => void statements.push({ sql: query.sql, parameters: query.parameters }),
  });
  lists = new ListConversationsHandler(kysely, kysely, readModels, new Cursors(randomBytes(32)));
  counts = new CountConversationsHandler(kysely, readModels);
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
}, 60_000);

afterAll(async () => {
  await client.end();
  await open.close();
  await database.drop();
});

/** Asks the list and answers the plans of its statements, as they ran. */
async function plansOf(question: string, cursor?: string): Promise<{ plans: Plan[]; rows: number; next: string | null }> {
  statements.length = 0;
  const query = queryOf(question, cursor);
  const answer = await lists.execute(new ListConversations(ORGANIZATION, query.filter(), query.sorting(), query.paging(), false));
  return { plans: await plansOfStatements(), rows: answer.data.length, next: answer.meta.nextCursor };
}

function queryOf(question: string, cursor?: string): ListQueryDto {
  const asked: Record<string, unknown> = cursor === undefined ? {} : { cursor };
  for (const [name, value] of new URLSearchParams(question)) {
    const attribute = /^customAttributes\[(.*)\]$/.exec(name)?.[1];
    if (attribute !== undefined) asked['customAttributes'] = { [attribute]: value };
    else asked[name] = name in asked ? [asked[name], value].flat() : value;
  }
  for (const name of ['status', 'priority', 'tag', 'inboxId', 'assigneeId', 'teamId', 'visitorId', 'companyId'])
    if (name in asked) asked[name] = [asked[name]].flat();
  return instanceOf(ListQueryDto, asked);
}

/** The plans of the queries since the statements were last forgotten. */
async function plansOfStatements(): Promise<Plan[]> {
  const plans: Plan[] = [];
  for (const statement of statements.splice(0)) plans.push(await planOf(client, statement, 'run'));
  return plans;
}

const scans = (plans: readonly Plan[]) =>
  plans
    .flatMap(nodes)
    .filter((node) => node['Relation Name']?.startsWith('conversations') === true)
    .map((node) => node['Node Type']);

const sorted = (question: string) => SORTS.flatMap((sort) => ['asc', 'desc'].map((order) => [question, sort, order] as const));

describe('the plans of the conversation list', () => {
  test.each(manyQuestions(COUNT))('%s: an index and few pages, for the rows and for the total', async (_name, question) => {
    const { plans, rows } = await plansOf(question);
    expect(rows).toBeGreaterThan(0);
    expect(plans).toHaveLength(2);
    const total = plans.find((plan) => plan['Node Type'] === 'Aggregate');
    const page = plans.find((plan) => plan !== total);
    if (page === undefined || total === undefined) throw new Error('a list is a page and a total');
    expect(scans([page]).length).toBeGreaterThan(1);
    expect(scans([page])).not.toContain('Seq Scan');
    expect(buffers(page)).toBeLessThan(MOST_BUFFERS);
    // The first ten thousand of everything are found without an index, and none is faster.
    if (question !== '') expect(scans([total])).not.toContain('Seq Scan');
    expect(buffers(total)).toBeLessThan(TOTAL_LIMIT);
  });

  // PostgreSQL takes a label that it never saw for one of many rows, and would look for the
  // first of them in the order of the page. The fewer are asked for, the sooner it does: one row here stands for a page of a larger table.
  test.each(
    [
      'tag=nobody-has-it',
      'tag=nobody-has-it&tag=nor-this',
      'status=closed&tag=nobody-has-it',
      `tag=${MANY.tag(1)}&tag=nobody-has-it&tagMatch=all`,
      `${encodeURIComponent('customAttributes[plan]')}=none`,
      `status=closed&inboxId=${MANY.inbox(2)}&${encodeURIComponent('customAttributes[other]')}=pro`,
    ].flatMap(sorted),
  )('%s by %s %s: that nothing matches is found without a walk', async (question, sort, order) => {
    const { plans, rows } = await plansOf(`${question}&sort=${sort}&order=${order}&limit=1`);
    expect(rows).toBe(0);
    expect(scans(plans)).not.toContain('Seq Scan');
    for (const plan of plans) expect(buffers(plan)).toBeLessThan(100);
  });

  test.each(manyQuestions(COUNT).flatMap(([, question]) => sorted(question.replace(/&?sort=\w+(&order=\w+)?/, ''))))(
    '%s by %s %s, and the page after it: no row is looked for without an index',
    async (question, sort, order) => {
      const first = await plansOf(`${question}&sort=${sort}&order=${order}&limit=5&total=none`);
      expect(scans(first.plans)).not.toContain('Seq Scan');
      if (first.next === null) return;
      const second = await plansOf(`${question}&sort=${sort}&order=${order}&limit=5&total=none`, first.next);
      expect(second.rows).toBeGreaterThan(0);
      expect(scans(second.plans)).not.toContain('Seq Scan');
    },
  );

  test('those that wait for an agent are found in their order, page by page, without a walk through those of other inboxes', async () => {
    const reader = new AutomaticAssignmentReader(kysely, readModels);
    const inboxes = [MANY.inbox(1), MANY.inbox(3)];
    let after: WaitingConversation | undefined;
    for (let page = 0; page < 2; page++) {
      statements.length = 0;
      const waiting = await reader.waiting(ORGANIZATION, inboxes, 5, after);
      expect(waiting).toHaveLength(5);
      const [plan] = await plansOfStatements();
      if (plan === undefined) throw new Error('one statement was sent');
      expect(scans([plan])).toEqual(['Index Scan']);
      // Four levels of an index, and five rows, of each inbox.
      expect(buffers(plan)).toBeLessThan(40);
      after = waiting.at(-1);
    }
  });

  test('many filters are counted in one statement, each as the list counts it and by an index', async () => {
    const questions = manyQuestions(COUNT).map(([, question]) => question);
    const filters = questions.map((question) => queryOf(question).filter());
    const totals = [];
    for (const question of questions) {
      const query = queryOf(question);
      const { meta } = await lists.execute(new ListConversations(ORGANIZATION, query.filter(), query.sorting(), query.paging(), false));
      totals.push({ count: meta.total, countIsExact: meta.totalIsExact });
    }
    statements.length = 0;
    const narrowing = filters.filter((filter) => Object.keys(filter).length > 0);
    expect(await counts.execute(new CountConversations(ORGANIZATION, filters))).toEqual(totals);
    // Both kinds are in it: those that end at the limit, and those that do not.
    expect(new Set(totals.map(({ countIsExact }) => countIsExact)).size).toBe(2);
    expect(statements).toHaveLength(1);
    statements.length = 0;
    await counts.execute(new CountConversations(ORGANIZATION, narrowing));
    const plans = await plansOfStatements();
    expect(scans(plans).length).toBeGreaterThanOrEqual(narrowing.length);
    expect(scans(plans)).not.toContain('Seq Scan');
  });
});
