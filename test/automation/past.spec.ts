import type { Answer } from '../../src/automation/ask.js';
import { compileRule } from '../../src/automation/evaluate.js';
import { type Match } from '../../src/automation/back-test.store.js';
import { backTest } from '../../src/automation/rule.back-test.js';
import {
  changeRule,
  createRule,
  type Rule,
  ruleAggregate,
  type RuleEvent,
  type RuleFields,
  type TimeTrigger,
} from '../../src/automation/rule.js';
import { askAboutEvent, RuleSituations } from '../../src/automation/rule.situations.js';
import { RulesInForce, rulesTriggeredBy } from '../../src/automation/rules-in-force.reader.js';
import { dueAt, waitOf, watchedAggregate } from '../../src/automation/watched.js';
import { Transactor } from '../../src/commands/transactor.js';
import { changeCompany, companyAggregate, createCompany } from '../../src/companies/company.js';
import * as conversation from '../../src/conversations/conversation.js';
import { conversationAggregate, type ConversationEvent, type Decision } from '../../src/conversations/conversation.js';
import { sealAttributes, sealMessage, sealSubject } from '../../src/conversations/conversation.sealing.js';
import { publicEventsOf } from '../../src/conversations/public-event.js';
import { type Aggregate, type DomainEvent, type Recorded, UnknownEvent } from '../../src/event-store/aggregate.js';
import { type EventStore, parseStreamName, type Position, streamName } from '../../src/event-store/event-store.js';
import { STREAMS } from '../../src/features.js';
import { eventsUntil } from '../../src/event-store/events-until.js';
import { MemoryEventStore } from '../../src/event-store/memory/memory-event-store.js';
import { sealedDecoder } from '../../src/event-decoding.js';
import { randomIds } from '../../src/ids.js';
import { changeInboxFields, createInbox, inboxAggregate } from '../../src/inboxes/inbox.js';
import { DataKey } from '../../src/security/sealing.js';
import { changeVisitor, createVisitor, visitorAggregate } from '../../src/visitors/visitor.js';
import { sealVisitor } from '../../src/visitors/visitor.sealing.js';
import { seededRandom, type SeededRandom } from '../support/seeded-random.js';
import { TestClock } from '../support/test-clock.js';

/*
 * Rules asked at once, asked late, and asked about the past answer the same: on random histories of conversations, visitors, companies,
 * inboxes and rules, all of which change in between.
 */

const ORGANIZATION = 'acme';
const HISTORIES = 400;
const STEPS = 25;
/** Too little to keep anything: every state is read again. */
const NO_MEMORY = 1;

const key = new DataKey(Buffer.alloc(32, 7));
const keys = { find: () => Promise.resolve(key) };
const TEXTS = ['refund please', 'Hello', 'order #12', 'REFUND'] as const;
const PLANS = ['free', 'pro', 'enterprise'] as const;

const FIELDS: readonly RuleFields['conditions'][] = [
  [{ field: 'message.content', operator: 'contains', value: 'refund' }],
  {
    any: [
      { field: 'visitor.plan', operator: 'equals', value: 'pro' },
      { field: 'visitor.name', operator: 'is_set' },
    ],
  },
  {
    all: [
      { not: { field: 'company.name', operator: 'equals', value: 'a' } },
      { field: 'company.attributes.size', operator: 'greater_than', value: 5 },
    ],
  },
  [
    { field: 'previous.priority', operator: 'is_set' },
    { field: 'conversation.customAttributes.cart', operator: 'less_than', value: 5 },
  ],
  [
    { field: 'inbox.withinWorkingHours', operator: 'equals', value: true },
    { field: 'conversation.tags', operator: 'not_in', value: ['a'] },
  ],
  [],
];
const TRIGGERS: readonly RuleFields['trigger'][] = [
  'message.received',
  'conversation.updated',
  'message.sent',
  'conversation.created',
  { type: 'unassigned_for', seconds: 600 },
  { type: 'no_agent_reply_for', seconds: 900 },
  { type: 'no_visitor_reply_for', seconds: 600 },
  { type: 'in_status_for', seconds: 1_200, status: 'pending' },
];

