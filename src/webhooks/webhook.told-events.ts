import { LRUCache } from 'lru-cache';
import type { ConversationEvent } from '../conversations/conversation.js';
import type { Recorded } from '../event-store/aggregate.js';

const BYTES = 16 * 1024 * 1024;

/**
 * Events, their personal fields sealed, for which deliveries were made in this process lately: most deliveries are sent here at once, and need
 * not read their event again.
 */
export class ToldEvents {
  readonly #events = new LRUCache<string, Recorded<ConversationEvent>>({
    maxSize: BYTES,
    sizeCalculation: ({ data }) => 1_000 + 2 * JSON.stringify(data).length,
  });

  remember(organizationId: string, conversationId: string, event: Recorded<ConversationEvent>): void {
    this.#events.set(nameOf(organizationId, conversationId, event.revision), event);
  }

  find(organizationId: string, conversationId: string, revision: number): Recorded<ConversationEvent> | undefined {
    return this.#events.get(nameOf(organizationId, conversationId, revision));
  }
}

const nameOf = (organizationId: string, conversationId: string, revision: number) => `${organizationId} ${conversationId} ${revision}`;
