import { sql } from 'kysely';
import { type ApiKey, apiKeyAggregate } from '../src/api-keys/api-key.js';
import { type CannedResponse, cannedResponseAggregate, searchedShortcut } from '../src/canned-responses/canned-response.js';
import { type Company, companyAggregate } from '../src/companies/company.js';
import type { DomainEvent, Recorded } from '../src/event-store/aggregate.js';
import { type Inbox, inboxAggregate } from '../src/inboxes/inbox.js';
import { type Organization, organizationAggregate } from '../src/organizations/organization.js';
import { emailKey } from '../src/platform/email-address.js';
import { ERASED } from '../src/platform/sealing.js';
import { type AssigneeState, assigneeAggregate } from '../src/team/assignee.js';
import { evolveVisitor, initialVisitor, type Visitor } from '../src/visitors/visitor.js';
import type { ProjectedEvent, Projection, ProjectionTarget, StreamRow } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

/** How one kind of stream becomes rows of one table. */
interface Model<S = unknown> {
  readonly table: string;
  readonly initial: S;
  evolve(state: S, event: Recorded<DomainEvent>): S;
  /** Its columns beside those that every table has: SQL of the column, and its value. */
  readonly columns: readonly string[];
  values(state: S): Readonly<Record<string, unknown>> & { readonly name: string | null; readonly archived: boolean };
  /** What its lists filter by; each is indexed with every order. */
  readonly filters?: readonly string[];
  /** Unique keys of callers: looked up, not sorted. */
  readonly lookups?: readonly string[];
}

/** What every fold has. */
interface Dated {
  readonly createdAt: string;
  readonly updatedAt: string;
}

const model = <S extends Dated>(one: Omit<Model<S>, 'evolve'> & { evolve: (state: S, event: never) => S }): Model =>
  one as unknown as Model;

const MODELS = {
  visitor: model<Visitor<unknown>>({
    table: 'visitors',
    initial: initialVisitor,
    evolve: evolveVisitor,
    columns: [
      'name text',
      'user_id text collate "C"',
      'email text',
      'email_key text collate "C"',
      'phone text',
      'avatar_url text',
      'plan text',
      'company_id text collate "C"',
    ],
    values: (v) => ({
      name: text(v.name),
      archived: v.archived,
      user_id: v.userId,
      email: text(v.email),
      // An erased address is nobody's.
      email_key: typeof v.email !== 'string' || v.email === ERASED ? null : emailKey(v.email),
      phone: text(v.phone),
      avatar_url: text(v.avatarUrl),
      plan: v.plan,
      company_id: v.companyId,
    }),
    filters: ['company_id'],
    lookups: ['user_id', 'email_key'],
  }),
  company: model<Company>({
    table: 'companies',
    initial: companyAggregate.initial,
    evolve: companyAggregate.evolve,
    columns: ['name text not null'],
    values: ({ name, archived }) => ({ name, archived }),
  }),
  inbox: model<Inbox>({
    table: 'inboxes',
    initial: inboxAggregate.initial,
    evolve: inboxAggregate.evolve,
    columns: ['name text not null'],
    values: ({ name, archived }) => ({ name, archived }),
  }),
  assignee: model<AssigneeState>({
    table: 'assignees',
    initial: assigneeAggregate.initial,
    evolve: assigneeAggregate.evolve,
    columns: ['name text not null', 'type text not null'],
    values: ({ name, archived, type }) => ({ name, archived, type }),
    filters: ['type'],
  }),
  apikey: model<ApiKey>({
    table: 'api_keys',
    initial: apiKeyAggregate.initial,
    evolve: apiKeyAggregate.evolve,
    columns: ['name text not null', 'agent_id text collate "C"'],
    values: (k) => ({ name: k.name, archived: k.revokedAt !== null, agent_id: k.agentId }),
  }),
  cannedresponse: model<CannedResponse>({
    table: 'canned_responses',
    initial: cannedResponseAggregate.initial,
    evolve: cannedResponseAggregate.evolve,
    columns: ['name text not null', 'shortcut text collate "C"'],
    // One that was never made has no shortcut, and by that no list shows it.
    values: (r) => ({ name: r.title, archived: r.archived, shortcut: r.exists ? searchedShortcut(r.shortcut) : null }),
    lookups: ['shortcut'],
  }),
  organization: model<Organization>({
    table: 'organizations',
    initial: organizationAggregate.initial,
    evolve: organizationAggregate.evolve,
    columns: ['name text not null', 'default_inbox_id text collate "C"'],
    values: (o) => ({ name: o.name, archived: false, default_inbox_id: o.defaultInboxId }),
  }),
} as const;

type Kind = keyof typeof MODELS;
const KINDS = Object.keys(MODELS) as Kind[];
const isKind = (kind: string): kind is Kind => KINDS.some((one) => one === kind);

