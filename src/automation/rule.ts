import { z } from 'zod';
import type { Priority, SettableStatus, Status } from '../conversations/conversation.js';
import type { PublicEventType } from '../conversations/public-event.js';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';
import { EVENT_TRIGGERS, type Operator, TIME_TRIGGERS, type TimeTriggerType } from './rule-fields.js';

/** A public event, or a wait that has lasted for `seconds`; `status` is only for in_status_for, any status when absent. */
export type Trigger = PublicEventType | TimeTrigger;
export interface TimeTrigger {
  readonly type: TimeTriggerType;
  readonly seconds: number;
  readonly status?: Status;
}

export type ConditionValue = string | number | boolean | readonly (string | number | boolean)[];

/** A leaf of the conditions. `value` is absent for is_set and is_not_set. */
export interface Condition {
  readonly field: string;
  readonly operator: Operator;
  readonly value?: ConditionValue;
}

/** `all` of nothing holds, `any` of nothing does not. */
export type ConditionTree =
  Condition | { readonly all: readonly ConditionTree[] } | { readonly any: readonly ConditionTree[] } | { readonly not: ConditionTree };

/** A list, all of which must hold, or a tree. */
export type Conditions = readonly ConditionTree[] | ConditionTree;

/** A message as a request gives it: a text, or an object with its type. */
export type RuleMessage =
  string | { readonly type: 'text' | 'attachment' | 'card'; readonly content?: unknown; readonly attachments?: readonly unknown[] };

export type Action =
  | { readonly type: 'assign'; readonly assigneeId: string }
  | { readonly type: 'unassign' }
  | { readonly type: 'addTag' | 'removeTag'; readonly tag: string }
  | { readonly type: 'reply' | 'note'; readonly message: RuleMessage }
  | { readonly type: 'setStatus'; readonly status: SettableStatus }
  | { readonly type: 'setPriority'; readonly priority: Priority }
  /** `until`: an ISO instant or next_reply; `seconds` count from the event. One of the two. */
  | { readonly type: 'snooze'; readonly until?: string; readonly seconds?: number };
export const ACTIONS = ['assign', 'unassign', 'addTag', 'removeTag', 'reply', 'note', 'setStatus', 'setPriority', 'snooze'] as const;
export type ActionType = (typeof ACTIONS)[number];

/** The company's own setting: nothing in it is sealed. */
export interface RuleFields {
  /** Null when it has none. */
  readonly name: string | null;
  readonly trigger: Trigger;
  readonly conditions: Conditions;
  readonly actions: readonly Action[];
  readonly enabled: boolean;
  /** Rules that are asked about one event are asked from the smallest to the greatest, and the older of two equal ones first. */
  readonly order: number;
  /** When the rule matches, later rules are not asked about the event. */
  readonly stopOnMatch: boolean;
}

export type RuleEvent =
  | { readonly type: 'RuleCreated'; readonly data: RuleFields }
  /** Only the fields to change; each is replaced as a whole. */
  | { readonly type: 'RuleChanged'; readonly data: Partial<RuleFields> }
  | { readonly type: 'RuleArchived'; readonly data: Record<string, never> }
  | { readonly type: 'RuleUnarchived'; readonly data: Record<string, never> };

