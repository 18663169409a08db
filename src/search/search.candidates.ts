import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import { conversationsTable } from '../conversations/conversation.table.js';
import type { Database } from '../database/database.js';
import {
  type Asked,
  FEW,
  findsAnything,
  fullQuery,
  idsByTerm,
  indexed,
  ownFieldsMatch,
  ownRank,
  rankQuery,
  rarestOf,
  theirVisitor,
  unindexed,
} from './search.sql.js';
import { searchConversationsTable, searchMessagesTable, searchVisitorsTable } from './search.tables.js';

/*
 * The conversations among which a search ranks: the newest that match, so that a common word costs no more than a rare one.
 */

/** Most matches of each kind that are ranked. */
export const RANKED = 1_000;
/** So many of the newest are looked through first: a word that most texts have is found here. */
const GLANCED = 2_000;
/** A word that so many of those have is looked for among more of the newest. A rarer word, or one that only old texts have, is left to the index. */
const DENSE = GLANCED / 25;
/** How many of the newest are looked through for a word that many texts have. */
const WALKED = 100_000;
/** So many matches the index may find of a word that few of the newest texts have, before they are looked through after all. */
const MANY = 200_000;
/** More than any table has. */
const EVERYTHING = 2_000_000_000;
/** Where a filter leaves so few conversations, all their texts are read. */
const FEW_FILTERED = 2_000;

/** Where a conversation stands: `tier` 0 for an exact name or address, 1 for one that begins so, 2 for all others. */
export interface Candidate {
  readonly id: string;
  readonly tier: number;
  readonly rank: number;
  /** When the message was written, or the conversation was opened (ms). */
  readonly at: number;
  /** The revision of the best message that matches; undefined when only own fields do. */
  readonly message: number | undefined;
}

/** How a filter limits conversations. */
export interface Filter {
  /** A condition on `c`. */
  readonly condition: RawBuilder<SqlBool>;
  /** True when it excludes nothing. */
  readonly isEmpty: boolean;
}

interface Row {
  readonly id: string;
  readonly revision: number | null;
  readonly at: string | number;
  readonly rank: number;
  readonly tier: number;
}

/** A row beside the number of matches that were found; only the number where none of them is left. */
type CountedRow = Omit<Row, 'id'> & { readonly id: string | null; readonly n: number };

/** The rows; undefined where more than `most` matches were found, of which these would be a chance choice. */
function unlessMore(rows: readonly CountedRow[], most: number): readonly Row[] | undefined {
  if ((rows[0]?.n ?? 0) > most) return undefined;
  return rows.flatMap(({ id, ...row }) => (id === null ? [] : [{ id, ...row }]));
}

/** @returns the best candidate of each conversation, in order, and whether these are all that match */
export async function candidatesOf(
  session: Kysely<Database>,
  asked: Asked,
  filter: Filter,
): Promise<{ readonly candidates: readonly Candidate[]; readonly complete: boolean }> {
  if (!findsAnything(asked)) return { candidates: [], complete: true };
  const few = await isFew(session, asked, filter);
  const named = await byName(session, asked, filter, few, 0);
  // They would all stand behind those.
  const begun = named.length < RANKED ? await byName(session, asked, filter, few, 1) : [];
  const own = await byOwnFields(session, asked, filter, few);
  const said = asked.messages ? await byMessages(session, asked, filter, few) : [];
  const messages = bestOf(said.map(candidateOf));
  const places = bestOf([...named, ...begun, ...own, ...said].map(candidateOf));
  // A conversation that is found by its name still shows which message matches.
  const candidates = [...places.values()].map((one) => ({ ...one, message: messages.get(one.id)?.message }));
  return {
    candidates: candidates.sort(inOrder),
    complete: [named, begun, own, said].every((list) => list.length < RANKED),
  };
}

const candidateOf = ({ id, revision, at, rank, tier }: Row): Candidate => ({
  id,
  tier,
  // Names stand by their age alone.
  rank: tier < 2 ? 0 : rank,
  at: Number(at),
  message: revision ?? undefined,
});

/** The best candidate of each conversation. */
function bestOf(candidates: readonly Candidate[]): ReadonlyMap<string, Candidate> {
  const best = new Map<string, Candidate>();
  for (const one of candidates) {
    const before = best.get(one.id);
    if (before === undefined || inOrder(one, before) < 0) best.set(one.id, one);
  }
  return best;
}

/** Best first; of equals the newest. */
export const inOrder = (a: Candidate, b: Candidate): number =>
  a.tier - b.tier || b.rank - a.rank || b.at - a.at || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);

