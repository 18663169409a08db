import type { Position, StoredEvent } from '../event-store.js';
import { EventWindow } from '../event-window.js';

/** The answer of a query of the tail; `all`: the log had no more events. */
export interface TailRead {
  readonly events: readonly StoredEvent[];
  readonly all: boolean;
}

/** A feed at the log's end. */
export interface TailReader {
  /** All events at or before this position were delivered. */
  through: Position;
}

/**
 * The end of the log, read once for all feeds of a process. When the log grows, the first feed that asks reads on, and the other feeds get
 * the same event objects. The tail reads only when a feed asks.
 */
export class SharedTail {
  readonly #query: (after: Position) => Promise<TailRead>;
  /** Changes whenever the log may have grown. */
  readonly #version: () => number;
  readonly #readers = new Set<TailReader>();
  #window: EventWindow | undefined;
  #at: Position | undefined;
  /** The version that was current before the log was last read to its end. */
  #read = -1;
  #reading: Promise<void> | undefined;

  constructor(query: (after: Position) => Promise<TailRead>, version: () => number) {
    this.#query = query;
    this.#version = version;
  }

  /** Adds a feed that has all events up to `through`. Undefined when the tail no longer reaches back that far. It must leave later. */
  join(through: Position): TailReader | undefined {
    if (this.#readers.size === 0) {
      this.#window = new EventWindow(through);
      this.#at = through;
      this.#read = -1;
    } else if (this.#window?.covers(through) !== true) return undefined;
    const reader = { through };
    this.#readers.add(reader);
    return reader;
  }

  leave(reader: TailReader): void {
    this.#readers.delete(reader);
    if (this.#readers.size === 0) this.#window = undefined;
  }

  /**
   * The events after the reader's position, up to the end of the log at a version.
   * @returns undefined when the reader fell out of the window
   * @throws the query's error
   */
  async next(reader: TailReader, version: number, most: number): Promise<TailRead | undefined> {
    while (this.#read < version) {
      if (this.#window === undefined || !this.#window.covers(reader.through)) return undefined;
      // A full batch need not wait.
      if (this.#window.after(reader.through, most).events.length === most) break;
      await (this.#reading ??= this.#readOn().finally(() => (this.#reading = undefined)));
    }
    const window = this.#window;
    if (window?.covers(reader.through) !== true) return undefined;
    const { events, all } = window.after(reader.through, most);
    reader.through = events.at(-1)?.position ?? reader.through;
    let least = reader.through;
    for (const { through } of this.#readers) if (through < least) least = through;
    window.passed(least);
    return { events, all: all && this.#read >= version };
  }

  async #readOn(): Promise<void> {
    const window = this.#window;
    const version = this.#version();
    if (window === undefined || this.#at === undefined) return;
    const { events, all } = await this.#query(this.#at);
    // All readers left meanwhile, and others came.
    if (window !== this.#window) return;
    for (const event of events) window.push(event);
    this.#at = events.at(-1)?.position ?? this.#at;
    if (all) this.#read = version;
  }
}
