import { Inject, Injectable } from '@nestjs/common';
import type { Kysely } from 'kysely';
import type { z } from 'zod';
import { type Clock, CLOCK } from '../clock.js';
import { assertNotRefused, type CommandContext, isExpected } from '../commands/command-context.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { Transactor } from '../commands/transactor.js';
import { DATABASE, type Database } from '../database/database.js';
import { parsePublicPosition } from '../conversations/public-event.js';
import { Speaks } from '../docs/asyncapi.js';
import { ThreadlogError } from '../errors.js';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { derivedId } from '../ids.js';
import { Checkpoints } from '../read-models/checkpoints.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { type DeliveryAnswer, deliveryAnswer, deliverySchema, replaySchema } from './delivery.answer.js';
import { DeliveryReader } from './delivery.reader.js';
import { addReplay, insertDeliveries, sendSoon, wakeSenders } from './delivery.rows.js';
import { WEBHOOK_CHANNEL } from './webhook.messages.js';
import { type Replayed, Replays } from './webhook.replays.js';
import { WEBHOOK_PING } from './webhook-event.js';
import { isActive, type Webhook, webhookAggregate } from './webhook.js';

/** How long a replay waits for the feed of events (ms). */
const FEED_MS = 5_000;

/** Sends again, replays and tests. None of these is an event: the delivery log shows them. */
@Speaks(WEBHOOK_CHANNEL)
@Injectable()
export class DeliveryWriter {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
    @Inject(DeliveryReader) private readonly reader: DeliveryReader,
    @Inject(Replays) private readonly replays: Replays,
    @Inject(Checkpoints) private readonly checkpoints: Checkpoints,
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  /** Sends a delivery now, with its own id. @throws ThreadlogError not_found, resource_archived, webhook_disabled */
  async resend(context: CommandContext, webhookId: string, id: string): Promise<DeliveryAnswer> {
    return this.once(context, deliverySchema, async () => {
      const { organizationId } = context;
      await this.webhook(context, webhookId);
      const delivery = await this.reader.one(organizationId, webhookId, id);
      await this.requireActive(context, webhookId);
      await sendSoon(this.database, { id: delivery.id, organizationId, webhookId }, this.clock.now());
      await wakeSenders(this.database);
      return deliveryAnswer(await this.reader.one(organizationId, webhookId, id));
    });
  }

  /** Sends a test, to a disabled endpoint too. @throws ThreadlogError not_found, resource_archived */
  async ping(context: CommandContext, webhookId: string): Promise<DeliveryAnswer> {
    return this.once(context, deliverySchema, async () => {
      const { organizationId, commandId } = context;
      await this.webhook(context, webhookId);
      const id = derivedId('ping', commandId);
      const ping = {
        id,
        organizationId,
        webhookId,
        event: WEBHOOK_PING,
        kind: webhookAggregate.kind,
        streamId: webhookId,
        revision: -1,
        index: 0,
        position: '',
      };
      await this.database.transaction().execute(async (tx) => {
        const [made] = await insertDeliveries(tx, [ping], this.clock.now());
        if (made !== undefined) await sendSoon(tx, made, this.clock.now());
      });
      const answer = deliveryAnswer(await this.reader.one(organizationId, webhookId, id));
      await wakeSenders(this.database);
      return answer;
    });
  }

  /**
   * Counts the deliveries of a replay and, unless it is only asked for the count, has them made.
   * @throws ThreadlogError not_found, resource_archived, webhook_disabled, limit_exceeded, read_model_behind, validation_failed
   */
  async replay(context: CommandContext, webhookId: string, asked: Omit<Replayed, 'through'>, dryRun: boolean): Promise<{ count: number }> {
    return this.once(context, replaySchema, async () => {
      const { organizationId, commandId } = context;
      const webhook = dryRun ? await this.webhook(context, webhookId) : await this.requireActive(context, webhookId);
      const head = await this.store.head();
      if (head === 'start') return { count: 0 };
      if (parsePublicPosition(asked.after).position > head)
        throw new ThreadlogError('validation_failed', undefined, {
          errors: [{ field: 'after', message: `is beyond the end of the log, which is at ${head}` }],
        });
      // The feed of events is a read model. What is written from now on is delivered by itself.
      if ((await this.checkpoints.waitFor(CORE_GROUP, head, FEED_MS)) === 'behind')
        throw new ThreadlogError('read_model_behind', undefined, { retryAfterSeconds: 1 });
      const replayed = { ...asked, through: head };
      const count = await this.replays.count(organizationId, webhookId, webhook, replayed);
      if (!dryRun && count > 0) {
        await addReplay(this.database, organizationId, webhookId, derivedId('replay', commandId), replayed);
        await wakeSenders(this.database);
      }
      return { count };
    });
  }

  /** A repeated keyed request gets the first answer. */
  private async once<T extends object>(context: CommandContext, schema: z.ZodType<T>, work: () => Promise<T>): Promise<T> {
    const { keyed, commandId } = context;
    const id = derivedId('webhook-answer', commandId);
    const before = keyed === true ? await this.kept.find<T>(id) : undefined;
    // A stored answer has lost the order of its fields; the schema gives it back.
    if (before !== undefined) return schema.parse(before);
    assertNotRefused(context);
    const answer = await work();
    return schema.parse(keyed === true ? await this.kept.first(id, context, answer) : answer);
  }

  private async webhook({ organizationId, ifMatch }: CommandContext, id: string): Promise<Webhook> {
    const found = await this.transactor.load(webhookAggregate, organizationId, id);
    if (found === undefined) throw new ThreadlogError('not_found');
    if (!isExpected(ifMatch, found.revision)) throw new ThreadlogError('revision_mismatch', `the revision is ${found.revision}`);
    if (found.state.archived) throw new ThreadlogError('resource_archived', 'the webhook was deleted');
    return found.state;
  }

  private async requireActive(context: CommandContext, id: string): Promise<Webhook> {
    const webhook = await this.webhook(context, id);
    if (!isActive(webhook)) throw new ThreadlogError('webhook_disabled', 'enable it first');
    return webhook;
  }
}
