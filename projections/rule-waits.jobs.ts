import { sql, type Kysely } from 'kysely';
import { z } from 'zod';
import { askedAbout, isInForceNow, readRuleHistory } from '../src/automation/rule-history.reader.js';
import { isInForce, type Rule, type RuleEvent } from '../src/automation/rule.js';
import { RuleSituations } from '../src/automation/rule.situations.js';
import { dueAt, waitOf } from '../src/automation/watched.js';
import type { Backend } from '../src/backend.js';
import { conversationsTable } from '../src/conversations/conversation.table.js';
import type { Database } from '../src/database/database.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { Position } from '../src/event-store/event-store.js';
import { CORE_GROUP } from '../src/read-models/groups.js';
import { askAboutWait, timerJob } from './rule-timers.jobs.js';
import type { JobKind } from './runtime/job-runner.js';
import type { Jobs, NewJob } from './runtime/jobs.js';

export const RULE_WAITS = 'rule-waits';

const payloadSchema = z.strictObject({
  ruleId: z.string(),
  revision: z.number().int(),
  position: z.string(),
  savedAt: z.number(),
  /** The last conversation that was looked at. */
  after: z.string(),
});
type Payload = z.infer<typeof payloadSchema>;

/** Number of conversations that one job looks at. */
const PAGE = 200;
/** How long one attempt waits for the list (ms). */
const LIST_MS = 5_000;

/** Whether a rule with a time trigger is to look for waits after an event of its own: it is in force, or has its trigger, only since then. */
export function beginsToWait(rule: Rule, { type, data }: Recorded<RuleEvent>): boolean {
  if (!isInForce(rule)) return false;
  return type !== 'RuleChanged' || data.trigger !== undefined || data.enabled !== undefined;
}

/** @param event of the rule, for which beginsToWait() holds */
export function ruleWaitsJob(organizationId: string, ruleId: string, { revision, position, metadata }: Recorded<RuleEvent>): NewJob {
  return jobOf(organizationId, { ruleId, revision, position, savedAt: Date.parse(metadata.occurredAt), after: '' });
}

// One lane, so that an organization with many rules and conversations keeps no other waiting.
const jobOf = (organizationId: string, payload: Payload): NewJob => ({
  kind: RULE_WAITS,
  key: `${organizationId}.${payload.ruleId}.${payload.revision} ${payload.after}`,
  lane: `${RULE_WAITS} ${organizationId}`,
  organizationId,
  payload,
});

/**
 * Looks for the waits that had begun before a rule was saved: asks the rule about those that were over by then, as of the instant at which
 * it was saved, and sets timers for the others. Waits that begin later are the reactor's; a timer that both set is one timer. Each job looks
 * at a page of conversations and adds the job for the next page.
 */
export function setRuleWaits(
  parts: Pick<Backend, 'store' | 'keys' | 'readModels' | 'checkpoints'> & { readonly database: Kysely<Database>; readonly jobs: Jobs },
): JobKind {
  const { store, keys, database, readModels, checkpoints, jobs } = parts;
  const situations = new RuleSituations(store, keys);
  return {
    kind: RULE_WAITS,
    backoff: { first: 1_000, longest: 60_000 },
    places: { atOnce: 2, inHand: 2 },
    async handle({ organizationId, payload, dueAt: now }, signal) {
      const given = payloadSchema.parse(payload);
      const { ruleId, revision, position, savedAt, after } = given;
      const history = await readRuleHistory(store, organizationId, ruleId);
      const trigger = history[revision]?.rule.trigger;
      if (trigger === undefined || typeof trigger === 'string' || !isInForceNow(history)) return 'done';
      if ((await checkpoints.waitFor(CORE_GROUP, position as Position, LIST_MS)) !== 'reached')
        return { againInMs: 1_000, because: 'the list of conversations is behind' };
      const { rows } = await sql<{ id: string }>`
        select id from ${readModels.view(conversationsTable)} c
        where organization_id = ${organizationId} and id > ${after} and status <> 'closed' order by id limit ${sql.lit(PAGE)}`.execute(
        database,
      );
      const added: NewJob[] = [];
      for (const { id } of rows) {
        if (signal.aborted) return { againInMs: 0, because: 'the process ended' };
        const { state } = await situations.watchedAt(organizationId, id, Infinity);
        const wait = waitOf(state, trigger);
        if (wait === null || wait.imported) continue;
        const asked = askedAbout(history, trigger, dueAt(wait, trigger));
        // It was asked before it was switched off, or before it had another trigger for a while.
        if (asked === undefined || asked.at < savedAt) continue;
        if (asked.at > now) added.push(timerJob(organizationId, id, ruleId, wait, trigger, asked.at));
        else
          await askAboutWait(
            { store, keys, situations, database, jobs },
            { organizationId, conversationId: id, eventId: wait.eventId, trigger },
            asked,
          );
      }
      const last = rows.at(-1);
      if (last !== undefined && rows.length === PAGE) added.push(jobOf(organizationId, { ...given, after: last.id }));
      await jobs.add(added);
      return 'done';
    },
  };
}
