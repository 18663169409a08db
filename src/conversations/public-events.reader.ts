import { Inject, Injectable } from '@nestjs/common';
import { type StateBefore, Transactor } from '../commands/transactor.js';
import type { Recorded } from '../event-store/aggregate.js';
import { EVENT_STORE, type EventStore } from '../event-store/event-store.js';
import { StatesAt } from '../event-store/states-at.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { visitorAggregate } from '../visitors/visitor.js';
import { unsealVisitor } from '../visitors/visitor.sealing.js';
import { type VisitorBrief, visitorBrief } from './conversation.answer.js';
import { type Conversation, conversationAggregate, type ConversationEvent, evolveConversation } from './conversation.js';
import { type Unsealed, unsealConversation, unsealConversationEvent } from './conversation.sealing.js';
import { publicEventsOf, type PublicEventType, publicPosition } from './public-event.js';

/** How old the visitor's fields in a body may be (ms). */
const VISITOR_MAX_AGE_MS = 1_000;

/** A public event with everything that its body, its filters and its conditions are made of. Personal values are unsealed. */
export interface PublicEvent {
  readonly organizationId: string;
  readonly conversationId: string;
  readonly type: PublicEventType;
  /** Its number among the public events of the stored event, from 0. */
  readonly index: number;
  /** As publicPosition(). */
  readonly position: string;
  readonly event: Recorded<ConversationEvent<Unsealed>>;
  /** The conversation before and after the event. */
  readonly before: Conversation<Unsealed>;
  readonly after: Conversation<Unsealed>;
}

/** A stored event of a conversation, its personal fields sealed. */
export interface ConversationEventSeen {
  readonly organizationId: string;
  readonly conversationId: string;
  readonly event: Recorded<ConversationEvent>;
}

/** Turns stored events of conversations into public ones. */
@Injectable()
export class PublicEventsReader {
  #states: StatesAt<Conversation, ConversationEvent>;

  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
  ) {
    this.#states = new StatesAt(store, conversationAggregate);
  }

  /** A reader with a memory of its own (bytes), for whoever walks through the past beside the followers. */
  aside(cacheBytes: number): PublicEventsReader {
    const reader = new PublicEventsReader(this.store, this.transactor, this.keys);
    reader.#states = new StatesAt(this.store, conversationAggregate, cacheBytes);
    return reader;
  }

  /** Takes over the state of a conversation before events that this process has just appended, so that they cost no read. */
  prime({ kind, stream, revision, state }: StateBefore): void {
    if (kind === conversationAggregate.kind && revision >= 0) this.#states.prime(stream, revision, state as Conversation);
  }

  /** Finds the keys of many events in one query, so that of() finds each at hand. @throws the database's error; Error for a damaged key */
  async knowKeys(organizationId: string, keyIds: Iterable<string>): Promise<void> {
    await this.keys.findMany(organizationId, keyIds);
  }

  /**
   * The public events of one stored event. Cheapest in the order of the log, in which each conversation's state is at hand.
   * @throws StoreUnavailable; UnknownEvent when an earlier event of the conversation cannot be read by this build
   */
  async of({ organizationId, conversationId, event }: ConversationEventSeen): Promise<PublicEvent[]> {
    const before = await this.#states.at(organizationId, conversationId, event.revision - 1);
    const after = evolveConversation(before, event);
    this.#states.keep(organizationId, conversationId, event.revision, after);
    return this.#told(organizationId, conversationId, { before, event, after });
  }

  /**
   * The public events of the event with a revision, for those who do not have it at hand. Cheapest as of().
   * @throws as of()
   */
  async at(organizationId: string, conversationId: string, revision: number): Promise<PublicEvent[]> {
    return this.#told(organizationId, conversationId, await this.#states.around(organizationId, conversationId, revision));
  }

  async #told(
    organizationId: string,
    conversationId: string,
    { before, event, after }: { before: Conversation; event: Recorded<ConversationEvent>; after: Conversation },
  ): Promise<PublicEvent[]> {
    const types = publicEventsOf(event);
    const key = await this.keys.find(organizationId, after.keyId);
    const unsealed = {
      organizationId,
      conversationId,
      event: unsealConversationEvent(event, key),
      before: unsealConversation(before, key),
      after: unsealConversation(after, key),
    };
    return types.map((type, index) => ({
      ...unsealed,
      type,
      index,
      position: publicPosition(event.position, index, types.length),
    }));
  }

  /** The visitor of a public event as it is now. */
  async visitor({ organizationId, after }: PublicEvent): Promise<VisitorBrief> {
    const [found, key] = await Promise.all([
      this.transactor.load(visitorAggregate, organizationId, after.visitorId, VISITOR_MAX_AGE_MS),
      this.keys.find(organizationId, after.keyId),
    ]);
    return visitorBrief(after.visitorId, found === undefined ? undefined : unsealVisitor(found.state, key));
  }
}
