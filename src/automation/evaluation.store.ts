import { type Kysely, sql } from 'kysely';
import type { ErrorCode } from '../errors.js';
import type { Database } from '../database/database.js';
import { derivedId } from '../ids.js';
import { pause } from '../pause.js';
import { type DataKey, ERASED, type Sealed } from '../security/sealing.js';
import type { Answer, NotAskedReason, Outcome } from './ask.js';
import type { Seen, TracedConditions, TracedLeaf, TracedTree } from './evaluate.js';
import { type ActionType, isList, type TimeTrigger } from './rule.js';
import { fieldNamed, type TriggerType } from './rule-fields.js';

/*
 * Evaluations in the schema keep. What a rule saw of a visitor is sealed with the visitor's key.
 */

/** The reactor that asks rules. Its checkpoint goes by this name for ever. */
export const RULES_REACTOR = 'rules';

/** What became of an action. */
export interface ActionTrace {
  readonly type: ActionType;
  /** nothing: the conversation was already so. refused: with the code that a person would have got. */
  readonly outcome: 'done' | 'nothing' | 'refused' | 'pending';
  readonly code?: ErrorCode;
  readonly eventIds: readonly string[];
}

/** What a rule was asked about. */
export interface Occasion {
  readonly organizationId: string;
  readonly conversationId: string;
  /** For a time trigger the event that began the wait. */
  readonly eventId: string;
  /** The time trigger whose wait was over; null at an event. */
  readonly waited: TimeTrigger | null;
  /** The conversation as the rule saw it: its last event then. */
  readonly position: string;
  readonly revision: number;
  /** When the event happened, or the wait was over (ms). */
  readonly at: number;
  readonly keyId: string;
}

/** A rule is asked about an event once, and about a wait once with each trigger. */
export function evaluationId(
  ruleId: string,
  { organizationId, eventId, waited }: Pick<Occasion, 'organizationId' | 'eventId' | 'waited'>,
): string {
  const wait = waited === null ? [] : [waited.type, waited.status ?? '', String(waited.seconds)];
  return derivedId('rule-evaluation', organizationId, ruleId, eventId, ...wait);
}

/**
 * Writes answers of rules, except those that were given before.
 * @param key undefined when the visitor was erased
 * @returns the ids of the new ones
 */
export async function writeEvaluations(
  tx: Kysely<Database>,
  evaluations: readonly { readonly occasion: Occasion; readonly answer: Answer; readonly key: DataKey | undefined }[],
): Promise<ReadonlySet<string>> {
  if (evaluations.length === 0) return new Set();
  const rows = evaluations.map(({ occasion, answer, key }) => {
    const { organizationId, conversationId, eventId, position, revision, at, keyId } = occasion;
    const id = evaluationId(answer.ruleId, occasion);
    return {
      organization_id: organizationId,
      id,
      rule_id: answer.ruleId,
      rule_revision: answer.ruleRevision,
      rule_name: answer.ruleName,
      conversation_id: conversationId,
      key_id: keyId,
      trigger: answer.trigger,
      event_id: eventId,
      position,
      revision,
      at: new Date(at).toISOString(),
      outcome: answer.outcome,
      reason: answer.reason ?? null,
      by_rules: answer.byRules ?? null,
      conditions: answer.conditions === null ? null : sealConditions(answer.conditions, id, key),
      actions: answer.actions.map((type): ActionTrace => ({ type, outcome: 'pending', eventIds: [] })),
    };
  });
  const written = new Set<string>();
  for (let from = 0; from < rows.length; from += ROWS_AT_ONCE) {
    // One parameter, whatever the number of rows: a parameter for each value takes longer than the insert.
    const { rows: made } = await sql<{ id: string }>`
      insert into keep.rule_evaluations (organization_id, id, rule_id, rule_revision, rule_name, conversation_id, key_id, trigger, event_id,
        position, revision, at, outcome, reason, by_rules, conditions, actions)
      select * from json_to_recordset(${JSON.stringify(rows.slice(from, from + ROWS_AT_ONCE))}::json) given(organization_id text, id text,
        rule_id text, rule_revision integer, rule_name text, conversation_id text, key_id text, trigger text, event_id text, position text,
        revision integer, at timestamptz, outcome text, reason text, by_rules text[], conditions json, actions jsonb)
      on conflict (organization_id, id) do nothing returning id`.execute(tx);
    for (const { id } of made) written.add(id);
  }
  return written;
}

/** How many evaluations one statement writes. */
const ROWS_AT_ONCE = 1_000;

/** What became of an action already; undefined when the evaluation is gone. */
export async function actionOf(
  database: Kysely<Database>,
  organizationId: string,
  id: string,
  index: number,
): Promise<ActionTrace | undefined> {
  const row = await database
    .selectFrom('keep.rule_evaluations')
    .select('actions')
    .where('organization_id', '=', organizationId)
    .where('id', '=', id)
    .executeTakeFirst();
  return (row?.actions as ActionTrace[] | undefined)?.[index];
}

