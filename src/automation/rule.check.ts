import { attributeFaults, type Fault, isRecord, parseInstant, resourceIdFault, textFault } from '../http/validation.js';
import { STATUSES } from '../conversations/conversation.js';
import { patternFault } from './pattern.js';
import {
  type Action,
  type Condition,
  type Conditions,
  type ConditionTree,
  type Leaf,
  leavesOf,
  type RuleFields,
  type Trigger,
  triggerType,
} from './rule.js';
import {
  CHANGED_BY,
  EVENT_TRIGGERS,
  type Field,
  fieldNamed,
  FIELDS,
  ATTRIBUTE_FIELDS,
  type Operator,
  OPERATORS,
  OPERATORS_OF,
  TIME_TRIGGERS,
} from './rule-fields.js';

/*
 * What is wrong with a rule as it was sent: its shape, and what in it could never hold or be done. Paths name the part.
 */

export const MAX_LEAVES = 100;
/** Each may look at thousands of characters at every event. */
export const MAX_PATTERNS = 10;
export const MAX_NESTING = 5;
export const MAX_VALUES = 100;
export const MAX_VALUE = 1_000;
/** The length of all conditions together, as JSON (characters): each evaluation of the rule stores them again. */
export const MAX_CONDITIONS = 16_384;
/** The length of a whole rule, as JSON (characters): the rules reactor keeps all rules of an organization that are in force in memory. */
export const MAX_RULE = 65_536;
/** A year. */
export const MAX_SECONDS = 366 * 24 * 3_600;

/** Faults of a trigger; a text when it is none at all. */
export function triggerFaults(value: unknown): string | readonly Fault[] | undefined {
  if (typeof value === 'string')
    return (EVENT_TRIGGERS as readonly string[]).includes(value)
      ? undefined
      : `must be one of ${EVENT_TRIGGERS.join(', ')}, or an object with a type of ${TIME_TRIGGERS.join(', ')}`;
  if (!isRecord(value)) return 'must be the name of an event, or an object with type and seconds';
  const { type, seconds, status, ...others } = value;
  const faults: Fault[] = Object.keys(others).map((name) => ({ path: [name], message: 'is not known here' }));
  if (!(TIME_TRIGGERS as readonly unknown[]).includes(type))
    faults.push({ path: ['type'], message: `must be one of ${TIME_TRIGGERS.join(', ')}` });
  if (typeof seconds !== 'number' || !Number.isInteger(seconds) || seconds < 1 || seconds > MAX_SECONDS)
    faults.push({ path: ['seconds'], message: seconds === undefined ? 'is missing' : `must be a whole number from 1 to ${MAX_SECONDS}` });
  if (status !== undefined && status !== null) {
    if (type !== 'in_status_for') faults.push({ path: ['status'], message: 'belongs to in_status_for' });
    else if (!(STATUSES as readonly unknown[]).includes(status))
      faults.push({ path: ['status'], message: `must be one of ${STATUSES.join(', ')}` });
  }
  return faults.length === 0 ? undefined : faults;
}

/** A trigger without faults, in its stored form. */
export function triggerOf(value: Trigger): Trigger {
  if (typeof value === 'string') return value;
  const { type, seconds, status } = value;
  return { type, seconds, ...(status === undefined || status === null ? {} : { status }) };
}

/** Faults of conditions by themselves; a text when they are neither a list nor a tree. */
export function conditionsFaults(value: unknown): string | readonly Fault[] | undefined {
  if (!Array.isArray(value) && !isRecord(value)) return 'must be a list of conditions, or a tree of all, any and not';
  const { faults } = examine(value);
  return faults.length === 0 ? undefined : faults;
}