/**
 * One row per visitor, company, inbox, agent, team, API key, canned response and organization: the fold of its stream by the write side's own functions. The
 * fold is kept whole as JSON beside the columns, since that is one mapping to keep right and not two, and since a field that nobody filters
 * by then needs no column. `json` and not `jsonb`: it is copied and not parsed, and keeps the order of attributes as they were given.
 */
export class PeopleProjection implements Projection {
  readonly name = 'people';
  readonly kinds = KINDS;
  readonly tables: Projection['tables'] = Object.fromEntries(
    KINDS.map((kind) => [MODELS[kind].table, (table: string) => create(MODELS[kind], table)]),
  );

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const touched = new Map<Kind, Map<string, Touched>>();
    for (const one of events) {
      const { kind, organizationId, streamId, event } = one;
      if (!isKind(kind)) continue;
      let streams = touched.get(kind);
      if (streams === undefined) touched.set(kind, (streams = new Map<string, Touched>()));
      const stream = streams.get(event.stream);
      if (stream === undefined) streams.set(event.stream, { organizationId, id: streamId, events: [one] });
      else stream.events.push(one);
    }
    for (const [kind, streams] of touched) await write(MODELS[kind], streams, target);
  }
}

interface Touched {
  readonly organizationId: string;
  readonly id: string;
  readonly events: ProjectedEvent[];
}

interface Known {
  readonly organization_id: string;
  readonly id: string;
  readonly revision: number;
  readonly state: unknown;
}

const keyOf = (organizationId: string, id: string) => `${organizationId}.${id}`;

/** One query for the rows that are not new, one statement for all rows of the table. */
async function write(model: Model, streams: ReadonlyMap<string, Touched>, target: ProjectionTarget): Promise<void> {
  const older = [...streams.values()].filter(({ events: [first] }) => first?.event.revision !== 0);
  const known = new Map<string, Known>();
  for (const row of await readRows<Known>(target, model.table, older, sql`t.organization_id, t.id, t.revision, t.state`))
    known.set(keyOf(row.organization_id, row.id), row);
  const made: StreamRow[] = [];
  const changed: StreamRow[] = [];
  for (const { organizationId, id, events } of streams.values()) {
    const row = known.get(keyOf(organizationId, id));
    const before = row?.revision ?? -1;
    let revision = before;
    let state = row?.state ?? model.initial;
    for (const { event, skipped } of events) {
      // Delivered again: the row has it already.
      if (event.revision <= revision) continue;
      if (event.revision !== revision + 1) throw new Error(`revision ${event.revision} of a stream follows ${revision}`);
      if (!skipped) state = model.evolve(state, event);
      revision = event.revision;
    }
    if (revision > before) (row === undefined ? made : changed).push(rowOf(model, organizationId, id, revision, state));
  }
  await target.write(model.table, { made, changed });
}

const COLUMNS = [
  'organization_id text collate "C" not null',
  'id text collate "C" not null',
  'revision integer not null',
  // the order of names that people expect, whatever the database's locale: Äpfel before Zoë
  'sort_name text collate "und-x-icu" not null',
  'archived boolean not null',
  'created_at bigint not null',
  'updated_at bigint not null',
  'state json not null',
];

/** An index for each filter with each order that lists have; the archived are apart, since no list mixes them with the others. */
function create(model: Model, table: string): readonly string[] {
  const orders = ['created_at', 'sort_name'];
  const unique = table.split('.').at(-1) ?? table;
  const index = (name: string, columns: string, where = '') =>
    `create index ${unique}_${name} on ${table} (organization_id, ${columns})${where}`;
  return [
    `create table ${table} (${[...COLUMNS, ...model.columns].join(', ')}, primary key (organization_id, id))`,
    ...orders.map((order) => index(order, `archived, ${order}, id`)),
    ...(model.filters ?? []).flatMap((filter) =>
      orders.map((order) => index(`${filter}_${order}`, `${filter}, archived, ${order}, id`, ` where ${filter} is not null`)),
    ),
    ...(model.lookups ?? []).map((lookup) => index(lookup, lookup, ` where ${lookup} is not null`)),
  ];
}

function rowOf(model: Model, organizationId: string, id: string, revision: number, state: unknown): StreamRow {
  const { createdAt, updatedAt } = state as Dated;
  const values = model.values(state);
  const row = {
    organization_id: organizationId,
    id,
    revision,
    sort_name: sortName(values.name),
    created_at: Date.parse(createdAt),
    updated_at: Date.parse(updatedAt),
    state,
    ...values,
  };
  return row;
}

/** Cut by characters, so that no surrogate pair is halved, to what an index entry can hold in any script. */
function sortName(name: string | null): string {
  return Array.from((name ?? '').normalize('NFC').toLowerCase())
    .slice(0, 200)
    .join('');
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
