import { Inject } from '@nestjs/common';
import { type IQueryHandler, Query, QueryHandler } from '@nestjs/cqrs';
import {
  type Expression,
  type ExpressionBuilder,
  expressionBuilder,
  type Kysely,
  type OrderByItemBuilder,
  type RawBuilder,
  type SelectQueryBuilder,
  sql,
  type SqlBool,
} from 'kysely';
import { type ConversationSummary, conversationSummary, visitorBrief } from './conversation.answer.js';
import { PRIORITIES, type Priority, type Status } from './conversation.js';
import { DATABASE, type Database, QUESTIONS } from '../database/database.js';
import { attributeLabel, type ConversationRow, conversationsTable, stateOfRow, tagLabel } from './conversation.table.js';
import { ReadModels } from '../read-models/read-models.js';
import { questionOf } from '../search/question.js';
import { inSearch, LIST_PLANNING } from '../search/search.session.js';
import { listCondition } from '../search/search.sql.js';
import { assigneesTable } from '../team/assignee.table.js';
import { type VisitorRow, visitorsTable } from '../visitors/visitor.table.js';
import { Cursors, type PageMeta, pageOfRows, type Paging, readPaging, TOTAL_LIMIT } from '../read-models/paging.js';

export const SORTS = ['updatedAt', 'createdAt', 'waitingSince', 'priority'] as const;
export type Sort = (typeof SORTS)[number];

/** Filters of GET /conversations, all combinable. A list matches any of its values. Ranges: `after` included, `before` excluded, in ms. */
export interface ConversationFilter {
  readonly status?: readonly Status[];
  readonly priority?: readonly Priority[];
  readonly teamId?: readonly string[];
  readonly inboxId?: readonly string[];
  /** `none` for unassigned. */
  readonly assigneeId?: readonly string[];
  readonly visitorId?: readonly string[];
  /** The visitor's company as it is now. */
  readonly companyId?: readonly string[];
  readonly tag?: readonly string[];
  readonly tagMatch?: 'any' | 'all';
  readonly createdAfter?: number;
  readonly createdBefore?: number;
  readonly updatedAfter?: number;
  readonly updatedBefore?: number;
  /** Attribute name to value, compared as text. */
  readonly customAttributes?: Readonly<Record<string, string>>;
}

/**
 * Row count that we plan for when a list filters by labels, however few rows the page shows. PostgreSQL has no statistics for rare or
 * unknown labels and takes them for frequent ones, so that it would walk through all conversations in their order to fill a page.
 */
const PLANNED_FOR_LABELS = 1_001;
const SORT_COLUMNS = { updatedAt: 'updated_at', createdAt: 'created_at', waitingSince: 'waiting_since', priority: 'priority' } as const;

/** Lists conversations from their read model. */
export class ListConversations extends Query<{ data: ConversationSummary[]; meta: PageMeta }> {
  constructor(
    readonly organizationId: string,
    readonly filter: ConversationFilter,
    readonly sort: { readonly by: Sort; readonly order: 'asc' | 'desc' },
    /** page, limit, cursor, total, as in the query string */
    readonly paging: Readonly<Record<string, unknown>>,
    /** True for roles that may not read message contents. */
    readonly withhold: boolean,
    /** What a search must find; the messages only where they may be read. */
    readonly q?: string,
  ) {
    super();
  }
}

/** The ids of the matching conversations, most recently changed first; at most `limit`. */
export class FindConversationIds extends Query<string[]> {
  constructor(
    readonly organizationId: string,
    readonly filter: ConversationFilter,
    readonly limit: number,
  ) {
    super();
  }
}

/** How many conversations each of several filters finds, in one statement: exact up to TOTAL_LIMIT, a lower bound above it. */
export class CountConversations extends Query<{ count: number; countIsExact: boolean }[]> {
  constructor(
    readonly organizationId: string,
    readonly filters: readonly ConversationFilter[],
  ) {
    super();
  }
}

