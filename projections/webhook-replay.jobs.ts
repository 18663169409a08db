import type { Kysely } from 'kysely';
import { z } from 'zod';
import type { Transactor } from '../src/commands/transactor.js';
import type { Database } from '../src/database/database.js';
import { insertDeliveries, REPLAY_WEBHOOK, wakeSenders } from '../src/webhooks/delivery.rows.js';
import type { ToldEvents } from '../src/webhooks/webhook.told-events.js';
import type { Replays } from '../src/webhooks/webhook.replays.js';
import { isActive, webhookAggregate } from '../src/webhooks/webhook.js';
import type { JobKind } from './runtime/job-runner.js';
import { Jobs, type TimersClock } from './runtime/jobs.js';
import { jobOf } from './webhooks.reactor.js';

const payloadSchema = z.strictObject({
  webhookId: z.string(),
  after: z.string(),
  through: z.string(),
  from: z.string().optional(),
  to: z.string().optional(),
  events: z.array(z.string()).optional(),
});

/** Makes the deliveries of a replay. Done twice, it finds those of the first time and adds none. */
export function replayWebhookJobs(parts: {
  readonly database: Kysely<Database>;
  readonly transactor: Transactor;
  readonly replays: Replays;
  readonly timersClock: TimersClock;
  readonly told: ToldEvents;
}): JobKind {
  const { database, transactor, replays, timersClock, told } = parts;
  const jobs = new Jobs(database, timersClock);
  return {
    kind: REPLAY_WEBHOOK,
    backoff: { first: 1_000, longest: 60_000 },
    async handle({ organizationId, key: round, payload }, signal) {
      const { webhookId, ...replayed } = payloadSchema.parse(payload);
      const load = () => transactor.load(webhookAggregate, organizationId, webhookId);
      const found = await load();
      if (found === undefined) return { gaveUp: 'there is no such webhook' };
      const { after, through, from, to, events } = replayed;
      const range = {
        after,
        through,
        ...(from === undefined ? {} : { from }),
        ...(to === undefined ? {} : { to }),
        ...(events === undefined ? {} : { events }),
      };
      for await (const { made, told: happenings } of replays.deliveries(organizationId, webhookId, found.state, range, round)) {
        if (signal.aborted) return { againInMs: 0, because: 'the process ended' };
        if (made.length === 0) continue;
        const now = await load();
        // Whoever disables or deletes a webhook ends its replays; what they had made before was given up with it.
        if (now === undefined || !isActive(now.state)) return 'done';
        for (const { conversationId, event } of happenings) told.remember(organizationId, conversationId, event);
        await database.transaction().execute(async (tx) => {
          await jobs.add((await insertDeliveries(tx, made, timersClock?.())).map(jobOf), tx);
        });
        await wakeSenders(database);
      }
      return 'done';
    },
  };
}
