import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import { type ApiKeyAnswer, apiKeyAnswer } from '../api-keys/api-key.answer.js';
import { type CannedResponseAnswer, cannedResponseAnswer } from '../canned-responses/canned-response.answer.js';
import { searchedShortcut } from '../canned-responses/canned-response.js';
import { type CompanyAnswer, companyAnswer } from '../companies/company.answer.js';
import { type InboxAnswer, inboxAnswer } from '../inboxes/inbox.answer.js';
import type { QueryParameter } from '../platform/answers.js';
import type { Database } from '../platform/database.js';
import { emailKey } from '../platform/email-address.js';
import { type FieldError, ThreadlogError } from '../platform/errors.js';
import { organizationsTable } from '../organizations/organization.table.js';
import type { ReadModels } from './read-models.js';
import type { ReadTable } from './table.js';
import { type AgentAnswer, agentAnswer, type TeamAnswer, teamAnswer } from '../team/assignee.answer.js';
import { type VisitorAnswer, visitorAnswer } from '../visitors/visitor.answer.js';
import { type Cursors, PAGING_PARAMETERS, type PageMeta, readPaging, TOTAL_LIMIT } from './paging.js';
import { type ApiKeyRow, apiKeysTable } from '../api-keys/api-key.table.js';
import { type AssigneeRow, assigneesTable } from '../team/assignee.table.js';
import { type CannedResponseRow, cannedResponsesTable } from '../canned-responses/canned-response.table.js';
import { type CompanyRow, companiesTable } from '../companies/company.table.js';
import { type InboxRow, inboxesTable } from '../inboxes/inbox.table.js';
import { type VisitorRow, visitorsTable } from '../visitors/visitor.table.js';

export interface PeoplePage<A> {
  readonly data: A[];
  readonly meta: PageMeta;
}

/** A list's query as it came in the address: texts, or lists of them where a parameter was repeated. */
export type PeopleQuery = Readonly<Record<string, unknown>>;

const SORTS = { createdAt: 'created_at', name: 'sort_name', title: 'sort_name' } as const;
type Sort = keyof typeof SORTS;
const ORDERS = ['asc', 'desc'] as const;
const ARCHIVED = ['true', 'false'] as const;
const PARAMETERS = {
  ...PAGING_PARAMETERS,
  order: { type: 'string', enum: ORDERS, description: 'When absent: newest first, names from A.' },
  archived: { type: 'string', enum: ARCHIVED, default: 'false', description: 'true lists the archived ones and nothing else.' },
} as const;

/** What one list reads. */
interface List<R, A> {
  readonly name: string;
  /** Named `t` in SQL. */
  readonly table: ReadTable;
  /** SQL of what is joined to it. */
  readonly join?: (readModels: ReadModels) => RawBuilder<unknown>;
  readonly select: RawBuilder<unknown>;
  readonly answer: (row: R) => A;
  /** Holds for every row of the list. */
  readonly always?: RawBuilder<SqlBool>;
  readonly filters?: Readonly<Record<string, (value: string) => RawBuilder<SqlBool>>>;
  /** What its resources are called by; `name` when absent. */
  readonly named?: 'title';
}

interface Row {
  readonly id: string;
  readonly revision: number;
  readonly created_at: number;
  readonly sort_name: string;
}

const whole = sql`t.id, t.revision, t.created_at, t.sort_name, t.state`;

const VISITORS: List<VisitorRow, VisitorAnswer> = {
  name: 'visitors',
  table: visitorsTable,
  select: whole,
  answer: (row) => visitorAnswer(row.id, row.state, row.revision),
  filters: {
    companyId: (value) => sql<SqlBool>`t.company_id = ${value}`,
    userId: (value) => sql<SqlBool>`t.user_id = ${value}`,
    email: (value) => sql<SqlBool>`t.email_key = ${emailKey(value)}`,
  },
};

const COMPANIES: List<CompanyRow, CompanyAnswer> = {
  name: 'companies',
  table: companiesTable,
  select: whole,
  answer: (row) => companyAnswer(row.id, row.state, row.revision),
};

const INBOXES: List<InboxRow & { is_default: boolean }, InboxAnswer> = {
  name: 'inboxes',
  table: inboxesTable,
  join: (readModels) =>
    sql`left join ${readModels.view(organizationsTable)} o on o.organization_id = t.organization_id and o.id = t.organization_id`,
  select: sql`${whole}, coalesce(o.default_inbox_id = t.id, false) as is_default`,
  answer: (row) => inboxAnswer(row.id, row.state, row.revision, row.is_default),
};

