import { Notifications } from '../../src/database/notifications.js';

const CHANNEL = 'threadlog_jobs';
/** At most one NOTIFY in this time (ms): each takes a lock that all committing notifiers of the cluster share. */
const NOTIFY_MS = 50;

/**
 * Tells those who do jobs, in this process and in the others, that jobs were added: here at once, elsewhere by a NOTIFY that is no part of the
 * transaction that adds them, where it would make commits wait for each other. A NOTIFY that is lost costs as long as they wait by themselves.
 */
export class JobSignal {
  readonly #notifications: Notifications;
  readonly #wake: () => void;
  #pause: NodeJS.Timeout | undefined;
  #again = false;

  /** @param wake called when there may be jobs; also when the connection is there, since what was told before was told to nobody */
  constructor(url: string, wake: () => void) {
    this.#wake = wake;
    this.#notifications = new Notifications({
      url,
      name: 'threadlog-jobs',
      channels: {
        [CHANNEL]: {
          heard: (_payload, own) => {
            // This process was woken as it added them.
            if (!own) wake();
          },
          connected: wake,
        },
      },
    });
  }

  /** After a transaction of this process that added jobs. */
  added(): void {
    this.#wake();
    if (this.#pause === undefined) this.#tell();
    else this.#again = true;
  }

  async close(): Promise<void> {
    clearTimeout(this.#pause);
    await this.#notifications.close();
  }

  #tell(): void {
    this.#again = false;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#again) this.#tell();
    }, NOTIFY_MS);
    this.#notifications.tell(CHANNEL, '');
  }
}
