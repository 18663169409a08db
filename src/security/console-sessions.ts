import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Kysely } from 'kysely';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import type { ApiKeyLookup, Principal } from './api-key-lookup.js';
import type { MasterKey } from './sealing.js';
import { secretHash } from './secret-hash.js';

/** The cookie that holds a session's token. */
export const SESSION_COOKIE = 'threadlog_session';
/** How long a session lasts (ms). */
export const SESSION_MS = 12 * 60 * 60 * 1_000;
/** How long a printed link may be used (ms). */
const LINK_MS = 24 * 60 * 60 * 1_000;
/** How long another process may still accept a session after its end or its key's (ms). */
const MAX_AGE_MS = 1_000;
const MOST_KNOWN = 10_000;
/** Bytes of chance, and of the proof that the token is ours. */
const RANDOM = 24;
const PROOF = 16;

/** The session's token in a Cookie header; undefined when there is none. */
export function sessionIn(cookies: string | undefined): string | undefined {
  if (cookies === undefined) return undefined;
  for (const cookie of cookies.split(';')) {
    const [name, value] = cookie.split('=', 2);
    if (name?.trim() === SESSION_COOKIE && value !== undefined) return value.trim();
  }
  return undefined;
}

/**
 * Sessions of the console. A page holds no API key: it exchanges one, or the link that a first start prints, for a cookie that no script can
 * read. A session has the rights of its key, and ends with it.
 */
export class ConsoleSessions {
  readonly #proofKey: Buffer;
  readonly #known = new LRUCache<string, { readonly principal: Principal; readonly until: number }>({ max: MOST_KNOWN });

  constructor(
    private readonly database: Kysely<Database>,
    master: MasterKey,
    private readonly apiKeys: ApiKeyLookup,
    private readonly clock: Clock,
  ) {
    this.#proofKey = master.derive('console sessions');
  }

  /** Begins a session with the rights of a key. @returns its token, and when it ends (ms since 1970) */
  async begin(key: Pick<Principal, 'organizationId' | 'keyId'>): Promise<{ readonly token: string; readonly expiresAt: number }> {
    return await this.make('session', key, SESSION_MS);
  }

  /** Makes a token that begins one session, within a day. */
  async makeLink(key: Pick<Principal, 'organizationId' | 'keyId'>): Promise<string> {
    return (await this.make('link', key, LINK_MS)).token;
  }

  /** Uses a link up. Undefined when it is unknown, used or expired, or its key is no longer valid. */
  async useLink(token: string): Promise<Principal | undefined> {
    if (!this.isOurs(token)) return undefined;
    const row = await this.database
      .deleteFrom('keep.console_sessions')
      .where('hash', '=', secretHash(token))
      .where('kind', '=', 'link')
      .where('expires_at', '>', new Date(this.clock.now()))
      .returning(['organization_id', 'key_id'])
      .executeTakeFirst();
    return row === undefined ? undefined : await this.apiKeys.byId(row.organization_id, row.key_id);
  }

  /** Whether a server with this MASTER_KEY made the token, ended or not: then sending it was no guess. */
  isOurs(token: string): boolean {
    const bytes = Buffer.from(token, 'base64url');
    if (bytes.length !== RANDOM + PROOF) return false;
    return timingSafeEqual(bytes.subarray(RANDOM), this.proofOf(bytes.subarray(0, RANDOM)));
  }

  /** Whoever the session stands for; undefined when it is unknown or over, or its key is no longer valid. */
  async recognize(token: string): Promise<Principal | undefined> {
    const known = this.#known.get(token);
    if (known !== undefined && performance.now() < known.until) return known.principal;
    const row = await this.database
      .selectFrom('keep.console_sessions')
      .select(['organization_id', 'key_id'])
      .where('hash', '=', secretHash(token))
      .where('kind', '=', 'session')
      .where('expires_at', '>', new Date(this.clock.now()))
      .executeTakeFirst();
    const principal = row === undefined ? undefined : await this.apiKeys.byId(row.organization_id, row.key_id);
    if (principal === undefined) this.#known.delete(token);
    else this.#known.set(token, { principal, until: performance.now() + MAX_AGE_MS });
    return principal;
  }

  /** Ends a session, here at once and in other processes within a second. Nothing happens when it is over already. */
  async end(token: string): Promise<void> {
    await this.database.deleteFrom('keep.console_sessions').where('hash', '=', secretHash(token)).execute();
    this.#known.delete(token);
  }

  private async make(
    kind: 'session' | 'link',
    { organizationId, keyId }: Pick<Principal, 'organizationId' | 'keyId'>,
    lastsMs: number,
  ): Promise<{ readonly token: string; readonly expiresAt: number }> {
    const random = randomBytes(RANDOM);
    const token = Buffer.concat([random, this.proofOf(random)]).toString('base64url');
    const now = this.clock.now();
    await this.database.deleteFrom('keep.console_sessions').where('expires_at', '<=', new Date(now)).execute();
    await this.database
      .insertInto('keep.console_sessions')
      .values({
        hash: secretHash(token),
        kind,
        organization_id: organizationId,
        key_id: keyId,
        expires_at: new Date(now + lastsMs),
      })
      .execute();
    return { token, expiresAt: now + lastsMs };
  }

  private proofOf(random: Buffer): Buffer {
    return createHmac('sha256', this.#proofKey).update(random).digest().subarray(0, PROOF);
  }
}
