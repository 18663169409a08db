import type { Position, StoredEvent } from './event-store.js';

/** The most that a window keeps for readers that are behind. */
const MOST = { events: 8_192, bytes: 16_000_000 } as const;
const OVERHEAD_BYTES = 400;

/** The rough size of an event in memory. */
export function sizeOf(event: StoredEvent): number {
  return event.data.length + event.metadata.length + OVERHEAD_BYTES;
}

/**
 * The latest events of the log, without a gap, for several readers at their own pace. A reader that is too slow falls out of the window and
 * must read the log by itself, so it costs no more memory than the window.
 */
export class EventWindow {
  #events: StoredEvent[] = [];
  #bytes = 0;
  #floor: Position;

  /** @param floor the position after which every event will be pushed */
  constructor(floor: Position) {
    this.#floor = floor;
  }

  /** Whether a reader that has all events up to `position` misses none here. */
  covers(position: Position): boolean {
    return this.#floor <= position;
  }

  /** Events must be pushed in log order. */
  push(event: StoredEvent): void {
    this.#events.push(event);
    this.#bytes += sizeOf(event);
    // A quarter is dropped at once, since removing single events from the front of an array costs its whole length each time.
    if (this.#events.length > MOST.events || this.#bytes > MOST.bytes) this.#forget(MOST.events / 4, MOST.bytes * 0.75);
  }

  /** The events after `position`, and whether these are all. */
  after(position: Position, most: number): { readonly events: readonly StoredEvent[]; readonly all: boolean } {
    const first = this.#indexAfter(position);
    const events = this.#events.slice(first, first + most);
    return { events, all: first + events.length === this.#events.length };
  }

  /** All readers have the events at or before `position`. */
  passed(position: Position): void {
    const count = this.#indexAfter(position);
    if (count > 0) this.#drop(count);
    if (this.#floor < position) this.#floor = position;
  }

  #forget(least: number, bytes: number): void {
    let count = 0;
    let left = this.#bytes;
    while (count < this.#events.length - 1 && (count < least || left > bytes)) {
      const event = this.#events[count++];
      if (event) left -= sizeOf(event);
    }
    this.#floor = this.#events[count - 1]?.position ?? this.#floor;
    this.#drop(count);
  }

  #drop(count: number): void {
    for (const event of this.#events.splice(0, count)) this.#bytes -= sizeOf(event);
  }

  #indexAfter(position: Position): number {
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const event = this.#events[middle];
      if (event && event.position <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