export interface Rule extends RuleFields {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const value = z.union([z.string(), z.number(), z.boolean(), z.array(z.union([z.string(), z.number(), z.boolean()]))]);
const tree: z.ZodType<ConditionTree> = z.lazy(() =>
  z.union([
    z.strictObject({ all: z.array(tree) }),
    z.strictObject({ any: z.array(tree) }),
    z.strictObject({ not: tree }),
    // Strict: with a part that this build does not know, a rule would match too much. A new operator needs a new version.
    z.strictObject({
      field: z.string(),
      operator: z.enum([
        'equals',
        'not_equals',
        'contains',
        'not_contains',
        'starts_with',
        'ends_with',
        'in',
        'not_in',
        'greater_than',
        'less_than',
        'is_set',
        'is_not_set',
        'matches',
      ]),
      value: value.optional(),
    }) as z.ZodType<Condition>,
  ]),
);
const message = z.union([
  z.string(),
  z.strictObject({
    type: z.enum(['text', 'attachment', 'card']),
    content: z.unknown().optional(),
    attachments: z.array(z.unknown()).optional(),
  }),
]);
const fields = {
  name: z.string().nullable(),
  trigger: z.union([
    z.enum(EVENT_TRIGGERS),
    z.strictObject({
      type: z.enum(TIME_TRIGGERS),
      seconds: z.number().int(),
      status: z.enum(['open', 'pending', 'snoozed', 'resolved', 'closed']).optional(),
    }),
  ]),
  conditions: z.union([z.array(tree), tree]),
  actions: z.array(
    z.discriminatedUnion('type', [
      z.strictObject({ type: z.literal('assign'), assigneeId: z.string() }),
      z.strictObject({ type: z.literal('unassign') }),
      z.strictObject({ type: z.enum(['addTag', 'removeTag']), tag: z.string() }),
      z.strictObject({ type: z.enum(['reply', 'note']), message }),
      z.strictObject({ type: z.literal('setStatus'), status: z.enum(['open', 'pending', 'resolved', 'closed']) }),
      z.strictObject({ type: z.literal('setPriority'), priority: z.enum(['urgent', 'high', 'normal', 'low']) }),
      z.strictObject({ type: z.literal('snooze'), until: z.string().optional(), seconds: z.number().int().optional() }),
    ]),
  ),
  enabled: z.boolean(),
  order: z.number().int(),
  stopOnMatch: z.boolean(),
};

export const ruleAggregate: Aggregate<Rule, RuleEvent> = {
  kind: 'rule',
  codec: schemaCodec<RuleEvent>({
    RuleCreated: [z.object(fields)],
    RuleChanged: [z.object(fields).partial()],
    RuleArchived: [z.object({})],
    RuleUnarchived: [z.object({})],
  }),
  initial: {
    exists: false,
    archived: false,
    name: null,
    trigger: 'conversation.created',
    conditions: [],
    actions: [],
    enabled: false,
    order: 0,
    stopOnMatch: false,
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'RuleCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'RuleChanged':
        return { ...before, ...event.data, updatedAt: at };
      case 'RuleArchived':
        return { ...before, archived: true, updatedAt: at };
      case 'RuleUnarchived':
        return { ...before, archived: false, updatedAt: at };
    }
  },
};

export type RuleDecision = (r: Rule) => readonly RuleEvent[];

export function createRule(given: RuleFields): RuleDecision {
  return (r) => (r.exists ? [] : [{ type: 'RuleCreated', data: inOrder(given) }]);
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived */
export function changeRule(changes: Partial<RuleFields>): RuleDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    if (r.archived) throw new ThreadlogError('resource_archived');
    const differing = Object.fromEntries(
      Object.entries(changes).filter(
        ([field, given]) => given !== undefined && JSON.stringify(given) !== JSON.stringify(r[field as keyof RuleFields]),
      ),
    );
    return Object.keys(differing).length === 0 ? [] : [{ type: 'RuleChanged', data: differing }];
  };
}

/** @throws ThreadlogError not_found */
export function archiveRule(): RuleDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    return r.archived ? [] : [{ type: 'RuleArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found */
export function unarchiveRule(): RuleDecision {
  return (r) => {
    if (!r.exists) throw new ThreadlogError('not_found');
    return r.archived ? [{ type: 'RuleUnarchived', data: {} }] : [];
  };
}

const inOrder = ({ name, trigger, conditions, actions, enabled, order, stopOnMatch }: RuleFields): RuleFields => ({
  name,
  trigger,
  conditions,
  actions,
  enabled,
  order,
  stopOnMatch,
});

/** Whether the rule is asked about events. */
export const isInForce = ({ exists, archived, enabled }: Rule): boolean => exists && !archived && enabled;

export const triggerType = (trigger: Trigger) => (typeof trigger === 'string' ? trigger : trigger.type);

/** The order in which rules are asked about one event. */
export function compareRules(a: { readonly id: string; readonly rule: Rule }, b: { readonly id: string; readonly rule: Rule }): number {
  if (a.rule.order !== b.rule.order) return a.rule.order - b.rule.order;
  if (a.rule.createdAt !== b.rule.createdAt) return a.rule.createdAt < b.rule.createdAt ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/** The name under which a rule speaks. */
export const spokenName = ({ name }: Pick<Rule, 'name'>): string => name ?? 'Automation';

/** A condition with its path within all conditions of its rule. */
export interface Leaf {
  readonly path: readonly PropertyKey[];
  readonly leaf: Condition;
}

/** Every leaf of the conditions. */
export function leavesOf(conditions: Conditions): Leaf[] {
  const leaves: Leaf[] = [];
  const walk = (node: ConditionTree, path: readonly PropertyKey[]): void => {
    if ('all' in node) node.all.forEach((one, i) => walk(one, [...path, 'all', i]));
    else if ('any' in node) node.any.forEach((one, i) => walk(one, [...path, 'any', i]));
    else if ('not' in node) walk(node.not, [...path, 'not']);
    else leaves.push({ path, leaf: node });
  };
  if (isList(conditions)) conditions.forEach((one, i) => walk(one, [i]));
  else walk(conditions, []);
  return leaves;
}

export const isList = (conditions: Conditions): conditions is readonly ConditionTree[] => Array.isArray(conditions);
