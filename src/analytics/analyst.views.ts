import { createHash } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { Database } from '../database/database.js';
import { type Metric, METRICS } from './metrics.js';

/*
 * The views of the schema `analytics`: for each metric one of the rows that it counts, and those by whose ids they are joined. They read the
 * views of the schema `threadlog`, whose names never change, and show each analyst the analyst's own organization.
 */

/** A column: its SQL, and what it holds. */
interface Column {
  readonly sql: string;
  readonly says: string;
}

export interface AnalystView {
  readonly name: string;
  readonly says: string;
  /** The views of the schema `threadlog` that it reads; the first one's alias is `f`. */
  readonly reads: readonly string[];
  readonly where: string;
  readonly columns: Readonly<Record<string, Column>>;
}

const instant = (ms: string) => `to_timestamp(${ms} / 1000.0)`;
const seconds = (ms: string) => `round(${ms} / 1000.0, 3)`;

const CONVERSATION: Column = { sql: 'f.conversation_id', says: 'The conversation.' };
const OF_FACTS = {
  inbox_id: { sql: 'f.inbox_id', says: 'The inbox that the conversation was in.' },
  channel: { sql: 'f.channel', says: 'How the conversation came in: api, widget or import.' },
  priority: { sql: 'f.priority', says: 'The priority that it had: urgent, high, normal or low.' },
  team_id: { sql: 'f.team_id', says: 'The team whose queue it was in; null without.' },
  tags: { sql: 'f.tags', says: 'The tags that it had.' },
} as const satisfies Record<string, Column>;

function viewOf({ name, unit, definition, belongsTo, behind }: Metric): AnalystView {
  const { table, where, at, revision, agent, status, value, working } = behind;
  const agentColumn: Column = {
    sql: agent,
    says: `To whom it counts: ${belongsTo}. The id of an agent, or of an API key without an agent.`,
  };
  const told = table === 'spans' ? spanColumns : { counted_at: { sql: instant(at), says: 'When it counts.' } };
  return {
    name,
    says: definition,
    reads: [table],
    where,
    columns: {
      conversation_id: CONVERSATION,
      revision: { sql: revision, says: 'The revision of the event that counts, in the stream of the conversation.' },
      ...told,
      ...OF_FACTS,
      agent_id: agentColumn,
      ...(status === undefined
        ? {}
        : { status: { sql: status, says: table === 'spans' ? 'The status in that time.' : 'The status that ended.' } }),
      ...(unit === 'seconds' && value !== undefined ? { seconds: { sql: seconds(value), says: 'Its length in calendar time.' } } : {}),
      ...(working === undefined
        ? {}
        : { working_seconds: { sql: seconds(working), says: 'How much of it lay within the working hours in force.' } }),
      ...(unit === 'rating' && value !== undefined ? { rating: { sql: value, says: 'From 1 to 5, the latest of its episode.' } } : {}),
      ...(unit === 'share' && value !== undefined ? { reopened: { sql: `(${value} = 1)`, says: 'Whether it was reopened later.' } } : {}),
    },
  };
}

const spanColumns: Readonly<Record<string, Column>> = {
  from_at: { sql: instant('f.from_at'), says: 'Since when it waited like this.' },
  to_at: { sql: instant('f.to_at'), says: 'Until when, excluded; null while it lasts.' },
};

const named = (name: string, says: string, reads: string, where: string): AnalystView => ({
  name,
  says,
  reads: [reads],
  where,
  columns: {
    id: { sql: 'f.id', says: 'Its id, which facts name.' },
    name: { sql: 'f.name', says: 'Its current name.' },
    archived: { sql: 'f.archived', says: 'Whether it is archived.' },
    created_at: { sql: instant('f.created_at'), says: 'When it was made.' },
  },
});

