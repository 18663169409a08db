import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { sql } from 'kysely';
import { PeopleProjection } from '../../projections/people.projection.js';
import { targetOf } from '../../projections/runtime/rows.js';
import type { ProjectedEvent, ProjectionTarget } from '../../projections/runtime/projection.js';
import { apiKeyAggregate, type ApiKeyEvent, changeKey, createKey, revokeKey } from '../../src/api-keys/api-key.js';
import {
  archiveCannedResponse,
  cannedResponseAggregate,
  type CannedResponseEvent,
  changeCannedResponse,
  createCannedResponse,
  unarchiveCannedResponse,
  voidShortcutClaim,
} from '../../src/canned-responses/canned-response.js';
import {
  archiveCompany,
  changeCompany,
  companyAggregate,
  type CompanyEvent,
  createCompany,
  unarchiveCompany,
} from '../../src/companies/company.js';
import type { DomainEvent, Metadata, Recorded } from '../../src/event-store/aggregate.js';
import { type Position, type StreamKind, streamName } from '../../src/event-store/event-store.js';
import { archiveInbox, changeInboxFields, createInbox, inboxAggregate, type InboxEvent, unarchiveInbox } from '../../src/inboxes/inbox.js';
import {
  changeDefaultInbox,
  createOrganization,
  organizationAggregate,
  type OrganizationEvent,
  reinstateInbox,
  retireInbox,
} from '../../src/organizations/organization.js';
import { openDatabase, type OpenDatabase } from '../../src/database/database.js';
import { ThreadlogError } from '../../src/errors.js';
import { ddlOf } from '../../src/read-models/table.js';
import { DataKey, ERASED } from '../../src/security/sealing.js';
import {
  archiveAssignee,
  assigneeAggregate,
  type AssigneeEvent,
  changeAgent,
  changeTeam,
  createAgent,
  createTeam,
  unarchiveAssignee,
} from '../../src/team/assignee.js';
import { archiveRule, changeRule, createRule, ruleAggregate, type RuleEvent, unarchiveRule } from '../../src/automation/rule.js';
import { archiveView, changeView, createView, unarchiveView, viewAggregate, type ViewEvent } from '../../src/views/view.js';
import {
  archiveVisitor,
  changeVisitor,
  createVisitor,
  evolveVisitor,
  initialVisitor,
  revokeTokens,
  type Visitor,
  visitorAggregate,
  type VisitorEvent,
} from '../../src/visitors/visitor.js';
import { unsealVisitor, type PlainVisitor, sealVisitor } from '../../src/visitors/visitor.sealing.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

const key = new DataKey(randomBytes(32));
const TABLES = [
  'visitors',
  'companies',
  'inboxes',
  'assignees',
  'api_keys',
  'canned_responses',
  'saved_views',
  'automation_rules',
  'organizations',
];

let database: TestDatabase;
let open: OpenDatabase;
let generations = 0;

beforeAll(async () => {
  database = await createDatabase();
  open = openDatabase({ url: database.url, poolSize: 4, name: 'test', onError: () => undefined });
  await sql`create schema rows`.execute(open.kysely);
});

afterAll(async () => {
  await open.close();
  await database.drop();
});

/** Empty tables of their own. */
async function newTarget(): Promise<ProjectionTarget> {
  const generation = ++generations;
  const table = (name: string) => `rows.${name}_g${generation}`;
  for (const one of new PeopleProjection().tables)
    for (const statement of ddlOf(one, table(one.name))) await sql.raw(statement).execute(open.kysely);
  return targetOf(open.kysely, table);
}

/** Delivers each batch as the runtime does: in a transaction of its own. */
async function deliver(target: ProjectionTarget, ...batches: (readonly ProjectedEvent[])[]): Promise<void> {
  const projection = new PeopleProjection();
  for (const batch of batches) await open.kysely.transaction().execute((tx) => projection.apply(batch, targetOf(tx, target.table)));
}

