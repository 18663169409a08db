import { randomBytes } from 'node:crypto';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { ListConversations, ListConversationsHandler } from '../../src/conversations/conversation.list.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { Cursors } from '../../src/read-models/paging.js';
import { SearchReader } from '../../src/search/search.reader.js';
import { LIST_PLANNING, SEARCH_PLANNING } from '../../src/search/search.session.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { makeManyConversations } from '../support/many-conversations.js';
import { makeManySearches, MANY_SEARCHES } from '../support/many-searches.js';
import { buffers, nodes, type Plan, planOf, type Statement } from '../support/plans.js';
import { coreGroup, readModels } from '../support/read-schema.js';

/* How PostgreSQL answers each shape of a question: by an index, or by a walk that ends. */

const COUNT = 8_000;
const MESSAGES = 5;
const ORGANIZATION = 'many';
/** Pages of 8 kB that one statement may look at. The tables have ten times as many rows as a walk to a thousand matches needs. */
const MOST_BUFFERS = 90_000;

let database: TestDatabase;
let open: OpenDatabase;
let search: SearchReader;
let lists: ListConversationsHandler;
let client: pg.Client;
/** The statements of the last question. */
const statements: Statement[] = [];

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 2, name: 'test', onError: () => undefined });
  const insight = readModels.groups.find(({ name }) => name === INSIGHT_GROUP);
  if (insight === undefined) throw new Error('there is no group of searches');
  for (const group of [coreGroup, insight]) await makeLiveGeneration(open.kysely, group, { id: 'log', empty: true });
  // Another tenant has the same words: an index without the organization would read its rows too.
  for (const organization of ['neighbour', ORGANIZATION]) {
    await makeManyConversations(database.url, organization, COUNT);
    await makeManySearches(database.url, organization, MESSAGES);
  }
  const kysely = new Kysely<Database>({
    dialect: new PostgresDialect({ pool: open.pool }),
    log: ({ query }) => void statements.push({ sql: query.sql, parameters: query.parameters }),
  });
  search = new SearchReader(kysely, readModels, new Cursors(randomBytes(32)));
  lists = new ListConversationsHandler(kysely, kysely, readModels, new Cursors(randomBytes(32)));
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
}, 300_000);

afterAll(async () => {
  await client.end();
  await open.close();
  await database.drop();
});

/** The plans of the statements since they were last forgotten, as they ran. */
async function plansOfStatements(settings: Readonly<Record<string, string>>): Promise<Plan[]> {
  const plans: Plan[] = [];
  await client.query('begin');
  for (const [name, value] of Object.entries(settings)) await client.query(`select set_config('${name}', '${value}', true)`);
  for (const statement of statements.splice(0))
    if (/\b(?:search_\w+|conversations)\b/.test(statement.sql)) plans.push(await planOf(client, statement, 'run'));
  await client.query('rollback');
  return plans;
}

function asked(query: string): { q: string; filter: Record<string, string[]> } {
  const { q = '', ...filter } = Object.fromEntries(new URLSearchParams(query));
  return { q, filter: Object.fromEntries(Object.entries(filter).map(([name, value]) => [name, [value]])) };
}

describe('the plans of a search', () => {
  test.each(MANY_SEARCHES)('%s: indexes, and rows of nobody else', async (_name, query) => {
    statements.length = 0;
    await search.search({ organizationId: ORGANIZATION, ...asked(query), paging: { limit: '25' }, withhold: false });
    const plans = await plansOfStatements(SEARCH_PLANNING);
    expect(plans.length).toBeGreaterThan(2);
    for (const plan of plans) {
      expect(nodes(plan).map((node) => node['Node Type'])).not.toContain('Seq Scan');
      expect(buffers(plan)).toBeLessThan(MOST_BUFFERS);
      // The words' index finds no row of the neighbour, who has just as many.
      for (const node of nodes(plan))
        if (node['Node Type'] === 'Bitmap Heap Scan' && node['Relation Name']?.startsWith('search_messages') === true)
          expect(node['Rows Removed by Filter'] ?? 0).toBe(0);
    }
  });

  test.each(MANY_SEARCHES)('%s, in the list: no text is looked for without an index', async (_name, query) => {
    statements.length = 0;
    const { q, filter } = asked(query);
    const sort = { by: 'updatedAt', order: 'desc' } as const;
    await lists.execute(new ListConversations(ORGANIZATION, filter, sort, { total: 'none' }, false, q));
    for (const plan of await plansOfStatements(LIST_PLANNING)) {
      const scanned = nodes(plan).filter((node) => node['Node Type'] === 'Seq Scan');
      expect(scanned.map((node) => node['Relation Name']).filter((name) => name?.startsWith('search_messages') === true)).toEqual([]);
      expect(buffers(plan)).toBeLessThan(MOST_BUFFERS);
    }
  });

  test('a rare word reads few pages, however many messages there are', async () => {
    statements.length = 0;
    await search.search({ organizationId: ORGANIZATION, q: 'w49001 w48002', filter: {}, paging: { limit: '25' }, withhold: true });
    for (const plan of await plansOfStatements(SEARCH_PLANNING)) expect(buffers(plan)).toBeLessThan(200);
  });
});
