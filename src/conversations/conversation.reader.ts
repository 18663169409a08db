import { Inject, Injectable } from '@nestjs/common';
import { type IQueryHandler, Query, QueryHandler } from '@nestjs/cqrs';
import {
  conversationAnswer,
  type ConversationAnswer,
  type ConversationSummary,
  messageAnswer,
  type MessageAnswer,
  summaryOfSealed,
} from './conversation.answer.js';
import {
  isShown,
  type VisitorConversationAnswer,
  visitorConversationAnswer,
  type VisitorConversationSummary,
  visitorConversationSummary,
  type VisitorMessageAnswer,
  visitorMessageAnswer,
} from './visitor-conversation.answer.js';
import { joinedNow } from './conversation.joined.js';
import { type ConversationChanged, storedMessage } from './conversation.commands.js';
import {
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  evolveConversation,
  initialConversation,
  type LastMessage,
  messageOfEvent,
} from './conversation.js';
import {
  type MessageInput,
  type Unsealed,
  unsealConversation,
  unsealConversationEvent,
  unsealLastMessage,
} from './conversation.sealing.js';
import { decode, type Recorded } from '../event-store/aggregate.js';
import { EVENT_STORE, type EventStore, type Position, StoreUnavailable, streamName } from '../event-store/event-store.js';
import { Transactor } from '../commands/transactor.js';
import { ThreadlogError } from '../errors.js';
import { storeUnavailable } from '../store-away.js';
import type { DataKey } from '../security/sealing.js';
import { VisitorKeys } from '../security/visitor-keys.js';

/** Messages in a conversation's own answer; older messages are paged. */
export const MESSAGES_SHOWN = 200;
/** How old a joined name may be (ms); a read that asks for a position gets fresh names. */
const JOIN_MAX_AGE_MS = 1_000;

type UnsealedEvent = Recorded<ConversationEvent<Unsealed>>;

/** Reads conversations from their own streams: always up to date, and the same function answers `?at=`. */
@Injectable()
export class ConversationReader {
  constructor(
    @Inject(EVENT_STORE) private readonly store: EventStore,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(VisitorKeys) private readonly keys: VisitorKeys,
  ) {}

  /** The answer of a command: the conversation without its messages. */
  async summary(organizationId: string, changed: ConversationChanged): Promise<ConversationSummary> {
    const key = await this.keys.find(organizationId, changed.state.keyId);
    return summaryOfSealed(
      changed.id,
      changed.state,
      changed.revision,
      key,
      await joinedNow(this.transactor, organizationId, changed.state, key, JOIN_MAX_AGE_MS),
    );
  }

  /**
   * The answer of a command that stored a message.
   * @param said the request's own text, if it had one; it need not be unsealed again when this call stored it
   */
  async message(organizationId: string, changed: ConversationChanged, said: MessageInput | undefined): Promise<MessageAnswer> {
    return messageAnswer(await this.stored(organizationId, changed, said), false);
  }

  /** Like message(), for the visitor. */
  async visitorMessage(organizationId: string, changed: ConversationChanged, said: MessageInput): Promise<VisitorMessageAnswer> {
    return visitorMessageAnswer(await this.stored(organizationId, changed, said));
  }

  /** Like summary(), for the visitor. */
  async visitorSummary(organizationId: string, changed: ConversationChanged): Promise<VisitorConversationSummary> {
    const key = await this.keys.find(organizationId, changed.state.keyId);
    return visitorConversationSummary(changed.id, unsealConversation(changed.state, key));
  }

  /** A conversation as its visitor sees it. Undefined when it does not exist or belongs to another visitor. */
  async visitorConversation(organizationId: string, id: string, visitorId: string): Promise<VisitorConversationAnswer | undefined> {
    const found = await this.latest(organizationId, id, isShown);
    if (found === undefined || found.state.visitorId !== visitorId) return undefined;
    return visitorConversationAnswer(id, found.state, found.messages);
  }

  /** Like messagesBefore(), for the visitor: the id of a note is unknown. */
  async visitorMessagesBefore(
    organizationId: string,
    id: string,
    visitorId: string,
    before: string | undefined,
    limit: number,
  ): Promise<{ messages: VisitorMessageAnswer[]; hasMore: boolean } | undefined> {
    // A conversation's visitor never changes, so a cached state of any age will do here.
    const known = await this.transactor.load(conversationAggregate, organizationId, id, Infinity);
    if (known?.state.visitorId !== visitorId) return undefined;
    const found = await this.pageBefore(organizationId, id, before, limit, isShown);
    return found && { messages: found.messages.map(visitorMessageAnswer), hasMore: found.hasMore };
  }