async function rowsOf(target: ProjectionTarget): Promise<Record<string, readonly Record<string, unknown>[]>> {
  const found: Record<string, readonly Record<string, unknown>[]> = {};
  for (const name of TABLES) {
    const { rows } = await sql<{
      row: string;
    }>`select to_json(t)::text as row from ${sql.raw(target.table(name))} t order by organization_id, id`.execute(open.kysely);
    // Through json, which keeps the order of names: rows that are written in another order are other bytes in a dump.
    found[name] = rows.map(({ row }) => JSON.parse(row) as Record<string, unknown>);
  }
  return found;
}

const at = (n: number) => new Date(Date.UTC(2026, 0, 1) + n * 1_000).toISOString();

/** A history that the decisions themselves made, interleaved, with the key of the personal fields as every projection gets it. */
class History {
  readonly events: ProjectedEvent[] = [];
  readonly streams = new Map<
    string,
    { kind: StreamKind; organizationId: string; id: string; state: unknown; recorded: Recorded<DomainEvent>[] }
  >();

  constructor(private readonly opened: DataKey | null = key) {}

  /** Refused decisions add nothing. */
  add<S, E extends DomainEvent>(
    aggregate: { kind: StreamKind; initial: S; evolve: (state: S, event: Recorded<E>) => S },
    id: string,
    decide: (state: S) => readonly E[],
    organizationId = 'org',
  ): void {
    const stream = streamName(aggregate.kind, organizationId, id);
    let entry = this.streams.get(stream);
    if (entry === undefined)
      this.streams.set(stream, (entry = { kind: aggregate.kind, organizationId, id, state: aggregate.initial, recorded: [] }));
    let decided: readonly E[];
    try {
      decided = decide(entry.state as S);
    } catch (error) {
      if (error instanceof ThreadlogError) return;
      throw error;
    }
    for (const event of decided) {
      const metadata = { occurredAt: at(this.events.length) } as Metadata;
      const recorded = {
        ...event,
        id: 'id',
        stream,
        revision: entry.recorded.length,
        position: String(this.events.length) as Position,
        metadata,
      } as Recorded<E>;
      entry.recorded.push(recorded);
      entry.state = aggregate.evolve(entry.state as S, recorded);
      this.events.push({
        kind: aggregate.kind,
        organizationId,
        streamId: id,
        event: JSON.parse(JSON.stringify(recorded)) as Recorded<DomainEvent>,
        key: this.opened ?? undefined,
      });
    }
  }

  /** Kind, id, revision and whole state of every row that there must be. */
  expected() {
    return [...this.streams.values()]
      .filter(({ recorded }) => recorded.length > 0)
      .map(({ kind, organizationId, id, state, recorded }) => ({
        kind,
        organizationId,
        id,
        revision: recorded.length - 1,
        state: kind === 'visitor' ? unsealVisitor(state as Visitor, this.opened ?? undefined) : state,
      }));
  }
}

const visitors = {
  kind: 'visitor',
  initial: initialVisitor as Visitor,
  evolve: evolveVisitor as (state: Visitor, event: Recorded<VisitorEvent>) => Visitor,
} as const;

const KIND_TABLE: Readonly<Record<string, string>> = {
  visitor: 'visitors',
  company: 'companies',
  inbox: 'inboxes',
  assignee: 'assignees',
  apikey: 'api_keys',
  cannedresponse: 'canned_responses',
  view: 'saved_views',
  rule: 'automation_rules',
  organization: 'organizations',
};

/** Rows = fold, row by row, and no row besides. */
function assertRows(rows: Awaited<ReturnType<typeof rowsOf>>, history: History): void {
  const expected = history.expected();
  expect(Object.values(rows).reduce((sum, { length }) => sum + length, 0)).toBe(expected.length);
  for (const { kind, organizationId, id, revision, state } of expected) {
    const row = rows[KIND_TABLE[kind]!]!.find((one) => one['organization_id'] === organizationId && one['id'] === id);
    const dated = state as { createdAt: string; updatedAt: string };
    expect(row).toMatchObject({ revision, created_at: Date.parse(dated.createdAt), updated_at: Date.parse(dated.updatedAt) });
    expect(row!['state']).toEqual(JSON.parse(JSON.stringify(state)));
  }
}

