import { z } from 'zod';
import { type ErrorCode, ERRORS, type ThreadlogError } from '../errors.js';

/** A code from the one table of errors. */
export const errorCodeSchema = z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]).meta({ id: 'ErrorCode' });

/** RFC 9457 with this API's own members, and no others. */
export const problemSchema = z
  .strictObject({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string().optional(),
    instance: z.string(),
    code: errorCodeSchema,
    requestId: z.string(),
    errors: z
      .array(z.strictObject({ field: z.string(), message: z.string() }))
      .min(1)
      .optional()
      .describe('With validation_failed: every wrong field.'),
    allowed: z.array(z.string()).optional().describe('With a refused transition: the moves that are allowed.'),
  })
  .meta({ id: 'Problem', description: 'An error as application/problem+json (RFC 9457). Decide by code; the texts are for people.' });

/** The body that tells of an error. */
export function problemOf(
  { code, detail, extra: { errors, allowed } }: ThreadlogError,
  instance: string,
  requestId: string,
): z.infer<typeof problemSchema> {
  const { title, status } = ERRORS[code];
  return {
    type: `urn:threadlog:error:${code}`,
    title,
    status,
    ...(detail === undefined ? {} : { detail }),
    instance,
    code,
    requestId,
    ...(errors === undefined ? {} : { errors: [...errors] }),
    ...(allowed === undefined ? {} : { allowed: [...allowed] }),
  };
}
