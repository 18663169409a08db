import { compilePattern } from './pattern.js';
import { type Condition, type ConditionTree, isList, type Rule } from './rule.js';
import { type FieldName, fieldNamed, type FieldType } from './rule-fields.js';

/*
 * The one evaluator: live, in dry runs and in back-tests. Pure: the same rule and the same situation give the same trace, whenever and
 * wherever they are evaluated.
 */

/** A field's value; null when it has none. */
export type Seen = string | number | boolean | readonly string[] | null;

/** What a rule can see at an event or when a wait is over. Asked for the same field again, it answers the same. */
export type Situation = (field: FieldName) => Seen;

/** A leaf with what it saw. Long texts are cut (MAX_SAW). */
export interface TracedLeaf extends Condition {
  readonly saw: Seen;
  readonly holds: boolean;
}
export type TracedTree =
  TracedLeaf | { readonly all: readonly TracedTree[] } | { readonly any: readonly TracedTree[] } | { readonly not: TracedTree };
/** The rule's conditions in their own form. */
export type TracedConditions = readonly TracedTree[] | TracedTree;

export interface Trace {
  readonly matched: boolean;
  readonly conditions: TracedConditions;
}

/** The part of a text that a trace keeps (UTF-16 units). */
export const MAX_SAW = 500;

/** A rule whose conditions are ready to be asked. */
export interface CompiledRule {
  readonly rule: Rule;
  /** The fields that its conditions look at. */
  readonly fields: readonly FieldName[];
  /** Looks for one pattern each, which takes milliseconds; evaluate() then takes over what they found. */
  readonly looks: readonly ((situation: Situation) => void)[];
  readonly evaluate: (situation: Situation) => Trace;
}

const compiled = new WeakMap<Rule, CompiledRule>();

/** Compiles a rule, once for each of its revisions: a fold makes a new object for each. */
export function compileRule(rule: Rule): CompiledRule {
  const known = compiled.get(rule);
  if (known !== undefined) return known;
  const parts: Parts = { fields: [], looks: [] };
  const { conditions } = rule;
  const nodes = isList(conditions) ? conditions.map((one) => compileTree(one, parts)) : compileTree(conditions, parts);
  const made: CompiledRule = {
    rule,
    ...parts,
    evaluate(situation) {
      if (!isNodes(nodes)) {
        const { holds, trace } = nodes(situation);
        return { matched: holds, conditions: trace };
      }
      const asked = nodes.map((node) => node(situation));
      return { matched: asked.every(({ holds }) => holds), conditions: asked.map(({ trace }) => trace) };
    },
  };
  compiled.set(rule, made);
  return made;
}

/** Whether a rule's conditions hold in a situation, with every leaf's part in it. No leaf is left out, also where another has decided. */
export function evaluate(rule: Rule, situation: Situation): Trace {
  return compileRule(rule).evaluate(situation);
}

type Node = (situation: Situation) => { readonly holds: boolean; readonly trace: TracedTree };

/** What is gathered of a rule while its conditions are compiled. */
interface Parts {
  readonly fields: FieldName[];
  readonly looks: ((situation: Situation) => void)[];
}

const isNodes = (nodes: Node | readonly Node[]): nodes is readonly Node[] => Array.isArray(nodes);

function compileTree(tree: ConditionTree, parts: Parts): Node {
  if ('all' in tree) {
    const nodes = tree.all.map((one) => compileTree(one, parts));
    return (situation) => {
      const asked = nodes.map((node) => node(situation));
      return { holds: asked.every(({ holds }) => holds), trace: { all: asked.map(({ trace }) => trace) } };
    };
  }
  if ('any' in tree) {
    const nodes = tree.any.map((one) => compileTree(one, parts));
    return (situation) => {
      const asked = nodes.map((node) => node(situation));
      return { holds: asked.some(({ holds }) => holds), trace: { any: asked.map(({ trace }) => trace) } };
    };
  }
  if ('not' in tree) {
    const node = compileTree(tree.not, parts);
    return (situation) => {
      const { holds, trace } = node(situation);
      return { holds: !holds, trace: { not: trace } };
    };
  }
  return compileLeaf(tree, parts);
}

