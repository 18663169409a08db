import type { Position, StoredEvent } from '../event-store.js';
import { EventWindow } from '../event-window.js';
import { acknowledged } from './acknowledged.js';
import { AllSubscription } from './all-subscription.js';
import type { GuardedClient } from './guarded-client.js';
import { untilAborted } from './until-aborted.js';

/** How long events wait for an event that is known to follow them (ms). */
const FOLLOWING_MS = 20;

export interface News {
  readonly events: readonly StoredEvent[];
  readonly caughtUp: boolean;
}

/**
 * The only live subscription of a process, and a window of its latest events. Every reader that caught up takes from the window at its own
 * pace. A reader that fell out of the window catches up by itself again, so a slow reader costs no more memory than the window and delays
 * no other reader. The subscription runs while there are readers.
 */
export class SharedSubscription {
  readonly #client: GuardedClient;
  readonly #logId: string;
  readonly #onStuck: (times: number, error: unknown) => void;
  #subscription: AllSubscription | undefined;
  #readers = 0;
  #window: EventWindow | undefined;
  #caughtUp = false;
  readonly #waiting = new Set<() => void>();

  constructor(client: GuardedClient, logId: string, onStuck: (times: number, error: unknown) => void) {
    this.#client = client;
    this.#logId = logId;
    this.#onStuck = onStuck;
  }

  /** Whether a reader that has all events up to `position` would miss none here. */
  covers(position: Position): boolean {
    return this.#window?.covers(position) === true;
  }

  /** Adds a reader that has all events up to `position`. Undefined when it must catch up first. The reader must leave later. */
  join(position: Position): { leave: () => void } | undefined {
    if (this.#readers === 0) this.#start(position);
    else if (!this.covers(position)) return undefined;
    this.#readers++;
    let left = false;
    return {
      leave: () => {
        if (left) return;
        left = true;
        if (--this.#readers === 0) this.#stop();
      },
    };
  }

  /**
   * Waits for the news after `position`.
   * @param tellCaughtUp true: having caught up is news by itself
   * @returns 'lagging' when the window no longer reaches back that far, undefined when the signal fired
   */
  async next(position: Position, maxEvents: number, tellCaughtUp: boolean, signal: AbortSignal): Promise<News | 'lagging' | undefined> {
    for (let waited = false; !signal.aborted && !this.#client.closed;) {
      if (!this.covers(position)) return 'lagging';
      const { events, all: isAll } = this.#window?.after(position, maxEvents) ?? { events: [], all: true };
      const all = this.#caughtUp && isAll;
      const caughtUp = all && acknowledged.within(this.#logId, events.at(-1)?.position ?? position);
      if (events.length > 0 ? caughtUp || !all || waited : caughtUp && tellCaughtUp) return { events, caughtUp };
      // A consumer paces itself by caughtUp, so this waits a moment for the rest of the batch instead of handing it out in pieces.
      waited = !(await this.#change(signal, events.length > 0 ? FOLLOWING_MS : undefined));
    }
    return undefined;
  }

  close(): void {
    this.#stop();
    this.#wake();
  }

  #start(position: Position): void {
    const window = new EventWindow(position);
    this.#window = window;
    this.#subscription = new AllSubscription(this.#client, position, {
      event: (event) => {
        window.push(event);
        this.#wake();
      },
      passed: () => undefined,
      caughtUp: (now) => {
        this.#caughtUp = now;
        if (now) this.#wake();
      },
      stuck: this.#onStuck,
    });
  }

  #stop(): void {
    this.#subscription?.end();
    this.#subscription = undefined;
    this.#window = undefined;
    this.#caughtUp = false;
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** @returns false when the window did not change within `limitMs` */
  async #change(signal: AbortSignal, limitMs?: number): Promise<boolean> {
    let wake: () => void = () => undefined;
    let changed = true;
    const news = new Promise<void>((resolve) => {
      wake = resolve;
      this.#waiting.add(resolve);
    });
    const timer =
      limitMs === undefined
        ? undefined
        : setTimeout(() => {
            changed = false;
            wake();
          }, limitMs);
    await untilAborted(news, signal);
    clearTimeout(timer);
    this.#waiting.delete(wake);
    return changed;
  }
}