/** Records what became of an action. */
export async function traceAction(
  database: Kysely<Database>,
  organizationId: string,
  id: string,
  index: number,
  trace: ActionTrace,
): Promise<void> {
  await sql`
    update keep.rule_evaluations
    set actions = jsonb_set(actions, array[${String(index)}]::text[], ${JSON.stringify(trace)}::jsonb, false)
    where organization_id = ${organizationId} and id = ${id}`.execute(database);
}

/** An evaluation as it is read. */
export interface Evaluation extends Omit<Occasion, 'organizationId' | 'keyId' | 'waited'> {
  readonly nr: number;
  readonly id: string;
  readonly ruleId: string;
  readonly ruleRevision: number;
  readonly ruleName: string | null;
  readonly trigger: TriggerType;
  readonly outcome: Outcome;
  readonly reason: NotAskedReason | null;
  readonly byRules: readonly string[] | null;
  readonly conditions: TracedConditions | null;
  readonly actions: readonly ActionTrace[];
}

/** How long evaluations are kept (days); a back-test asks the rules again about anything older. */
export const EVALUATION_DAYS = 90;
/** How many evaluations one statement removes, so that none of them takes long. */
const SWEPT_AT_ONCE = 5_000;

/**
 * Removes the evaluations and back-tests that have been kept long enough, in small steps with rests as long as the steps. The process that
 * runs the reactors calls it now and then. Nothing is asked again because its evaluation is gone: askedAbout() goes by the log.
 */
export async function sweepEvaluations(database: Kysely<Database>, signal: AbortSignal): Promise<void> {
  const old = sql<Date>`now() - ${sql.lit(`${EVALUATION_DAYS} days`)}::interval`;
  await database.deleteFrom('keep.rule_back_tests').where('created_at', '<', old).execute();
  for (let removed = SWEPT_AT_ONCE; removed === SWEPT_AT_ONCE && !signal.aborted;) {
    const began = performance.now();
    // The oldest have the smallest numbers. A process that finds them removed by another one leaves the rest to it.
    const { numAffectedRows } = await sql`
      delete from keep.rule_evaluations where nr in (
        select nr from (select nr, created_at from keep.rule_evaluations order by nr limit ${sql.lit(SWEPT_AT_ONCE)}) oldest
        where created_at < ${old}
      )`.execute(database);
    removed = Number(numAffectedRows ?? 0n);
    await pause(performance.now() - began, signal);
  }
}

/** The place of a personal value in an evaluation, to which its sealed form is bound. */
const sawContext = (evaluation: string, path: string) => `rule.saw ${evaluation} ${path}`;

interface SealedSaw {
  readonly sealed: Sealed;
}
type StoredTree = (Omit<TracedLeaf, 'saw'> & { readonly saw: Seen | SealedSaw }) | { readonly [kind in 'all' | 'any' | 'not']?: unknown };

function sealConditions(conditions: TracedConditions, id: string, key: DataKey | undefined): unknown {
  return eachLeaf(conditions, (leaf, path) => {
    if (leaf.saw === null || !isPersonal(leaf.field)) return leaf;
    return { ...leaf, saw: key === undefined ? null : { sealed: key.seal(sawContext(id, path), leaf.saw) } };
  });
}

/** @param key undefined when the visitor was erased */
export function unsealConditions(stored: unknown, id: string, key: DataKey | undefined): TracedConditions | null {
  if (stored === null) return null;
  return eachLeaf(stored as TracedConditions, (leaf, path) => {
    const saw = leaf.saw as Seen | SealedSaw;
    if (saw === null || typeof saw !== 'object' || !('sealed' in saw)) return leaf;
    return { ...leaf, saw: key === undefined ? ERASED : (key.unseal(sawContext(id, path), saw.sealed) as Seen) };
  }) as TracedConditions;
}

const isPersonal = (field: string) => fieldNamed(field)?.field.personal === true;

/** The same tree with other leaves. @param make is given each leaf with its path, to which the sealed form of its value is bound */
function eachLeaf(conditions: TracedConditions, make: (leaf: TracedLeaf, path: string) => StoredTree | TracedLeaf): unknown {
  const walk = (node: TracedTree, path: string): unknown => {
    if ('all' in node) return { all: node.all.map((one, i) => walk(one, `${path}/all/${i}`)) };
    if ('any' in node) return { any: node.any.map((one, i) => walk(one, `${path}/any/${i}`)) };
    if ('not' in node) return { not: walk(node.not, `${path}/not`) };
    return make(node, path);
  };
  return isList(conditions as never)
    ? (conditions as readonly TracedTree[]).map((one, i) => walk(one, String(i)))
    : walk(conditions as TracedTree, '');
}
