import { compileRule, type Situation, type Trace, type TracedConditions } from './evaluate.js';
import { type ActionType, type Rule, triggerType } from './rule.js';
import type { TriggerType } from './rule-fields.js';

/** A rule as it stood at an event. */
export interface RuleAt {
  readonly id: string;
  readonly rule: Rule;
  readonly revision: number;
}

/** Reactions of rules in a row, after which no rule is asked any more. */
export const MAX_DEPTH = 8;
/**
 * Reactions in a conversation since a person or an application last did something there, after which no rule is asked any more: each of
 * several actions may set rules off, so that a bound of the depth alone would let them multiply.
 */
export const MAX_REACTIONS = 40;

export const OUTCOMES = ['matched', 'not_matched', 'not_asked'] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** stopped_by: an earlier rule matched and stops later ones. depth: rules have caused each other MAX_DEPTH times in a row, or more than MAX_REACTIONS times in all. trigger: in a dry run, another event than the rule's. */
export const REASONS = ['stopped_by', 'depth', 'trigger'] as const;
export type NotAskedReason = (typeof REASONS)[number];

/** What came of asking a rule about an event. */
export interface Answer {
  readonly ruleId: string;
  readonly ruleRevision: number;
  readonly ruleName: string | null;
  readonly trigger: TriggerType;
  readonly outcome: Outcome;
  readonly reason?: NotAskedReason;
  /** stopped_by: the rule that stopped it. depth: the rules that led to the event, the latest first. */
  readonly byRules?: readonly string[];
  /** Null when the rule was not asked. */
  readonly conditions: TracedConditions | null;
  /** What is to be done. */
  readonly actions: readonly ActionType[];
}

/** Evaluates a rule, and rests after each of its patterns, which takes milliseconds. */
export async function evaluateInSteps(rule: Rule, situation: Situation, rest: () => Promise<void>): Promise<Trace> {
  const { looks, evaluate } = compileRule(rule);
  for (const look of looks) {
    look(situation);
    await rest();
  }
  return evaluate(situation);
}

/**
 * Asks rules about one event, in their order.
 * @param rules as compareRules() sorts them
 * @param loop the rules that led to the event, the latest first, when reactions have gone on for too long; no rule is asked then
 * @param rest called after each pattern and after each rule
 */
export async function askInOrder(
  rules: readonly RuleAt[],
  situation: Situation,
  loop: readonly string[] | undefined,
  rest: () => Promise<void>,
): Promise<Answer[]> {
  const answers: Answer[] = [];
  let stopper: string | undefined;
  for (const { id, rule, revision } of rules) {
    const head = { ruleId: id, ruleRevision: revision, ruleName: rule.name, trigger: triggerType(rule.trigger) };
    const unasked = { ...head, outcome: 'not_asked', conditions: null, actions: [] } as const;
    if (loop !== undefined) answers.push({ ...unasked, reason: 'depth', byRules: loop });
    else if (stopper !== undefined) answers.push({ ...unasked, reason: 'stopped_by', byRules: [stopper] });
    else {
      const { matched, conditions } = await evaluateInSteps(rule, situation, rest);
      const outcome = matched ? 'matched' : 'not_matched';
      answers.push({ ...head, outcome, conditions, actions: matched ? rule.actions.map(({ type }) => type) : [] });
      if (matched && rule.stopOnMatch) stopper = id;
      await rest();
    }
  }
  return answers;
}
