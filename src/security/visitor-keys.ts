import { createHmac, randomBytes } from 'node:crypto';
import type { Kysely } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Database } from '../database/database.js';
import { derivedId } from '../ids.js';
import { DataKey, MasterKey } from './sealing.js';

/** The id under which events name a visitor's data key. It reveals nothing about the visitor. */
export function visitorKeyId(organizationId: string, visitorId: string): string {
  return derivedId('visitor-key', organizationId, visitorId);
}

const name = (organizationId: string, keyId: string) => `visitor-key ${organizationId} ${keyId}`;

/** How long a process may use a key after another process destroyed it (ms). */
const KEY_MAX_AGE_MS = 60_000;

/**
 * The visitors' data keys: made here, wrapped with MASTER_KEY in keep.visitor_keys, never in the log. A key is stored before the first
 * event that it seals, so that every event has its key.
 */
export class VisitorKeys {
  private readonly keys = new LRUCache<string, DataKey>({ max: 20_000, ttl: KEY_MAX_AGE_MS });
  private readonly secrets = new LRUCache<string, Buffer>({ max: 1_000 });

  constructor(
    private readonly database: Kysely<Database>,
    private readonly master: MasterKey,
  ) {}

  /** The visitor's key, created when there is none yet. */
  async make(organizationId: string, visitorId: string): Promise<{ keyId: string; key: DataKey }> {
    const keyId = visitorKeyId(organizationId, visitorId);
    const key = await this.find(organizationId, keyId);
    if (key !== undefined) return { keyId, key };
    const made = await this.makeMany(organizationId, [visitorId]);
    const first = made.get(visitorId);
    if (first === undefined) throw new Error('a data key was destroyed while it was asked for');
    return first;
  }

  /** Like make(), for many visitors in one round trip. */
  async makeMany(organizationId: string, visitorIds: readonly string[]): Promise<Map<string, { keyId: string; key: DataKey }>> {
    const rows = visitorIds.map((visitorId) => {
      const keyId = visitorKeyId(organizationId, visitorId);
      return {
        organization_id: organizationId,
        key_id: keyId,
        visitor_id: visitorId,
        wrapped: this.master.wrap(name(organizationId, keyId), randomBytes(32)),
      };
    });
    await this.database
      .insertInto('keep.visitor_keys')
      .values(rows)
      .onConflict((conflict) => conflict.columns(['organization_id', 'key_id']).doNothing())
      .execute();
    const found = await this.findMany(
      organizationId,
      rows.map((row) => row.key_id),
    );
    const made = new Map<string, { keyId: string; key: DataKey }>();
    for (const { key_id: keyId, visitor_id: visitorId } of rows) {
      const key = found.get(keyId);
      if (key !== undefined) made.set(visitorId, { keyId, key });
    }
    return made;
  }

  /** Undefined when the key was destroyed or never existed. */
  async find(organizationId: string, keyId: string): Promise<DataKey | undefined> {
    return this.keys.get(`${organizationId} ${keyId}`) ?? (await this.findMany(organizationId, [keyId])).get(keyId);
  }

  /** The existing keys among these, in at most one round trip. */
  async findMany(organizationId: string, keyIds: Iterable<string>): Promise<Map<string, DataKey>> {
    const found = new Map<string, DataKey>();
    const missing: string[] = [];
    for (const keyId of new Set(keyIds)) {
      const key = this.keys.get(`${organizationId} ${keyId}`);
      if (key === undefined) missing.push(keyId);
      else found.set(keyId, key);
    }
    if (missing.length > 0) {
      const rows = await this.database
        .selectFrom('keep.visitor_keys')
        .select(['key_id', 'wrapped'])
        .where('organization_id', '=', organizationId)
        .where('key_id', 'in', missing)
        .where('wrapped', 'is not', null)
        .execute();
      for (const row of rows) {
        if (row.wrapped === null) continue;
        const key = new DataKey(this.master.unwrap(name(organizationId, row.key_id), row.wrapped));
        this.keys.set(`${organizationId} ${row.key_id}`, key);
        found.set(row.key_id, key);
      }
    }
    return found;
  }

  /**
   * With another MASTER_KEY every personal field would fail to open, one by one; better to report it at once.
   * @throws Error
   */
  async assertMasterKey(): Promise<void> {
    const row = await this.database
      .selectFrom('keep.organization_secrets')
      .select(['organization_id', 'wrapped'])
      .where('name', '=', 'hash')
      .executeTakeFirst();
    if (row === undefined) return;
    try {
      this.master.unwrap(`hash-key ${row.organization_id}`, row.wrapped);
    } catch (error) {
      throw new Error(
        'this MASTER_KEY is not the one that the keys in the database were wrapped with; start with that one, or restore it from its backup',
        { cause: error },
      );
    }
  }

  /** The organization's secret for keyed hashes (claims and requests), created with the organization. */
  async hashKey(organizationId: string): Promise<Buffer> {
    const cached = this.secrets.get(organizationId);
    if (cached !== undefined) return cached;
    const secretName = `hash-key ${organizationId}`;
    await this.database
      .insertInto('keep.organization_secrets')
      .values({ organization_id: organizationId, name: 'hash', wrapped: this.master.wrap(secretName, randomBytes(32)) })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const row = await this.database
      .selectFrom('keep.organization_secrets')
      .select('wrapped')
      .where('organization_id', '=', organizationId)
      .where('name', '=', 'hash')
      .executeTakeFirstOrThrow();
    const secret = this.master.unwrap(secretName, row.wrapped);
    this.secrets.set(organizationId, secret);
    return secret;
  }
}

/** HMAC-SHA-256 in hex: identifies a private value without revealing it. */
export function keyedHash(key: Buffer, ...parts: readonly string[]): string {
  return createHmac('sha256', key).update(JSON.stringify(parts)).digest('hex');
}
