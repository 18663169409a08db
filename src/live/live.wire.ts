import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { FEED_CHANNEL } from '../audit/events.table.js';
import { DATABASE_URL } from '../database/database.js';
import { type Listener, Notifications } from '../database/notifications.js';

/** Presence, from the process that heard of it to all others. */
export const PRESENCE_CHANNEL = 'threadlog_presence';

/** The notifications of PostgreSQL by which API processes learn of new events, and of presence in other processes. */
@Injectable()
export class LiveWire implements OnModuleDestroy {
  #notifications: Notifications | undefined;
  #onFeed = () => {};
  #onPresence: (payload: string) => void = () => {};

  constructor(@Inject(DATABASE_URL) private readonly url: string) {}

  /** @param heard called when the table of events may have grown */
  onFeed(heard: () => void): void {
    this.#onFeed = heard;
  }

  onPresence(heard: (payload: string) => void): void {
    this.#onPresence = heard;
  }

  /** For API processes: a worker has no sockets to tell. */
  listen(): void {
    const feed: Listener = { heard: () => this.#onFeed(), connected: () => this.#onFeed() };
    this.#notifications ??= new Notifications({
      url: this.url,
      name: 'threadlog-live',
      channels: { [FEED_CHANNEL]: feed, [PRESENCE_CHANNEL]: { heard: (payload) => this.#onPresence(payload) } },
    });
  }

  /** @param payload at most 7,999 bytes */
  tellPresence(payload: string): void {
    this.#notifications?.tell(PRESENCE_CHANNEL, payload);
  }

  async onModuleDestroy(): Promise<void> {
    await this.#notifications?.close();
  }
}