function compileLeaf(condition: Condition, parts: Parts): Node {
  const { field, operator, value } = condition;
  const name = fieldNamed(field);
  if (name === undefined) throw new Error(`no field is named ${field}`);
  parts.fields.push(name);
  const test = testOf(name.field.type, condition);
  const ask = (situation: Situation) => test(situation(name), foldOf(situation));
  const asked = operator === 'matches' ? onceFor(ask) : ask;
  if (operator === 'matches') parts.looks.push(asked);
  return (situation) => {
    const holds = asked(situation);
    return { holds, trace: { field, operator, ...(value === undefined ? {} : { value }), saw: shortened(situation(name)), holds } };
  };
}

/** Remembers what was asked of a situation. */
function onceFor(ask: (situation: Situation) => boolean): (situation: Situation) => boolean {
  const known = new WeakMap<Situation, boolean>();
  return (situation) => {
    let holds = known.get(situation);
    if (holds === undefined) known.set(situation, (holds = ask(situation)));
    return holds;
  };
}

function shortened(seen: Seen): Seen {
  if (typeof seen !== 'string' || seen.length <= MAX_SAW) return seen;
  // Half of a pair is no text.
  const cut = seen.slice(0, MAX_SAW);
  return `${cut.isWellFormed() ? cut : cut.slice(0, -1)}…`;
}

const isSet = (seen: Seen) => seen !== null && seen !== '' && !(Array.isArray(seen) && seen.length === 0);

/** The form in which texts are compared: what looks the same but for case is the same. */
const folded = (text: string) => text.normalize('NFC').toLowerCase();

type Fold = (text: string) => string;

const folds = new WeakMap<Situation, Fold>();

/** folded(), once for each text of a situation: thousands of conditions may look at the same long message. */
function foldOf(situation: Situation): Fold {
  const known = folds.get(situation);
  if (known !== undefined) return known;
  const forms = new Map<string, string>();
  const fold: Fold = (text) => {
    let form = forms.get(text);
    if (form === undefined) forms.set(text, (form = folded(text)));
    return form;
  };
  folds.set(situation, fold);
  return fold;
}

/** What has no value equals nothing, contains nothing and is in no list; the negations hold. */
function testOf(type: FieldType, { operator, value }: Condition): (seen: Seen, fold: Fold) => boolean {
  const isFolded = type === 'text' || type === 'tags' || type === 'attribute';
  const formOf = (text: string, fold: Fold) => (isFolded ? fold(text) : text);
  const same = (seen: Seen | undefined, wanted: unknown, fold: Fold) => (typeof seen === 'string' ? formOf(seen, fold) : seen) === wanted;
  const inForm = (one: unknown) => (typeof one === 'string' ? formOf(one, folded) : one);
  const one = inForm(value);
  const text = typeof one === 'string' ? one : '';
  const several = Array.isArray(value) ? value.map(inForm) : [];
  const isOne = (seen: Seen, fold: Fold) => same(seen, one, fold);
  const isIn = (seen: Seen, fold: Fold) =>
    several.some((wanted) => (Array.isArray(seen) ? seen.some((each: string) => same(each, wanted, fold)) : same(seen, wanted, fold)));
  const contains = (seen: Seen, fold: Fold) =>
    Array.isArray(seen)
      ? seen.some((each: string) => formOf(each, fold) === text)
      : typeof seen === 'string' && formOf(seen, fold).includes(text);
  switch (operator) {
    case 'equals':
      return isOne;
    case 'not_equals':
      return (seen, fold) => !isOne(seen, fold);
    case 'contains':
      return contains;
    case 'not_contains':
      return (seen, fold) => !contains(seen, fold);
    case 'starts_with':
      return (seen, fold) => typeof seen === 'string' && formOf(seen, fold).startsWith(text);
    case 'ends_with':
      return (seen, fold) => typeof seen === 'string' && formOf(seen, fold).endsWith(text);
    case 'in':
      return isIn;
    case 'not_in':
      return (seen, fold) => !isIn(seen, fold);
    case 'greater_than':
      return (seen) => typeof seen === 'number' && typeof value === 'number' && seen > value;
    case 'less_than':
      return (seen) => typeof seen === 'number' && typeof value === 'number' && seen < value;
    case 'is_set':
      return isSet;
    case 'is_not_set':
      return (seen) => !isSet(seen);
    case 'matches': {
      const pattern = compilePattern(typeof value === 'string' ? value : '');
      return (seen) => typeof seen === 'string' && pattern(seen);
    }
  }
}
