import { z } from 'zod';
import { errorCodeSchema } from '../http/problem.js';
import type { BulkItem } from './bulk.commands.js';

/** The answer of POST /conversations/bulk: one item per conversation, as the single request would have answered. */
export const bulkItemSchema = z
  .union([
    z.strictObject({
      id: z.string(),
      /** 201 for replies and notes. */
      status: z.union([z.literal(200), z.literal(201)]),
      revision: z.number().int(),
      /** Only for a reply or a note. */
      messageId: z.string().optional(),
    }),
    z.strictObject({
      id: z.string(),
      status: z.number().int().min(400),
      code: errorCodeSchema,
      detail: z.string().optional(),
      allowed: z.array(z.string()).optional(),
    }),
  ])
  .meta({ id: 'BulkItem' });
export type BulkAnswer = BulkItem[];

export const bulkMetaSchema = z
  .strictObject({ total: z.number().int(), succeeded: z.number().int(), failed: z.number().int() })
  .meta({ id: 'BulkMeta' });
export type BulkMeta = z.infer<typeof bulkMetaSchema>;

export function bulkMeta(items: readonly BulkItem[]): BulkMeta {
  const failed = items.filter((item) => 'code' in item).length;
  return { total: items.length, succeeded: items.length - failed, failed };
}
