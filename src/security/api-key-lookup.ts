import { randomBytes } from 'node:crypto';
import { type Kysely, type SelectQueryBuilder, sql } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Database } from '../database/database.js';
import type { CallerRole } from './roles.js';
import { secretHash } from './secret-hash.js';

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
  /** When the key or token ends by itself (ms since 1970); null for never. */
  readonly expiresAt: number | null;
  /** How often the visitor's tokens had been revoked when this one was made; null for API keys. */
  readonly tokenGeneration: number | null;
}

/** How long another process may still accept a key after its revocation (ms); the revoking process refuses it at once. */
const KEY_MAX_AGE_MS = 1_000;

/** A new key: a prefix that people and leak scanners recognize, and 192 random bits. */
export const newApiKey = () => `tl_${randomBytes(24).toString('base64url')}`;

/** Recognizes API keys. The keys themselves are not stored: a row holds the SHA-256 of 192 random bits, which nobody can search. */
export class ApiKeyLookup {
  private readonly known = new LRUCache<string, { readonly principal: Principal; readonly until: number }>({ max: 10_000 });
  /** Concurrent requests with the same key share one lookup. */
  private readonly lookups = new Map<string, Promise<Principal | undefined>>();
  /** The keys whose validity is asked for in this turn of the event loop, and the answer for all of them. */
  private readonly askedKeys = new Map<string, Pick<Principal, 'organizationId' | 'keyId'>>();
  private validKeys: Promise<ReadonlySet<string>> | undefined;

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
    return this.find((keys) => keys.where('hash', '=', secretHash(key)));
  }

  /** The key with this id; undefined when it is unknown, expired or revoked. Always asks the database. */
  async byId(organizationId: string, id: string): Promise<Principal | undefined> {
    return this.find((keys) => keys.where('organization_id', '=', organizationId).where('id', '=', id));
  }

  /** Whether a key that was recognized before is still valid. All who ask in one turn of the event loop share one query. */
  async isValid({ organizationId, keyId }: Principal): Promise<boolean> {
    this.validKeys ??= new Promise((resolve, reject) => {
      setImmediate(() => {
        const asked = [...this.askedKeys.values()];
        this.askedKeys.clear();
        this.validKeys = undefined;
        this.validAmong(asked).then(resolve, reject);
      });
    });
    const name = `${organizationId} ${keyId}`;
    this.askedKeys.set(name, { organizationId, keyId });
    return (await this.validKeys).has(name);
  }

  private async validAmong(keys: readonly Pick<Principal, 'organizationId' | 'keyId'>[]): Promise<ReadonlySet<string>> {
    const rows = await this.database
      .selectFrom('keep.api_keys as k')
      .innerJoin(
        sql<{ organization_id: string; id: string }>`
          unnest(${keys.map((key) => key.organizationId)}::text[], ${keys.map((key) => key.keyId)}::text[])`.as<'a'>(
          sql`a(organization_id, id)`,
        ),
        (join) => join.onRef('a.organization_id', '=', 'k.organization_id').onRef('a.id', '=', 'k.id'),
      )
      .select(['k.organization_id', 'k.id'])
      .where('k.revoked_at', 'is', null)
      .where((where) => where.or([where('k.expires_at', 'is', null), where('k.expires_at', '>', new Date())]))
      .execute();
    return new Set(rows.map((row) => `${row.organization_id} ${row.id}`));
  }

  private async find(
    where: (keys: SelectQueryBuilder<Database, 'keep.api_keys', object>) => SelectQueryBuilder<Database, 'keep.api_keys', object>,
  ): Promise<Principal | undefined> {
    const row = await where(this.database.selectFrom('keep.api_keys'))
      .select(['organization_id', 'id', 'name', 'role', 'agent_id', 'rate_limit_per_minute', 'expires_at'])
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
      expiresAt: row.expires_at === null ? null : row.expires_at.getTime(),
      tokenGeneration: null,
    };
  }

  /** Drops a key from this process's cache, so that a change takes effect at once. */
  forget(keyId: string): void {
    for (const [key, { principal }] of this.known.entries()) if (principal.keyId === keyId) this.known.delete(key);
    this.lookups.clear();
  }
}
