import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';
import type { Role } from '../security/roles.js';

/*
 * The facts about an API key that an auditor may see. The log never holds the key or its hash: keep.api_keys holds the hash and decides
 * whether a key is accepted.
 */
export type ApiKeyEvent =
  | {
      readonly type: 'ApiKeyCreated';
      readonly data: {
        readonly name: string;
        readonly role: Role;
        readonly agentId?: string;
        /** The key's first characters, by which people recognize it. */
        readonly prefix: string;
        /** ISO instant. */
        readonly expiresAt?: string;
      };
    }
  | { readonly type: 'ApiKeyRenamed'; readonly data: { readonly name: string } }
  /** Requests a minute; null for the server's setting, 0 for no limit. */
  | { readonly type: 'ApiKeyRateLimitChanged'; readonly data: { readonly rateLimitPerMinute: number | null } }
  | { readonly type: 'ApiKeyRevoked'; readonly data: Record<string, never> };

export interface ApiKey {
  readonly exists: boolean;
  readonly name: string;
  readonly role: Role;
  readonly agentId: string | null;
  readonly prefix: string;
  readonly rateLimitPerMinute: number | null;
  readonly expiresAt: string | null;
  readonly revokedAt: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export const apiKeyAggregate: Aggregate<ApiKey, ApiKeyEvent> = {
  kind: 'apikey',
  codec: schemaCodec<ApiKeyEvent>({
    ApiKeyCreated: [
      z.object({
        name: z.string(),
        role: z.enum(['admin', 'agent', 'auditor', 'analyst']),
        agentId: z.string().optional(),
        prefix: z.string(),
        expiresAt: z.string().optional(),
      }),
    ],
    ApiKeyRenamed: [z.object({ name: z.string() })],
    ApiKeyRateLimitChanged: [z.object({ rateLimitPerMinute: z.number().int().nullable() })],
    ApiKeyRevoked: [z.object({})],
  }),
  // The weakest role, should a fold ever stop before the first event.
  initial: {
    exists: false,
    name: '',
    role: 'analyst',
    agentId: null,
    prefix: '',
    rateLimitPerMinute: null,
    expiresAt: null,
    revokedAt: null,
    createdAt: '',
    updatedAt: '',
  },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'ApiKeyCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'ApiKeyRenamed':
        return { ...before, name: event.data.name, updatedAt: at };
      case 'ApiKeyRateLimitChanged':
        return { ...before, rateLimitPerMinute: event.data.rateLimitPerMinute, updatedAt: at };
      case 'ApiKeyRevoked':
        return { ...before, revokedAt: at, updatedAt: at };
    }
  },
};

export type ApiKeyDecision = (k: ApiKey) => readonly ApiKeyEvent[];

export interface NewApiKey {
  readonly name: string;
  readonly role: Role;
  readonly agentId?: string;
  readonly prefix: string;
  readonly expiresAt?: string;
  readonly rateLimitPerMinute?: number;
}

/** @param now ms. @throws ThreadlogError expiry_in_past */
export function createKey({ rateLimitPerMinute, ...given }: NewApiKey, now: number): ApiKeyDecision {
  return (k) => {
    if (k.exists) return [];
    if (given.expiresAt !== undefined && Date.parse(given.expiresAt) <= now)
      throw new ThreadlogError('expiry_in_past', `${given.expiresAt} is not after ${new Date(now).toISOString()}`);
    return [
      { type: 'ApiKeyCreated', data: given },
      ...(rateLimitPerMinute === undefined ? [] : [{ type: 'ApiKeyRateLimitChanged', data: { rateLimitPerMinute } } as const]),
    ];
  };
}

/** The fields of a key that may change; absent fields stay. */
export interface ApiKeyChanges {
  readonly name?: string;
  readonly rateLimitPerMinute?: number | null;
}

/** @throws ThreadlogError not_found, resource_archived for a revoked key */
export function changeKey({ name, rateLimitPerMinute }: ApiKeyChanges): ApiKeyDecision {
  return (k) => {
    if (!k.exists) throw new ThreadlogError('not_found');
    if (k.revokedAt !== null) throw new ThreadlogError('resource_archived', 'the key was revoked');
    return [
      ...(name === undefined || k.name === name ? [] : [{ type: 'ApiKeyRenamed', data: { name } } as const]),
      ...(rateLimitPerMinute === undefined || k.rateLimitPerMinute === rateLimitPerMinute
        ? []
        : [{ type: 'ApiKeyRateLimitChanged', data: { rateLimitPerMinute } } as const]),
    ];
  };
}

export function revokeKey(): ApiKeyDecision {
  return (k) => {
    if (!k.exists) throw new ThreadlogError('not_found');
    return k.revokedAt === null ? [{ type: 'ApiKeyRevoked', data: {} }] : [];
  };
}
