import { randomBytes } from 'node:crypto';
import { Kysely, PostgresDialect, sql } from 'kysely';
import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { targetOf } from '../../projections/runtime/rows.js';
import type { ProjectedEvent } from '../../projections/runtime/projection.js';
import { PeopleProjection } from '../../projections/people.projection.js';
import type { DomainEvent, Metadata, Recorded } from '../../src/event-store/aggregate.js';
import { type Position, type StreamKind, streamName } from '../../src/event-store/event-store.js';
import { type Database, openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { ThreadlogError } from '../../src/errors.js';
import { Cursors } from '../../src/read-models/paging.js';
import { type FoldPage, FoldLists, type ListQuery } from '../../src/read-models/fold-list.js';
import { DataKey } from '../../src/security/sealing.js';
import { visitorList } from '../../src/visitors/visitor.list.js';
import { sealVisitor } from '../../src/visitors/visitor.sealing.js';
import { companyList } from '../../src/companies/company.list.js';
import { inboxList } from '../../src/inboxes/inbox.list.js';
import { agentList } from '../../src/team/agent.list.js';
import { teamList } from '../../src/team/team.list.js';
import { apiKeyList } from '../../src/api-keys/api-key.list.js';
import { viewList } from '../../src/views/view.list.js';
import { cannedResponseList } from '../../src/canned-responses/canned-response.list.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { coreGroup, readModels } from '../support/read-schema.js';
import { nodes, type Plan, planOf } from '../support/plans.js';

const BIG = 12_000;
const key = new DataKey(randomBytes(32));
let database: TestDatabase;
let open: OpenDatabase;
let lists: FoldLists;
/** The statements that the queries ran, in the order in which they ended. */
const statements: { sql: string; parameters: readonly unknown[] }[] = [];

function event(
  kind: StreamKind,
  organizationId: string,
  streamId: string,
  type: string,
  data: object,
  at: number,
  revision = 0,
): ProjectedEvent {
  const metadata = { occurredAt: new Date(at).toISOString() } as Metadata;
  const recorded: Recorded<DomainEvent> = {
    type,
    data: type === 'VisitorCreated' ? sealVisitor(key, data) : data,
    id: 'id',
    stream: streamName(kind, organizationId, streamId),
    revision,
    position: '0' as Position,
    metadata,
  };
  return { kind, organizationId, streamId, event: recorded, key };
}

const START = Date.UTC(2026, 0, 1);

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 4, name: 'test', onError: () => undefined });
  const projection = new PeopleProjection();
  await makeLiveGeneration(open.kysely, coreGroup, { id: 'log', empty: true });
  const table = await liveTables();
  const apply = (events: readonly ProjectedEvent[]) =>
    open.kysely.transaction().execute((tx) => projection.apply(events, targetOf(tx, table)));
  // `big` has enough of everything that a plan without its index shows; one name in seven is given twice, one visitor in ten is archived.
  const big = Array.from({ length: BIG }, (_, i) => {
    const data = {
      userId: `u${i}`,
      name: `Name ${i % Math.floor(BIG / 7)}`,
      email: `Person${i}@example.com`,
      ...(i % 100 === 0 ? { companyId: 'acme' } : {}),
    };
    return event('visitor', 'big', `v${i}`, 'VisitorCreated', data, START + i);
  });
  const archived = big
    .filter((_, i) => i % 10 === 5)
    .map(({ streamId }) => event('visitor', 'big', streamId, 'VisitorArchived', {}, START + BIG, 1));
  for (let i = 0; i < BIG; i += 4_000) await apply(big.slice(i, i + 4_000));
  await apply(archived);
  for (const organization of ['big', 'small']) {
    const count = organization === 'big' ? 3_000 : 3;
    await apply(
      Array.from({ length: count }, (_, i) => [
        event('company', organization, `c${i}`, 'CompanyCreated', { name: `Company ${i}`, attributes: {} }, START + i),
        event(
          'inbox',
          organization,
          `i${i}`,
          'InboxCreated',
          { name: `Inbox ${i}`, assignment: { mode: 'manual', agentIds: [], cap: null } },
          START + i,
        ),
        event('assignee', organization, `a${i}`, 'AgentCreated', { name: `Agent ${i}`, availability: 'online' }, START + i),
        event('assignee', organization, `t${i}`, 'TeamCreated', { name: `Team ${i}`, agentIds: [`a${i}`] }, START + i),
        event(
          'cannedresponse',
          organization,
          `r${i}`,
          'CannedResponseCreated',
          { title: `Response ${i}`, shortcut: `/R${i}`, content: 'Hi!' },
          START + i,
        ),
        event(
          'view',
          organization,
          `w${i}`,
          'ViewCreated',
          {
            name: `View ${i}`,
            filter: {},
            sort: { by: 'createdAt', order: 'asc' },
            shared: i % 100 === 0,
            owner: { type: 'agent', id: `a${i % 300}` },
          },
          START + i,
        ),
        event('apikey', organization, `k${i}`, 'ApiKeyCreated', { name: `Key ${i}`, role: 'agent', prefix: 'tl_12345' }, START + i),
      ]).flat(),
    );
    await apply([
      event('organization', organization, organization, 'OrganizationCreated', { name: organization }, START),
      event('organization', organization, organization, 'DefaultInboxChanged', { inboxId: 'i1' }, START, 1),
      event('apikey', organization, 'k2', 'ApiKeyRevoked', {}, START + BIG, 1),
      event('assignee', organization, 'a2', 'AssigneeArchived', {}, START + BIG, 1),
    ]);
  }
  await apply([
    event(
      'visitor',
      'small',
      'ada',
      'VisitorCreated',
      { userId: 'u1', name: 'ada', email: 'Ada@Example.com', attributes: { seats: 3 } },
      START + 3,
    ),
    event(
      'visitor',
      'small',
      'bob',
      'VisitorCreated',
      { userId: 'U1', name: 'Bob', email: 'Bob@München.example', companyId: 'acme' },
      START + 2,
    ),
    event('visitor', 'small', 'nameless', 'VisitorCreated', {}, START + 1),
    event('visitor', 'small', 'gone', 'VisitorCreated', { name: 'Gone', email: 'gone@example.com' }, START),
    event('visitor', 'small', 'gone', 'VisitorArchived', {}, START + 9, 1),
  ]);
  await apply(
    ['zebra', 'Zoë', 'Äpfel', 'apple', 'Zoe', 'Ørsted', 'Émile', 'eagle', 'Ünal', '漢字', 'ähre', '1st'].map((name, i) =>
      event('company', 'letters', `l${i}`, 'CompanyCreated', { name, attributes: {} }, START + i),
    ),
  );
  await sql`analyze`.execute(open.kysely);

  const kysely = new Kysely<Database>({
    dialect: new PostgresDialect({ pool: open.pool }),
    log: ({ query }) => void statements.push({ sql: query.sql, parameters: query.parameters }),
  });
  lists = new FoldLists(kysely, readModels, new Cursors(randomBytes(32)));
}, 60_000);

