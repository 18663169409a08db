import { z } from 'zod';
import { conversationSummarySchema, messageSchema } from '../conversations/conversation.answer.js';

/* What a search answers. */

export const highlightSchema = z
  .strictObject({
    field: z.string().describe('The path of the text in the hit: `visitor.name`, `tags`, `customAttributes.plan`, `message.content`.'),
    text: z.string().describe('The text, or the part of a long one, as it was written.'),
    ranges: z
      .array(z.tuple([z.number().int(), z.number().int()]))
      .describe('Where the words stand in `text`, in code points: from, included, to, excluded.'),
  })
  .meta({ id: 'Highlight' });

export const hitSchema = z
  .strictObject({
    conversation: conversationSummarySchema,
    message: messageSchema.optional().describe('The message that matches best; absent where only other fields match.'),
    highlights: z.array(highlightSchema),
  })
  .meta({ id: 'SearchHit' });
export type HitAnswer = z.infer<typeof hitSchema>;
