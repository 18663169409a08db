import { type Kysely, sql, type SqlBool } from 'kysely';
import type { Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import type { Action, ActionType, RuleFields } from './rule.js';

/*
 * Back-tests in the schema keep: the rule, how far it has looked, and what it found.
 */

export const RULE_BACK_TEST = 'rule-back-test';

/** How many back-tests of an organization may run or wait at a time. */
export const MOST_BACK_TESTS = 10;

/** The first matches are kept. */
export const MATCHES_KEPT = 100;

export interface Match {
  readonly conversationId: string;
  /** The event that the rule was asked about; for a time trigger the one that began the wait. */
  readonly eventId: string;
  readonly position: string;
  readonly revision: number;
  /** ms */
  readonly at: number;
}

export interface Found {
  /** How often the rule was asked. */
  readonly looked: number;
  readonly matched: number;
  /** How many actions it would have done. */
  readonly actions: readonly { readonly type: ActionType; readonly count: number }[];
  readonly matches: readonly Match[];
}

export interface BackTest extends Found {
  readonly id: string;
  readonly ruleId: string | null;
  readonly rule: RuleFields;
  readonly from: number | null;
  readonly to: number;
  /** The log's end when it was asked for. */
  readonly until: string;
  readonly status: 'running' | 'done' | 'failed';
  readonly error: string | null;
  /** ms */
  readonly createdAt: number;
}

/** Stores a back-test with its job, unless it is there. @throws ThreadlogError limit_exceeded */
export async function addBackTest(
  database: Kysely<Database>,
  organizationId: string,
  { id, ruleId, rule, from, to, until }: Pick<BackTest, 'id' | 'ruleId' | 'rule' | 'from' | 'to' | 'until'>,
): Promise<void> {
  await database.transaction().execute(async (tx) => {
    const made = await tx
      .insertInto('keep.rule_back_tests')
      .values({
        organization_id: organizationId,
        id,
        rule_id: ruleId,
        rule: JSON.stringify(rule),
        from_ms: from,
        to_ms: to,
        until,
        error: null,
      })
      .onConflict((conflict) => conflict.doNothing())
      .returning('id')
      .execute();
    if (made.length === 0) return;
    const { running } = await tx
      .selectFrom('keep.rule_back_tests')
      .select(sql<number>`count(*)`.as('running'))
      .where('organization_id', '=', organizationId)
      .where('status', '=', 'running')
      .executeTakeFirstOrThrow();
    if (running > MOST_BACK_TESTS)
      throw new ThreadlogError(
        'limit_exceeded',
        `${MOST_BACK_TESTS} back-tests of the organization run or wait; read them until one has ended`,
      );
    // One after the other: each reads the log from its start.
    const job = {
      kind: RULE_BACK_TEST,
      key: `${organizationId}.${id}`,
      lane: `${RULE_BACK_TEST} ${organizationId}`,
      organization_id: organizationId,
      payload: { id },
      due_ms: 0,
    };
    await sql`select keep.add_jobs(${JSON.stringify([job])}::jsonb, null)`.execute(tx);
  });
}

export async function findBackTest(database: Kysely<Database>, organizationId: string, id: string): Promise<BackTest | undefined> {
  const row = await database
    .selectFrom('keep.rule_back_tests')
    .selectAll()
    .where('organization_id', '=', organizationId)
    .where('id', '=', id)
    .executeTakeFirst();
  if (row === undefined) return undefined;
  return {
    id,
    ruleId: row.rule_id,
    rule: row.rule as RuleFields,
    from: row.from_ms,
    to: row.to_ms,
    until: row.until,
    status: row.status as BackTest['status'],
    looked: row.looked,
    matched: row.matched,
    actions: row.actions as BackTest['actions'],
    matches: row.matches as BackTest['matches'],
    error: row.error,
    createdAt: row.created_at.getTime(),
  };
}

/** A back-test in a list: without the rule and the matches, which may be large. */
export type ListedBackTest = Omit<BackTest, 'ruleId' | 'rule' | 'until' | 'matches'> & {
  /** created_at with its microseconds. */
  readonly at: string;
};

/**
 * The back-tests of a saved rule, newest first.
 * @param before the last one of the page before
 */
export async function backTestsOf(
  database: Kysely<Database>,
  organizationId: string,
  ruleId: string,
  { before, limit }: { readonly before: Pick<ListedBackTest, 'at' | 'id'> | undefined; readonly limit: number },
): Promise<ListedBackTest[]> {
  const rows = await database
    .selectFrom('keep.rule_back_tests')
    .select(['id', 'from_ms', 'to_ms', 'status', 'looked', 'matched', 'actions', 'error', 'created_at'])
    .select(sql<string>`(extract(epoch from created_at) * 1000000)::bigint::text`.as('at'))
    .where('organization_id', '=', organizationId)
    .where('rule_id', '=', ruleId)
    .$if(before !== undefined, (all) =>
      all.where(sql<SqlBool>`((extract(epoch from created_at) * 1000000)::bigint, id) < (${before?.at}::bigint, ${before?.id})`),
    )
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .limit(limit)
    .execute();
  return rows.map(({ id, status, looked, matched, actions, error, from_ms: from, to_ms: to, created_at: createdAt, at }) => ({
    id,
    from,
    to,
    status: status as BackTest['status'],
    looked,
    matched,
    actions: actions as BackTest['actions'],
    error,
    createdAt: createdAt.getTime(),
    at,
  }));
}

/** Records how far a back-test has come. */
export async function noteFound(
  database: Kysely<Database>,
  organizationId: string,
  id: string,
  { looked, matched, actions, matches }: Found,
  end: { readonly status: BackTest['status']; readonly error?: string },
): Promise<void> {
  await database
    .updateTable('keep.rule_back_tests')
    .set({
      status: end.status,
      looked,
      matched,
      actions: JSON.stringify(actions),
      matches: JSON.stringify(matches),
      error: end.error ?? null,
    })
    .where('organization_id', '=', organizationId)
    .where('id', '=', id)
    .execute();
}

/** Each type of action with how often that many matches do it, in the rule's order. */
export function countActions(actions: readonly Action[], matched: number): Found['actions'] {
  const each = new Map<ActionType, number>();
  for (const { type } of actions) each.set(type, (each.get(type) ?? 0) + matched);
  return [...each].map(([type, count]) => ({ type, count }));
}
