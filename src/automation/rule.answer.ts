import { z } from 'zod';
import { cardSchema, messageSchema, prioritySchema, statusSchema } from '../conversations/conversation.answer.js';
import type { Rule } from './rule.js';
import { EVENT_TRIGGERS, OPERATORS, TIME_TRIGGERS } from './rule-fields.js';

const instant = z.iso.datetime({ precision: 3 });
const scalar = z.union([z.string(), z.number(), z.boolean()]);
export const conditionValueSchema = z.union([scalar, z.array(scalar).readonly()]);

const leaf = { field: z.string(), operator: z.enum(OPERATORS), value: conditionValueSchema.optional() };
/** A condition, or a tree of them. */
export const conditionSchema = z
  .union([
    z.strictObject(leaf),
    z.strictObject({
      get all() {
        return z.array(conditionSchema).readonly();
      },
    }),
    z.strictObject({
      get any() {
        return z.array(conditionSchema).readonly();
      },
    }),
    z.strictObject({
      get not() {
        return conditionSchema;
      },
    }),
  ])
  .meta({ id: 'RuleCondition' });

export const triggerSchema = z
  .union([
    z.enum(EVENT_TRIGGERS),
    z.strictObject({ type: z.enum(TIME_TRIGGERS), seconds: z.number().int(), status: statusSchema.optional() }),
  ])
  .describe('A public event, or a wait that has lasted for some seconds.');

const message = z.union([
  z.string(),
  z.strictObject({ type: z.literal('attachment'), content: z.string().optional(), attachments: messageSchema.shape.attachments.unwrap() }),
  z.strictObject({ type: z.literal('card'), content: cardSchema }),
]);
const actionSchema = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('assign'), assigneeId: z.string() }),
    z.strictObject({ type: z.literal('unassign') }),
    z.strictObject({ type: z.enum(['addTag', 'removeTag']), tag: z.string() }),
    z.strictObject({ type: z.enum(['reply', 'note']), message }),
    z.strictObject({ type: z.literal('setStatus'), status: z.enum(['open', 'pending', 'resolved', 'closed']) }),
    z.strictObject({ type: z.literal('setPriority'), priority: prioritySchema }),
    z.strictObject({ type: z.literal('snooze'), until: z.string().optional(), seconds: z.number().int().optional() }),
  ])
  .meta({ id: 'RuleAction' });

/** An automation rule, as every route answers it. */
export const ruleSchema = z
  .strictObject({
    id: z.string(),
    name: z.string().nullable(),
    trigger: triggerSchema,
    conditions: z.union([z.array(conditionSchema).readonly(), conditionSchema]).describe('A list, all of which must hold, or a tree.'),
    actions: z.array(actionSchema).readonly(),
    enabled: z.boolean(),
    order: z.number().int(),
    stopOnMatch: z.boolean(),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: instant,
    updatedAt: instant,
  })
  .meta({ id: 'AutomationRule' });
export type RuleAnswer = z.infer<typeof ruleSchema>;

export function ruleAnswer(id: string, rule: Rule, revision: number): RuleAnswer {
  const { name, trigger, conditions, actions, enabled, order, stopOnMatch, archived, createdAt, updatedAt } = rule;
  return { id, name, trigger, conditions, actions, enabled, order, stopOnMatch, archived, revision, createdAt, updatedAt } as RuleAnswer;
}