  private async stored(
    organizationId: string,
    changed: ConversationChanged,
    said: MessageInput | undefined,
  ): Promise<LastMessage<Unsealed>> {
    const stored = storedMessage(changed);
    if (changed.outcome === 'appended' && said !== undefined) {
      const { content, attachments } = said;
      return { ...stored, ...(content === undefined ? {} : { content }), ...(attachments === undefined ? {} : { attachments }) };
    }
    return unsealLastMessage(await this.keys.find(organizationId, changed.state.keyId), stored);
  }

  /** A conversation as it is, or as it was at a revision or an instant. Undefined when it does not or did not exist. */
  async conversation(
    organizationId: string,
    id: string,
    when: { readonly revision?: number; readonly at?: number },
    withhold: boolean,
    fresh: boolean,
  ): Promise<{ answer: ConversationAnswer; revision: number; position: Position } | undefined> {
    const found =
      when.revision === undefined && when.at === undefined
        ? await this.latest(organizationId, id)
        : await this.past(organizationId, id, when);
    if (found === undefined) return undefined;
    const { state, key, messages, revision, position } = found;
    const joined = await joinedNow(this.transactor, organizationId, state, key, fresh ? 0 : JOIN_MAX_AGE_MS);
    return { answer: conversationAnswer(id, state, revision, joined, messages, withhold), revision, position };
  }

  /** The messages before a given message, oldest first. Undefined when the conversation or the message does not exist. */
  async messagesBefore(
    organizationId: string,
    id: string,
    before: string | undefined,
    limit: number,
    withhold: boolean,
  ): Promise<{ messages: MessageAnswer[]; hasMore: boolean; position: Position } | undefined> {
    const page = await this.pageBefore(organizationId, id, before, limit, () => true);
    return page && { ...page, messages: page.messages.map((message) => messageAnswer(message, withhold)) };
  }

  private async pageBefore(
    organizationId: string,
    id: string,
    before: string | undefined,
    limit: number,
    counts: (message: LastMessage<unknown>) => boolean,
  ): Promise<{ messages: LastMessage<Unsealed>[]; hasMore: boolean; position: Position } | undefined> {
    const found: LastMessage<Unsealed>[] = [];
    let key: DataKey | undefined;
    let position: Position | undefined;
    let reached = before === undefined;
    for await (const batch of this.read(organizationId, id, { backwards: true })) {
      key ??= await this.keyOf(organizationId, batch);
      for (const event of batch) {
        position ??= event.position;
        const message = messageOfEvent(unsealConversationEvent(event, key));
        if (message === undefined || !counts(message)) continue;
        if (reached) found.push(message);
        else if (message.messageId === before) reached = true;
        if (found.length > limit) break;
      }
      if (found.length > limit) break;
    }
    if (position === undefined || !reached) return undefined;
    return { messages: found.slice(0, limit).reverse(), hasMore: found.length > limit, position };
  }

  private async past(
    organizationId: string,
    id: string,
    when: { readonly revision?: number; readonly at?: number },
  ): Promise<Found | undefined> {
    let state: Conversation<Unsealed> = initialConversation;
    let last: UnsealedEvent | undefined;
    let key: DataKey | undefined;
    const messages: LastMessage<Unsealed>[] = [];
    read: for await (const batch of this.read(organizationId, id, when.revision === undefined ? {} : { to: when.revision })) {
      key ??= await this.keyOf(organizationId, batch);
      for (const stored of batch) {
        if (when.at !== undefined && Date.parse(stored.metadata.occurredAt) > when.at) break read;
        const event = unsealConversationEvent(stored, key);
        state = evolveConversation(state, event);
        const message = messageOfEvent(event);
        if (message !== undefined) messages.push(message);
        last = event;
      }
    }
    // A revision that the stream has not reached does not exist.
    if (last === undefined || (when.revision !== undefined && last.revision !== when.revision)) return undefined;
    return { state, key, messages: messages.slice(-MESSAGES_SHOWN), revision: last.revision, position: last.position };
  }