afterAll(async () => {
  await open.close();
  await database.drop();
});

async function liveTables(): Promise<(name: string) => string> {
  const { generation } = await open.kysely.selectFrom('read.checkpoints').select('generation').executeTakeFirstOrThrow();
  return (name) => `read.${name}_g${generation}`;
}

async function faults(run: Promise<unknown>): Promise<string[]> {
  try {
    await run;
  } catch (error) {
    if (error instanceof ThreadlogError && error.code === 'validation_failed')
      return (error.extra.errors ?? []).map(({ field }) => field).sort();
    throw error;
  }
  return [];
}

const idsOf = ({ data }: FoldPage<{ id: string }>) => data.map(({ id }) => id);

describe('a list', () => {
  test('shows its own organization alone, newest first', async () => {
    const page = await lists.page(visitorList, 'small', {});
    expect(idsOf(page)).toEqual(['ada', 'bob', 'nameless']);
    expect(page.meta).toEqual({ page: 1, limit: 25, total: 3, totalIsExact: true, hasMore: false, nextCursor: null });
    expect(page.data[0]).toEqual({
      id: 'ada',
      userId: 'u1',
      name: 'ada',
      email: 'Ada@Example.com',
      phone: null,
      avatarUrl: null,
      plan: null,
      companyId: null,
      attributes: { seats: 3 },
      archived: false,
      revision: 0,
      createdAt: '2026-01-01T00:00:00.003Z',
      updatedAt: '2026-01-01T00:00:00.003Z',
    });
    expect((await lists.page(visitorList, 'none', {})).meta).toMatchObject({ total: 0, hasMore: false });
  });

  test('sorts by name without regard to case, and by age, in both directions', async () => {
    expect(idsOf(await lists.page(visitorList, 'small', { sort: 'name' }))).toEqual(['nameless', 'ada', 'bob']);
    expect(idsOf(await lists.page(visitorList, 'small', { sort: 'name', order: 'desc' }))).toEqual(['bob', 'ada', 'nameless']);
    expect(idsOf(await lists.page(visitorList, 'small', { sort: 'createdAt', order: 'asc' }))).toEqual(['nameless', 'bob', 'ada']);
  });

  test('sorts letters with marks beside those without, page by page', async () => {
    const names: string[] = [];
    let cursor: string | null = null;
    do {
      const query: ListQuery = { sort: 'name', limit: '1', ...(cursor === null ? {} : { cursor }) };
      const page: FoldPage<{ name: string }> = await lists.page(companyList, 'letters', query);
      names.push(...page.data.map(({ name }) => name));
      cursor = page.meta.nextCursor;
    } while (cursor !== null);
    expect(names).toEqual(['1st', 'ähre', 'Äpfel', 'apple', 'eagle', 'Émile', 'Ørsted', 'Ünal', 'zebra', 'Zoe', 'Zoë', '漢字']);
    const page = await lists.page(companyList, 'letters', { sort: 'name', order: 'desc' });
    expect(page.data.map(({ name }) => name)).toEqual(names.toReversed());
  });

  test('filters visitors by company, userId, e-mail and end', async () => {
    expect(idsOf(await lists.page(visitorList, 'small', { companyId: 'acme' }))).toEqual(['bob']);
    expect(idsOf(await lists.page(visitorList, 'small', { userId: 'u1' }))).toEqual(['ada']);
    expect(idsOf(await lists.page(visitorList, 'small', { userId: 'U1' }))).toEqual(['bob']);
    expect(idsOf(await lists.page(visitorList, 'small', { email: ' ADA@example.com' }))).toEqual(['ada']);
    expect(idsOf(await lists.page(visitorList, 'small', { email: 'bob@xn--mnchen-3ya.example' }))).toEqual(['bob']);
    expect(idsOf(await lists.page(visitorList, 'small', { email: 'gone@example.com' }))).toEqual([]);
    expect(idsOf(await lists.page(visitorList, 'small', { email: 'gone@example.com', archived: 'true' }))).toEqual(['gone']);
    expect(idsOf(await lists.page(visitorList, 'small', { archived: 'true' }))).toEqual(['gone']);
    expect((await lists.page(visitorList, 'small', { userId: 'u1', companyId: 'acme' })).meta.total).toBe(0);
  });

  test('of each setting shows what its route shows', async () => {
    expect(idsOf(await lists.page(companyList, 'small', { sort: 'name' }))).toEqual(['c0', 'c1', 'c2']);
    expect((await lists.page(inboxList, 'small', { sort: 'name' })).data.map(({ id, isDefault }) => [id, isDefault])).toEqual([
      ['i0', false],
      ['i1', true],
      ['i2', false],
    ]);
    expect(idsOf(await lists.page(agentList, 'small', { sort: 'name' }))).toEqual(['a0', 'a1']);
    expect(idsOf(await lists.page(agentList, 'small', { archived: 'true' }))).toEqual(['a2']);
    expect((await lists.page(teamList, 'small', { sort: 'name' })).data).toMatchObject([
      { id: 't0', agentIds: ['a0'] },
      { id: 't1' },
      { id: 't2' },
    ]);
    expect((await lists.page(apiKeyList, 'small', { sort: 'name' })).data).toMatchObject([{ id: 'k0', revokedAt: null }, { id: 'k1' }]);
    expect((await lists.page(apiKeyList, 'small', { archived: 'true' })).data).toMatchObject([{ id: 'k2', prefix: 'tl_12345' }]);
  });

  test('names every parameter that it does not know or cannot read', async () => {
    expect(
      await faults(
        lists.page(visitorList, 'small', { nmae: 'x', archived: 'yes', sort: 'email', order: 'up', companyId: ['a', 'b'], email: 'a\0b' }),
      ),
    ).toEqual(['archived', 'companyId', 'email', 'nmae', 'order', 'sort']);
    expect(await faults(lists.page(visitorList, 'small', { limit: '101', page: '0', total: 'all' }))).toEqual(['limit', 'page', 'total']);
    expect(await faults(lists.page(companyList, 'small', { email: 'a@example.com' }))).toEqual(['email']);
  });
});