/** The faults of conditions, and the leaves that have none. */
function examine(value: readonly unknown[] | Readonly<Record<string, unknown>>): { readonly faults: Fault[]; readonly sound: Leaf[] } {
  const faults: Fault[] = [];
  const sound: Leaf[] = [];
  let leaves = 0;
  let patterns = 0;
  const walk = (node: unknown, path: readonly PropertyKey[], depth: number): void => {
    if (!isRecord(node)) return void faults.push({ path, message: 'must be an object' });
    if (depth > MAX_NESTING) return void faults.push({ path, message: `must be nested at most ${MAX_NESTING} deep` });
    const kinds = ['all', 'any', 'not'].filter((kind) => Object.hasOwn(node, kind));
    const [kind] = kinds;
    if (kind !== undefined) {
      for (const name of Object.keys(node))
        if (name !== kind)
          faults.push({ path: [...path, name], message: kinds.includes(name) ? `must be absent beside ${kind}` : 'is not known here' });
      const below = node[kind];
      if (kind === 'not') walk(below, [...path, kind], depth + 1);
      else if (Array.isArray(below)) walkAll(below, [...path, kind], depth + 1);
      else faults.push({ path: [...path, kind], message: 'must be a list' });
      return;
    }
    leaves++;
    if (node['operator'] === 'matches' && ++patterns === MAX_PATTERNS + 1)
      faults.push({ path: [...path, 'operator'], message: `must be matches in at most ${MAX_PATTERNS} conditions of a rule` });
    if (leaves > MAX_LEAVES) return;
    const wrong = leafFaults(node);
    if (wrong.length === 0) sound.push({ path, leaf: leafOf(node as unknown as Condition) });
    faults.push(...wrong.map(({ path: within, message }) => ({ path: [...path, ...within], message })));
  };
  const walkAll = (nodes: readonly unknown[], path: readonly PropertyKey[], depth: number) => {
    if (nodes.length > MAX_LEAVES) faults.push({ path, message: `must have at most ${MAX_LEAVES} entries` });
    else nodes.forEach((node, i) => walk(node, [...path, i], depth));
  };
  if (isListed(value)) walkAll(value, [], 1);
  else walk(value, [], 1);
  if (leaves > MAX_LEAVES) faults.push({ path: [], message: `must have at most ${MAX_LEAVES} conditions in all` });
  else if (faults.length === 0 && JSON.stringify(value).length > MAX_CONDITIONS)
    faults.push({ path: [], message: `must have at most ${MAX_CONDITIONS} characters in all, as JSON` });
  return { faults, sound };
}

const isListed = (value: unknown): value is readonly unknown[] => Array.isArray(value);

function leafFaults(leaf: Readonly<Record<string, unknown>>): Fault[] {
  const { field, operator, value, ...others } = leaf;
  const faults: Fault[] = Object.keys(others).map((name) => ({ path: [name], message: 'is not known here' }));
  const known = typeof field === 'string' ? fieldNamed(field) : undefined;
  if (known === undefined)
    faults.push({
      path: ['field'],
      message:
        field === undefined
          ? 'is missing'
          : `must be one of ${[...Object.keys(FIELDS), ...Object.keys(ATTRIBUTE_FIELDS).map((prefix) => `${prefix}NAME`)].join(', ')}`,
    });
  else if ('attribute' in known) {
    const fault = attributeFaults({ [known.attribute]: null }, 1)[0];
    if (fault !== undefined) faults.push({ path: ['field'], message: `${fault.message}, after ${known.prefix}` });
  }
  if (!(OPERATORS as readonly unknown[]).includes(operator))
    faults.push({ path: ['operator'], message: operator === undefined ? 'is missing' : `must be one of ${OPERATORS.join(', ')}` });
  else if (known !== undefined) {
    const allowed: readonly Operator[] = OPERATORS_OF[known.field.type];
    if (!allowed.includes(operator as Operator))
      faults.push({ path: ['operator'], message: `must be one of ${allowed.join(', ')} for this field` });
    else faults.push(...valueFaults(known.field, operator as Operator, value));
  }
  return faults;
}