/** Whether the filter leaves few conversations. */
async function isFew(session: Kysely<Database>, { readModels }: Asked, filter: Filter): Promise<boolean> {
  if (filter.isEmpty) return false;
  const { rows } = await sql<{ n: number }>`select count(*)::int as n from (
    select from ${readModels.view(conversationsTable)} c where ${filter.condition} limit ${FEW_FILTERED + 1}) counted`.execute(session);
  return (rows[0]?.n ?? 0) <= FEW_FILTERED;
}

/** Whether the filter leaves the conversation with this id. */
const passes = ({ readModels }: Asked, { condition, isEmpty }: Filter, id: RawBuilder<string>): RawBuilder<SqlBool> =>
  isEmpty ? sql`true` : sql`exists (select from ${readModels.view(conversationsTable)} c where c.id = ${id} and ${condition})`;

const OWN = sql.raw('order by s.at desc, s.conversation_id desc');
const SAID = sql.raw('order by m.at desc, m.conversation_id desc, m.revision desc');

/** The newest conversations of visitors whose whole name or address is asked for (tier 0), or begins so (tier 1). */
async function byName(session: Kysely<Database>, asked: Asked, filter: Filter, few: boolean, tier: 0 | 1): Promise<readonly Row[]> {
  const {
    organizationId,
    readModels,
    question: { whole },
  } = asked;
  const visitors = readModels.view(searchVisitorsTable);
  const own = readModels.view(searchConversationsTable);
  // The last character of Unicode: in the order of bytes, all that begin so come before it.
  const beyond = `${whole}\u{10ffff}`;
  const has = (line: 'name_line' | 'email_line') => {
    const column = sql.raw(`v.${line}`);
    return tier === 0 ? sql<SqlBool>`${column} = ${whole}` : sql<SqlBool>`(${column} > ${whole} and ${column} < ${beyond})`;
  };
  const columns = sql`s.conversation_id as id, null::int as revision, s.at, 0::real as rank, ${sql.lit(tier)}::int as tier`;
  const named = unindexed(sql<SqlBool>`${has('name_line')} or ${has('email_line')}`);
  const matching = sql<SqlBool>`${ownFieldsMatch(asked)} and ${passes(asked, filter, sql`s.conversation_id`)}`;
  if (few) {
    const { rows } =
      await sql<Row>`with c as materialized (select c.id from ${readModels.view(conversationsTable)} c where ${filter.condition})
      select ${columns} from c join ${own} s on s.organization_id = ${organizationId} and s.conversation_id = c.id ${theirVisitor(asked)}
      where ${named} and ${ownFieldsMatch(asked)} ${OWN} limit ${RANKED}`.execute(session);
    return rows;
  }
  /** Undefined where more than `most` visitors are named so: which of them the indexes give is chance. */
  const byIndex = async (most: number): Promise<readonly Row[] | undefined> => {
    const those = (line: 'name_line' | 'email_line') =>
      sql`(select v.visitor_id from ${visitors} v where v.organization_id = ${organizationId} and ${has(line)} limit ${most + 1})`;
    const { rows } = await sql<CountedRow>`
      with named as materialized (select distinct visitor_id from (${those('name_line')} union all ${those('email_line')}) each),
        counted as materialized (select count(*)::int as n from named)
      select counted.n, f.* from counted left join (
        select ${columns} from named
          join ${own} s on s.organization_id = ${organizationId} and s.visitor_id = named.visitor_id ${theirVisitor(asked)}
        where (select n from counted) <= ${most} and ${matching} ${OWN} limit ${RANKED}
      ) f on true`.execute(session);
    return unlessMore(rows, most);
  };
  const indexed = await byIndex(FEW);
  if (indexed !== undefined) return indexed;
  const { rows: walked } = await sql<Row>`
    select ${columns} from (select * from ${own} s where s.organization_id = ${organizationId} ${OWN} limit ${WALKED}) s ${theirVisitor(asked)}
    where ${named} and ${matching} ${OWN} limit ${RANKED}`.execute(session);
  if (walked.length === RANKED) return walked;
  return (await byIndex(EVERYTHING)) ?? walked;
}

