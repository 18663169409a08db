import { Inject, Injectable } from '@nestjs/common';
import { assertNotRefused, type CommandContext } from '../commands/command-context.js';
import { KeptAnswers } from '../commands/idempotency.js';
import { Transactor } from '../commands/transactor.js';
import { conversationAggregate, type ConversationEvent } from '../conversations/conversation.js';
import { publicEventsOf } from '../conversations/public-event.js';
import { ThreadlogError } from '../errors.js';
import type { Recorded } from '../event-store/aggregate.js';
import { EVENT_STORE, type EventStore, streamName } from '../event-store/event-store.js';
import { readAsOf } from '../event-store/states-as-of.js';
import { derivedId } from '../ids.js';
import { nextTurn } from '../pause.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { evaluateInSteps } from './ask.js';
import { compileRule, type Situation } from './evaluate.js';
import { type EvaluationAnswer, evaluationAnswer } from './evaluation.answer.js';
import { evaluationId, type Occasion } from './evaluation.store.js';
import { type Rule, ruleAggregate, type Trigger, triggerType } from './rule.js';
import { RuleSituations } from './rule.situations.js';
import { dueAt, waitOf, watchedAggregate } from './watched.js';

/** What a keyed dry run looked at, by which a retry gets the same answer. */
interface Looked {
  readonly ruleRevision: number;
  readonly revision: number;
}

/** What a dry run is about, as rules see it. */
interface Found {
  readonly occasion: Pick<Occasion, 'eventId' | 'waited' | 'position' | 'revision' | 'at'>;
  /** False when the event does not trigger the rule, or when the wait ended before its time. */
  readonly triggered: boolean;
  readonly situation: Situation;
}

/** Asks a rule about an event of a conversation, without doing anything. A rule that is off or archived can be asked, too. */
@Injectable()
export class RuleDryRuns {
  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
    @Inject(KeptAnswers) private readonly kept: KeptAnswers,
  ) {}

  /**
   * @param revision of the event; by default the conversation's last event that triggers the rule, or its last event if none does. A time
   *   trigger is asked about the wait that is in force after the event, as of the instant at which the wait is over
   * @throws ThreadlogError not_found, unknown_conversation, validation_failed for a revision that it does not have
   */
  async run(context: CommandContext, ruleId: string, conversationId: string, revision: number | undefined): Promise<EvaluationAnswer> {
    const { organizationId, keyed, commandId } = context;
    const keptId = derivedId('dry-run', commandId);
    const before = keyed === true ? await this.kept.find<Looked>(keptId) : undefined;
    if (before === undefined) assertNotRefused(context);
    const found = await this.transactor.load(ruleAggregate, organizationId, ruleId);
    if (found?.state.exists !== true) throw new ThreadlogError('not_found');
    const rule = before === undefined ? found.state : await this.ruleAfter(organizationId, ruleId, before.ruleRevision);
    const events: Recorded<ConversationEvent>[] = [];
    for await (const event of this.transactor.history(conversationAggregate, organizationId, conversationId)) events.push(event);
    if (events.length === 0) throw new ThreadlogError('unknown_conversation', `no conversation has the id ${conversationId}`);
    const wanted = before?.revision ?? revision;
    const event = wanted === undefined ? (lastThatTriggers(rule.trigger, events) ?? events.at(-1)) : events[wanted];
    if (event === undefined)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'revision', message: `must be at most ${events.length - 1}, the conversation's last` }],
      });
    const looked: Looked = { ruleRevision: before?.ruleRevision ?? found.revision, revision: event.revision };
    if (keyed === true && before === undefined) await this.kept.first(keptId, context, looked);
    return this.answer(organizationId, conversationId, ruleId, rule, looked.ruleRevision, event);
  }

  private async ruleAfter(organizationId: string, ruleId: string, revision: number): Promise<Rule> {
    const stream = streamName(ruleAggregate.kind, organizationId, ruleId);
    return (await readAsOf(this.store, ruleAggregate, stream, (event) => event.revision <= revision)).state;
  }

  private async answer(
    organizationId: string,
    conversationId: string,
    ruleId: string,
    rule: Rule,
    ruleRevision: number,
    event: Recorded<ConversationEvent>,
  ): Promise<EvaluationAnswer> {
    const { occasion, triggered, situation } = await this.look(organizationId, conversationId, rule, event);
    const { matched, conditions } = await evaluateInSteps(rule, situation, nextTurn);
    const { eventId, position, revision, at } = occasion;
    return evaluationAnswer({
      id: evaluationId(ruleId, { ...occasion, organizationId }),
      ruleId,
      ruleRevision,
      ruleName: rule.name,
      conversationId,
      trigger: triggerType(rule.trigger),
      eventId,
      position,
      revision,
      at,
      outcome: !triggered ? 'not_asked' : matched ? 'matched' : 'not_matched',
      reason: triggered ? null : 'trigger',
      byRules: null,
      conditions,
      actions: triggered && matched ? rule.actions.map(({ type }) => ({ type, outcome: 'pending', eventIds: [] })) : [],
    });
  }

  private async look(organizationId: string, conversationId: string, rule: Rule, event: Recorded<ConversationEvent>): Promise<Found> {
    const { trigger } = rule;
    const { fields } = compileRule(rule);
    const situations = new RuleSituations(this.store, this.keys);
    const watched = await situations.around(organizationId, conversationId, event);
    const wait = typeof trigger === 'string' ? null : waitOf(watched.after, trigger);
    if (typeof trigger !== 'string' && wait !== null) {
      const { eventId } = wait;
      const at = dueAt(wait, trigger);
      const { state, position, revision } = await situations.watchedAt(organizationId, conversationId, at);
      if (waitOf(state, trigger)?.eventId === eventId)
        return {
          occasion: { eventId, waited: trigger, position, revision, at },
          triggered: true,
          situation: await situations.atInstant(organizationId, state.conversation, wait, at, fields),
        };
    }
    const { id: eventId, position, revision, metadata } = event;
    return {
      occasion: { eventId, waited: null, position, revision, at: Date.parse(metadata.occurredAt) },
      triggered: typeof trigger === 'string' && publicEventsOf(event).includes(trigger),
      situation: await situations.atEvent(watched, fields),
    };
  }
}

/** The last event that triggers a rule, or after which a time trigger's wait is in force. */
function lastThatTriggers(trigger: Trigger, events: readonly Recorded<ConversationEvent>[]): Recorded<ConversationEvent> | undefined {
  if (typeof trigger === 'string') return events.findLast((event) => publicEventsOf(event).includes(trigger));
  let state = watchedAggregate.initial;
  let last: Recorded<ConversationEvent> | undefined;
  for (const event of events) {
    state = watchedAggregate.evolve(state, event);
    if (waitOf(state, trigger) !== null) last = event;
  }
  return last;
}