@QueryHandler(CountConversations)
export class CountConversationsHandler implements IQueryHandler<CountConversations> {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
  ) {}

  async execute({ organizationId, filters }: CountConversations): Promise<{ count: number; countIsExact: boolean }[]> {
    if (filters.length === 0) return [];
    const counts = filters.map((filter, i) => counted(this.database, this.readModels, organizationId, filter).as(`n${i}`));
    const row = (await this.database.selectNoFrom(counts).executeTakeFirstOrThrow()) as Readonly<Record<string, unknown>>;
    return filters.map((_, i) => {
      const n = Number(row[`n${i}`]);
      return { count: Math.min(n, TOTAL_LIMIT), countIsExact: n <= TOTAL_LIMIT };
    });
  }
}

@QueryHandler(FindConversationIds)
export class FindConversationIdsHandler implements IQueryHandler<FindConversationIds> {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
  ) {}

  async execute({ organizationId, filter, limit }: FindConversationIds): Promise<string[]> {
    const rows = await this.database
      .selectFrom(this.readModels.view(conversationsTable).as('c'))
      .select('c.id')
      .where((c) => c.and(conditions(c, this.readModels.view(visitorsTable), organizationId, filter)))
      .orderBy('c.updated_at', 'desc')
      .orderBy('c.id', 'desc')
      .limit(limit)
      .execute();
    return rows.map(({ id }) => id);
  }
}

type ListTables = Database & { c: ConversationRow };
/** How the rows of a page are limited. */
interface Found {
  organization_id: string;
  id: string;
  updated_at: number;
  sorted: number | null;
}
type Row = ConversationRow & {
  visitor_user_id: string | null;
  visitor_name: string | null;
  visitor_email: string | null;
  visitor_phone: string | null;
  visitor_avatar_url: string | null;
  visitor_plan: string | null;
  visitor_company_id: string | null;
  current_assignee_name: string | null;
  current_team_name: string | null;
};