/** Every view, in the order of the docs. */
export const ANALYST_VIEWS: readonly AnalystView[] = [
  ...METRICS.map(viewOf),
  {
    name: 'conversations',
    says: 'Conversations as they are now, without their contents.',
    reads: ['conversations'],
    where: 'true',
    columns: {
      id: { sql: 'f.id', says: 'Its id, which facts name as conversation_id.' },
      visitor_id: { sql: 'f.visitor_id', says: 'The visitor.' },
      company_id: { sql: 'f.company_id', says: "The visitor's company when the conversation was opened; null without." },
      inbox_id: { sql: 'f.inbox_id', says: 'The inbox.' },
      channel: { sql: 'f.channel', says: 'How it came in: api, widget or import.' },
      status: { sql: 'f.status', says: 'open, pending, snoozed, resolved or closed.' },
      priority: { sql: "(array['urgent', 'high', 'normal', 'low'])[1 + f.priority]", says: 'urgent, high, normal or low.' },
      assignee_id: { sql: 'f.assignee_id', says: 'The agent or team that has it; null without.' },
      team_id: { sql: 'f.team_id', says: 'The team whose queue it is in; null without.' },
      tags: { sql: 'f.tags', says: 'Its tags.' },
      episode: { sql: 'f.episode', says: 'The number of its current or last episode; the first is 1.' },
      rating: { sql: 'f.rating', says: 'The latest rating, from 1 to 5; null without.' },
      message_count: { sql: 'f.message_count', says: 'How many messages it has, notes included.' },
      waiting_since: { sql: instant('f.waiting_since'), says: "The visitor's first unanswered message; null when nobody waits." },
      created_at: { sql: instant('f.created_at'), says: 'When it was opened.' },
      updated_at: { sql: instant('f.updated_at'), says: 'When it changed last.' },
    },
  },
  named('inboxes', 'Inboxes by their ids.', 'inboxes', 'true'),
  named('agents', 'Agents by their ids.', 'assignees', `f.type = 'agent'`),
  named('teams', 'Teams by their ids.', 'assignees', `f.type = 'team'`),
];

const WANTED = [...new Set(ANALYST_VIEWS.flatMap(({ reads }) => reads))];
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** Keeps others from changing the views and their rights until the transaction ends: PostgreSQL refuses two grants on a view at once. */
export const lockAnalytics = (tx: Kysely<Database>) => sql`select pg_advisory_xact_lock(hashtext('threadlog analytics'))`.execute(tx);

/**
 * Makes the views, once all that they read is there. Called whenever the views of the schema `threadlog` may have changed, in the same
 * transaction: a view of theirs that lost a column was dropped with ours.
 */
export async function makeAnalystViews(tx: Kysely<Database>): Promise<void> {
  const { rows: present } = await sql<{ name: string }>`
    select viewname as name from pg_views where schemaname = 'threadlog' and viewname = any(${WANTED}::text[])`.execute(tx);
  if (present.length < WANTED.length) return;
  await lockAnalytics(tx);
  const { rows: made } = await sql<{ name: string; told: string | null }>`
    select c.relname as name, obj_description(c.oid, 'pg_class') as told
    from pg_class c where c.relnamespace = 'analytics'::regnamespace and c.relkind = 'v'`.execute(tx);
  const known = new Map(made.map(({ name, told }) => [name, told]));
  let isChanged = false;
  for (const view of ANALYST_VIEWS) {
    const statement = definitionOf(view);
    const told = `${view.says} [${fingerprint(statement)}]`;
    // Nothing is done to a view that is as it should be, so that nobody who reads it waits.
    if (known.get(view.name) === told) continue;
    isChanged = true;
    if (known.has(view.name)) await sql.raw(`drop view analytics.${view.name} cascade`).execute(tx);
    for (const one of [statement, ...commentsOf(view, told)]) await sql.raw(one).execute(tx);
  }
  if (!isChanged) return;
  await sql`
    do $$ declare r name; begin
      for r in select role from keep.analyst_roles a where exists (select from pg_roles p where p.rolname = a.role) loop
        execute format('grant select on all tables in schema analytics to %I', r);
      end loop;
    end $$`.execute(tx);
}

const fingerprint = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 8);

function definitionOf({ name, reads: [table = ''], where, columns }: AnalystView): string {
  const selected = Object.entries(columns).map(([column, { sql: expression }]) => `${expression} as ${column}`);
  // A barrier, so that no function of the analyst's sees a row before the organization's condition has.
  return `create view analytics.${name} with (security_barrier) as select ${selected.join(', ')} from threadlog.${table} f
    where f.organization_id = (select analytics.organization_id()) and ${where}`;
}

function* commentsOf({ name, columns }: AnalystView, told: string): Generator<string> {
  yield `comment on view analytics.${name} is ${literal(told)}`;
  for (const [column, { says }] of Object.entries(columns)) yield `comment on column analytics.${name}.${column} is ${literal(says)}`;
}
