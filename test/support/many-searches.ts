import pg from 'pg';
import { INSIGHT_GROUP } from '../../src/read-models/groups.js';
import { markOf } from '../../src/search/search.terms.js';
import { NEWEST } from './many-conversations.js';
import { CORE_SCHEMA, readModels } from './read-schema.js';

/*
 * What a search looks in, as a desk has it after a year, made by the database itself beside its conversations. The words of messages are
 * spread as in languages: the n-th word is n times as rare as the first. `campaign` stands only in old messages. The log knows nothing of
 * them.
 */

const schema = readModels.groups.find(({ name }) => name === INSIGHT_GROUP)?.schema ?? '';
const DAY = 24 * 60 * 60 * 1000;
const VOCABULARY = 50_000;
const WORDS = 20;

/** Texts of the conversations that makeManyConversations() made, so many messages each. Conversations of the log, which have a key, have texts. */
export async function makeManySearches(url: string, organizationId: string, messages = 8): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const mark = markOf(organizationId);
  const chance = (of: string, purpose: string) => `((hashint8extended(${of}, ${purpose}) & 1048575)::float8 / 1048576)`;
  try {
    await client.query(
      "set synchronous_commit = off; set gin_pending_list_limit = '512MB'; set maintenance_work_mem = '512MB'; set work_mem = '64MB'",
    );
    await client.query(
      `create temp table one as select row_number() over (order by id) as i, id, created_at, updated_at, tags, subject, visitor_id, custom_attributes ->> 'plan' as plan
       from ${CORE_SCHEMA}.conversations where organization_id = $1 and key_id = ''`,
      [organizationId],
    );
    await client.query(
      `insert into ${schema}.search_messages (organization_id, conversation_id, revision, at, message, terms)
       select $1, id, n, at, json_build_object('messageId', md5(id || n), 'type', 'visitor', 'contentType', 'text', 'content', content,
         'createdAt', to_char(to_timestamp(at / 1000) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.000"Z"')), terms::tsvector
       from (
         select one.id, n, created_at + (updated_at - created_at) * n / ${messages} as at, said.*
         from one, generate_series(1, ${messages}) n, lateral (
           select string_agg(word, ' ' order by p) as content, string_agg('''${mark}' || word || ''':' || p, ' ') as terms from (
             select p, case when p = 1 and created_at < $2::bigint and ${chance('i * 100 + n', '99')} < 0.3 then 'campaign'
               else 'w' || floor(exp(${chance('(i * 100 + n) * 100 + p', '98')} * ln(${VOCABULARY}))) end as word from generate_series(1, ${WORDS}) p
           ) words
         ) said
       ) made order by at`,
      [organizationId, NEWEST - 250 * DAY],
    );
    await client.query(
      `insert into ${schema}.search_conversations (organization_id, conversation_id, revision, visitor_id, at, fields, terms)
       select $1, id, 0, visitor_id, created_at, '{}', ('''${mark}question'':1 ''${mark}' || split_part(subject, ' ', 2) || ''':2 ''${mark}' || plan || ''':90 ''${mark}tag'':30'
         || coalesce((select string_agg(' ''${mark}' || substr(t, 5) || ''':31', '') from unnest(tags) t), ''))::tsvector from one`,
      [organizationId],
    );
    await client.query(
      `insert into ${schema}.search_visitors (organization_id, visitor_id, revision, name, email, name_line, email_line, grams, terms)
       select $1, v.id, 0, v.name, v.email, lower(v.name), v.email,
         (select array_agg(distinct '${mark}' || substr(line, p, 3)) from unnest(array[lower(v.name), v.email]) line, generate_series(1, length(line) - 2) p),
         ('''${mark}visitor'':1 ''${mark}' || split_part(v.name, ' ', 2) || ''':2 ''${mark}' || split_part(v.email, '@', 1) || ''':23 ''${mark}example'':24 ''${mark}com'':25')::tsvector
       from ${CORE_SCHEMA}.visitors v where organization_id = $1 and id like 'visitor-%'`,
      [organizationId],
    );
    await client.query('drop table one');
    await client.query('vacuum analyze');
  } finally {
    await client.end();
  }
}

/** The questions that searches are measured by. */
export const MANY_SEARCHES: readonly (readonly [name: string, query: string])[] = [
  ['a rare word', 'q=w40001'],
  ['a word in one of fifty messages', 'q=w100'],
  ['a word in most messages', 'q=w1'],
  ['the beginning of most words', 'q=w'],
  ['a frequent beginning', 'q=w12'],
  ['a common word that is old', 'q=campaign'],
  ['a common and a rare word', 'q=w1+w30123'],
  ['two common words', 'q=w1+w2'],
  ['a phrase of common words', 'q=%22w1+w2%22'],
  ['a common word without another', 'q=w1+-w2'],
  ['a common word, snoozed', 'q=w1&status=snoozed'],
  ['a common word of one visitor', 'q=w1&visitorId=visitor-77'],
  ['a common word with a tag', 'q=w1&tag=tag-23'],
  ['a whole address', 'q=visitor123@example.com'],
  ['a piece of an address', 'q=tor1234'],
  ['a piece of every address', 'q=xample'],
  ['a name and an attribute', 'q=visitor123+pro'],
];
