import { createHash, randomBytes } from 'node:crypto';
import type { Kysely } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Database } from '../database/database.js';
import type { CallerRole } from './roles.js';

/** Who a valid key or visitor token speaks for. */
export interface Principal {
  readonly organizationId: string;
  /** The key's id: what rates and Idempotency-Keys are counted by. All tokens of a visitor share one. */
  readonly keyId: string;
  readonly keyName: string;
  readonly role: CallerRole;
  /** The agent that the key is bound to. */
  readonly agentId: string | null;
  /** The visitor that a token speaks for; null for API keys. */
  readonly visitorId: string | null;
  /** Requests a minute; null for what the server is set to, 0 for no limit. */
  readonly rateLimitPerMinute: number | null;
}

/** How long a process may go on accepting a key that another process revoked (ms); in its own process a key ends at once. */
const KEY_MAX_AGE_MS = 1_000;

export const hashApiKey = (key: string) => createHash('sha256').update(key).digest();

/** A new key: a prefix that people and leak scanners recognize, and 192 bits of chance. */
export const newApiKey = () => `tl_${randomBytes(24).toString('base64url')}`;

/** Recognizes API keys. The keys themselves are not kept: a row holds the SHA-256 of 192 random bits, which nobody can search. */
export class ApiKeyLookup {
  private readonly known = new LRUCache<string, { readonly principal: Principal; readonly until: number }>({ max: 10_000 });
  /** Many requests of one key that comes up for its next look are one look. */
  private readonly lookups = new Map<string, Promise<Principal | undefined>>();

  constructor(private readonly database: Kysely<Database>) {}

  /** The key as it was recognized within the last second; undefined says nothing of the key. */
  recall(key: string): Principal | undefined {
    const known = this.known.get(key);
    return known === undefined || performance.now() > known.until ? undefined : known.principal;
  }

  /** Whether the key was good when it was last looked at, so that looking again is no guess of a stranger's. */
  wasGood(key: string): boolean {
    return this.known.has(key);
  }

  /** Undefined for a key that is unknown, expired or revoked. */
  async recognize(key: string): Promise<Principal | undefined> {
    const recalled = this.recall(key);
    if (recalled !== undefined) return recalled;
    const running = this.lookups.get(key);
    if (running !== undefined) return running;
    const lookup = this.lookUp(key).then((principal) => {
      // Forgotten meanwhile: what was read may be what was changed.
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

  /** Forgets what this process remembers of a key, so that a change holds at once. */
  forget(keyId: string): void {
    for (const [key, { principal }] of this.known.entries()) if (principal.keyId === keyId) this.known.delete(key);
    this.lookups.clear();
  }
}
