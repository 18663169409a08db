import type { Answer } from '../src/automation/ask.js';
import { evaluationId, type Occasion, RULES_REACTOR, writeEvaluations } from '../src/automation/evaluation.store.js';
import { ruleAggregate, type RuleEvent } from '../src/automation/rule.js';
import { askAboutEvent, RuleSituations, SITUATION_STREAMS } from '../src/automation/rule.situations.js';
import { type OrganizationRules, RulesInForce, rulesTriggeredBy } from '../src/automation/rules-in-force.reader.js';
import { dueAt, waitOf, type Watched } from '../src/automation/watched.js';
import type { Backend } from '../src/backend.js';
import { conversationAggregate, type ConversationEvent } from '../src/conversations/conversation.js';
import { publicEventsOf } from '../src/conversations/public-event.js';
import type { Recorded } from '../src/event-store/aggregate.js';
import type { Position } from '../src/event-store/event-store.js';
import type { DataKey } from '../src/security/sealing.js';
import { RULE_ACTION, ruleActionJobs } from './rule-actions.jobs.js';
import { RULE_TIMER, timerJob, timerKey } from './rule-timers.jobs.js';
import { beginsToWait, RULE_WAITS, ruleWaitsJob } from './rule-waits.jobs.js';
import type { ProjectedEvent } from './runtime/projection.js';
import type { Consequences, Reactor } from './runtime/reactor.js';

/** Greatest number of events in a batch, since each may be asked of many rules, whose answers stay in memory until they are written. */
const MOST_EVENTS = 256;
/** How long the rules are asked at a stretch (ms): with patterns over long texts, a batch may take many times as long. */
const WORK_MS = 10;

/** An answer that is to be written, with what its actions need. */
interface Given {
  readonly occasion: Occasion;
  readonly answer: Answer;
  readonly key: DataKey | undefined;
  readonly cause: { readonly causationDepth: number; readonly correlationId: string };
}

/**
 * Asks the rules of each organization about each event of its conversations, on the folds at the event's position, and writes what they
 * answered together with a job for each action. Events of an organization without rules are passed over.
 *
 * Which ids an organization's rules have comes from the list of rules, which may hold later ones too; what each rule says, and whether it
 * is in force, comes from its own events up to the position.
 */
export function rulesReactor(
  parts: Pick<Backend, 'store' | 'keys'> & { readonly list: ConstructorParameters<typeof RulesInForce>[1] },
): Reactor {
  const { store, keys, list } = parts;
  const rules = new RulesInForce(store, list);
  const situations = new RuleSituations(store, keys);
  /** The position of the last event that was given to handle(), whose batch may not be committed yet. */
  let at: Position | '' = '';

  const forget = () => {
    rules.forget();
    situations.forget();
    at = '';
  };

  /** Asks the rules that the event triggers. */
  async function ask(
    one: ProjectedEvent,
    here: OrganizationRules,
    consequences: Consequences,
    rest: () => Promise<void>,
  ): Promise<readonly Given[]> {
    const { organizationId, streamId: conversationId } = one;
    const event = one.event as Recorded<ConversationEvent>;
    const triggered = rulesTriggeredBy(here, publicEventsOf(event));
    if (triggered.length === 0 && here.timed.length === 0) return [];
    const watched = await situations.around(organizationId, conversationId, event);
    setTimers(organizationId, conversationId, here, watched.before, watched.after, consequences);
    if (triggered.length === 0) return [];
    const { occasion, answers, key } = await askAboutEvent({ store, keys, situations }, watched, triggered, rest);
    return answers.map((answer) => ({ occasion, answer, key, cause: event.metadata }));
  }

  return {
    name: RULES_REACTOR,
    begins: 'head',
    forget,
    jobs: [RULE_ACTION, RULE_TIMER, RULE_WAITS],
    maxEvents: MOST_EVENTS,
    reaction: {
      reads: 'decoded',
      events: {
        [conversationAggregate.kind]: Object.keys(conversationAggregate.codec.versions),
        [ruleAggregate.kind]: Object.keys(ruleAggregate.codec.versions),
        ...SITUATION_STREAMS,
      },
      order: 'of the log',
      async handle(events, consequences) {
        // Events that come again were not committed, and the states in memory may be ahead of them.
        if (events[0] !== undefined && events[0].event.position <= at) forget();
        let restedAt = performance.now();
        const rest = async () => {
          if (performance.now() - restedAt < WORK_MS) return;
          await consequences.rest();
          restedAt = performance.now();
        };
        const given: Given[] = [];
        for (const one of events) {
          const { kind, organizationId, streamId, event } = one;
          at = event.position;
          if (kind === ruleAggregate.kind) {
            rules.follow(organizationId, streamId, event as Recorded<RuleEvent>);
            // Waits that had begun before the rule was saved count for it, too.
            const { timed } = rules.recall(organizationId) ?? (await rules.of(organizationId, event.position));
            const rule = event.metadata.imported === true ? undefined : timed.find(({ id }) => id === streamId)?.rule;
            if (rule !== undefined && beginsToWait(rule, event as Recorded<RuleEvent>))
              consequences.add(ruleWaitsJob(organizationId, streamId, event as Recorded<RuleEvent>));
          } else if (kind !== conversationAggregate.kind) situations.follow(kind, event);
          else if (event.metadata.imported !== true) {
            const here = rules.recall(organizationId) ?? (await rules.of(organizationId, event.position));
            if (!here.none) given.push(...(await ask(one, here, consequences, rest)));
          }
        }
        if (given.length === 0) return;
        const fresh = await writeEvaluations(await consequences.transaction(), given);
        for (const { occasion, answer, cause } of given) {
          if (fresh.has(evaluationId(answer.ruleId, occasion)))
            for (const job of ruleActionJobs(occasion, answer, cause)) consequences.add(job);
        }
      },
    },
  };
}

/** Sets and removes timers as waits begin and end. */
function setTimers(
  organizationId: string,
  conversationId: string,
  { timed }: OrganizationRules,
  before: Watched,
  after: Watched,
  consequences: Consequences,
): void {
  for (const { id: ruleId, trigger } of timed) {
    const [was, is] = [waitOf(before, trigger), waitOf(after, trigger)];
    if (was?.eventId === is?.eventId) continue;
    if (was !== null) consequences.remove({ kind: RULE_TIMER, key: timerKey(organizationId, conversationId, ruleId, was, trigger) });
    if (is?.imported === false) consequences.add(timerJob(organizationId, conversationId, ruleId, is, trigger, dueAt(is, trigger)));
  }
}