/** Writes a random history, and calls `after` with the head after each step. */
async function history(
  random: SeededRandom,
  after: (store: EventStore) => Promise<void>,
): Promise<{ readonly store: EventStore; readonly now: number }> {
  const store = new MemoryEventStore();
  const clock = new TestClock();
  clock.stopAt(Date.UTC(2026, 2, 2, 8));
  const unchanged = { find: () => Promise.resolve(undefined), save: () => Promise.resolve() };
  const transactor = new Transactor(store, clock, randomIds, unchanged);
  const write = async <S, E extends DomainEvent>(aggregate: Aggregate<S, E>, id: string, decision: (state: S) => readonly E[]) => {
    const commandId = randomIds.next();
    const actor = { type: random.pick(['agent', 'apiKey', 'visitor', 'automation'] as const), id: 'x' };
    const context = {
      organizationId: ORGANIZATION,
      actor,
      commandId,
      requestHash: '',
      correlationId: commandId,
      causationDepth: random.int(10),
      keyId: 'k',
    };
    try {
      await transactor.transact(aggregate, id, context, (state) => decision(state));
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'ThreadlogError') throw error;
    }
  };
  const pick = <T>(from: readonly T[]): T => random.pick(from);
  const id = () => `c${random.int(3)}`;
  const seal = () => sealMessage(key, randomIds.next(), { type: 'text', content: pick(TEXTS) });
  const decide = (decision: Decision) => write(conversationAggregate, id(), decision);
  const person = { type: 'agent', id: 'ada', name: 'Ada' } as const;
  const rule = (): RuleFields => ({
    name: pick(TEXTS),
    trigger: pick(TRIGGERS),
    conditions: pick(FIELDS),
    actions: [{ type: 'addTag', tag: 'x' }],
    enabled: random.int(5) > 0,
    order: random.int(2),
    stopOnMatch: random.int(4) === 0,
  });
  const steps: readonly (() => Promise<void>)[] = [
    () =>
      decide(
        conversation.inTurn(
          conversation.open({ visitorId: `v${random.int(2)}`, inboxId: 'i', channel: 'api' }),
          conversation.receive(seal()),
        ),
      ),
    () => decide(conversation.receive(seal())),
    () => decide(conversation.reply(seal(), pick([person, { type: 'automation', id: 'r', name: 'R' }]))),
    () => decide(conversation.changePriority(pick(['low', 'high', 'normal']))),
    () => decide(conversation.setStatus(pick(['open', 'pending', 'resolved']), 'agent')),
    () => decide(conversation.assign(pick([null, { ...person }]))),
    () => decide(conversation.addTags([pick(['a', 'b'])])),
    () => decide(conversation.changeSubject(sealSubject(key, pick(TEXTS)))),
    () => decide(conversation.changeCustomAttributes(sealAttributes(key, { cart: random.int(10) }))),
    () =>
      write(visitorAggregate, `v${random.int(2)}`, (v) =>
        (v.exists ? changeVisitor : createVisitor)(
          sealVisitor(key, { plan: pick(PLANS), name: pick([null, 'G']), companyId: pick([null, 'co']) }),
        )(v),
      ),
    () =>
      write(companyAggregate, 'co', (c) =>
        (c.exists ? changeCompany : createCompany)({ name: pick(['a', 'b']), attributes: { size: random.int(10) } })(c),
      ),
    () => {
      const workingHours = pick([null, { timezone: 'Europe/Berlin', schedule: { monday: [['09:00', '10:00'] as const] } }]);
      return write(inboxAggregate, 'i', (i) => (i.exists ? changeInboxFields : createInbox)({ name: 'I', workingHours })(i));
    },
    () => write(ruleAggregate, `r${random.int(3)}`, (r) => (r.exists ? changeRule : createRule)(rule())(r)),
  ];
  let latest = clock.now();
  for (let step = 0; step < STEPS; step++) {
    await (step < 3 ? steps[step === 2 ? 12 : 0] : pick(steps))?.();
    latest = Math.max(latest, clock.now());
    // Sometimes back, as for the other streams when the past is imported. No stream goes back.
    clock.advance((random.int(8) === 0 ? -random.int(2_000) : random.int(400)) * 1_000);
    await after(store);
  }
  return { store, now: latest };
}