describe('a row', () => {
  test('of a canned response holds its shortcut as it is compared, and none when it was never made', async () => {
    const history = new History();
    const add = (id: string, decision: ReturnType<typeof createCannedResponse>) =>
      history.add<typeof cannedResponseAggregate.initial, CannedResponseEvent>(cannedResponseAggregate, id, decision);
    add('a', createCannedResponse({ title: 'Greeting', shortcut: '/Hello', content: 'Hi!' }));
    add('a', archiveCannedResponse());
    add('b', voidShortcutClaim('/x'));
    const target = await newTarget();
    await deliver(target, history.events);
    const rows = await rowsOf(target);
    assertRows(rows, history);
    expect(rows['canned_responses']).toEqual([
      expect.objectContaining({ id: 'a', name: 'Greeting', sort_name: 'greeting', shortcut: '/hello', archived: true }),
      expect.objectContaining({ id: 'b', name: '', shortcut: null, archived: false }),
    ]);
  });

  test('of a visitor holds what joins and filters need', async () => {
    const history = new History();
    history.add(
      visitors,
      'v',
      createVisitor(sealVisitor(key, { userId: 'U-1', name: 'Ünal', email: 'Ada@Example.com', attributes: { b: 1, a: 'x' } })),
    );
    history.add(
      visitors,
      'v',
      changeVisitor(
        sealVisitor(key, { phone: '+1', avatarUrl: 'https://x.io/a', plan: 'pro', companyId: 'acme', attributes: { b: null, c: true } }),
      ),
    );
    history.add(visitors, 'v', archiveVisitor());
    const target = await newTarget();
    await deliver(target, history.events);
    const rows = await rowsOf(target);
    assertRows(rows, history);
    expect(rows['visitors']).toEqual([
      expect.objectContaining({
        organization_id: 'org',
        id: 'v',
        revision: 2,
        name: 'Ünal',
        sort_name: 'ünal',
        user_id: 'U-1',
        email: 'Ada@Example.com',
        email_key: 'ada@example.com',
        phone: '+1',
        avatar_url: 'https://x.io/a',
        plan: 'pro',
        company_id: 'acme',
        archived: true,
        created_at: Date.parse(at(0)),
        updated_at: Date.parse(at(2)),
        state: expect.objectContaining({ attributes: { a: 'x', c: true } }) as unknown,
      }),
    ]);
  });

  test('of an erased visitor holds constants, and no address that a filter could find', async () => {
    const history = new History(null);
    history.add(
      visitors,
      'v',
      createVisitor(sealVisitor(key, { userId: 'u', name: 'Ada', email: 'ada@example.com', attributes: { secret: 1 } })),
    );
    const target = await newTarget();
    await deliver(target, history.events);
    const rows = await rowsOf(target);
    assertRows(rows, history);
    expect(rows['visitors']).toEqual([expect.objectContaining({ name: ERASED, email: ERASED, email_key: null, phone: null })]);
    expect(JSON.stringify(rows)).not.toMatch(/Ada|ada@|secret/);
  });

  test('of the same id in two organizations are two', async () => {
    const history = new History();
    history.add(companyAggregate, 'acme', createCompany({ name: 'One' }), 'one');
    history.add(companyAggregate, 'acme', createCompany({ name: 'Two' }), 'two');
    history.add(companyAggregate, 'acme', changeCompany({ name: 'Two of them' }), 'two');
    const target = await newTarget();
    await deliver(target, history.events.slice(0, 2), history.events.slice(2));
    const rows = await rowsOf(target);
    expect(rows['companies']!.map(({ organization_id, name }) => [organization_id, name])).toEqual([
      ['one', 'One'],
      ['two', 'Two of them'],
    ]);
    assertRows(rows, history);
  });

  test('of a name of any script and length fits its index', async () => {
    const history = new History();
    history.add(companyAggregate, 'long', createCompany({ name: '𝔘😀'.repeat(2_000) }));
    const target = await newTarget();
    await deliver(target, history.events);
    expect(Array.from((await rowsOf(target))['companies']![0]!['sort_name'] as string)).toHaveLength(200);
  });

  test('counts an event once, also when it comes again with newer ones', async () => {
    const history = new History();
    history.add(organizationAggregate, 'org', createOrganization('Org'));
    history.add(organizationAggregate, 'org', changeDefaultInbox('a', 9));
    history.add(organizationAggregate, 'org', retireInbox('b', 4));
    history.add(organizationAggregate, 'org', changeDefaultInbox('c', 9));
    const target = await newTarget();
    await deliver(target, history.events.slice(0, 3), history.events.slice(1));
    const rows = await rowsOf(target);
    assertRows(rows, history);
    expect(rows['organizations']).toMatchObject([
      { default_inbox_id: 'c', state: { retiredInboxes: [{ inboxId: 'b', inboxRevision: 4 }] } },
    ]);
  });

  test('is not written from the middle of a stream', async () => {
    const history = new History();
    history.add(companyAggregate, 'acme', createCompany({ name: 'A' }));
    history.add(companyAggregate, 'acme', changeCompany({ name: 'B' }));
    history.add(companyAggregate, 'acme', changeCompany({ name: 'C' }));
    const target = await newTarget();
    await expect(deliver(target, history.events.slice(1))).rejects.toThrow('follows -1');
    await deliver(target, history.events.slice(0, 1));
    await expect(deliver(target, history.events.slice(2))).rejects.toThrow('follows 0');
    expect((await rowsOf(target))['companies']).toMatchObject([{ name: 'A', revision: 0 }]);
  });
});