@QueryHandler(ListConversations)
export class ListConversationsHandler implements IQueryHandler<ListConversations> {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(QUESTIONS) private readonly questions: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(Cursors) private readonly cursors: Cursors,
  ) {}

  async execute(query: ListConversations): Promise<{ data: ConversationSummary[]; meta: PageMeta }> {
    const { organizationId, filter, sort, q } = query;
    const scope = JSON.stringify(['conversations', organizationId, filter, sort, ...(q === undefined ? [] : [q])]);
    const paging = readPaging(query.paging, this.cursors, scope);
    // One extra row tells whether there are more rows; the total is a separate query, not a window over all rows.
    const [rows, total] =
      q === undefined
        ? await Promise.all([
            this.page(this.database, organizationId, filter, sort, paging),
            paging.withTotal ? this.total(this.database, organizationId, filter) : undefined,
          ])
        : await this.found(query, q, paging);
    const { shown, meta } = pageOfRows(paging, rows, total, (last) =>
      this.cursors.sign(scope, [last[SORT_COLUMNS[sort.by]], last.updated_at, last.id]),
    );
    return { data: shown.map((row) => summaryOf(row, query.withhold)), meta };
  }

  /** As without a question, one statement after the other, since both must see the same matches. */
  private async found(
    { organizationId, filter, sort, withhold }: ListConversations,
    q: string,
    paging: Paging,
  ): Promise<readonly [Row[], number | undefined]> {
    const asked = { readModels: this.readModels, organizationId, question: questionOf(q), messages: !withhold };
    return await inSearch(this.questions, organizationId, LIST_PLANNING, async (session) => {
      const begins = sort.order === 'asc' && (sort.by === 'createdAt' || sort.by === 'updatedAt') ? 'oldest' : 'newest';
      const matches = await listCondition(session, asked, begins);
      const rows = await this.page(session, organizationId, filter, sort, paging, matches);
      return [rows, paging.withTotal ? await this.total(session, organizationId, filter, matches) : undefined];
    });
  }

  private async page(
    database: Kysely<Database>,
    organizationId: string,
    filter: ConversationFilter,
    sort: ListConversations['sort'],
    paging: Paging,
    matches?: RawBuilder<SqlBool>,
  ): Promise<Row[]> {
    const column = SORT_COLUMNS[sort.by];
    const direction = sort.order;
    const offset = paging.after === undefined ? (paging.page - 1) * paging.limit : 0;
    const most = Math.max(
      offset + paging.limit + 1,
      filter.tag === undefined && filter.customAttributes === undefined ? 0 : PLANNED_FOR_LABELS,
    );
    // Choose the page's rows from the indexes, and read only those rows whole, with the joined names.
    const matching = (after: Expression<SqlBool> | undefined) =>
      database
        .selectFrom(this.readModels.view(conversationsTable).as('c'))
        .select(['c.organization_id', 'c.id', 'c.updated_at', `c.${column} as sorted`])
        .where((c) =>
          c.and([
            ...conditions(c, this.readModels.view(visitorsTable), organizationId, filter),
            ...(after === undefined ? [] : [after]),
            ...(matches === undefined ? [] : [matches]),
          ]),
        );
    const found =
      sort.by === 'waitingSince'
        ? this.waitingFirst(matching, direction, paging.after, most)
        : matching(paging.after === undefined ? undefined : afterCursor(sort, paging.after))
            .orderBy(`c.${column}`, direction)
            .$if(sort.by === 'priority', (all) => all.orderBy('c.updated_at', direction))
            .orderBy('c.id', direction)
            .limit(most);
    // Materialized, since PostgreSQL would lower a plain subquery's limit to the page's before it chooses the plan. Rows are made lazily.
    const page = database
      .with(
        (cte) => cte('f').materialized(),
        () => found,
      )
      .selectFrom('f')
      .select(['f.organization_id', 'f.id'])
      .orderBy('f.sorted', (by) => inOrder(by, sort))
      .$if(sort.by === 'priority', (all) => all.orderBy('f.updated_at', direction))
      .orderBy('f.id', direction)
      .limit(paging.limit + 1)
      .offset(offset);
    return wholeRows(database, this.readModels, page)
      .orderBy(`c.${column}`, (by) => inOrder(by, sort))
      .$if(sort.by === 'priority', (all) => all.orderBy('c.updated_at', direction))
      .orderBy('c.id', direction)
      .execute();
  }

  /**
   * The first `most` rows: waiting conversations in their order, then the others. Two queries, since no index holds both with the nulls at
   * the end; the second query runs only when the first finds too few rows.
   */
  private waitingFirst(
    matching: (after: Expression<SqlBool> | undefined) => SelectQueryBuilder<ListTables, 'c', Found>,
    direction: 'asc' | 'desc',
    after: Paging['after'],
    most: number,
  ) {
    const [value, , id] = after ?? [];
    const pastWaiting = after !== undefined && value === null;
    const beyond = sql.raw(direction === 'asc' ? '>' : '<');
    const waiting = matching(after === undefined || pastWaiting ? undefined : afterCursor({ by: 'waitingSince', order: direction }, after))
      .where('c.waiting_since', 'is not', null)
      .$if(pastWaiting, (all) => all.where(sql<SqlBool>`false`))
      .orderBy('c.waiting_since', direction)
      .orderBy('c.id', direction)
      .limit(most);
    const others = matching(pastWaiting ? sql<SqlBool>`c.id ${beyond} ${id}` : undefined)
      .where('c.waiting_since', 'is', null)
      .orderBy('c.id', direction)
      .limit(sql<number>`(select ${most} - count(*) from waiting)`);
    return this.database
      .with('waiting', () => waiting)
      .selectFrom('waiting')
      .selectAll('waiting')
      .unionAll(this.database.selectFrom(others.as('o')).selectAll('o'));
  }

  private async total(
    database: Kysely<Database>,
    organizationId: string,
    filter: ConversationFilter,
    matches?: RawBuilder<SqlBool>,
  ): Promise<number> {
    const { n } = await counted(database, this.readModels, organizationId, filter, matches).executeTakeFirstOrThrow();
    return Number(n);
  }
}