  /** Reads backwards until enough messages that count are found: one read for a short conversation, which most are. */
  private async latest(
    organizationId: string,
    id: string,
    counts: (message: LastMessage<unknown>) => boolean = () => true,
  ): Promise<Found | undefined> {
    const newestFirst: Recorded<ConversationEvent>[] = [];
    let messages = 0;
    for await (const batch of this.read(organizationId, id, { backwards: true })) {
      for (const event of batch) {
        newestFirst.push(event);
        const message = messageOfEvent(event);
        if (message !== undefined && counts(message)) messages++;
      }
      if (messages >= MESSAGES_SHOWN) break;
    }
    const newest = newestFirst[0];
    const oldest = newestFirst[newestFirst.length - 1];
    if (newest === undefined || oldest === undefined) return undefined;
    const key = await this.keyOf(organizationId, [newest]);
    const events = newestFirst.reverse().map((event) => unsealConversationEvent(event, key));
    const shown = events
      .map((event) => messageOfEvent(event))
      .filter((message) => message !== undefined)
      .filter(counts);
    if (oldest.revision === 0) {
      const state = events.reduce<Conversation<Unsealed>>(evolveConversation, initialConversation);
      return { state, key, messages: shown.slice(-MESSAGES_SHOWN), revision: newest.revision, position: newest.position };
    }
    const known = await this.transactor.load(conversationAggregate, organizationId, id, 0);
    if (known === undefined) throw new ThreadlogError('store_unavailable');
    // The state may be slightly newer than the messages; every message that it counts must be among them.
    if (known.revision !== newest.revision) return this.latest(organizationId, id, counts);
    return {
      state: unsealConversation(known.state, key),
      key,
      messages: shown.slice(-MESSAGES_SHOWN),
      revision: known.revision,
      position: known.position,
    };
  }

  private async keyOf(organizationId: string, batch: readonly Recorded<ConversationEvent>[]): Promise<DataKey | undefined> {
    const keyId = batch[0]?.metadata.keyId;
    return keyId === undefined ? undefined : this.keys.find(organizationId, keyId);
  }

  private async *read(
    organizationId: string,
    id: string,
    options: { from?: number; to?: number; backwards?: boolean; limit?: number },
  ): AsyncIterable<Recorded<ConversationEvent>[]> {
    try {
      for await (const batch of this.store.read(streamName('conversation', organizationId, id), options))
        yield batch.map((stored) => decode(conversationAggregate.codec, stored));
    } catch (error) {
      throw error instanceof StoreUnavailable ? storeUnavailable(error) : error;
    }
  }
}

interface Found {
  readonly state: Conversation<Unsealed>;
  readonly key: DataKey | undefined;
  readonly messages: readonly LastMessage<Unsealed>[];
  readonly revision: number;
  readonly position: Position;
}

/** A conversation as it is now, or as it was. */
export class GetConversation extends Query<{ answer: ConversationAnswer; revision: number; position: Position }> {
  constructor(
    readonly organizationId: string,
    readonly id: string,
    readonly when: { readonly revision?: number; readonly at?: number },
    /** True for roles that may not read message contents. */
    readonly withhold: boolean,
    readonly fresh: boolean,
  ) {
    super();
  }
}

@QueryHandler(GetConversation)
export class GetConversationHandler implements IQueryHandler<GetConversation> {
  constructor(@Inject(ConversationReader) private readonly reader: ConversationReader) {}

  async execute({
    organizationId,
    id,
    when,
    withhold,
    fresh,
  }: GetConversation): Promise<{ answer: ConversationAnswer; revision: number; position: Position }> {
    const found = await this.reader.conversation(organizationId, id, when, withhold, fresh);
    if (found === undefined) throw new ThreadlogError('not_found');
    return found;
  }
}

export class GetMessages extends Query<{ messages: MessageAnswer[]; hasMore: boolean; position: Position }> {
  constructor(
    readonly organizationId: string,
    readonly id: string,
    readonly before: string | undefined,
    readonly limit: number,
    readonly withhold: boolean,
  ) {
    super();
  }
}

@QueryHandler(GetMessages)
export class GetMessagesHandler implements IQueryHandler<GetMessages> {
  constructor(@Inject(ConversationReader) private readonly reader: ConversationReader) {}

  async execute({
    organizationId,
    id,
    before,
    limit,
    withhold,
  }: GetMessages): Promise<{ messages: MessageAnswer[]; hasMore: boolean; position: Position }> {
    const found = await this.reader.messagesBefore(organizationId, id, before, limit, withhold);
    if (found === undefined) throw new ThreadlogError('not_found');
    return found;
  }
}