const AGENTS: List<AssigneeRow, AgentAnswer> = {
  name: 'agents',
  table: assigneesTable,
  select: whole,
  answer: (row) => agentAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.type = 'agent'`,
};

const TEAMS: List<AssigneeRow, TeamAnswer> = {
  name: 'teams',
  table: assigneesTable,
  select: whole,
  answer: (row) => teamAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.type = 'team'`,
};

const API_KEYS: List<ApiKeyRow, ApiKeyAnswer> = {
  name: 'api-keys',
  table: apiKeysTable,
  select: whole,
  answer: (row) => apiKeyAnswer(row.id, row.state, row.revision),
};

const CANNED_RESPONSES: List<CannedResponseRow, CannedResponseAnswer> = {
  name: 'canned-responses',
  table: cannedResponsesTable,
  select: whole,
  answer: (row) => cannedResponseAnswer(row.id, row.state, row.revision),
  always: sql<SqlBool>`t.shortcut is not null`,
  filters: { shortcut: (value) => sql<SqlBool>`t.shortcut = ${searchedShortcut(value)}` },
  named: 'title',
};

/**
 * The lists of people and settings. All take `page`, `limit`, `cursor`, `total=none`, `archived=true|false` (default false; an API key that
 * was revoked is archived), `sort=createdAt|name` (default createdAt; `title` for canned responses) and `order=asc|desc` (default: newest
 * first, names from A). Names are compared in lower case, in the Unicode order of letters. A parameter that a list does not know is an error.
 */
export class PeopleQueries {
  constructor(
    private readonly database: Kysely<Database>,
    private readonly readModels: ReadModels,
    private readonly cursors: Cursors,
  ) {}

  /** Also by companyId, userId and email (in any spelling). @throws ThreadlogError validation_failed */
  listVisitors(organizationId: string, query: PeopleQuery): Promise<PeoplePage<VisitorAnswer>> {
    return this.list(VISITORS, organizationId, query);
  }

  /** @throws ThreadlogError validation_failed */
  listCompanies(organizationId: string, query: PeopleQuery): Promise<PeoplePage<CompanyAnswer>> {
    return this.list(COMPANIES, organizationId, query);
  }

  /** @throws ThreadlogError validation_failed */
  listInboxes(organizationId: string, query: PeopleQuery): Promise<PeoplePage<InboxAnswer>> {
    return this.list(INBOXES, organizationId, query);
  }

  /** @throws ThreadlogError validation_failed */
  listAgents(organizationId: string, query: PeopleQuery): Promise<PeoplePage<AgentAnswer>> {
    return this.list(AGENTS, organizationId, query);
  }

  /** @throws ThreadlogError validation_failed */
  listTeams(organizationId: string, query: PeopleQuery): Promise<PeoplePage<TeamAnswer>> {
    return this.list(TEAMS, organizationId, query);
  }

  /** @throws ThreadlogError validation_failed */
  listApiKeys(organizationId: string, query: PeopleQuery): Promise<PeoplePage<ApiKeyAnswer>> {
    return this.list(API_KEYS, organizationId, query);
  }

  /** Also by shortcut (in any spelling, upper and lower case alike). @throws ThreadlogError validation_failed */
  listCannedResponses(organizationId: string, query: PeopleQuery): Promise<PeoplePage<CannedResponseAnswer>> {
    return this.list(CANNED_RESPONSES, organizationId, query);
  }

