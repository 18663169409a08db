import { z } from 'zod';
import { ROLES } from '../security/roles.js';
import type { ApiKey } from './api-key.js';

/** An API key, as every route answers it. */
export const apiKeySchema = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    role: z.enum(ROLES),
    agentId: z.string().nullable(),
    prefix: z.string(),
    rateLimitPerMinute: z.number().int().nullable(),
    expiresAt: z.iso.datetime({ precision: 3 }).nullable(),
    revokedAt: z.iso.datetime({ precision: 3 }).nullable(),
    revision: z.number().int(),
    createdAt: z.iso.datetime({ precision: 3 }),
    updatedAt: z.iso.datetime({ precision: 3 }),
  })
  .meta({ id: 'ApiKey' });
export type ApiKeyAnswer = z.infer<typeof apiKeySchema>;

/** The answer of the request that made the key; no other answer holds the key itself. */
export const newApiKeySchema = apiKeySchema.extend({ key: z.string() }).meta({ id: 'NewApiKey' });

export function apiKeyAnswer(id: string, apiKey: ApiKey, revision: number): ApiKeyAnswer {
  const { name, role, agentId, prefix, rateLimitPerMinute, expiresAt, revokedAt, createdAt, updatedAt } = apiKey;
  return { id, name, role, agentId, prefix, rateLimitPerMinute, expiresAt, revokedAt, revision, createdAt, updatedAt };
}