const ids = fc.constantFrom('a', 'b', 'c');
const name = fc.constantFrom('Ada', 'Bob', 'Ünal', 'ada', '😀');
const attributes = fc.dictionary(fc.constantFrom('x', 'y', '1', '0'), fc.constantFrom('t', 2, true, null), { maxKeys: 3 });
const plain: fc.Arbitrary<PlainVisitor> = fc.record(
  {
    userId: name,
    name,
    email: fc.constantFrom('a@x.io', 'B@x.io', null),
    plan: fc.constantFrom('pro', null),
    companyId: fc.constantFrom('acme', null),
    attributes,
  },
  { requiredKeys: [] },
);
const ada = { type: 'agent', id: 'ada' } as const;
const rule = { name: 'R', trigger: 'note.added', conditions: [], actions: [], enabled: true, order: 0, stopOnMatch: false } as const;
const view = { filter: { status: ['open'] }, sort: { by: 'createdAt', order: 'asc' } } as const;
const step: fc.Arbitrary<(history: History) => void> = fc.oneof(
  fc.tuple(ids, plain).map(
    ([id, given]) =>
      (h: History) =>
        h.add(visitors, id, createVisitor(sealVisitor(key, given))),
  ),
  fc.tuple(ids, plain).map(
    ([id, given]) =>
      (h: History) =>
        h.add(visitors, id, changeVisitor(sealVisitor(key, given))),
  ),
  ids.map((id) => (h: History) => h.add(visitors, id, archiveVisitor())),
  ids.map((id) => (h: History) => h.add(visitors, id, revokeTokens(0))),
  fc.tuple(ids, name, attributes).map(
    ([id, n, a]) =>
      (h: History) =>
        h.add<typeof companyAggregate.initial, CompanyEvent>(companyAggregate, id, createCompany({ name: n, attributes: a })),
  ),
  fc.tuple(ids, name, attributes).map(
    ([id, n, a]) =>
      (h: History) =>
        h.add<typeof companyAggregate.initial, CompanyEvent>(companyAggregate, id, changeCompany({ name: n, attributes: a })),
  ),
  ids.map((id) => (h: History) => h.add<typeof companyAggregate.initial, CompanyEvent>(companyAggregate, id, archiveCompany())),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof inboxAggregate.initial, InboxEvent>(inboxAggregate, id, createInbox({ name: n, color: 'red' })),
  ),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof inboxAggregate.initial, InboxEvent>(inboxAggregate, id, changeInboxFields({ description: n, color: null })),
  ),
  ids.map((id) => (h: History) => h.add<typeof inboxAggregate.initial, InboxEvent>(inboxAggregate, id, archiveInbox())),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, createAgent({ name: n, email: 'a@x.io' })),
  ),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, createTeam({ name: n, agentIds: ['a'] })),
  ),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, changeAgent({ name: n, availability: 'away' })),
  ),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, changeTeam({ name: n, agentIds: [] })),
  ),
  ids.map((id) => (h: History) => h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, archiveAssignee('agent'))),
  ids.map(
    (id) => (h: History) => h.add<typeof assigneeAggregate.initial, AssigneeEvent>(assigneeAggregate, id, unarchiveAssignee('agent')),
  ),
  ids.map((id) => (h: History) => h.add<typeof companyAggregate.initial, CompanyEvent>(companyAggregate, id, unarchiveCompany())),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof apiKeyAggregate.initial, ApiKeyEvent>(
          apiKeyAggregate,
          id,
          createKey({ name: n, role: 'agent', prefix: 'tl_12345', agentId: 'a' }, 0),
        ),
  ),
  fc.tuple(ids, name).map(
    ([id, n]) =>
      (h: History) =>
        h.add<typeof apiKeyAggregate.initial, ApiKeyEvent>(apiKeyAggregate, id, changeKey({ name: n, rateLimitPerMinute: n.length })),
  ),
  ids.map((id) => (h: History) => h.add<typeof apiKeyAggregate.initial, ApiKeyEvent>(apiKeyAggregate, id, revokeKey())),
  ...[
    name.map((n) => createCannedResponse({ title: n, shortcut: `/${n}`, content: n })),
    name.map((n) => changeCannedResponse({ title: n, shortcut: `/${n}` })),
    fc.constantFrom(archiveCannedResponse(), unarchiveCannedResponse()),
    fc.constant(voidShortcutClaim('/x')),
  ].map((decisions) =>
    fc.tuple(ids, decisions).map(
      ([id, decision]) =>
        (h: History) =>
          h.add<typeof cannedResponseAggregate.initial, CannedResponseEvent>(cannedResponseAggregate, id, decision),
    ),
  ),
  ...[
    fc.tuple(name, fc.boolean()).map(([n, shared]) => createView({ ...view, name: n, shared }, ada)),
    fc.tuple(name, fc.boolean()).map(([n, shared]) => changeView({ name: n, shared }, { self: ada, role: 'agent' })),
    fc.constantFrom(archiveView({ self: ada, role: 'agent' }), unarchiveView({ self: ada, role: 'agent' })),
  ].map((decisions) =>
    fc.tuple(ids, decisions).map(
      ([id, decision]) =>
        (h: History) =>
          h.add<typeof viewAggregate.initial, ViewEvent>(viewAggregate, id, decision),
    ),
  ),
  ...[
    name.map((n) => createRule({ ...rule, name: n })),
    fc.option(name).map((n) => changeRule({ name: n })),
    fc.constantFrom(archiveRule(), unarchiveRule()),
  ].map((decisions) =>
    fc.tuple(ids, decisions).map(
      ([id, decision]) =>
        (h: History) =>
          h.add<typeof ruleAggregate.initial, RuleEvent>(ruleAggregate, id, decision),
    ),
  ),
  name.map(
    (n) => (h: History) =>
      h.add<typeof organizationAggregate.initial, OrganizationEvent>(organizationAggregate, 'org', createOrganization(n)),
  ),
  ids.map(
    (id) => (h: History) =>
      h.add<typeof organizationAggregate.initial, OrganizationEvent>(organizationAggregate, 'org', changeDefaultInbox(id, 9)),
  ),
  ids.map(
    (id) => (h: History) =>
      h.add<typeof organizationAggregate.initial, OrganizationEvent>(organizationAggregate, 'org', retireInbox(id, 4)),
  ),
  ids.map(
    (id) => (h: History) =>
      h.add<typeof organizationAggregate.initial, OrganizationEvent>(organizationAggregate, 'org', reinstateInbox(id, 9)),
  ),
  ids.map((id) => (h: History) => h.add<typeof inboxAggregate.initial, InboxEvent>(inboxAggregate, id, unarchiveInbox())),
);