interface Told {
  readonly position: string;
  readonly answers: readonly Answer[];
}

/** Follows a log and asks the rules in force about each event. */
class Asker {
  readonly told: Told[] = [];
  private readonly situations: RuleSituations;
  private readonly rules: RulesInForce;
  private at: string = 'start';

  constructor(
    private readonly store: EventStore,
    cacheBytes?: number,
  ) {
    this.situations = new RuleSituations(store, keys, cacheBytes);
    this.rules = new RulesInForce(store, () => Promise.resolve(['r0', 'r1', 'r2']));
  }

  async goOn(): Promise<void> {
    for await (const events of eventsUntil(this.store, await this.store.head(), new AbortController().signal, this.at as 'start')) {
      const { decoded } = await sealedDecoder(events);
      for (const { kind, streamId, event } of decoded) {
        this.at = event.position;
        if (kind === ruleAggregate.kind) this.rules.follow(ORGANIZATION, streamId, event as Recorded<RuleEvent>);
        else if (kind !== conversationAggregate.kind) this.situations.follow(kind, event);
        else {
          const asked = event as Recorded<ConversationEvent>;
          const rules = rulesTriggeredBy(await this.rules.of(ORGANIZATION, event.position), publicEventsOf(asked));
          const watched = await this.situations.around(ORGANIZATION, streamId, asked);
          if (rules.length === 0) continue;
          const { answers } = await askAboutEvent({ store: this.store, keys, situations: this.situations }, watched, rules);
          this.told.push({ position: event.position, answers });
        }
      }
    }
  }
}

/** Everything about one rule with an event's trigger that a back-test finds, by the plainest means. */
async function foundAtEvents(store: EventStore, rule: Rule): Promise<{ looked: number; matches: Match[] }> {
  const matches: Match[] = [];
  let looked = 0;
  for await (const batch of eventsUntil(store, await store.head(), new AbortController().signal))
    for (const { kind, streamId: conversationId, event: decoded } of (await sealedDecoder(batch)).decoded) {
      if (kind !== conversationAggregate.kind) continue;
      const event = decoded as Recorded<ConversationEvent>;
      const { id: eventId, position, revision, metadata } = event;
      if (!publicEventsOf(event).some((type) => type === rule.trigger) || metadata.causationDepth >= 8) continue;
      looked++;
      const situations = new RuleSituations(store, keys, NO_MEMORY);
      const situation = await situations.atEvent(await situations.around(ORGANIZATION, conversationId, event), compileRule(rule).fields);
      if (compileRule(rule).evaluate(situation).matched)
        matches.push({ conversationId, eventId, position, revision, at: Date.parse(metadata.occurredAt) });
    }
  return { looked, matches };
}

