import { z } from 'zod';
import { ROLES } from '../security/roles.js';

const named = z.strictObject({ id: z.string(), name: z.string() });

/** The answer of GET /me. */
export const meSchema = z
  .strictObject({
    role: z.enum(ROLES),
    keyId: z.string(),
    keyName: z.string(),
    /** The agent that the key is bound to or acts for. */
    agent: named.nullable(),
    /** An unbound admin key acts for the agent in X-Agent-Id. */
    mayActFor: z.boolean(),
    organization: named,
  })
  .meta({ id: 'Me' });
export type MeAnswer = z.infer<typeof meSchema>;