describe('paging', () => {
  test('walks the whole list by cursor, each row once, also where names are equal', async () => {
    for (const query of [
      { sort: 'name', companyId: 'acme' },
      { sort: 'name', order: 'desc', companyId: 'acme' },
      { companyId: 'acme' },
    ] as ListQuery[]) {
      const seen: string[] = [];
      let cursor: string | null = null;
      do {
        const page: FoldPage<{ id: string }> = await lists.page(visitorList, 'big', {
          ...query,
          limit: '50',
          ...(cursor === null ? {} : { cursor }),
        });
        seen.push(...idsOf(page));
        expect(page.meta.hasMore).toBe(page.meta.nextCursor !== null);
        cursor = page.meta.nextCursor;
      } while (cursor !== null);
      expect(new Set(seen).size).toBe(seen.length);
      expect(seen).toHaveLength(BIG / 100);
      const whole = [
        ...idsOf(await lists.page(visitorList, 'big', { ...query, limit: '100' })),
        ...idsOf(await lists.page(visitorList, 'big', { ...query, limit: '100', page: '2' })),
      ];
      expect(seen).toEqual(whole);
    }
  });

  test('a cursor is good for its own list, filter and order alone', async () => {
    const { meta } = await lists.page(visitorList, 'big', { limit: '2', sort: 'name' });
    const cursor = meta.nextCursor!;
    expect(await faults(lists.page(visitorList, 'big', { cursor, sort: 'name' }))).toEqual([]);
    for (const other of [{}, { sort: 'name', order: 'desc' }, { sort: 'name', archived: 'true' }, { sort: 'name', companyId: 'acme' }])
      expect(await faults(lists.page(visitorList, 'big', { cursor, ...other }))).toEqual(['cursor']);
    expect(await faults(lists.page(visitorList, 'small', { cursor, sort: 'name' }))).toEqual(['cursor']);
    expect(await faults(lists.page(companyList, 'big', { cursor, sort: 'name' }))).toEqual(['cursor']);
    expect(await faults(lists.page(visitorList, 'big', { cursor: `${cursor}x`, sort: 'name' }))).toEqual(['cursor']);
  });

  test('a total is exact to 10,000 and a floor past it, and is left out when nobody asks', async () => {
    expect((await lists.page(visitorList, 'big', { archived: 'true' })).meta).toMatchObject({ total: BIG / 10, totalIsExact: true });
    expect((await lists.page(visitorList, 'big', {})).meta).toMatchObject({ total: 10_000, totalIsExact: false, hasMore: true });
    statements.length = 0;
    expect(Object.keys((await lists.page(visitorList, 'big', { total: 'none' })).meta)).toEqual(['page', 'limit', 'hasMore', 'nextCursor']);
    expect(statements).toHaveLength(1);
  });
});