function valueFaults(field: Field, operator: Operator, value: unknown): Fault[] {
  const fault = (message: string): Fault[] => [{ path: ['value'], message }];
  const absent = value === undefined || value === null;
  if (operator === 'is_set' || operator === 'is_not_set') return absent ? [] : fault(`must be absent beside ${operator}`);
  if (absent) return fault('is missing');
  if (operator === 'in' || operator === 'not_in') {
    if (!Array.isArray(value)) return fault('must be a list');
    if (value.length === 0) return fault('must not be empty');
    if (value.length > MAX_VALUES) return fault(`must have at most ${MAX_VALUES} entries`);
    return value.flatMap((one: unknown, i) => {
      const wrong = oneValueFault(field, operator, one);
      return wrong === undefined ? [] : [{ path: ['value', i], message: wrong }];
    });
  }
  const wrong = oneValueFault(field, operator, value);
  if (wrong !== undefined) return fault(wrong);
  const unmatchable = operator === 'matches' ? patternFault(value as string) : undefined;
  return unmatchable === undefined ? [] : fault(unmatchable);
}

/** What is wrong with a value beside this operator. */
function oneValueFault(field: Field, operator: Operator, value: unknown): string | undefined {
  switch (operator) {
    case 'greater_than':
    case 'less_than':
      return numberFault(value);
    case 'contains':
    case 'not_contains':
    case 'starts_with':
    case 'ends_with':
      return textFault(value, MAX_VALUE);
    case 'matches':
      return typeof value === 'string' && value !== '' && value.isWellFormed() ? undefined : 'must be a pattern, as a text';
    case 'equals':
    case 'not_equals':
    case 'in':
    case 'not_in':
    case 'is_set':
    case 'is_not_set':
      break;
  }
  switch (field.type) {
    case 'text':
    case 'tags':
      return textFault(value, MAX_VALUE);
    case 'id':
      return resourceIdFault(value) === undefined ? undefined : (textFault(value, MAX_VALUE) ?? undefined);
    case 'choice':
      return field.choices?.includes(value as string) === true ? undefined : `must be one of ${(field.choices ?? []).join(', ')}`;
    case 'number':
      return numberFault(value);
    case 'flag':
      return typeof value === 'boolean' ? undefined : 'must be true or false';
    case 'attribute':
      if (typeof value === 'boolean') return undefined;
      if (typeof value === 'number') return numberFault(value);
      return typeof value === 'string' ? textFault(value, MAX_VALUE) : 'must be a text, a number, true or false';
  }
}

const numberFault = (value: unknown) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) return 'must be a number';
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? 'must be a number that can be told exactly' : undefined;
};

/** Conditions without faults, in their stored form: equal ones have equal JSON. */
export function conditionsOf(value: Conditions): Conditions {
  return Array.isArray(value) ? value.map(treeOf) : treeOf(value as ConditionTree);
}

function treeOf(node: ConditionTree): ConditionTree {
  if ('all' in node) return { all: node.all.map(treeOf) };
  if ('any' in node) return { any: node.any.map(treeOf) };
  if ('not' in node) return { not: treeOf(node.not) };
  return leafOf(node);
}

const leafOf = ({ field, operator, value }: Condition): Condition => ({
  field,
  operator,
  ...(value === undefined || value === null ? {} : { value }),
});

type Essentials = Pick<RuleFields, 'trigger' | 'conditions' | 'actions'>;

/** The parts of a rule that can be judged beside each other. Where some have faults by themselves, those that have none. */
export interface SoundParts {
  readonly trigger: Trigger | undefined;
  readonly leaves: readonly Leaf[];
  readonly actions: readonly { readonly index: number; readonly action: Action }[];
}

/** The parts of a rule without faults. */
export const partsOf = ({ trigger, conditions, actions }: Essentials): SoundParts => ({
  trigger,
  leaves: leavesOf(conditions),
  actions: actions.map((action, index) => ({ index, action })),
});

