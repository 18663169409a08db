import pg from 'pg';
import { attributeLabel, tagLabel } from '../../src/conversations/conversation.table.js';
import { CORE_SCHEMA } from './read-schema.js';

/*
 * Rows of the read models as a desk has them after a year, made by the database itself: what lists cost depends on how the values are
 * spread, not on how the rows came about. The log knows nothing of them.
 */

const DAY = 24 * 60 * 60 * 1000;
/** The newest change of any row: lists that ask for a time ask before it. */
export const NEWEST = Date.parse('2026-06-01T00:00:00Z');

/**
 * Names of what the rows hold, for filters. A tenth of the conversations is not over; agents and inboxes are busy alike; the first tag is on
 * every second conversation, the twentieth on one in forty; one visitor in ten works for one of the companies.
 */
export const MANY = {
  agent: (n: number) => `agent-${n % 50}`,
  team: (n: number) => `team-${n % 8}`,
  inbox: (n: number) => `inbox-${n % 6}`,
  tag: (n: number) => `tag-${n}`,
  company: (n: number) => `company-${n}`,
  visitor: (n: number) => `visitor-${n}`,
  plans: ['free', 'starter', 'pro', 'enterprise'],
} as const;

// `chance(i, n)` is the same number from 0 to below 1 for the same row and purpose, run after run.
const CHANCE = (purpose: number) => `((hashint8extended(i, ${purpose}) & 1048575)::float8 / 1048576)`;
const TAGS = 40;

/** Fills the views of the live generation with `count` conversations of `count / 4` visitors, and lets the planner look at them. */
export async function makeManyConversations(url: string, organizationId: string, count: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('set synchronous_commit = off');
    await client.query(
      `insert into ${CORE_SCHEMA}.visitors (organization_id, id, revision, archived, name, sort_name, email, email_key, company_id, created_at, updated_at, state)
       select $1, 'visitor-' || i, 0, false, 'Visitor ' || i, 'visitor ' || i, 'visitor' || i || '@example.com', 'visitor' || i || '@example.com',
         case when ${CHANCE(1)} < 0.1 then 'company-' || (${CHANCE(2)} * 200)::int end, $2::bigint - i, $2::bigint - i, '{}'
       from generate_series(1, $3::int) i`,
      [organizationId, NEWEST - 400 * DAY, Math.max(1, Math.floor(count / 4))],
    );
    const plans = MANY.plans.map((plan) => `'${attributeLabel('plan', plan)}'`).join(', ');
    await client.query(
      `insert into ${CORE_SCHEMA}.conversations (organization_id, id, revision, position, key_id, visitor_id, inbox_id, channel, status, priority, subject,
         custom_attributes, assignee_id, assignee_type, assignee_name, team_id, team_name, tags, labels, snoozed_until, snooze_revision, episode,
         episode_ended, waiting_since, message_count, last_message, created_at, updated_at, shown_revision,
         shown_message_count, shown_updated_at)
       select $1, md5('c' || i), 8, '0', '', 'visitor-' || 1 + (${CHANCE(3)} * $3::int / 4)::int, 'inbox-' || (${CHANCE(4)} * 6)::int % 6, 'api', status,
         case when ${CHANCE(5)} < 0.02 then 0 when ${CHANCE(5)} < 0.1 then 1 when ${CHANCE(5)} < 0.9 then 2 else 3 end, 'Question ' || i,
         jsonb_build_object('plan', plan), agent, case when agent is not null then 'agent' end, agent, team, team, tags,
         (select coalesce(array_agg('tag:' || t), '{}') from unnest(tags) t) || (array[${plans}])[1 + plan_nr], case when status = 'snoozed' then 'next_reply' end,
         case when status = 'snoozed' then 8 end, 1, status in ('resolved', 'closed'),
         case when status = 'open' and ${CHANCE(6)} < 0.7 then updated end, 8,
         jsonb_build_object('messageId', md5('m' || i), 'type', 'visitor', 'contentType', 'text', 'createdAt', '2026-01-01T00:00:00.000Z',
           'content', repeat('What a customer writes to a desk. ', 1 + (${CHANCE(7)} * 6)::int)),
         created, updated, 8, 8, updated
       from (
         select i, created, least(created + (-ln(1 - ${CHANCE(8)}) * 3 * ${DAY})::bigint, $2::bigint) as updated, plan_nr, (array['${MANY.plans.join("', '")}'])[1 + plan_nr] as plan,
           case when age < 0.05 and ${CHANCE(9)} < 0.8 then (array['open', 'open', 'open', 'pending', 'snoozed'])[1 + (${CHANCE(10)} * 5)::int % 5]
             when ${CHANCE(9)} < 0.06 then (array['open', 'pending', 'snoozed'])[1 + (${CHANCE(10)} * 3)::int % 3]
             when ${CHANCE(9)} < 0.4 then 'resolved' else 'closed' end as status,
           case when ${CHANCE(11)} < 0.7 then 'agent-' || (${CHANCE(12)} * 50)::int % 50 end as agent,
           case when ${CHANCE(13)} < 0.5 then 'team-' || (${CHANCE(14)} * 8)::int % 8 end as team,
           (select coalesce(array_agg('tag-' || t order by t), '{}') from generate_series(1, ${TAGS}) t
             where ((hashint8extended(i * ${TAGS} + t, 15) & 1048575)::float8 / 1048576) < 0.5 / t) as tags
         from (select i, ${CHANCE(16)} as age, $2::bigint - (${CHANCE(16)} * 365 * ${DAY})::bigint as created, (${CHANCE(17)} * 4)::int % 4 as plan_nr
           from generate_series(1, $3::int) i) aged
       ) made`,
      [organizationId, NEWEST, count],
    );
    await client.query('vacuum analyze');
  } finally {
    await client.end();
  }
}

/** The twelve questions that lists are measured by: what desks ask for all day, and some that no single index answers. */
export function manyQuestions(count: number): readonly (readonly [name: string, query: string])[] {
  const iso = (at: number) => encodeURIComponent(new Date(at).toISOString());
  const plan = encodeURIComponent('customAttributes[plan]');
  return [
    ['everything, newest first', ''],
    ['open', 'status=open'],
    ['open, of one agent', `status=open&assigneeId=${MANY.agent(7)}`],
    ['open, of nobody, longest waiting', 'status=open&assigneeId=none&sort=waitingSince&order=asc'],
    ['open or snoozed in one inbox', `status=open&status=snoozed&inboxId=${MANY.inbox(2)}`],
    ['a common tag', `tag=${MANY.tag(1)}`],
    ['two rare tags', `tag=${MANY.tag(31)}&tag=${MANY.tag(37)}&tagMatch=all`],
    ['an attribute, closed', `${plan}=pro&status=closed`],
    ['one visitor', `visitorId=${MANY.visitor(Math.floor(count / 8))}`],
    ['one company', `companyId=${MANY.company(42)}`],
    [
      'made in one week, urgent or high, by priority',
      `createdAfter=${iso(NEWEST - 60 * DAY)}&createdBefore=${iso(NEWEST - 53 * DAY)}&priority=urgent&priority=high&sort=priority`,
    ],
    ['resolved of one team with a rare tag', `status=resolved&teamId=${MANY.team(3)}&tag=${MANY.tag(23)}`],
  ];
}

// The rows' labels are written by SQL above and read by this build's own functions.
if (tagLabel('x') !== 'tag:x') throw new Error('a tag has another label than many-conversations.ts writes');