/** Conversations whose own fields match, the newest. */
async function byOwnFields(session: Kysely<Database>, asked: Asked, filter: Filter, few: boolean): Promise<readonly Row[]> {
  const { organizationId, readModels } = asked;
  const own = readModels.view(searchConversationsTable);
  const columns = sql`s.conversation_id as id, null::int as revision, s.at, ${ownRank(asked)} as rank, 2 as tier`;
  const matching = sql<SqlBool>`${ownFieldsMatch(asked)} and ${passes(asked, filter, sql`s.conversation_id`)}`;
  const read = async (statement: RawBuilder<Row>) => (await statement.execute(session)).rows;
  const newest = (most: number) =>
    read(sql<Row>`select ${columns} from (select * from ${own} s where s.organization_id = ${organizationId} ${OWN} limit ${most}) s
      ${theirVisitor(asked)} where ${matching} ${OWN} limit ${RANKED}`);
  if (few)
    return await read(sql<Row>`with c as materialized (select c.id from ${readModels.view(conversationsTable)} c where ${filter.condition})
      select ${columns} from c join ${own} s on s.organization_id = ${organizationId} and s.conversation_id = c.id ${theirVisitor(asked)}
      where ${ownFieldsMatch(asked)} ${OWN} limit ${RANKED}`);
  const { term, conversations } = await rarestOf(session, asked);
  if (conversations > FEW) {
    const walked = await newest(WALKED);
    if (walked.length === RANKED) return walked;
  }
  return await read(sql<Row>`with few as materialized (select distinct id from (${idsByTerm(asked, term)}) found)
    select ${columns} from few join ${own} s on s.organization_id = ${organizationId} and s.conversation_id = few.id ${theirVisitor(asked)}
    where ${matching} ${OWN} limit ${RANKED}`);
}

/** Messages that match, the newest. */
async function byMessages(session: Kysely<Database>, asked: Asked, filter: Filter, few: boolean): Promise<readonly Row[]> {
  const { organizationId, readModels } = asked;
  const messages = readModels.view(searchMessagesTable);
  const found = sql.raw('m.conversation_id, m.revision, m.at');
  const full = unindexed(sql<SqlBool>`m.terms @@ ${fullQuery(asked)}`);
  const matching = sql<SqlBool>`${full} and ${passes(asked, filter, sql`m.conversation_id`)}`;
  const words = indexed(asked);
  // The rank needs the whole text, so it is asked of those that are left.
  const rank = sql`ts_rank(r.terms, ${rankQuery(asked)}) as rank, 2 as tier`;
  const theirs = sql`join ${messages} r on r.organization_id = ${organizationId} and r.conversation_id = f.conversation_id and r.revision = f.revision`;
  const ranked = async (newest: RawBuilder<unknown>): Promise<readonly Row[]> => {
    const { rows } = await sql<Row>`
      select f.conversation_id as id, f.revision, f.at, ${rank} from (${newest}) f ${theirs}`.execute(session);
    return rows;
  };
  /** Undefined where the index finds more than `most`. */
  const byIndex = async (query: RawBuilder<unknown>, most: number): Promise<readonly Row[] | undefined> => {
    const { rows } = await sql<CountedRow>`
      with m as materialized (select ${found}, m.terms @@ ${fullQuery(asked)} as matches from ${messages} m
          where m.organization_id = ${organizationId} and m.terms @@ ${query} limit ${most + 1}),
        counted as materialized (select count(*)::int as n from m)
      select counted.n, f.conversation_id as id, f.revision, f.at, ${rank}
      from counted left join (
        select ${found} from m where m.matches and ${passes(asked, filter, sql`m.conversation_id`)} and (select n from counted) <= ${most}
        ${SAID} limit ${RANKED}
      ) f on true left ${theirs}`.execute(session);
    return unlessMore(rows, most);
  };
  if (few)
    return await ranked(sql`with c as materialized (select c.id from ${readModels.view(conversationsTable)} c where ${filter.condition})
      select ${found} from c join ${messages} m on m.organization_id = ${organizationId} and m.conversation_id = c.id
      where ${full} ${SAID} limit ${RANKED}`);
  const walk = (most: number) =>
    ranked(sql`select ${found} from (select * from ${messages} m where m.organization_id = ${organizationId} ${SAID} limit ${most}) m
      where ${matching} ${SAID} limit ${RANKED}`);
  const glanced = await walk(GLANCED);
  if (glanced.length === RANKED) return glanced;
  const sparse = words === undefined || glanced.length >= DENSE ? undefined : await byIndex(words, MANY);
  if (sparse !== undefined) return sparse;
  const walked = await walk(words === undefined ? EVERYTHING : WALKED);
  if (walked.length === RANKED || words === undefined) return walked;
  return (await byIndex(words, EVERYTHING)) ?? walked;
}
