import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { Cursors } from '../../src/read-models/paging.js';
import { SearchReader } from '../../src/search/search.reader.js';
import { markOf } from '../../src/search/search.terms.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { makeManyConversations } from '../support/many-conversations.js';
import { CORE_SCHEMA, coreGroup, readModels } from '../support/read-schema.js';

/* Visitors of one name, as websites call those who give none: their newest conversations are found, in whatever order the rows were written. */

const ORGANIZATION = 'guests';

let database: TestDatabase;
let open: OpenDatabase;
let search: SearchReader;
let client: pg.Client;
let schema: string;
/** All conversations, the newest first. */
let newest: string[];

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 2, name: 'test', onError: () => undefined });
  const insight = readModels.groups.find(({ name }) => name === INSIGHT_GROUP);
  if (insight === undefined) throw new Error('there is no group of searches');
  for (const group of [coreGroup, insight]) await makeLiveGeneration(open.kysely, group, { id: 'log', empty: true });
  schema = insight.schema;
  search = new SearchReader(open.kysely, readModels, new Cursors(randomBytes(32)));
  client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await makeManyConversations(database.url, ORGANIZATION, 12_000);
  // Each conversation has a visitor of its own.
  await client.query(
    `insert into ${schema}.search_conversations (organization_id, conversation_id, revision, visitor_id, at, fields, terms)
     select $1, id, 0, 'of-' || id, created_at, '{}', '' from ${CORE_SCHEMA}.conversations where organization_id = $1`,
    [ORGANIZATION],
  );
  const { rows } = await client.query<{ id: string }>(
    `select conversation_id as id from ${schema}.search_conversations order by at desc, conversation_id desc`,
  );
  newest = rows.map(({ id }) => id);
}, 120_000);

afterAll(async () => {
  await client.end();
  await open.close();
  await database.drop();
});

/** Names so many visitors as `name` says, written in this order. */
async function nameVisitors(count: number, name: string, order: string): Promise<void> {
  const mark = markOf(ORGANIZATION);
  await client.query(`delete from ${schema}.search_visitors`);
  await client.query(
    `insert into ${schema}.search_visitors (organization_id, visitor_id, revision, name, name_line, grams, terms)
     select $1, visitor_id, 0, ${name}, lower(${name}), '{}', ('''${mark}guest'':1')::tsvector
     from (select * from ${schema}.search_conversations order by md5(conversation_id) limit $2) s order by ${order}`,
    [ORGANIZATION, count],
  );
  await client.query('vacuum analyze');
}

async function found(paging: Record<string, string>) {
  const { data, meta } = await search.search({ organizationId: ORGANIZATION, q: 'guest', filter: {}, paging, withhold: true });
  return { ids: data.map(({ conversation }) => conversation.id), meta };
}

const named = async () => {
  const { rows } = await client.query<{ id: string }>(`select visitor_id as id from ${schema}.search_visitors`);
  const ids = new Set(rows.map(({ id }) => id));
  return newest.filter((id) => ids.has(`of-${id}`));
};

test.each([
  ['2,500 of one name', 2_500, "'Guest'"],
  ['2,500 whose name begins so', 2_500, "'Guest ' || visitor_id"],
  ['11,000 of one name', 11_000, "'Guest'"],
  ['11,000 whose name begins so', 11_000, "'Guest ' || visitor_id"],
])(
  '%s: the newest conversations, however the rows were written',
  async (_name, count, name) => {
    for (const order of ['s.at', 's.at desc', 'md5(s.visitor_id)']) {
      await nameVisitors(count, name, order);
      const expected = await named();
      const first = await found({ limit: '25' });
      expect(first.ids).toEqual(expected.slice(0, 25));
      expect(first.meta).toMatchObject({ total: 1_000, totalIsExact: false });
      expect((await found({ limit: '25', page: '40' })).ids).toEqual(expected.slice(975, 1_000));
    }
  },
  60_000,
);

test('other work runs between the hits of a page', async () => {
  await nameVisitors(100, "'Guest'", 's.at');
  let turns = 0;
  let running = true;
  const count = () => {
    turns++;
    if (running) setImmediate(count);
  };
  count();
  await found({ limit: '100' });
  running = false;
  expect(turns).toBeGreaterThanOrEqual(100);
});
