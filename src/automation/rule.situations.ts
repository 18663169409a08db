import { type Company, companyAggregate, type CompanyEvent } from '../companies/company.js';
import { type Conversation, type ConversationEvent, messageOfEvent } from '../conversations/conversation.js';
import { type DomainEvent, metadataOf, type Recorded } from '../event-store/aggregate.js';
import { type EventStore, type Position, streamName } from '../event-store/event-store.js';
import { readAsOf, StatesAsOf } from '../event-store/states-as-of.js';
import { StatesAt } from '../event-store/states-at.js';
import { type Inbox, inboxAggregate, type InboxEvent } from '../inboxes/inbox.js';
import { nextTurn } from '../pause.js';
import type { VisitorKeys } from '../security/visitor-keys.js';
import { type Visitor, visitorAggregate, type VisitorEvent } from '../visitors/visitor.js';
import type { DataKey } from '../security/sealing.js';
import { type Answer, askInOrder, MAX_DEPTH, MAX_REACTIONS, type RuleAt } from './ask.js';
import { compileRule, type Situation } from './evaluate.js';
import type { Occasion } from './evaluation.store.js';
import type { FieldName } from './rule-fields.js';
import { ruleAggregate, type TimeTrigger } from './rule.js';
import { situationOf } from './rule.situation.js';
import { dueAt, type Wait, type Watched, watchedAggregate, waitOf } from './watched.js';

/** What rules are asked with. */
export interface Asking {
  readonly store: EventStore;
  readonly keys: Pick<VisitorKeys, 'find'>;
  readonly situations: RuleSituations;
}

/** The streams beside conversations that conditions look at. */
export const SITUATION_STREAMS = {
  [visitorAggregate.kind]: Object.keys(visitorAggregate.codec.versions),
  [companyAggregate.kind]: Object.keys(companyAggregate.codec.versions),
  [inboxAggregate.kind]: Object.keys(inboxAggregate.codec.versions),
} as const;

/** An event of a conversation, with the conversation before and after it. */
export interface WatchedEvent {
  readonly organizationId: string;
  readonly conversationId: string;
  readonly event: Recorded<ConversationEvent>;
  readonly before: Watched;
  readonly after: Watched;
}

/** Which other streams a set of fields needs. */
interface Needs {
  readonly visitor: boolean;
  readonly company: boolean;
  readonly inbox: boolean;
}

function needsOf(fields: readonly FieldName[]): Needs {
  const roots = new Set(fields.map((name) => ('fixed' in name ? name.fixed : name.prefix).split('.', 1)[0]));
  const company = roots.has('company');
  return { visitor: company || roots.has('visitor'), company, inbox: roots.has('inbox') };
}

/**
 * Reads what rules see at an event: the folds of the conversation, its visitor, the visitor's company and the inbox up to the event's
 * position. For followers of the log, which hand on the events of the other streams, most of it is in memory.
 */
export class RuleSituations {
  readonly #watched: StatesAt<Watched, ConversationEvent>;
  readonly #visitors: StatesAsOf<Visitor, VisitorEvent>;
  readonly #companies: StatesAsOf<Company, CompanyEvent>;
  readonly #inboxes: StatesAsOf<Inbox, InboxEvent>;

  /** @param cacheBytes the memory for each of four kinds of streams */
  constructor(
    private readonly store: EventStore,
    private readonly keys: Pick<VisitorKeys, 'find'>,
    cacheBytes?: number,
  ) {
    this.#watched = new StatesAt(store, watchedAggregate, cacheBytes);
    this.#visitors = new StatesAsOf(store, visitorAggregate, cacheBytes);
    this.#companies = new StatesAsOf(store, companyAggregate, cacheBytes);
    this.#inboxes = new StatesAsOf(store, inboxAggregate, cacheBytes);
  }

  /** The conversation around one of its events. @throws StoreUnavailable, UnknownEvent */
  async around(organizationId: string, conversationId: string, event: Recorded<ConversationEvent>): Promise<WatchedEvent> {
    const before = await this.#watched.at(organizationId, conversationId, event.revision - 1);
    const after = watchedAggregate.evolve(before, event);
    this.#watched.keep(organizationId, conversationId, event.revision, after);
    return { organizationId, conversationId, event, before, after };
  }

