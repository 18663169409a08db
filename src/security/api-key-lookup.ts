import { createHash, randomBytes } from 'node:crypto';
import type { Kysely } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Database } from '../database/database.js';
import type { CallerRole } from './roles.js';

/** The holder of a valid key or visitor token. */
export interface Principal {
  readonly organizationId: string;
  /** The key's id, under which rates and Idempotency-Keys are counted. All tokens of a visitor share one id. */
  readonly keyId: string;
  readonly keyName: string;
  readonly role: CallerRole;
  /** The agent that the key is bound to. */
  readonly agentId: string | null;
  /** The visitor that a token speaks for; null for API keys. */
  readonly visitorId: string | null;
  /** Requests a minute; null for the server's setting, 0 for no limit. */
  readonly rateLimitPerMinute: number | null;
}

/** How long another process may still accept a key after its revocation (ms); the revoking process refuses it at once. */
const KEY_MAX_AGE_MS = 1_000;

export const hashApiKey = (key: string) => createHash('sha256').update(key).digest();

/** A new key: a prefix that people and leak scanners recognize, and 192 random bits. */
export const newApiKey = () => `tl_${randomBytes(24).toString('base64url')}`;

/** Recognizes API keys. The keys themselves are not stored: a row holds the SHA-256 of 192 random bits, which nobody can search. */
export class ApiKeyLookup {
  private readonly known = new LRUCache<string, { readonly principal: Principal; readonly until: number }>({ max: 10_000 });
  /** Concurrent requests with the same key share one lookup. */
  private readonly lookups = new Map<string, Promise<Principal | undefined>>();

  constructor(private readonly database: Kysely<Database>) {}

  /** The key if it was recognized within the last second; undefined says nothing about the key. */
  recall(key: string): Principal | undefined {
    const known = this.known.get(key);
    return known === undefined || performance.now() > known.until ? undefined : known.principal;
  }

  /** Whether the key was valid at its last lookup; then a new lookup is not a stranger's guess. */
  wasGood(key: string): boolean {
    return this.known.has(key);
  }

  /** Undefined for an unknown, expired or revoked key. */
  async recognize(key: string): Promise<Principal | undefined> {
    const recalled = this.recall(key);
    if (recalled !== undefined) return recalled;
    const running = this.lookups.get(key);
    if (running !== undefined) return running;
    const lookup = this.lookUp(key).then((principal) => {
      // The key was forgotten during the lookup, so the result may be outdated.
      if (this.lookups.get(key) !== lookup) return principal;
      if (principal === undefined) this.known.delete(key);
      else this.known.set(key, { principal, until: performance.now() + KEY_MAX_AGE_MS });
      return principal;
    });
    this.lookups.set(key, lookup);
    try {
      return await lookup;
    } finally {
      if (this.lookups.get(key) === lookup) this.lookups.delete(key);
    }
  }

  private async lookUp(key: string): Promise<Principal | undefined> {
    const row = await this.database
      .selectFrom('keep.api_keys')
      .select(['organization_id', 'id', 'name', 'role', 'agent_id', 'rate_limit_per_minute'])
      .where('hash', '=', hashApiKey(key))
      .where('revoked_at', 'is', null)
      .where((where) => where.or([where('expires_at', 'is', null), where('expires_at', '>', new Date())]))
      .executeTakeFirst();
    if (row === undefined) return undefined;
    return {
      organizationId: row.organization_id,
      keyId: row.id,
      keyName: row.name,
      role: row.role,
      agentId: row.agent_id,
      visitorId: null,
      rateLimitPerMinute: row.rate_limit_per_minute,
    };
  }

  /** Drops a key from this process's cache, so that a change takes effect at once. */
  forget(keyId: string): void {
    for (const [key, { principal }] of this.known.entries()) if (principal.keyId === keyId) this.known.delete(key);
    this.lookups.clear();
  }
}
