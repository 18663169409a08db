import pg from 'pg';
import { sql } from 'kysely';
import { METRICS } from '../../src/analytics/metrics.js';
import { type TestApi, startApi } from '../support/api.js';
import { makeManyFacts, MANY_NUMBERS } from '../support/many-facts.js';
import { nodes, planOf } from '../support/plans.js';

/* Numbers of a month come from indexes, however many facts the year has and however many the neighbours have. */

const COUNT = 6_000;
let api: TestApi;
let client: pg.Client;

beforeAll(async () => {
  api = await startApi();
  await makeManyFacts(api.backend.databaseUrl, 'neighbour', COUNT);
  await makeManyFacts(api.backend.databaseUrl, api.organizationId, COUNT);
  client = new pg.Client({ connectionString: api.backend.databaseUrl });
  await client.connect();
}, 120_000);
afterAll(async () => {
  await client?.end();
  await api?.stop();
});

const MONTH = [Date.parse('2026-03-01'), Date.parse('2026-04-01')];

test.each(METRICS.map(({ name, behind }) => [name, behind] as const))('%s of a month walks an index', async (_, behind) => {
  const view = api.backend.readModels.view({ name: behind.table } as never);
  const { sql: schema } = sql`${view}`.compile(api.backend.database);
  const statement = `select count(*) from ${schema} f
    where f.organization_id = '${api.organizationId}' and ${behind.where} and ${behind.at} >= ${MONTH[0]} and ${behind.at} < ${MONTH[1]}`;
  const all = nodes(await planOf(client, { sql: statement, parameters: [] }, 'foreseen'));
  expect(all.map((one) => one['Node Type'])).not.toContain('Seq Scan');
});

test('all questions that are measured have an answer', async () => {
  for (const [, path] of MANY_NUMBERS) {
    const { body } = await api.expect(200, 'GET', `/analytics/${path}`);
    expect(Array.isArray(body.data) ? body.data.length : body.data.totalConversations).toBeGreaterThan(0);
  }
});
