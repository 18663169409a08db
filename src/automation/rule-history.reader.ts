import { decode } from '../event-store/aggregate.js';
import { type EventStore, streamName } from '../event-store/event-store.js';
import type { RuleAt } from './ask.js';
import { isInForce, ruleAggregate, type TimeTrigger } from './rule.js';

/** A rule after one of its events. */
export interface RuleSince extends RuleAt {
  /** The event's time (ms). */
  readonly since: number;
}

/** A rule after each of its events, the first event first. @throws StoreUnavailable, UnknownEvent */
export async function readRuleHistory(store: EventStore, organizationId: string, id: string): Promise<readonly RuleSince[]> {
  const history: RuleSince[] = [];
  let rule = ruleAggregate.initial;
  for await (const batch of store.read(streamName(ruleAggregate.kind, organizationId, id)))
    for (const stored of batch) {
      const event = decode(ruleAggregate.codec, stored);
      rule = ruleAggregate.evolve(rule, event);
      history.push({ id, rule, revision: event.revision, since: Date.parse(event.metadata.occurredAt) });
    }
  return history;
}

/**
 * When a rule is asked about a wait (ms), and the rule then: at the first instant at which the wait is over and the rule is in force with the
 * wait's trigger. It follows from the log alone, so a rule that is saved again later is not asked again. Undefined while there was no such
 * instant.
 * @param over when the wait is over (ms)
 */
export function askedAbout(
  history: readonly RuleSince[],
  trigger: TimeTrigger,
  over: number,
): { readonly rule: RuleAt; readonly at: number } | undefined {
  for (const [i, { since, ...rule }] of history.entries()) {
    const at = Math.max(over, since);
    if (at < (history[i + 1]?.since ?? Infinity) && isInForce(rule.rule) && isSameTrigger(rule.rule.trigger, trigger)) return { rule, at };
  }
  return undefined;
}

/** Whether the rule is in force after its last event. */
export function isInForceNow(history: readonly RuleSince[]): boolean {
  const last = history.at(-1);
  return last !== undefined && isInForce(last.rule);
}

const isSameTrigger = (a: RuleAt['rule']['trigger'], b: TimeTrigger) =>
  typeof a !== 'string' && a.type === b.type && a.seconds === b.seconds && a.status === b.status;