/** The whole rows of some conversations, with what answers show from other streams. */
function wholeRows(database: Kysely<Database>, readModels: ReadModels, page: Expression<Pick<Found, 'organization_id' | 'id'>>) {
  return database
    .selectFrom(sql<Pick<Found, 'organization_id' | 'id'>>`${page}`.as('p'))
    .innerJoin(readModels.view(conversationsTable).as('c'), (join) =>
      join.onRef('c.organization_id', '=', 'p.organization_id').onRef('c.id', '=', 'p.id'),
    )
    .leftJoin(readModels.view(visitorsTable).as('v'), (join) =>
      join.onRef('v.organization_id', '=', 'c.organization_id').onRef('v.id', '=', 'c.visitor_id'),
    )
    .leftJoin(readModels.view(assigneesTable).as('a'), (join) =>
      join.onRef('a.organization_id', '=', 'c.organization_id').onRef('a.id', '=', 'c.assignee_id'),
    )
    .leftJoin(readModels.view(assigneesTable).as('t'), (join) =>
      join.onRef('t.organization_id', '=', 'c.organization_id').onRef('t.id', '=', 'c.team_id'),
    )
    .selectAll('c')
    .select([
      'v.user_id as visitor_user_id',
      'v.name as visitor_name',
      'v.email as visitor_email',
      'v.phone as visitor_phone',
      'v.avatar_url as visitor_avatar_url',
      'v.plan as visitor_plan',
      'v.company_id as visitor_company_id',
      'a.name as current_assignee_name',
      't.name as current_team_name',
    ]);
}

/** The summaries of some conversations by their ids; those that are not there are left out. */
export async function summariesOf(
  database: Kysely<Database>,
  readModels: ReadModels,
  organizationId: string,
  ids: readonly string[],
  withhold: boolean,
): Promise<ReadonlyMap<string, ConversationSummary>> {
  if (ids.length === 0) return new Map();
  const wanted = sql<
    Pick<Found, 'organization_id' | 'id'>
  >`(select ${organizationId}::text as organization_id, unnest(${ids}::text[]) as id)`;
  const rows = await wholeRows(database, readModels, wanted).execute();
  return new Map(rows.map((row) => [row.id, summaryOf(row, withhold)]));
}

/** A condition on an organization's conversations `c`, for statements that select from them. */
export function filterOf(readModels: ReadModels, organizationId: string, filter: ConversationFilter): RawBuilder<SqlBool> {
  const c = expressionBuilder<ListTables, 'c'>();
  return sql`${c.and(conditions(c, readModels.view(visitorsTable), organizationId, filter))}`;
}

/** How many rows match, counted to at most TOTAL_LIMIT + 1. */
function counted(
  database: Kysely<Database>,
  readModels: ReadModels,
  organizationId: string,
  filter: ConversationFilter,
  matches?: RawBuilder<SqlBool>,
) {
  const matching = database
    .selectFrom(readModels.view(conversationsTable).as('c'))
    .select(sql.lit(1).as('one'))
    .where((c) => c.and(conditions(c, readModels.view(visitorsTable), organizationId, filter)))
    .$if(matches !== undefined, (all) => all.where(matches ?? sql<SqlBool>`true`))
    .limit(TOTAL_LIMIT + 1);
  return database.selectFrom(matching.as('counted')).select((row) => row.fn.countAll<number>().as('n'));
}

