import { z } from 'zod';
import type { CannedResponse } from './canned-response.js';

/** A canned response, as every route answers it. */
export const cannedResponseSchema = z
  .strictObject({
    id: z.string(),
    title: z.string(),
    shortcut: z.string(),
    content: z.string(),
    archived: z.boolean(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'CannedResponse' });
export type CannedResponseAnswer = z.infer<typeof cannedResponseSchema>;

/** A canned response's text in a conversation. */
export const renderedSchema = z.strictObject({ text: z.string(), missing: z.array(z.string()) }).meta({ id: 'RenderedResponse' });

export function cannedResponseAnswer(id: string, response: CannedResponse, revision: number): CannedResponseAnswer {
  const { title, shortcut, content, archived, createdAt, updatedAt } = response;
  return { id, title, shortcut, content, archived, revision, createdAt, updatedAt };
}