  /** What there is to see at an event. @param fields those that will be asked for */
  async atEvent({ organizationId, event, before, after }: WatchedEvent, fields: readonly FieldName[]): Promise<Situation> {
    const { conversation } = after;
    const needs = needsOf(fields);
    const { position } = event;
    const visitor = needs.visitor ? existing((await this.#visitors.at(organizationId, conversation.visitorId, position)).state) : null;
    const companyId = visitor?.companyId ?? null;
    const company = needs.company && companyId !== null ? (await this.#companies.at(organizationId, companyId, position)).state : null;
    const inbox = needs.inbox ? (await this.#inboxes.at(organizationId, conversation.inboxId, position)).state : null;
    return situationOf({
      at: Date.parse(event.metadata.occurredAt),
      actorType: event.metadata.actor.type,
      conversation,
      before: before.conversation,
      message: messageOfEvent(event) ?? conversation.lastMessage,
      visitor,
      company: existing(company),
      inbox: existing(inbox),
      key: await this.keys.find(organizationId, conversation.keyId),
    });
  }

  /** A conversation as its events up to an instant (ms) left it. */
  async watchedAt(
    organizationId: string,
    conversationId: string,
    at: number,
  ): Promise<{ readonly state: Watched; readonly revision: number; readonly position: Position | '' }> {
    return readAsOf(this.store, watchedAggregate, streamName(watchedAggregate.kind, organizationId, conversationId), until(at));
  }

  /**
   * What there is to see when a wait is over, by the times of events: the log has no position for an instant at which nothing happened.
   * @param at ms
   */
  async atInstant(
    organizationId: string,
    conversation: Conversation,
    wait: Wait,
    at: number,
    fields: readonly FieldName[],
  ): Promise<Situation> {
    const needs = needsOf(fields);
    const read = async <S, E extends DomainEvent>(aggregate: Parameters<typeof readAsOf<S, E>>[1], id: string) =>
      (await readAsOf(this.store, aggregate, streamName(aggregate.kind, organizationId, id), until(at))).state;
    const visitor = needs.visitor ? existing(await read(visitorAggregate, conversation.visitorId)) : null;
    const companyId = visitor?.companyId ?? null;
    const company = needs.company && companyId !== null ? await read(companyAggregate, companyId) : null;
    const inbox = needs.inbox ? await read(inboxAggregate, conversation.inboxId) : null;
    return situationOf({
      at,
      actorType: wait.actorType,
      conversation,
      before: null,
      message: conversation.lastMessage,
      visitor,
      company: existing(company),
      inbox: existing(inbox),
      key: await this.keys.find(organizationId, conversation.keyId),
    });
  }

  /** Takes the next event of another stream than a conversation's, in the order of the log. */
  follow(kind: string, event: Recorded<DomainEvent>): void {
    if (kind === visitorAggregate.kind) this.#visitors.follow(event as Recorded<VisitorEvent>);
    else if (kind === companyAggregate.kind) this.#companies.follow(event as Recorded<CompanyEvent>);
    else if (kind === inboxAggregate.kind) this.#inboxes.follow(event as Recorded<InboxEvent>);
  }

  /** The follower begins again elsewhere in the log. */
  forget(): void {
    this.#visitors.forget();
    this.#companies.forget();
    this.#inboxes.forget();
  }
}

const until =
  (at: number) =>
  ({ metadata: { occurredAt } }: Recorded<DomainEvent>) =>
    Date.parse(occurredAt) <= at;

const existing = <S extends { readonly exists: boolean }>(state: S | null): S | null => (state?.exists === true ? state : null);

/** What rules answered about one event, or one wait that was over. */
export interface Asked {
  readonly occasion: Occasion;
  readonly answers: readonly Answer[];
  /** The visitor's key, which seals what rules saw; undefined when the visitor was erased. */
  readonly key: DataKey | undefined;
}

/**
 * Asks rules about an event that triggers them.
 * @param rules as compareRules() sorts them, one at least
 * @param rest as for askInOrder()
 */
export async function askAboutEvent(
  { store, keys, situations }: Asking,
  watched: WatchedEvent,
  rules: readonly RuleAt[],
  rest: () => Promise<void> = nextTurn,
): Promise<Asked> {
  const { organizationId, conversationId, event, after } = watched;
  const { keyId } = after.conversation;
  const situation = await situations.atEvent(
    watched,
    rules.flatMap(({ rule }) => compileRule(rule).fields),
  );
  const { causationDepth, occurredAt } = event.metadata;
  const tooLong = causationDepth >= MAX_DEPTH || after.reactions > MAX_REACTIONS;
  const loop = tooLong ? await loopBefore(store, organizationId, conversationId, event) : undefined;
  return {
    occasion: {
      organizationId,
      conversationId,
      eventId: event.id,
      waited: null,
      position: event.position,
      revision: event.revision,
      at: Date.parse(occurredAt),
      keyId,
    },
    answers: await askInOrder(rules, situation, loop, rest),
    key: await keys.find(organizationId, keyId),
  };
}

/**
 * Asks a rule when a wait is over, on what there was at that instant.
 * @param wait.eventId the event that began the wait
 * @param at when the rule is asked (ms), not before the wait is over
 * @param rest as for askInOrder()
 * @returns undefined when the wait had ended by then
 */
export async function askWhenOver(
  { store, keys, situations }: Asking,
  wait: { readonly organizationId: string; readonly conversationId: string; readonly eventId: string; readonly trigger: TimeTrigger },
  rule: RuleAt,
  at: number,
  rest: () => Promise<void> = nextTurn,
): Promise<(Asked & { readonly wait: Wait }) | undefined> {
  const { organizationId, conversationId, eventId, trigger } = wait;
  const then = await situations.watchedAt(organizationId, conversationId, at);
  const inForce = waitOf(then.state, trigger);
  if (inForce?.eventId !== eventId || dueAt(inForce, trigger) > at) return undefined;
  const { conversation } = then.state;
  const situation = await situations.atInstant(organizationId, conversation, inForce, at, compileRule(rule.rule).fields);
  const { causationDepth } = inForce;
  const loop =
    causationDepth >= MAX_DEPTH
      ? await loopBefore(store, organizationId, conversationId, { id: eventId, revision: inForce.revision })
      : undefined;
  return {
    occasion: {
      organizationId,
      conversationId,
      eventId,
      waited: trigger,
      position: then.position,
      revision: then.revision,
      at,
      keyId: conversation.keyId,
    },
    answers: await askInOrder([rule], situation, loop, rest),
    key: await keys.find(organizationId, conversation.keyId),
    wait: inForce,
  };
}

/**
 * The rules whose actions led to an event, the latest first, without the inboxes that assigned or answered in between. Rules act on the
 * conversation that they were asked about, so its own events tell all of them.
 * @param event by its id and revision
 */
export async function loopBefore(
  store: EventStore,
  organizationId: string,
  conversationId: string,
  event: { readonly id: string; readonly revision: number },
): Promise<string[]> {
  const actors: string[] = [];
  let sought: string | undefined = event.id;
  const stream = streamName(watchedAggregate.kind, organizationId, conversationId);
  for await (const batch of store.read(stream, { to: event.revision, backwards: true })) {
    for (const stored of batch) {
      if (stored.id !== sought) continue;
      const { actor, causationId, causationDepth } = metadataOf(stored);
      if (actor.type === 'automation') actors.push(actor.id);
      sought = causationDepth === 0 ? undefined : causationId;
    }
    if (sought === undefined) break;
  }
  const rules = new Set<string>();
  for (const id of new Set(actors))
    for await (const [first] of store.read(streamName(ruleAggregate.kind, organizationId, id), { limit: 1 }))
      if (first !== undefined) rules.add(id);
  return actors.filter((id) => rules.has(id));
}
