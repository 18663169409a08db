import { Inject } from '@nestjs/common';
import { type IQueryHandler, Query, QueryHandler } from '@nestjs/cqrs';
import { type Kysely, sql, type SqlBool } from 'kysely';
import { type ShownStatus, shownStatus, STATUSES } from './conversation.js';
import { type VisitorConversationSummary, visitorConversationSummary } from './visitor-conversation.answer.js';
import { DATABASE, type Database } from '../database/database.js';
import { type ConversationRow, conversationsTable, shownLastMessage } from './conversation.table.js';
import { ReadModels } from '../read-models/read-models.js';
import { Cursors, type PageMeta, pageOfRows, readPaging, TOTAL_LIMIT } from '../read-models/paging.js';

export const OWN_SORTS = ['updatedAt', 'createdAt'] as const;
export type OwnSort = (typeof OWN_SORTS)[number];

/** Filtered, sorted and paged only by what the visitor sees: order and cursors would reveal a note just as a field would. */
const SORT_COLUMNS = { updatedAt: 'shown_updated_at', createdAt: 'created_at' } as const;

/** A visitor's own conversations. */
export class ListOwnConversations extends Query<{ data: VisitorConversationSummary[]; meta: PageMeta }> {
  constructor(
    readonly organizationId: string,
    readonly visitorId: string,
    /** Any of these; all by default. */
    readonly status: readonly ShownStatus[] | undefined,
    readonly sort: { readonly by: OwnSort; readonly order: 'asc' | 'desc' },
    /** page, limit, cursor, total, as in the query string */
    readonly paging: Readonly<Record<string, unknown>>,
  ) {
    super();
  }
}

@QueryHandler(ListOwnConversations)
export class ListOwnConversationsHandler implements IQueryHandler<ListOwnConversations> {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(Cursors) private readonly cursors: Cursors,
  ) {}

  async execute(query: ListOwnConversations): Promise<{ data: VisitorConversationSummary[]; meta: PageMeta }> {
    const { organizationId, visitorId, status, sort } = query;
    const scope = JSON.stringify(['own conversations', organizationId, visitorId, status, sort]);
    const paging = readPaging(query.paging, this.cursors, scope);
    const column = SORT_COLUMNS[sort.by];
    const own = this.database
      .selectFrom(this.readModels.view(conversationsTable).as('c'))
      .where('c.organization_id', '=', organizationId)
      .where('c.visitor_id', '=', visitorId)
      .$if(status !== undefined, (all) =>
        all.where(
          'c.status',
          'in',
          STATUSES.filter((one) => status?.includes(shownStatus(one))),
        ),
      );
    const [value, id] = paging.after ?? [];
    const [rows, total] = await Promise.all([
      own
        .selectAll('c')
        .$if(paging.after !== undefined, (all) =>
          all.where(sql<SqlBool>`(${sql.ref(`c.${column}`)}, c.id) ${sql.raw(sort.order === 'asc' ? '>' : '<')} (${value}::bigint, ${id})`),
        )
        .orderBy(`c.${column}`, sort.order)
        .orderBy('c.id', sort.order)
        .limit(paging.limit + 1)
        .offset(paging.after === undefined ? (paging.page - 1) * paging.limit : 0)
        .execute(),
      paging.withTotal
        ? this.database
            .selectFrom(
              own
                .select(sql.lit(1).as('one'))
                .limit(TOTAL_LIMIT + 1)
                .as('counted'),
            )
            .select((row) => row.fn.countAll<number>().as('n'))
            .executeTakeFirstOrThrow()
        : undefined,
    ]);
    const counted = total === undefined ? undefined : Number(total.n);
    const { shown, meta } = pageOfRows(paging, rows, counted, (last) => this.cursors.sign(scope, [last[column], last.id]));
    return { data: shown.map(summaryOf), meta };
  }
}

const instant = (at: number) => new Date(at).toISOString();

function summaryOf(row: ConversationRow): VisitorConversationSummary {
  const { id, status, subject, channel, rating, rating_comment: comment, rating_episode: episode } = row;
  return visitorConversationSummary(id, {
    status,
    subject,
    channel,
    rating: rating === null || episode === null ? null : { rating, comment, episode },
    createdAt: instant(row.created_at),
    shown: {
      revision: row.shown_revision,
      messageCount: row.shown_message_count,
      lastMessage: shownLastMessage(row),
      updatedAt: instant(row.shown_updated_at),
    },
  });
}
