import { z } from 'zod';
import { errorCodeSchema } from '../http/problem.js';
import { OUTCOMES, REASONS } from './ask.js';
import type { Evaluation } from './evaluation.store.js';
import { ACTIONS } from './rule.js';
import { conditionValueSchema } from './rule.answer.js';
import { EVENT_TRIGGERS, OPERATORS, TIME_TRIGGERS } from './rule-fields.js';

const saw = z
  .union([z.string(), z.number(), z.boolean(), z.array(z.string()).readonly(), z.null()])
  .describe('The value that the field had; null for none. Long texts are cut, and what an erased visitor gave is [erased].');

const tracedSchema = z
  .union([
    z.strictObject({ field: z.string(), operator: z.enum(OPERATORS), value: conditionValueSchema.optional(), saw, holds: z.boolean() }),
    z.strictObject({
      get all() {
        return z.array(tracedSchema).readonly();
      },
    }),
    z.strictObject({
      get any() {
        return z.array(tracedSchema).readonly();
      },
    }),
    z.strictObject({
      get not() {
        return tracedSchema;
      },
    }),
  ])
  .meta({ id: 'TracedCondition' });

/** What a rule was asked about, what it saw, and what it did. */
export const evaluationSchema = z
  .strictObject({
    id: z.string(),
    ruleId: z.string(),
    ruleName: z.string().nullable(),
    ruleRevision: z.number().int(),
    conversationId: z.string(),
    trigger: z.enum([...EVENT_TRIGGERS, ...TIME_TRIGGERS]),
    eventId: z.string().describe('The event that the rule was asked about; for a time trigger the one that began the wait.'),
    position: z.string(),
    revision: z.number().int().describe('Of the conversation as the rule saw it.'),
    at: z.iso.datetime({ precision: 3 }).describe('When the event happened, or when the wait was over.'),
    outcome: z.enum(OUTCOMES),
    reason: z
      .enum(REASONS)
      .optional()
      .describe('Why it was not asked: an earlier rule stopped it; rules had caused each other too often; in a dry run, another event.'),
    byRules: z
      .array(z.string())
      .readonly()
      .optional()
      .describe('stopped_by: the rule that stopped it. depth: the rules whose actions led to the event, the latest first.'),
    conditions: z
      .union([z.array(tracedSchema).readonly(), tracedSchema])
      .nullable()
      .describe('Null when the rule was not asked.'),
    actions: z.array(
      z.strictObject({
        type: z.enum(ACTIONS),
        outcome: z.enum(['done', 'nothing', 'refused', 'pending']),
        code: errorCodeSchema.optional(),
        eventIds: z.array(z.string()).readonly(),
      }),
    ),
  })
  .meta({ id: 'RuleEvaluation' });
export type EvaluationAnswer = z.infer<typeof evaluationSchema>;

export const evaluationsPageSchema = z.strictObject({
  data: z.array(evaluationSchema),
  meta: z.strictObject({ limit: z.number().int(), hasMore: z.boolean(), nextCursor: z.string().nullable() }),
});
export type EvaluationsPage = z.infer<typeof evaluationsPageSchema>;

export function evaluationAnswer(one: Omit<Evaluation, 'nr'>): EvaluationAnswer {
  const { id, ruleId, ruleName, ruleRevision, conversationId, trigger, eventId, position, revision, at, outcome, reason, byRules } = one;
  return {
    id,
    ruleId,
    ruleName,
    ruleRevision,
    conversationId,
    trigger,
    eventId,
    position,
    revision,
    at: new Date(at).toISOString(),
    outcome,
    ...(reason === null ? {} : { reason }),
    ...(byRules === null ? {} : { byRules }),
    conditions: one.conditions as EvaluationAnswer['conditions'],
    // jsonb does not keep the order of names.
    actions: one.actions.map(({ type, outcome: became, code, eventIds }) => ({
      type,
      outcome: became,
      ...(code === undefined ? {} : { code }),
      eventIds,
    })),
  };
}