test('rows are the fold of their streams, whatever the batches, and every batch twice', async () => {
  const [whole, split] = [await newTarget(), await newTarget()];
  const kinds = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 120, size: 'max' }),
      fc.array(fc.nat(80), { maxLength: 12, size: 'max' }),
      fc.array(fc.boolean(), { minLength: 13, maxLength: 13 }),
      async (steps, cuts, twice) => {
        const history = new History();
        for (const one of steps) one(history);
        for (const { kind } of history.events) kinds.add(kind);
        const bounds = [
          0,
          ...[...new Set(cuts)].sort((a, b) => a - b).filter((cut) => cut > 0 && cut < history.events.length),
          history.events.length,
        ];
        const batches = bounds.slice(1).map((end, i) => history.events.slice(bounds[i], end));
        await deliver(whole, history.events);
        // With the end of the batch before it, as after a checkpoint that was lost, and then once more as it was.
        await deliver(
          split,
          ...batches.flatMap((batch, i) => [twice[i] === true ? [...batches.slice(Math.max(0, i - 1), i).flat(), ...batch] : batch, batch]),
        );
        // And the first of all, when every row is far ahead of it.
        await deliver(split, batches[0] ?? []);
        const rows = await rowsOf(split);
        assertRows(rows, history);
        expect(JSON.stringify(rows)).toBe(JSON.stringify(await rowsOf(whole)));
        await sql.raw(`truncate ${[whole, split].flatMap(({ table }) => TABLES.map(table)).join(', ')}`).execute(open.kysely);
      },
    ),
    { numRuns: 40 },
  );
  expect([...kinds].sort()).toEqual(Object.keys(KIND_TABLE).sort());
}, 60_000);

