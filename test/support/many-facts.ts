import pg from 'pg';
import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { NEWEST } from './many-conversations.js';
import { readModels } from './read-schema.js';

/*
 * Facts as a desk has them after a year, made by the database itself beside its conversations: what numbers cost depends on how the rows are
 * spread, not on how they came about. The log knows nothing of them.
 */

const schema = readModels.groups.find(({ name }) => name === INSIGHT_GROUP)?.schema ?? '';
const DAY = 24 * 60 * 60 * 1000;
const CHANCE = (purpose: number) => `((hashint8extended(i, ${purpose}) & 1048575)::float8 / 1048576)`;

/** Facts of `count` conversations: opened, seven messages, nine tenths of them ended, a third of these rated, every tenth reopened. */
export async function makeManyFacts(url: string, organizationId: string, count: number): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const dims = `'inbox-' || (${CHANCE(4)} * 6)::int % 6 as inbox_id, 'api' as channel, (array['urgent', 'high', 'normal', 'low'])[1 + (${CHANCE(5)} * 4)::int % 4] as priority,
    case when ${CHANCE(11)} < 0.7 then 'agent-' || (${CHANCE(12)} * 50)::int % 50 end as assignee_id, case when ${CHANCE(13)} < 0.5 then 'team-' || (${CHANCE(14)} * 8)::int % 8 end as team_id,
    (select coalesce(array_agg('tag-' || t order by t), '{}') from generate_series(1, 20) t where ((hashint8extended(i * 20 + t, 15) & 1048575)::float8 / 1048576) < 0.5 / t) as tags`;
  const named = 'inbox_id, channel, priority, assignee_id, team_id, tags';
  try {
    await client.query('set synchronous_commit = off');
    await client.query(
      `create temp table one as select i, md5('c' || i) as id, $1::bigint - (${CHANCE(16)} * 365 * ${DAY})::bigint as opened,
         (-ln(1 - ${CHANCE(18)}) * 1800000)::bigint as responded, (-ln(1 - ${CHANCE(8)}) * 2 * ${DAY})::bigint + 3600000 as took, ${CHANCE(9)} < 0.9 as ended,
         'agent-' || (${CHANCE(19)} * 50)::int % 50 as person, ${dims} from generate_series(1, $2::int) i`,
      [NEWEST - 10 * DAY, count],
    );
    const fact = `insert into ${schema}.facts (organization_id, conversation_id, revision, kind, at, ${named}, person_id, first_response_ms, first_response_working_ms,
      response_ms, response_working_ms, resolution_ms, resolution_working_ms, ended_status, status_ms, status_working_ms)`;
    const none = 'null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null, null::bigint, null::bigint';
    await client.query(`${fact} select $1, id, 0, 'opened', opened, ${named}, null, ${none} from one`, [organizationId]);
    for (let n = 0; n < 4; n++)
      await client.query(`${fact} select $1, id, 1 + ${2 * n}, 'received', opened + took * ${n} / 5, ${named}, null, ${none} from one`, [
        organizationId,
      ]);
    for (let n = 0; n < 3; n++) {
      const first = n === 0 ? 'responded, responded / 3' : 'null::bigint, null::bigint';
      await client.query(
        `${fact} select $1, id, 2 + ${2 * n}, 'sent', opened + took * ${n} / 5 + responded, ${named}, person, ${first}, responded, responded / 3, null::bigint, null::bigint, null, null::bigint, null::bigint from one`,
        [organizationId],
      );
    }
    await client.query(
      `${fact} select $1, id, 9, 'resolved', opened + took, ${named}, person, null::bigint, null::bigint, null::bigint, null::bigint, took, took / 3, 'open', took, took / 3 from one where ended`,
      [organizationId],
    );
    await client.query(
      `insert into ${schema}.episodes (organization_id, conversation_id, episode, position, revision, started_at, ended_at, ended_by, ${named}, person_id, rating, rated_at, rated_revision, reopened_at)
       select $1, id, 1, '0', 9, opened, opened + took, 'resolved', ${named}, person, case when i % 3 = 0 then 1 + i % 5 end, case when i % 3 = 0 then opened + took + 60000 end,
         case when i % 3 = 0 then 10 end, case when i % 10 = 0 then opened + took + 3600000 end from one where ended`,
      [organizationId],
    );
    await client.query(
      `insert into ${schema}.spans (organization_id, conversation_id, revision, position, status, from_at, to_at, ${named})
       select $1, id, 0, '0', 'open', opened, case when ended then opened + took end, ${named} from one`,
      [organizationId],
    );
    await client.query('drop table one');
    await client.query('vacuum analyze');
  } finally {
    await client.end();
  }
}

/** The questions that numbers are measured by. */
export const MANY_NUMBERS: readonly (readonly [name: string, path: string])[] = [
  ['the six numbers over everything', 'conversations'],
  ['the six numbers of a month', 'conversations?from=2026-03-01&to=2026-04-01'],
  ['messages sent by day and agent over a year', 'metrics/messages_sent?interval=day&by=agent&from=2025-06-01&to=2026-06-01'],
  ['first response by day over a year', 'metrics/first_response_time?interval=day&from=2025-06-01&to=2026-06-01'],
  ['first response by day and agent over a year', 'metrics/first_response_time?interval=day&by=agent&from=2025-06-01&to=2026-06-01'],
  [
    'conversations resolved by day and agent over a year',
    'metrics/conversations_resolved?interval=day&by=agent&from=2025-06-01&to=2026-06-01',
  ],
  ['backlog by day over a year', 'metrics/backlog?interval=day&from=2025-06-01&to=2026-06-01'],
  ['ratings by tag and month', 'metrics/rating?interval=month&by=tag&from=2025-06-01&to=2026-06-01'],
  ['what is behind a month of first responses', 'metrics/first_response_time/conversations?from=2026-03-01&to=2026-04-01'],
];
