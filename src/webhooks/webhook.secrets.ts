import { randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { DATABASE, type Database } from '../database/database.js';
import { MasterKey } from '../security/sealing.js';

/** The form of the Standard Webhooks specification: the prefix, and 24 to 64 random bytes in base64. */
const PREFIX = 'whsec_';
const SECRET_BYTES = 32;
/** How many secrets sign at the same time, however often they are rotated. */
const MOST_VALID = 4;

export const newWebhookSecret = (): string => `${PREFIX}${randomBytes(SECRET_BYTES).toString('base64')}`;

/** A key, and when it ends (ms). */
export interface SigningKey {
  readonly key: Buffer;
  readonly until: number;
}

/** The bytes that sign. */
const bytesOf = (secret: string): Buffer => Buffer.from(secret.slice(PREFIX.length), 'base64');

const wrappingName = (organizationId: string, webhookId: string, id: string) => `webhook-secret ${organizationId} ${webhookId} ${id}`;

/** The secrets that sign an endpoint's deliveries: wrapped with MASTER_KEY in keep.webhook_secrets, never in the log. */
@Injectable()
export class WebhookSecrets {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(MasterKey) private readonly master: MasterKey,
  ) {}

  /**
   * Stores a secret. Safe to repeat, and in any order: how long each signs follows from the revisions.
   * @param made revision of the event that made it; until when (ms) the secrets of lower revisions sign
   */
  async add(
    organizationId: string,
    webhookId: string,
    made: { readonly id: string; readonly secret: string; readonly revision: number; readonly earlierUntil: number },
  ): Promise<void> {
    const { id, secret, revision, earlierUntil } = made;
    await this.database
      .insertInto('keep.webhook_secrets')
      .values({
        organization_id: organizationId,
        webhook_id: webhookId,
        id,
        wrapped: this.master.wrap(wrappingName(organizationId, webhookId, id), Buffer.from(secret)),
        revision,
        earlier_until: new Date(earlierUntil),
      })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }

  /** Ends every secret of an endpoint. */
  async destroy(organizationId: string, webhookId: string): Promise<void> {
    await this.database
      .deleteFrom('keep.webhook_secrets')
      .where('organization_id', '=', organizationId)
      .where('webhook_id', '=', webhookId)
      .execute();
  }

  /** The keys of an endpoint that have not ended at an instant (ms), the newest first; none when it was deleted. */
  async valid(organizationId: string, webhookId: string, now: number): Promise<readonly SigningKey[]> {
    const rows = await this.database
      .selectFrom('keep.webhook_secrets')
      .select(['id', 'wrapped', 'earlier_until'])
      .where('organization_id', '=', organizationId)
      .where('webhook_id', '=', webhookId)
      .orderBy('revision', 'desc')
      .execute();
    const keys: SigningKey[] = [];
    let until = Infinity;
    for (const { id, wrapped, earlier_until } of rows) {
      if (until <= now || keys.length === MOST_VALID) break;
      keys.push({ key: bytesOf(this.master.unwrap(wrappingName(organizationId, webhookId, id), wrapped).toString()), until });
      until = Math.min(until, earlier_until.getTime());
    }
    return keys;
  }

  /** Removes the secrets of all endpoints that sign no more. @param now ms */
  async removeEnded(now: number): Promise<void> {
    await sql`
      delete from keep.webhook_secrets s where exists (
        select from keep.webhook_secrets later
        where later.organization_id = s.organization_id and later.webhook_id = s.webhook_id and later.revision > s.revision
          and later.earlier_until <= ${new Date(now)})`.execute(this.database);
  }

  /** The number of an organization's endpoints that were not deleted. */
  async countEndpoints(organizationId: string): Promise<number> {
    const { count } = await this.database
      .selectFrom('keep.webhook_secrets')
      .select(({ fn }) => fn.count<number>('webhook_id').distinct().as('count'))
      .where('organization_id', '=', organizationId)
      .executeTakeFirstOrThrow();
    return count;
  }
}
