import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import type { Database } from '../database/database.js';
import type { ReadModels } from '../read-models/read-models.js';
import { isLoneCharacter } from './words.js';
import { excludedOf, isPrefixAt, type SearchQuestion, type Term, wantedOf } from './question.js';
import { searchConversationsTable, searchMessagesTable, searchVisitorsTable } from './search.tables.js';
import { GRAM, gramsOf, markOf, queryOfRank, queryOfTerm, queryOfTerms } from './search.terms.js';

/*
 * A question as SQL. Two conditions find a conversation: one of its messages has all words, or its own fields have them, among which are its
 * visitor's name and address. Aliases: `m` a message, `s` a conversation's own fields, `v` its visitor, `c` its row in the list.
 */

/** Up to so many matches are read one by one; of more, the newest are looked for in their order. */
export const FEW = 10_000;

/** A question of one organization, ready for SQL. */
export interface Asked {
  readonly readModels: ReadModels;
  readonly organizationId: string;
  readonly question: SearchQuestion;
  /** False for roles that may not read messages. */
  readonly messages: boolean;
}

/** True when there is something to find. A question of nothing, or only of what is excluded, finds nothing. */
export const findsAnything = ({ question }: Asked): boolean => wantedOf(question).length > 0;

const tsquery = (query: string): RawBuilder<unknown> => sql`${query}::tsquery`;
const all = (conditions: readonly RawBuilder<SqlBool>[]): RawBuilder<SqlBool> =>
  conditions.length === 0 ? sql<SqlBool>`true` : sql<SqlBool>`(${sql.join(conditions, sql` and `)})`;

/** A beginning this short is the beginning of so many words that an index over words is no help. */
const SHORT = 2;
const isShort = (term: Term): boolean => {
  const [first, ...more] = term.words;
  return first !== undefined && more.length === 0 && isPrefixAt(term, 0) && !isLoneCharacter(first.term) && first.term.length <= SHORT;
};

/** What the full text index is asked for: the question's words that are no short beginnings. Undefined without any. */
export function indexed({ organizationId, question }: Asked): RawBuilder<unknown> | undefined {
  const long = wantedOf(question).filter((term) => !isShort(term));
  return long.length === 0 ? undefined : tsquery(queryOfTerms(markOf(organizationId), long, []));
}

/** The whole question to one message. */
export function fullQuery({ organizationId, question }: Asked): RawBuilder<unknown> {
  return tsquery(queryOfTerms(markOf(organizationId), wantedOf(question), excludedOf(question)));
}

/** What a match is ranked by. */
export function rankQuery({ organizationId, question }: Asked): RawBuilder<unknown> {
  return tsquery(queryOfRank(markOf(organizationId), wantedOf(question)));
}

/** A condition that no index answers, for a walk through rows in another order. */
export const unindexed = (condition: RawBuilder<SqlBool>): RawBuilder<SqlBool> => sql<SqlBool>`(${condition}) is true`;

/** Whether the visitor `v` has a term in its name or address. A word may be any piece of them, a phrase is whole words. */
function visitorHas({ organizationId }: Asked, term: Term, byIndex: boolean): RawBuilder<SqlBool> {
  const mark = markOf(organizationId);
  const words = sql<SqlBool>`v.terms @@ ${tsquery(queryOfTerm(mark, term))}`;
  if (term.quoted || term.excluded || Array.from(term.text).length < GRAM) return words;
  const piece = sql<SqlBool>`(strpos(v.name_line, ${term.text}) > 0 or strpos(v.email_line, ${term.text}) > 0)`;
  return byIndex ? sql<SqlBool>`(${words} or (v.grams @> ${gramsOf(mark, term.text)}::text[] and ${piece}))` : sql`(${words} or ${piece})`;
}

/** Whether the conversation's own fields, `s` and `v`, have all words and none that is excluded. */
export function ownFieldsMatch(asked: Asked): RawBuilder<SqlBool> {
  const mark = markOf(asked.organizationId);
  const has = (term: Term) =>
    sql<SqlBool>`(s.terms @@ ${tsquery(queryOfTerm(mark, term))} or coalesce(${visitorHas(asked, term, false)}, false))`;
  return unindexed(
    all([...wantedOf(asked.question).map(has), ...excludedOf(asked.question).map((term) => sql<SqlBool>`not ${has(term)}`)]),
  );
}

/** Rank of own fields: a name comes before all other texts. */
export function ownRank(asked: Asked): RawBuilder<number> {
  const named = wantedOf(asked.question).map((term) => sql`coalesce(${visitorHas(asked, term, false)}, false)`);
  return sql<number>`case when ${sql.join(named, sql` and `)} then 1 else ts_rank(s.terms, ${rankQuery(asked)}) end`;
}

/** The visitor `v` of own fields `s`. */
export const theirVisitor = ({ readModels }: Asked): RawBuilder<unknown> =>
  sql`left join ${readModels.view(searchVisitorsTable)} v on v.organization_id = s.organization_id and v.visitor_id = s.visitor_id`;

