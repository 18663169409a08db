import { Inject, Injectable, type OnModuleDestroy } from '@nestjs/common';
import { FEED_CHANNEL } from '../audit/events.table.js';
import { DATABASE_URL } from '../database/database.js';
import { type Listener, Notifications } from '../database/notifications.js';
import { MasterKey } from '../security/sealing.js';
import { PresenceSeal } from '../security/presence-seal.js';

/** Presence, sealed, from the process that heard of it to all others. */
export const PRESENCE_CHANNEL = 'threadlog_presence';

/** The notifications of PostgreSQL by which API processes learn of new events, and of presence in other processes. */
@Injectable()
export class LiveWire implements OnModuleDestroy {
  #notifications: Notifications | undefined;
  #onFeed = () => {};
  #onPresence: (text: string | undefined) => void = () => {};
  readonly #seal: PresenceSeal;

  constructor(
    @Inject(DATABASE_URL) private readonly url: string,
    @Inject(MasterKey) masterKey: MasterKey,
  ) {
    this.#seal = new PresenceSeal(masterKey);
  }

  /** @param heard called when the table of events may have grown */
  onFeed(heard: () => void): void {
    this.#onFeed = heard;
  }

  /** @param heard is given undefined for what no process with this MASTER_KEY has told */
  onPresence(heard: (text: string | undefined) => void): void {
    this.#onPresence = heard;
  }

  /** For API processes: a worker has no sockets to tell. */
  listen(): void {
    const feed: Listener = { heard: () => this.#onFeed(), connected: () => this.#onFeed() };
    const presence: Listener = { heard: (payload, _own, session) => this.#onPresence(this.#seal.open(payload, session)) };
    this.#notifications ??= new Notifications({
      url: this.url,
      name: 'threadlog-live',
      channels: { [FEED_CHANNEL]: feed, [PRESENCE_CHANNEL]: presence },
    });
  }

  /** @param text at most SEALABLE_BYTES */
  tellPresence(text: string): void {
    this.#notifications?.tellAs(PRESENCE_CHANNEL, (session) => this.#seal.seal(text, session));
  }

  async onModuleDestroy(): Promise<void> {
    await this.#notifications?.close();
  }
}