/** As foundAtEvents(), for a time trigger. */
async function foundWhenOver(store: EventStore, rule: Rule, now: number): Promise<{ looked: number; matches: Match[] }> {
  const situations = new RuleSituations(store, keys, NO_MEMORY);
  const matches: Match[] = [];
  let looked = 0;
  for (const conversationId of ['c0', 'c1', 'c2']) {
    const events: Recorded<ConversationEvent>[] = [];
    for await (const batch of eventsUntil(store, await store.head(), new AbortController().signal))
      for (const { event } of (await sealedDecoder(batch)).decoded)
        if (parseStreamName(event.stream)?.id === conversationId && parseStreamName(event.stream)?.kind === conversationAggregate.kind)
          events.push(event as Recorded<ConversationEvent>);
    const states = events.map((_, i) => events.slice(0, i + 1).reduce(watchedAggregate.evolve, watchedAggregate.initial));
    const trigger = rule.trigger as TimeTrigger;
    const waits = new Set(states.flatMap((state) => waitOf(state, trigger)?.eventId ?? []));
    for (const eventId of waits) {
      // The same wait may be interrupted by another status and never comes back under the same event.
      const first = states.findIndex((state) => waitOf(state, trigger)?.eventId === eventId);
      const ended = states.findIndex((state, i) => i > first && waitOf(state, trigger)?.eventId !== eventId);
      const wait = waitOf(states[first] ?? watchedAggregate.initial, trigger);
      if (wait === null) throw new Error('no wait');
      const due = dueAt(wait, trigger);
      const last = events.findLastIndex(({ metadata }) => Date.parse(metadata.occurredAt) <= due);
      if (due > now || (ended >= 0 && ended <= last)) continue;
      const event = events[last];
      const state = states[last];
      if (event === undefined || state === undefined) throw new Error('no event');
      if (wait.causationDepth >= 8) continue;
      looked++;
      const situation = await situations.atInstant(ORGANIZATION, state.conversation, wait, due, compileRule(rule).fields);
      if (compileRule(rule).evaluate(situation).matched)
        matches.push({ conversationId, eventId, position: event.position, revision: event.revision, at: due });
    }
  }
  return { looked, matches };
}

it(`answers the same at once, late and without memory, and in a back-test, on ${HISTORIES} random histories`, async () => {
  let matched = 0;
  let timed = 0;
  for (let seed = 1; seed <= HISTORIES; seed++) {
    const random = seededRandom(seed);
    let atOnce: Asker | undefined;
    const { store, now } = await history(random, async (log) => {
      atOnce ??= new Asker(log);
      await atOnce.goOn();
    });
    const late = new Asker(store, NO_MEMORY);
    await late.goOn();
    expect([seed, late.told]).toEqual([seed, atOnce?.told]);

    const until = await store.head();
    const signal = new AbortController().signal;
    const unstopped = async (ruleId: string, rule: RuleFields) =>
      backTest(
        { store, keys, cacheBytes: random.pick([NO_MEMORY, 1_000_000]) },
        ORGANIZATION,
        { rule, ruleId, from: null, to: now, until },
        signal,
        () => Promise.resolve(),
      );
    const rule = { ...ruleAggregate.initial, exists: true, enabled: true, trigger: random.pick(TRIGGERS), conditions: random.pick(FIELDS) };
    const test = await unstopped('r', rule);
    matched += test.matched;
    const isTimed = typeof rule.trigger !== 'string';
    const plain = isTimed ? await foundWhenOver(store, rule, now) : await foundAtEvents(store, rule);
    const byEvent = (a: Match, b: Match) => (a.eventId < b.eventId ? -1 : 1);
    expect([seed, test.looked, [...test.matches].sort(byEvent)]).toEqual([seed, plain.looked, plain.matches.sort(byEvent)]);
    if (isTimed) timed += plain.matches.length;
  }
  // Something was asked at all.
  expect(matched).toBeGreaterThan(HISTORIES / 2);
  expect(timed).toBeGreaterThan(HISTORIES / 10);
}, 300_000);

it('a rule that cannot be read is an error, and not a rule that is off', async () => {
  const store = new MemoryEventStore();
  const stream = streamName(ruleAggregate.kind, ORGANIZATION, 'r');
  const event = { id: randomIds.next(), type: 'RuleMuted', data: '{}', metadata: '{"schemaVersion":1}' };
  await store.append(stream, 'none', [event], AbortSignal.timeout(5_000));
  const rules = new RulesInForce(store, () => Promise.resolve(['r']));
  await expect(rules.of(ORGANIZATION, (await store.head()) as Position)).rejects.toBeInstanceOf(UnknownEvent);
  // So neither the lists nor the reactor go on without it, and readiness names both.
  expect(STREAMS.get(ruleAggregate.kind)?.unreadable).toBe('stops');
});