function conditions(
  c: ExpressionBuilder<ListTables, 'c'>,
  visitors: RawBuilder<VisitorRow>,
  organizationId: string,
  filter: ConversationFilter,
): Expression<SqlBool>[] {
  const any = (column: 'c.status' | 'c.team_id' | 'c.inbox_id' | 'c.visitor_id', values: readonly string[] | undefined) =>
    values === undefined ? [] : [values.length === 1 ? c(column, '=', values[0] as never) : c(column, 'in', [...values] as never)];
  const found: Expression<SqlBool>[] = [
    c('c.organization_id', '=', organizationId),
    ...any('c.status', filter.status),
    ...any('c.team_id', filter.teamId),
    ...any('c.inbox_id', filter.inboxId),
    ...any('c.visitor_id', filter.visitorId),
  ];
  if (filter.priority !== undefined)
    found.push(
      c(
        'c.priority',
        'in',
        filter.priority.map((priority) => PRIORITIES.indexOf(priority)),
      ),
    );
  if (filter.assigneeId !== undefined) {
    const ids = filter.assigneeId.filter((id) => id !== 'none');
    const either: Expression<SqlBool>[] = [];
    if (ids.length > 0) either.push(c('c.assignee_id', 'in', ids));
    if (ids.length < filter.assigneeId.length) either.push(c('c.assignee_id', 'is', null));
    found.push(c.or(either));
  }
  if (filter.companyId !== undefined)
    found.push(
      c(
        'c.visitor_id',
        'in',
        c
          .selectFrom(visitors.as('v'))
          .select('v.id')
          .where('v.organization_id', '=', organizationId)
          .where('v.company_id', 'in', [...filter.companyId]),
      ),
    );
  if (filter.tag !== undefined) {
    const labels = filter.tag.map(tagLabel);
    found.push(filter.tagMatch === 'all' ? sql<SqlBool>`c.labels @> ${labels}::text[]` : sql<SqlBool>`c.labels && ${labels}::text[]`);
  }
  if (filter.customAttributes !== undefined) {
    const labels = Object.entries(filter.customAttributes).map(([name, value]) => attributeLabel(name, value));
    found.push(sql<SqlBool>`c.labels @> ${labels}::text[]`);
  }
  if (filter.createdAfter !== undefined) found.push(c('c.created_at', '>=', filter.createdAfter));
  if (filter.createdBefore !== undefined) found.push(c('c.created_at', '<', filter.createdBefore));
  if (filter.updatedAfter !== undefined) found.push(c('c.updated_at', '>=', filter.updatedAfter));
  if (filter.updatedBefore !== undefined) found.push(c('c.updated_at', '<', filter.updatedBefore));
  return found;
}

const inOrder = (by: OrderByItemBuilder, { by: sorted, order }: ListConversations['sort']) =>
  sorted === 'waitingSince' ? by[order]().nullsLast() : by[order]();

/** The rows after the cursor, in sort order. Compares the columns as one row, which the index serves. */
function afterCursor(sort: ListConversations['sort'], after: readonly (string | number | null)[]): Expression<SqlBool> {
  const [value, updatedAt, id] = after;
  const beyond = sql.raw(sort.order === 'asc' ? '>' : '<');
  if (sort.by === 'priority')
    return sql<SqlBool>`(c.priority, c.updated_at, c.id) ${beyond} (${value}::smallint, ${updatedAt}::bigint, ${id})`;
  return sql<SqlBool>`(${sql.ref(`c.${SORT_COLUMNS[sort.by]}`)}, c.id) ${beyond} (${value}::bigint, ${id})`;
}

function summaryOf(row: Row, withhold: boolean): ConversationSummary {
  const visitor = visitorBrief(row.visitor_id, {
    userId: row.visitor_user_id,
    name: row.visitor_name,
    email: row.visitor_email,
    phone: row.visitor_phone,
    avatarUrl: row.visitor_avatar_url,
    plan: row.visitor_plan,
    companyId: row.visitor_company_id,
  });
  const joined = { visitor, assigneeName: row.current_assignee_name ?? undefined, teamName: row.current_team_name ?? undefined };
  return conversationSummary(row.id, stateOfRow(row), row.revision, joined, withhold);
}
