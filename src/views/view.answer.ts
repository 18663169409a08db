import { z } from 'zod';
import { prioritySchema, statusSchema } from '../conversations/conversation.answer.js';
import { SORTS } from '../conversations/conversation.list.js';
import type { View } from './view.js';

const texts = z.array(z.string()).readonly().optional();
const instant = z.iso.datetime({ precision: 3 });
const time = instant.optional();

/** A view, as every route answers it. */
export const viewSchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    filter: z
      .strictObject({
        status: z.array(statusSchema).readonly().optional(),
        priority: z.array(prioritySchema).readonly().optional(),
        teamId: texts,
        inboxId: texts,
        assigneeId: texts,
        visitorId: texts,
        companyId: texts,
        tag: texts,
        tagMatch: z.enum(['any', 'all']).optional(),
        createdAfter: time,
        createdBefore: time,
        updatedAfter: time,
        updatedBefore: time,
        customAttributes: z.record(z.string(), z.string()).readonly().optional(),
      })
      .describe('Names and values of the filters of GET /conversations.'),
    sort: z.strictObject({ by: z.enum(SORTS), order: z.enum(['asc', 'desc']) }),
    shared: z.boolean(),
    owner: z.strictObject({ type: z.enum(['agent', 'apiKey']), id: z.string() }),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: instant,
    updatedAt: instant,
  })
  .meta({ id: 'View' });
export type ViewAnswer = z.infer<typeof viewSchema>;

/** A view in the list: with `counts=true` it says how many conversations it finds. */
export const listedViewSchema = viewSchema
  .extend({
    count: z.number().int().optional().describe('Exact up to 10,000, a lower bound above it; present with counts=true.'),
    countIsExact: z.boolean().optional(),
  })
  .meta({ id: 'ListedView' });
export type ListedViewAnswer = z.infer<typeof listedViewSchema>;

export function viewAnswer(id: string, view: View, revision: number): ViewAnswer {
  const { name, filter, sort, shared, owner, archived, createdAt, updatedAt } = view;
  return { id, name, filter, sort, shared, owner, archived, revision, createdAt, updatedAt };
}