describe('every list is read through an index', () => {
  /** The plans of the page and of the total. */
  async function plansOf(run: () => Promise<unknown>): Promise<Plan[][]> {
    statements.length = 0;
    await run();
    const plans: Plan[][] = [];
    // The page first: which of the two ends first is chance.
    const pageFirst = [...statements].sort((a, b) => Number(a.sql.includes('count(')) - Number(b.sql.includes('count(')));
    for (const statement of pageFirst) {
      const client = await open.pool.connect();
      try {
        plans.push(nodes(await planOf(client, statement, 'foreseen')));
      } finally {
        client.release();
      }
    }
    return plans;
  }

  const orders = [{}, { order: 'asc' }, { sort: 'name' }, { sort: 'name', order: 'desc' }] as const;
  const byTitle = (query: ListQuery): ListQuery => (query['sort'] === 'name' ? { ...query, sort: 'title' } : query);
  const questions: [string, (query: ListQuery) => Promise<unknown>, ListQuery, (sort: string) => RegExp][] = [
    ['visitors', (q) => lists.page(visitorList, 'big', q), {}, (sort) => new RegExp(`^visitors_g\\d+_${sort}$`)],
    ['archived visitors', (q) => lists.page(visitorList, 'big', q), { archived: 'true' }, (sort) => new RegExp(`^visitors_g\\d+_${sort}$`)],
    [
      'visitors of a company',
      (q) => lists.page(visitorList, 'big', q),
      { companyId: 'acme' },
      (sort) => new RegExp(`^visitors_g\\d+_company_id_${sort}$`),
    ],
    ['a visitor by userId', (q) => lists.page(visitorList, 'big', q), { userId: 'u77' }, () => /^visitors_g\d+_user_id$/],
    ['a visitor by e-mail', (q) => lists.page(visitorList, 'big', q), { email: 'person77@example.com' }, () => /^visitors_g\d+_email_key$/],
    ['companies', (q) => lists.page(companyList, 'big', q), {}, (sort) => new RegExp(`^companies_g\\d+_${sort}$`)],
    ['inboxes', (q) => lists.page(inboxList, 'big', q), {}, (sort) => new RegExp(`^inboxes_g\\d+_${sort}$`)],
    ['agents', (q) => lists.page(agentList, 'big', q), {}, (sort) => new RegExp(`^assignees_g\\d+_type_${sort}$`)],
    ['teams', (q) => lists.page(teamList, 'big', q), {}, (sort) => new RegExp(`^assignees_g\\d+_type_${sort}$`)],
    ['API keys', (q) => lists.page(apiKeyList, 'big', q), {}, (sort) => new RegExp(`^api_keys_g\\d+_${sort}$`)],
    [
      'canned responses',
      (q) => lists.page(cannedResponseList, 'big', byTitle(q)),
      {},
      (sort) => new RegExp(`^canned_responses_g\\d+_${sort}$`),
    ],
    [
      'a canned response by shortcut',
      (q) => lists.page(cannedResponseList, 'big', byTitle(q)),
      { shortcut: '/r77' },
      () => /^canned_responses_g\d+_shortcut$/,
    ],
  ];

  test.each(questions)('%s', async (_, list, filter, indexFor) => {
    for (const order of orders) {
      const query = { ...filter, ...order, limit: '10' };
      const [page, total] = await plansOf(() => list(query));
      const index = indexFor('sort' in order ? 'sort_name' : 'created_at');
      const main = (plan: Plan[]) => plan.filter((node) => node['Relation Name']?.startsWith('organizations_') === false);
      const used = page!.map((node) => node['Index Name']).filter((name) => name !== undefined);
      expect(used).toContainEqual(expect.stringMatching(index));
      expect(main(page!).map((node) => node['Node Type'])).not.toContain('Seq Scan');
      // Read in the order that is asked for, and so no further than the page; by a unique key there is one row to sort.
      if (!('userId' in filter || 'email' in filter || 'shortcut' in filter))
        expect(page!.map((node) => node['Node Type'])).not.toContain('Sort');
      expect(total).toBeDefined();
    }
  });

  test.each(orders.flatMap((order) => [{}, { shared: 'true' }, { shared: 'false' }].map((filter) => ({ ...order, ...filter }))))(
    'views that an agent may know of, and an auditor: %j',
    async (query) => {
      const own = viewList({ self: { type: 'agent', id: 'a7' }, role: 'agent' });
      const found = await lists.page(own, 'big', { ...query, limit: '100' });
      // 30 are shared, and 10 are the agent's.
      expect(found.meta.total).toBe(query.shared === 'true' ? 30 : query.shared === 'false' ? 10 : 40);
      const column = 'sort' in query ? 'sort_name' : 'created_at';
      for (const plan of await plansOf(() => lists.page(own, 'big', { ...query, limit: '10' }))) {
        expect(plan.map((node) => node['Node Type'])).not.toContain('Seq Scan');
        expect(plan.map((node) => node['Index Name'])).toContainEqual(expect.stringMatching(/^saved_views_g\d+_visible_to_/));
      }
      const all = viewList({ self: { type: 'apiKey', id: 'k' }, role: 'auditor' });
      const [page] = await plansOf(() => lists.page(all, 'big', { ...query, limit: '10' }));
      expect(page!.map((node) => node['Node Type'])).not.toContain('Sort');
      expect(page!.map((node) => node['Index Name'])).toContainEqual(
        expect.stringMatching(new RegExp(`^saved_views_g\\d+_(visible_to_)?${column}$`)),
      );
    },
  );

  test('the next page starts where the cursor points', async () => {
    const first = await lists.page(visitorList, 'big', { sort: 'name', limit: '10' });
    const [page] = await plansOf(() => lists.page(visitorList, 'big', { sort: 'name', limit: '10', cursor: first.meta.nextCursor! }));
    expect(page!.map((node) => node['Node Type'])).not.toContain('Sort');
    expect(JSON.stringify(page)).toMatch(/Index Cond[^}]*ROW\([^}]*sort_name/);
  });
});
