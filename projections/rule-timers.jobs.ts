import type { Kysely } from 'kysely';
import { z } from 'zod';
import { writeEvaluations } from '../src/automation/evaluation.store.js';
import { askedAbout, isInForceNow, readRuleHistory } from '../src/automation/rule-history.reader.js';
import type { TimeTrigger } from '../src/automation/rule.js';
import { type Asking, askWhenOver, RuleSituations } from '../src/automation/rule.situations.js';
import { STATUSES } from '../src/conversations/conversation.js';
import { TIME_TRIGGERS } from '../src/automation/rule-fields.js';
import { dueAt, type Wait, waitOf } from '../src/automation/watched.js';
import type { Database } from '../src/database/database.js';
import type { EventStore } from '../src/event-store/event-store.js';
import type { VisitorKeys } from '../src/security/visitor-keys.js';
import { ruleActionJobs } from './rule-actions.jobs.js';
import type { JobKind } from './runtime/job-runner.js';
import type { Jobs, NewJob } from './runtime/jobs.js';

export const RULE_TIMER = 'rule-timer';

const payloadSchema = z.strictObject({
  conversationId: z.string(),
  ruleId: z.string(),
  /** The event that began the wait. */
  eventId: z.string(),
  trigger: z.strictObject({ type: z.enum(TIME_TRIGGERS), seconds: z.number().int(), status: z.enum(STATUSES).optional() }),
});

/** Names a wait of a rule. A rule that is saved with another trigger has timers of their own. */
export const timerKey = (organizationId: string, conversationId: string, ruleId: string, { eventId }: Wait, trigger: TimeTrigger) =>
  [organizationId, conversationId, ruleId, eventId, trigger.type, trigger.status ?? '', trigger.seconds].join(' ');

/** A job that looks whether a rule is to be asked about a wait. @param at ms */
export function timerJob(
  organizationId: string,
  conversationId: string,
  ruleId: string,
  wait: Wait,
  trigger: TimeTrigger,
  at: number,
): NewJob {
  const payload: z.infer<typeof payloadSchema> = { conversationId, ruleId, eventId: wait.eventId, trigger };
  const key = timerKey(organizationId, conversationId, ruleId, wait, trigger);
  return { kind: RULE_TIMER, key, receiver: organizationId, organizationId, payload, due: { at } };
}

/** What rules are asked with about waits, and what their answers are written with. */
export interface AskingAboutWaits extends Asking {
  readonly database: Kysely<Database>;
  readonly jobs: Jobs;
}

/** Asks a rule about a wait that is over, unless the wait had ended by then, and writes what it answered. It may be repeated. */
export async function askAboutWait(
  { database, jobs, ...asking }: AskingAboutWaits,
  wait: Parameters<typeof askWhenOver>[1],
  { rule, at }: NonNullable<ReturnType<typeof askedAbout>>,
): Promise<void> {
  const asked = await askWhenOver(asking, wait, rule, at);
  if (asked === undefined) return;
  const { occasion, answers, key } = asked;
  await database.transaction().execute(async (tx) => {
    for (const answer of answers) {
      const fresh = await writeEvaluations(tx, [{ occasion, answer, key }]);
      if (fresh.size > 0) await jobs.add(ruleActionJobs(occasion, answer, asked.wait), tx);
    }
  });
}

/**
 * Asks a rule when a wait is over. It sees what there was at that instant, however late the timer is, but does nothing if the wait has
 * ended since, or if the rule is no longer in force.
 */
export function fireRuleTimers(parts: {
  readonly store: EventStore;
  readonly keys: VisitorKeys;
  readonly database: Kysely<Database>;
  readonly jobs: Jobs;
}): JobKind {
  const { store, keys } = parts;
  const situations = new RuleSituations(store, keys);
  return {
    kind: RULE_TIMER,
    backoff: { first: 500, longest: 60_000 },
    places: { atOnce: 4, inHand: 32 },
    // A rule that is saved may find thousands of waits that are over, and a morning the end of a thousand nights.
    fair: true,
    async handle({ organizationId, payload, dueAt: firedAt }) {
      const { conversationId, ruleId, eventId, trigger: given } = payloadSchema.parse(payload);
      const { type, seconds, status } = given;
      const trigger: TimeTrigger = { type, seconds, ...(status === undefined ? {} : { status }) };
      const [history, now] = await Promise.all([
        readRuleHistory(store, organizationId, ruleId),
        situations.watchedAt(organizationId, conversationId, Infinity),
      ]);
      const wait = waitOf(now.state, trigger);
      if (!isInForceNow(history) || wait?.eventId !== eventId) return 'done';
      const asked = askedAbout(history, trigger, dueAt(wait, trigger));
      if (asked === undefined) return 'done';
      // The clock of timers has passed the time at which the job was due.
      if (firedAt < asked.at) return { againInMs: asked.at - firedAt, because: 'the wait is not over yet' };
      await askAboutWait({ ...parts, situations }, { organizationId, conversationId, eventId, trigger }, asked);
      return 'done';
    },
  };
}
