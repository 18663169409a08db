import type { Position, StoredEvent } from '../event-store.js';
import { sizeOf } from '../event-window.js';
import { AllSubscription } from './all-subscription.js';
import type { GuardedClient } from './guarded-client.js';
import { untilAborted } from './until-aborted.js';

const AHEAD_BYTES = 8_000_000;
const AHEAD_EVENTS = 512;

/**
 * Reads past events for one reader: a separate subscription that reads ahead while the reader works, and pauses when enough events are
 * ready. It is not a read of $all, which is silent while the server searches through foreign events, so that a slow server looks dead.
 */
export class CatchUp {
  readonly #subscription: AllSubscription;
  readonly #maxEvents: number;
  #ahead: StoredEvent[] = [];
  #bytes = 0;
  #caughtUp = false;
  #paused = false;
  #passed: Position;
  #taken: Position;
  #wake: () => void = () => undefined;

  constructor(client: GuardedClient, after: Position, maxEvents: number, onStuck: (times: number, error: unknown) => void) {
    this.#maxEvents = maxEvents;
    this.#passed = after;
    this.#taken = after;
    this.#subscription = new AllSubscription(client, after, {
      event: (event) => {
        this.#ahead.push(event);
        this.#bytes += sizeOf(event);
        if (this.#enough()) this.#pause();
        this.#wake();
      },
      passed: (position) => {
        this.#passed = position;
      },
      caughtUp: (now) => {
        this.#caughtUp = now;
        this.#wake();
      },
      stuck: onStuck,
    });
  }

  /**
   * Waits for the next events.
   * @returns events, or none when the end of the log is near, and the position up to which all events have been taken, at or after the last
   * event. Undefined when the signal fired
   */
  async next(signal: AbortSignal): Promise<{ events: readonly StoredEvent[]; position: Position } | undefined> {
    while (!signal.aborted && this.#ahead.length === 0 && !this.#caughtUp) {
      const changed = new Promise<void>((resolve) => (this.#wake = resolve));
      await untilAborted(changed, signal);
    }
    if (signal.aborted) return undefined;
    const events = this.#ahead.splice(0, this.#maxEvents);
    for (const event of events) this.#bytes -= sizeOf(event);
    const last = events.at(-1);
    if (last) this.#taken = last.position;
    // Only when no events are left to take, since the server may have passed events that have not been taken yet.
    if (this.#ahead.length === 0 && this.#passed > this.#taken) this.#taken = this.#passed;
    if (this.#paused && !this.#enough()) this.#resume();
    return { events, position: this.#taken };
  }

  end(): void {
    this.#subscription.end();
  }

  #enough(): boolean {
    return this.#bytes >= AHEAD_BYTES || this.#ahead.length >= Math.max(AHEAD_EVENTS, 2 * this.#maxEvents);
  }

  #pause(): void {
    this.#paused = true;
    this.#subscription.pause();
  }

  #resume(): void {
    this.#paused = false;
    this.#subscription.resume();
  }
}
