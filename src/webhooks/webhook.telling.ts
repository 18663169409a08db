import { type Conversation, type ConversationEvent, conversationAggregate, evolveConversation } from '../conversations/conversation.js';
import { publicEventsOf, publicPosition } from '../conversations/public-event.js';
import type { Recorded } from '../event-store/aggregate.js';
import type { EventStore } from '../event-store/event-store.js';
import { StatesAt } from '../event-store/states-at.js';
import { derivedId } from '../ids.js';
import type { NewDelivery } from './delivery.rows.js';
import { asksFor } from './webhook-event.js';
import type { Webhook, WebhookFilters } from './webhook.js';

/** A stored event of a conversation, its personal fields sealed. */
export interface ConversationHappening {
  readonly organizationId: string;
  readonly conversationId: string;
  readonly event: Recorded<ConversationEvent>;
}

/** Decides what endpoints are told of conversations: the same for what happens now and for what is replayed. */
export class Telling {
  private readonly states: StatesAt<Conversation, ConversationEvent>;

  constructor(store: EventStore) {
    this.states = new StatesAt(store, conversationAggregate);
  }

  /**
   * The deliveries of one event to one endpoint, in the order in which they are told. The conversation is looked at only for filters, and
   * cheapest in the order of the log.
   * @param round tells a replay's deliveries from the first ones
   */
  async deliveries(webhookId: string, webhook: Webhook, happening: ConversationHappening, round = ''): Promise<NewDelivery[]> {
    const { organizationId, conversationId, event } = happening;
    const { actor } = event.metadata;
    const { events, filters, ignoreOwnWrites, owner } = webhook;
    if (ignoreOwnWrites && actor.type === owner.type && actor.id === owner.id) return [];
    const types = publicEventsOf(event);
    if (!types.some((type) => asksFor(events, type))) return [];
    if (isNarrow(filters) && !matches(filters, await this.after(happening))) return [];
    return types.flatMap((type, index) =>
      asksFor(events, type)
        ? [
            {
              id: deliveryId(webhookId, event.id, index, round),
              organizationId,
              webhookId,
              event: type,
              kind: conversationAggregate.kind,
              streamId: conversationId,
              revision: event.revision,
              index,
              position: publicPosition(event.position, index, types.length),
            },
          ]
        : [],
    );
  }

  private async after({ organizationId, conversationId, event }: ConversationHappening): Promise<Conversation> {
    const after = evolveConversation(await this.states.at(organizationId, conversationId, event.revision - 1), event);
    this.states.keep(organizationId, conversationId, event.revision, after);
    return after;
  }
}

/** The same event gives the same id, so that it makes one delivery however often it is handled. */
export const deliveryId = (webhookId: string, eventId: string, index: number, round = ''): string =>
  derivedId('delivery', webhookId, eventId, String(index), round);

const isNarrow = ({ inboxId, teamId, tag }: WebhookFilters): boolean => inboxId !== undefined || teamId !== undefined || tag !== undefined;

const matches = ({ inboxId, teamId, tag }: WebhookFilters, conversation: Conversation): boolean =>
  (inboxId === undefined || conversation.inboxId === inboxId) &&
  (teamId === undefined || conversation.team?.id === teamId) &&
  (tag === undefined || conversation.tags.includes(tag));
