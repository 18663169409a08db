import { conversationAggregate, type ConversationEvent } from '../conversations/conversation.js';
import { publicEventsOf } from '../conversations/public-event.js';
import { decode, metadataOf, type Recorded } from '../event-store/aggregate.js';
import { type EventStore, parseStreamName, type Position, type StoredEvent } from '../event-store/event-store.js';
import { eventsUntil } from '../event-store/events-until.js';
import { companyAggregate } from '../companies/company.js';
import { inboxAggregate } from '../inboxes/inbox.js';
import { visitorAggregate } from '../visitors/visitor.js';
import type { VisitorKeys } from '../security/visitor-keys.js';
import type { RuleAt } from './ask.js';
import { type BackTest, countActions, type Found, type Match, MATCHES_KEPT } from './back-test.store.js';
import { ruleAggregate, type TimeTrigger } from './rule.js';
import { askAboutEvent, type Asked, askWhenOver, RuleSituations } from './rule.situations.js';
import { dueAt, type Wait, waitOf } from './watched.js';

/** Number of events that are read at once, since decoding more would hold up the other work of the process. */
const READ_AT_ONCE = 200;
/** Number of waits in memory. Beyond it the oldest is asked about before it is known how it ended, which costs a read of its conversation. */
const MOST_WAITS = 10_000;

/** The streams that conditions look at beside the conversation. */
const BESIDE = {
  [visitorAggregate.kind]: visitorAggregate,
  [companyAggregate.kind]: companyAggregate,
  [inboxAggregate.kind]: inboxAggregate,
} as const;

/**
 * Asks one rule about the past, by the live evaluator on the states at each event. It counts what the rule alone would have matched: other
 * rules do not stop it, and what it would have changed changes nothing. Imported history is asked about as well.
 * @param rest called often, with the findings so far, to let other work run
 * @throws StoreUnavailable, UnknownEvent, or the signal's reason
 */
export async function backTest(
  parts: { readonly store: EventStore; readonly keys: Pick<VisitorKeys, 'find'>; readonly cacheBytes?: number },
  organizationId: string,
  test: Pick<BackTest, 'rule' | 'ruleId' | 'from' | 'to' | 'until'>,
  signal: AbortSignal,
  rest: (found: () => Found) => Promise<void>,
): Promise<Found> {
  const { store, keys } = parts;
  const situations = new RuleSituations(store, keys, parts.cacheBytes);
  const asking = { store, keys, situations };
  const { trigger } = test.rule;
  const rule: RuleAt = { id: test.ruleId ?? '', rule: { ...ruleAggregate.initial, ...test.rule, exists: true }, revision: 0 };
  const found: { looked: number; matched: number; matches: Match[] } = { looked: 0, matched: 0, matches: [] };
  const isWithin = (at: number) => at >= (test.from ?? -Infinity) && at <= test.to;
  const whole = (): Found => ({ ...found, actions: countActions(test.rule.actions, found.matched) });

  const breathe = async () => {
    signal.throwIfAborted();
    await rest(whole);
  };

  const count = async ({ occasion, answers }: Asked) => {
    for (const { outcome } of answers) {
      if (outcome === 'not_asked') continue;
      found.looked++;
      if (outcome === 'not_matched') continue;
      found.matched++;
      const { conversationId, eventId, position, revision, at } = occasion;
      if (found.matches.length < MATCHES_KEPT) found.matches.push({ conversationId, eventId, position, revision, at });
    }
    await breathe();
  };

  // Each conversation by itself: imports put the past behind later events of other conversations.
  const waits = new Map<string, Wait>();
  const askAboutWait = async (timed: TimeTrigger, conversationId: string, wait: Wait) => {
    waits.delete(conversationId);
    const due = dueAt(wait, timed);
    const asked = await askWhenOver(asking, { organizationId, conversationId, eventId: wait.eventId, trigger: timed }, rule, due, breathe);
    if (asked !== undefined) await count(asked);
    else await breathe();
  };

  const take = async (stored: StoredEvent, kind: string, id: string) => {
    const beside = BESIDE[kind];
    if (beside !== undefined) return situations.follow(kind, decode(beside.codec as never, stored));
    if (kind !== conversationAggregate.kind) return;
    const at = Date.parse(metadataOf(stored).occurredAt);
    if (typeof trigger === 'string') {
      if (!isWithin(at)) return;
      const event: Recorded<ConversationEvent> = decode(conversationAggregate.codec, stored);
      if (publicEventsOf(event).includes(trigger))
        await count(await askAboutEvent(asking, await situations.around(organizationId, id, event), [rule], breathe));
      return;
    }
    const event: Recorded<ConversationEvent> = decode(conversationAggregate.codec, stored);
    const { before, after } = await situations.around(organizationId, id, event);
    const [was, is] = [waitOf(before, trigger), waitOf(after, trigger)];
    if (was?.eventId === is?.eventId) return;
    const ended = waits.get(id);
    waits.delete(id);
    // An event at the instant at which a wait is over still ends it.
    if (ended !== undefined && dueAt(ended, trigger) < at) await askAboutWait(trigger, id, ended);
    if (is === null || !isWithin(dueAt(is, trigger))) return;
    waits.set(id, is);
    const [oldest] = waits;
    if (waits.size > MOST_WAITS && oldest !== undefined) await askAboutWait(trigger, ...oldest);
  };

  for await (const events of eventsUntil(store, test.until as Position | 'start', signal, 'start', READ_AT_ONCE)) {
    for (const stored of events) {
      const name = parseStreamName(stored.stream);
      if (name?.organizationId === organizationId) await take(stored, name.kind, name.id);
    }
    await breathe();
  }
  if (typeof trigger !== 'string') for (const [id, wait] of waits) await askAboutWait(trigger, id, wait);
  return whole();
}