  private async list<R extends Row, A>(list: List<R, A>, organizationId: string, query: PeopleQuery): Promise<PeoplePage<A>> {
    const { sort, order, archived, filters } = readQuery(query, Object.keys(list.filters ?? {}), list.named ?? 'name');
    const scope = JSON.stringify([list.name, organizationId, sort, order, archived, filters]);
    const paging = readPaging(query, this.cursors, scope);
    const conditions = [
      sql<SqlBool>`t.organization_id = ${organizationId}`,
      // Written out and not a parameter: the planner must see that the rare and the common side are not alike.
      sql<SqlBool>`t.archived = ${sql.lit(archived)}`,
      ...(list.always === undefined ? [] : [list.always]),
      ...filters.flatMap(([name, value]) => list.filters?.[name]?.(value) ?? []),
    ];
    const from = sql`${this.readModels.view(list.table)} t ${list.join?.(this.readModels) ?? sql``}`;
    const where = sql.join(conditions, sql` and `);
    const column = SORTS[sort];
    const direction = sql.raw(order);
    const after =
      paging.after === undefined
        ? sql``
        : sql` and (${sql.ref(`t.${column}`)}, t.id) ${sql.raw(order === 'asc' ? '>' : '<')} (${sql.join(paging.after)})`;
    const offset = paging.after === undefined ? (paging.page - 1) * paging.limit : 0;
    // One more row than asked tells whether there are more; the total is a query beside it, not a window over all rows.
    const [page, counted] = await Promise.all([
      sql<R>`
        select ${list.select} from ${from} where ${where}${after}
        order by ${sql.ref(`t.${column}`)} ${direction}, t.id ${direction} limit ${paging.limit + 1} offset ${offset}`.execute(
        this.database,
      ),
      paging.withTotal
        ? sql<{
            n: number;
          }>`select count(*)::integer as n from (select 1 from ${from} where ${where} limit ${TOTAL_LIMIT + 1}) as counted`.execute(
            this.database,
          )
        : undefined,
    ]);
    const shown = page.rows.slice(0, paging.limit);
    const last = shown.at(-1);
    const hasMore = page.rows.length > paging.limit;
    const total = counted?.rows[0]?.n;
    return {
      data: shown.map((row) => list.answer(row)),
      meta: {
        page: paging.page,
        limit: paging.limit,
        ...(total === undefined ? {} : { total: Math.min(total, TOTAL_LIMIT), totalIsExact: total <= TOTAL_LIMIT }),
        hasMore,
        nextCursor: hasMore && last !== undefined ? this.cursors.sign(scope, [last[column], last.id]) : null,
      },
    };
  }
}

const parametersOf = ({ filters = {}, named = 'name' }: { readonly filters?: object; readonly named?: string }): QueryParameter[] => [
  ...Object.keys(filters).map((name) => ({ name, schema: { type: 'string' } })),
  { name: 'sort', schema: { type: 'string', enum: ['createdAt', named], default: 'createdAt' } },
  ...Object.entries(PARAMETERS).map(([name, schema]) => ({ name, schema })),
];

/** What the address of each list takes, for the API's document. */
export const LIST_PARAMETERS = {
  visitors: parametersOf(VISITORS),
  companies: parametersOf(COMPANIES),
  inboxes: parametersOf(INBOXES),
  agents: parametersOf(AGENTS),
  teams: parametersOf(TEAMS),
  apiKeys: parametersOf(API_KEYS),
  cannedResponses: parametersOf(CANNED_RESPONSES),
} as const;

interface Asked {
  readonly sort: Sort;
  readonly order: 'asc' | 'desc';
  readonly archived: boolean;
  /** By name, so that a cursor does not depend on the order of the parameters. */
  readonly filters: readonly (readonly [string, string])[];
}

function readQuery(query: PeopleQuery, filterNames: readonly string[], named: 'name' | 'title'): Asked {
  const errors: FieldError[] = [];
  const known = [...Object.keys(PARAMETERS), 'sort', ...filterNames];
  for (const [field, value] of Object.entries(query))
    if (!known.includes(field)) errors.push({ field, message: `is not one of ${known.join(', ')}` });
    else if (typeof value !== 'string') errors.push({ field, message: 'must be given once' });
    // PostgreSQL can hold it in no text, so nothing has it.
    else if (value.includes('\0')) errors.push({ field, message: 'must be text without U+0000' });
  const choice = <T extends string>(field: string, choices: readonly T[], fallback: T): T => {
    const value = query[field];
    if (value === undefined || typeof value !== 'string') return fallback;
    const chosen = choices.find((one) => one === value);
    if (chosen === undefined) errors.push({ field, message: `must be one of ${choices.join(', ')}` });
    return chosen ?? fallback;
  };
  const sort = choice<Sort>('sort', ['createdAt', named], 'createdAt');
  const order = choice('order', ORDERS, sort === 'createdAt' ? 'desc' : 'asc');
  const archived = choice('archived', ARCHIVED, 'false') === 'true';
  if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
  const filters = filterNames.flatMap((name) => (typeof query[name] === 'string' ? [[name, query[name]] as const] : []));
  return { sort, order, archived, filters };
}