/** The sound parts of a rule as it was sent. */
export function soundPartsOf({ trigger, conditions, actions }: { readonly [part in keyof Essentials]?: unknown }): SoundParts {
  return {
    trigger: triggerFaults(trigger) === undefined ? (trigger as Trigger) : undefined,
    leaves: isListed(conditions) || isRecord(conditions) ? examine(conditions).sound : [],
    actions: isListed(actions) ? actions.flatMap((action, index) => (isJudged(action) ? [{ index, action }] : [])) : [],
  };
}

/** Whether an action is one whose value can be wrong in a way that its form does not show, and has the form. */
function isJudged(action: unknown): action is Action {
  if (!isRecord(action)) return false;
  const { type, assigneeId, until } = action;
  return (type === 'assign' && resourceIdFault(assigneeId) === undefined) || (type === 'snooze' && parseInstant(until) !== undefined);
}

/** The fault of a rule that is too large as a whole. Paths begin at the rule. */
export function sizeFaults({ trigger, conditions, actions }: Essentials): Fault[] {
  if (JSON.stringify({ trigger, conditions, actions }).length <= MAX_RULE) return [];
  return [{ path: ['actions'], message: `must have, with the conditions, at most ${MAX_RULE} characters in all, as JSON` }];
}

/**
 * What can never hold or be done. Paths begin at the rule.
 * @param now ms
 */
export function impossibleFaults({ trigger, leaves, actions }: SoundParts, now: number): Fault[] {
  const faults: Fault[] = [];
  const type = trigger === undefined ? undefined : triggerType(trigger);
  for (const { path, leaf } of leaves) {
    if (type === undefined) break;
    const at = ['conditions', ...path, 'field'];
    const [root, of = ''] = leaf.field.split('.', 2);
    if (root === 'previous' && !CHANGED_BY[type].includes(of))
      faults.push({ path: at, message: `is never set: ${type} does not change ${of}` });
    if (root === 'message' && type === 'conversation.created')
      faults.push({
        path: at,
        message: 'is never set: the first message comes after conversation.created; use the trigger message.received',
      });
  }
  for (const { index, action } of actions) {
    if (action.type !== 'snooze' || action.until === undefined || action.until === 'next_reply') continue;
    if ((parseInstant(action.until) ?? Infinity) <= now)
      faults.push({ path: ['actions', index, 'until'], message: 'must be in the future' });
  }
  return faults;
}

/** Something that a rule names by its id. */
export interface Reference {
  readonly path: readonly PropertyKey[];
  readonly what: 'assignee' | 'team' | 'inbox' | 'company';
  readonly id: string;
  /** It is to be assigned, and so must not be archived. */
  readonly assigned: boolean;
}

const REFERRING: Readonly<Record<string, Reference['what']>> = {
  'conversation.assigneeId': 'assignee',
  'previous.assigneeId': 'assignee',
  'conversation.teamId': 'team',
  'previous.teamId': 'team',
  'conversation.inboxId': 'inbox',
  'previous.inboxId': 'inbox',
  'company.id': 'company',
};

/** Everything that a rule names by its id. */
export function referencesOf({ leaves, actions }: Pick<SoundParts, 'leaves' | 'actions'>): Reference[] {
  const named = leaves.flatMap(({ path, leaf: { field, value } }): Reference[] => {
    const what = REFERRING[field];
    if (what === undefined || value === undefined) return [];
    const at = ['conditions', ...path, 'value'];
    return typeof value === 'object'
      ? value.map((id, i) => ({ path: [...at, i], what, id: String(id), assigned: false }))
      : [{ path: at, what, id: String(value), assigned: false }];
  });
  const assigned = actions.flatMap(({ index, action }): Reference[] =>
    action.type === 'assign' ? [{ path: ['actions', index, 'assigneeId'], what: 'assignee', id: action.assigneeId, assigned: true }] : [],
  );
  return [...named, ...assigned];
}