test('every event type of its kinds is in the history that the property draws from', () => {
  // A new event type must not slip past the property above.
  const drawn = new Set<string>();
  for (const steps of fc.sample(fc.array(step, { minLength: 60, maxLength: 60 }), { numRuns: 120, seed: 1 })) {
    const history = new History();
    for (const one of steps) one(history);
    for (const { event } of history.events) drawn.add(event.type);
  }
  const codecs = [
    visitorAggregate,
    companyAggregate,
    inboxAggregate,
    assigneeAggregate,
    apiKeyAggregate,
    cannedResponseAggregate,
    viewAggregate,
    ruleAggregate,
    organizationAggregate,
  ].map(({ codec }) => Object.keys(codec.versions));
  expect([...drawn].sort()).toEqual(codecs.flat().sort());
});

test('a batch of thousands of events is written in a statement or two per table', async () => {
  const history = new History();
  for (let i = 0; i < 1_500; i++) {
    history.add(visitors, `v${i}`, createVisitor(sealVisitor(key, { userId: `u${i}`, name: `Visitor ${i}` })));
    history.add(visitors, `v${i}`, changeVisitor(sealVisitor(key, { plan: 'pro' })));
  }
  const target = await newTarget();
  await deliver(target, history.events.slice(0, 1));
  const statements: string[] = [];
  const counting = openDatabase({ url: database.url, poolSize: 1, name: 'counting', onError: () => undefined });
  try {
    const logged = counting.kysely.withPlugin({
      transformQuery: ({ node }) => {
        statements.push(node.kind);
        return node;
      },
      transformResult: ({ result }) => Promise.resolve(result),
    });
    await new PeopleProjection().apply(history.events.slice(1), targetOf(logged, target.table));
  } finally {
    await counting.close();
  }
  // The rows that are not new, and the upsert.
  expect(statements).toHaveLength(2);
  assertRows(await rowsOf(target), history);
});
