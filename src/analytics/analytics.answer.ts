import { z } from 'zod';
import { channelSchema, conversationSummarySchema, prioritySchema, statusSchema } from '../conversations/conversation.answer.js';
import { DIMENSIONS, METRIC_NAMES } from './metrics.js';

const duration = z.number().nullable().describe('Seconds, to the millisecond; null with nothing to average.');

/** The numbers of the dashboard. */
export const sixNumbersSchema = z
  .strictObject({
    totalConversations: z.number().int().describe('Conversations opened in the range.'),
    openConversations: z.number().int().describe('Conversations that are open now.'),
    resolvedToday: z.number().int().describe('Episodes that ended today by resolving, in the time zone of the question.'),
    avgFirstResponseTime: duration,
    avgResolutionTime: duration,
    csat: z.number().nullable().describe('The mean rating, from 1 to 5; null without ratings.'),
  })
  .meta({ id: 'SixNumbers' });
export type SixNumbers = z.infer<typeof sixNumbersSchema>;

const instant = z.iso.datetime({ precision: 3 }).nullable();

/** What every answer says about itself. */
export const toldSchema = z
  .strictObject({
    definitions: z.number().int().describe('The version of the definitions. It is raised when a metric changes its meaning.'),
    from: instant.describe('Included; null for the first event.'),
    to: instant.describe('Excluded; null for now.'),
    timezone: z.string(),
    asOf: z.string().describe('The position up to which events are counted. Answers of one position agree with each other.'),
  })
  .meta({ id: 'AnalyticsMeta' });
export type ToldAnswer = z.infer<typeof toldSchema>;

const value = z.number().nullable();

/** One row of a metric. */
export const metricRowSchema = z
  .strictObject({
    start: z.iso.datetime({ precision: 3 }).optional().describe('When the interval began; present with an interval.'),
    key: z
      .string()
      .nullable()
      .optional()
      .describe('The value by which the metric is broken down; null where there is none, such as no agent.'),
    name: z.string().optional().describe('The current name of an inbox, agent, team or key.'),
    status: statusSchema.optional().describe('The status that rows of time_in_status are about, unless it is the key.'),
    count: z.number().int().describe('The number of facts: conversations, episodes, messages or measured durations.'),
    sum: z.number().optional().describe('The sum of the values; durations in seconds.'),
    mean: value.optional(),
    median: value.optional(),
    p90: value.optional().describe('The 90th percentile, interpolated.'),
  })
  .meta({ id: 'MetricRow' });
export type MetricRow = z.infer<typeof metricRowSchema>;

/** The definition of a metric. */
export const metricSchema = z
  .strictObject({
    name: z.enum(METRIC_NAMES),
    unit: z.enum(['conversations', 'episodes', 'messages', 'seconds', 'rating', 'share']),
    definition: z.string(),
    belongsTo: z.string().describe('Whose number it is, when it is broken down by agent.'),
    dimensions: z.array(z.enum(DIMENSIONS)).describe('What `by` may be.'),
    hours: z.array(z.enum(['calendar', 'working'])).describe('What `hours` may be; empty where nothing is measured in time.'),
  })
  .meta({ id: 'Metric' });
export type MetricAnswer = z.infer<typeof metricSchema>;

/** An event behind a number, and its conversation as it was then. */
const eventBehindSchema = z.strictObject({
  conversationId: z.string(),
  revision: z
    .number()
    .int()
    .describe('The revision of the event that counts. `GET …/conversations/{id}/events?from=REVISION&limit=1` reads it.'),
  at: z.iso.datetime({ precision: 3 }),
  inboxId: z.string(),
  channel: channelSchema,
  priority: prioritySchema,
  agentId: z.string().nullable().describe('To whom the number belongs.'),
  teamId: z.string().nullable(),
  tags: z.array(z.string()),
  status: statusSchema.optional(),
  value: value.optional().describe('Seconds of a duration, a rating, or 1 and 0.'),
});
/** A row of an export. */
export type EventBehind = z.infer<typeof eventBehindSchema>;

/** An event behind a number, with its conversation. */
export const behindSchema = eventBehindSchema
  .extend({
    conversation: conversationSummarySchema
      .optional()
      .describe('The conversation as it is now. Absent for a moment where the list has not caught up with the facts.'),
  })
  .meta({ id: 'BehindNumber' });
export type BehindAnswer = z.infer<typeof behindSchema>;