/** The ids of the conversations whose own fields have a term; some may come twice. */
export function idsByTerm(asked: Asked, term: Term, limit?: number): RawBuilder<unknown> {
  const { readModels, organizationId } = asked;
  const conversations = readModels.view(searchConversationsTable);
  const bounded = limit === undefined ? sql`` : sql`limit ${limit}`;
  return sql`(select s.conversation_id as id from ${conversations} s
      where s.organization_id = ${organizationId} and s.terms @@ ${tsquery(queryOfTerm(markOf(organizationId), term))} ${bounded})
    union all
    (select s.conversation_id as id from ${readModels.view(searchVisitorsTable)} v
      join ${conversations} s on s.organization_id = v.organization_id and s.visitor_id = v.visitor_id
      where v.organization_id = ${organizationId} and ${visitorHas(asked, term, true)} ${bounded})`;
}

/** How often words are tried before the rarest is taken. */
const TRIED = 4;

/** The term that the fewest conversations have in their own fields, and how many have it: exact up to FEW. */
export interface Rarest {
  readonly term: Term;
  readonly conversations: number;
}

/** Looks which term leads to the fewest conversations. The others are compared row by row. */
export async function rarestOf(session: Kysely<Database>, asked: Asked): Promise<Rarest> {
  const tried = wantedOf(asked.question)
    .toSorted((a, b) => b.text.length - a.text.length)
    .slice(0, TRIED);
  const counts = tried.map((term) => sql`(select count(*)::int from (${idsByTerm(asked, term, FEW + 1)}) counted)`);
  const { rows } = await sql<{ counts: readonly number[] }>`select array[${sql.join(counts)}]::int[] as counts`.execute(session);
  const conversations = Math.min(...(rows[0]?.counts ?? []));
  const term = tried[rows[0]?.counts.indexOf(conversations) ?? 0];
  if (term === undefined) throw new Error('a question of nothing has no terms');
  return { term, conversations };
}

/** At the end where a list begins, a question that one of so many messages answers is found by going through the list. */
const PROBED = 1_000;
const DENSE = 25;

/** Whether many of the newest or the oldest messages match. */
async function isDense(session: Kysely<Database>, asked: Asked, end: 'newest' | 'oldest'): Promise<boolean> {
  const order = sql.raw(end === 'newest' ? 'desc' : 'asc');
  const { rows } = await sql<{ n: number }>`select count(*)::int as n from (
    select m.terms from ${asked.readModels.view(searchMessagesTable)} m where m.organization_id = ${asked.organizationId}
    order by m.at ${order}, m.conversation_id ${order}, m.revision ${order} limit ${PROBED}) m
    where ${unindexed(sql<SqlBool>`m.terms @@ ${fullQuery(asked)}`)}`.execute(session);
  return (rows[0]?.n ?? 0) >= PROBED / DENSE;
}

/**
 * A condition on the conversations `c` of a list: one of the messages, or the own fields, match. Matches are found by the indexes, unless
 * they are frequent where the list begins: then the list goes on in its own order and asks for each conversation.
 * @param end where the list begins
 */
export async function listCondition(session: Kysely<Database>, asked: Asked, end: 'newest' | 'oldest'): Promise<RawBuilder<SqlBool>> {
  const { readModels, organizationId } = asked;
  if (!findsAnything(asked)) return sql<SqlBool>`false`;
  const rarest = await rarestOf(session, asked);
  const words = asked.messages ? indexed(asked) : undefined;
  const full = unindexed(sql<SqlBool>`m.terms @@ ${fullQuery(asked)}`);
  const messages = readModels.view(searchMessagesTable);
  const conversations = readModels.view(searchConversationsTable);
  // However many messages match: with few of them where the list begins, the list would be gone through nearly to its other end.
  const isSparse = async () => !asked.messages || (words !== undefined && !(await isDense(session, asked, end)));
  if (rarest.conversations <= FEW && (await isSparse())) {
    const said =
      words === undefined
        ? sql``
        : sql`select m.conversation_id from ${messages} m
            where m.organization_id = ${organizationId} and m.terms @@ ${words} and ${full} union`;
    return sql<SqlBool>`c.id = any(array(${said}
      select s.conversation_id from (${idsByTerm(asked, rarest.term)}) few
        join ${conversations} s on s.organization_id = ${organizationId} and s.conversation_id = few.id
        ${theirVisitor(asked)} where ${ownFieldsMatch(asked)}))`;
  }
  // Not `exists`, for which PostgreSQL may read all messages of all conversations once, and remember those that match.
  const said = sql<SqlBool>`coalesce((select true from ${messages} m
    where m.organization_id = c.organization_id and m.conversation_id = c.id and ${full} limit 1), false)`;
  const own = sql<SqlBool>`coalesce((select true from ${conversations} s ${theirVisitor(asked)}
    where s.organization_id = c.organization_id and s.conversation_id = c.id and ${ownFieldsMatch(asked)} limit 1), false)`;
  return asked.messages ? sql<SqlBool>`(${said} or ${own})` : own;
}
