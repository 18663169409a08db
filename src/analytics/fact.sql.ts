import { type RawBuilder, sql, type SqlBool } from 'kysely';
import { type ConversationFilter, filterOf } from '../conversations/conversation.list.js';
import { conversationsTable } from '../conversations/conversation.table.js';
import type { ReadModels } from '../read-models/read-models.js';
import { episodesTable, factsTable, spansTable } from './fact.tables.js';
import type { Behind, Dimension } from './metrics.js';
import { type FactFilter, filtersOf } from './question.js';
import type { Instants } from './analytics.ranges.js';

/** SQL over the rows behind a metric, whose alias is `f`. The fragments of METRICS are constants of this build, never input. */

const TABLES = { facts: factsTable, episodes: episodesTable, spans: spansTable } as const;

export const rowsOf = (readModels: ReadModels, { table }: Behind): RawBuilder<unknown> => sql`${readModels.view<object>(TABLES[table])} f`;

/** The value by which a row is broken down; with `tag`, rowsBy() must join the tags. */
export function keyOf({ agent, status }: Behind, by: Dimension): RawBuilder<string | null> {
  switch (by) {
    case 'inbox':
      return sql`f.inbox_id`;
    case 'agent':
      return sql.raw(agent);
    case 'team':
      return sql`f.team_id`;
    case 'tag':
      return sql`tagged.tag`;
    case 'channel':
      return sql`f.channel`;
    case 'priority':
      return sql`f.priority`;
    case 'status':
      if (status === undefined) throw new Error('the metric tells no statuses apart');
      return sql.raw(status);
  }
}

/** A row counts once for each of its tags, and once without any. */
export const joined = (by: Dimension | undefined): RawBuilder<unknown> =>
  by === 'tag' ? sql`left join unnest(f.tags) as tagged(tag) on true` : sql``;

/** The filters that select facts as of their event. */
function factConditions(behind: Behind, filter: FactFilter): RawBuilder<SqlBool>[] {
  const found: RawBuilder<SqlBool>[] = [];
  const any = (column: RawBuilder<unknown>, values: readonly string[] | undefined) => {
    if (values !== undefined) found.push(sql<SqlBool>`${column} = any(${values}::text[])`);
  };
  any(sql`f.inbox_id`, filter.inboxId);
  any(sql`f.team_id`, filter.teamId);
  any(sql`f.priority`, filter.priority);
  if (filter.assigneeId !== undefined) {
    const ids = filter.assigneeId.filter((id) => id !== 'none');
    const agent = sql.raw(behind.agent);
    const none = ids.length < filter.assigneeId.length ? sql<SqlBool>`${agent} is null` : sql<SqlBool>`false`;
    found.push(sql<SqlBool>`(${agent} = any(${ids}::text[]) or ${none})`);
  }
  if (filter.tag !== undefined)
    found.push(filter.tagMatch === 'all' ? sql<SqlBool>`f.tags @> ${filter.tag}::text[]` : sql<SqlBool>`f.tags && ${filter.tag}::text[]`);
  return found;
}

/** The conditions on the rows behind a metric, but those of time. */
export function conditionsOf(
  readModels: ReadModels,
  organizationId: string,
  behind: Behind,
  filter: ConversationFilter,
): RawBuilder<SqlBool>[] {
  const { facts, conversations } = filtersOf(filter);
  const found = [
    sql<SqlBool>`f.organization_id = ${organizationId}`,
    sql<SqlBool>`${sql.raw(behind.where)}`,
    ...factConditions(behind, facts),
  ];
  if (conversations !== undefined)
    found.push(
      sql<SqlBool>`f.conversation_id in (select c.id from ${readModels.view(conversationsTable)} c
        where ${filterOf(readModels, organizationId, conversations)})`,
    );
  return found;
}

export const withinRange = (at: string, { from, to }: Pick<Instants, 'from' | 'to'>): RawBuilder<SqlBool>[] => [
  ...(from === undefined ? [] : [sql<SqlBool>`${sql.raw(at)} >= ${from}`]),
  ...(to === undefined ? [] : [sql<SqlBool>`${sql.raw(at)} < ${to}`]),
];

export const allOf = (conditions: readonly RawBuilder<SqlBool>[]): RawBuilder<SqlBool> => sql<SqlBool>`${sql.join(conditions, sql` and `)}`;
