import { Inject, Injectable } from '@nestjs/common';
import type { Kysely } from 'kysely';
import { type CommandContext, everAgain, isExpected } from '../commands/command-context.js';
import { secretOf } from '../commands/idempotency.js';
import { type Transacted, Transactor } from '../commands/transactor.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import type { Actor } from '../event-store/aggregate.js';
import { Reachable } from '../http-out/reachable.js';
import { MasterKey } from '../security/sealing.js';
import {
  changeWebhook,
  createWebhook,
  deleteWebhook,
  disableWebhook,
  isActive,
  rotateSecret,
  type Webhook,
  webhookAggregate,
  type WebhookEvent,
  type WebhookFields,
} from './webhook.js';
import { newWebhookSecret, WebhookSecrets } from './webhook.secrets.js';

const MOST_ENDPOINTS = 100;
const HOUR_MS = 3_600_000;

export interface WebhookChanged extends Transacted<Webhook, WebhookEvent> {
  readonly id: string;
}

export type WebhookChanges = Partial<WebhookFields> & { readonly enabled?: boolean };

/**
 * Makes, changes and deletes endpoints. The log tells who did; keep.webhook_secrets holds what signs. Granting writes the event first and
 * then the secret, deleting ends the secrets first: after a crash in between nothing is signed that should not be.
 */
@Injectable()
export class WebhookWriter {
  constructor(
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(MasterKey) private readonly master: MasterKey,
    @Inject(Reachable) private readonly reachable: Reachable,
    @Inject(WebhookSecrets) private readonly secrets: WebhookSecrets,
  ) {}

  /**
   * A retry with the same Idempotency-Key gets the same secret for 24 h.
   * @throws ThreadlogError validation_failed for a URL that must not be reached, limit_exceeded, idempotency_key_reused
   */
  async create(context: CommandContext, given: WebhookFields, owner: Actor): Promise<WebhookChanged & { readonly secret: string }> {
    const { organizationId } = context;
    const { id, secret } = await secretOf(this.database, this.master, context, 'webhook', newWebhookSecret);
    const done = await this.transactor.transact(
      webhookAggregate,
      id,
      everAgain(context),
      (state) => createWebhook(given, owner)(state),
      async () => {
        await this.requireReachable(given.url);
        if ((await this.secrets.countEndpoints(organizationId)) >= MOST_ENDPOINTS)
          throw new ThreadlogError('limit_exceeded', `an organization has at most ${MOST_ENDPOINTS} webhooks`);
        return undefined;
      },
    );
    // There is no earlier secret, so its end says nothing.
    await this.secrets.add(organizationId, id, { id, secret, revision: 0, earlierUntil: Date.parse(done.state.createdAt) });
    await this.endOfDeleted(organizationId, id);
    return { ...done, id, secret };
  }

  /** @throws ThreadlogError not_found, resource_archived, validation_failed for a URL that must not be reached */
  async change(context: CommandContext, id: string, changes: WebhookChanges): Promise<WebhookChanged> {
    const { organizationId } = context;
    const done = await this.transactor.transact(
      webhookAggregate,
      id,
      context,
      (state) => changeWebhook(changes)(state),
      async (state) => {
        if (changes.url !== undefined && changes.url !== state.url) await this.requireReachable(changes.url);
        // Whoever mends an endpoint gets five new days. Before the event: a failure in between counts from then on.
        if (changes.enabled === true || (changes.url !== undefined && changes.url !== state.url))
          await this.forgetFailures(organizationId, id);
        return undefined;
      },
    );
    return { ...done, id };
  }

  /** @throws ThreadlogError not_found, resource_archived */
  async disable(context: CommandContext, id: string, reason: 'gone' | 'failing', url: string): Promise<WebhookChanged> {
    const done = await this.transactor.transact(webhookAggregate, id, everAgain(context), (state) =>
      isActive(state) && state.url !== url ? [] : disableWebhook(reason)(state),
    );
    return { ...done, id };
  }

  /** @throws ThreadlogError not_found, resource_archived */
  async rotate(context: CommandContext, id: string, overlapHours: number): Promise<WebhookChanged & { readonly secret: string }> {
    const { organizationId } = context;
    const { id: secretId, secret } = await secretOf(this.database, this.master, context, 'webhook-secret', newWebhookSecret);
    const done = await this.transactor.transact(webhookAggregate, id, context, (state, _, now) =>
      rotateSecret(new Date(now + overlapHours * HOUR_MS).toISOString())(state),
    );
    for (const event of done.events)
      if (event.type === 'WebhookSecretRotated')
        await this.secrets.add(organizationId, id, {
          id: secretId,
          secret,
          revision: event.revision,
          earlierUntil: Date.parse(event.data.earlierUntil),
        });
    await this.endOfDeleted(organizationId, id);
    return { ...done, id, secret };
  }

  /** @throws ThreadlogError not_found, revision_mismatch */
  async delete(context: CommandContext, id: string): Promise<WebhookChanged> {
    const { organizationId, ifMatch } = context;
    // Checked before the secrets end: a refused request must not end them.
    const known = await this.transactor.load(webhookAggregate, organizationId, id);
    if (known === undefined) throw new ThreadlogError('not_found');
    if (!isExpected(ifMatch, known.revision)) throw new ThreadlogError('revision_mismatch', `the revision is ${known.revision}`);
    await this.secrets.destroy(organizationId, id);
    await this.forgetFailures(organizationId, id);
    const done = await this.transactor.transact(webhookAggregate, id, context, (state) => deleteWebhook()(state));
    // One that was added in between found no end to meet.
    await this.secrets.destroy(organizationId, id);
    return { ...done, id };
  }

  /** A request that deleted the endpoint between the event and the secret found no secret to end. */
  private async endOfDeleted(organizationId: string, id: string): Promise<void> {
    const current = await this.transactor.load(webhookAggregate, organizationId, id);
    if (current?.state.archived === true) await this.secrets.destroy(organizationId, id);
  }

  private async requireReachable(url: string): Promise<void> {
    const message = await this.reachable.faultNow(url);
    if (message !== undefined) throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: 'url', message }] });
  }

  private async forgetFailures(organizationId: string, id: string): Promise<void> {
    await this.database
      .deleteFrom('keep.webhook_health')
      .where('organization_id', '=', organizationId)
      .where('webhook_id', '=', id)
      .execute();
  }
}
