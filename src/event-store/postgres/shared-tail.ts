import type { Position, StoredEvent } from '../event-store.js';
import { EventWindow } from '../event-window.js';

/** What a query of the tail answers; `all`: nothing more was in the log. */
export interface TailRead {
  readonly events: readonly StoredEvent[];
  readonly all: boolean;
}

/** A feed at the log's end. */
export interface TailReader {
  /** Everything at or before it was delivered. */
  through: Position;
}

/**
 * The end of the log, read once for all feeds of a process: when the log grows, the first feed that asks reads on, and the others are handed
 * the same events, the same objects. It reads only when it is asked.
 */
export class SharedTail {
  readonly #query: (after: Position) => Promise<TailRead>;
  /** Changes whenever the log may have grown. */
  readonly #version: () => number;
  readonly #readers = new Set<TailReader>();
  #window: EventWindow | undefined;
  #at: Position | undefined;
  /** The log was read to its end after this version was seen. */
  #read = -1;
  #reading: Promise<void> | undefined;

  constructor(query: (after: Position) => Promise<TailRead>, version: () => number) {
    this.#query = query;
    this.#version = version;
  }

  /** A place for a feed that has read everything up to `through`; undefined when the tail no longer reaches back that far. It must leave again. */
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
   * What comes after the reader's place, up to everything that was in the log at a version.
   * @returns undefined when the reader fell out of the window
   * @throws what the query throws
   */
  async next(reader: TailReader, version: number, most: number): Promise<TailRead | undefined> {
    while (this.#read < version) {
      if (this.#window === undefined || !this.#window.covers(reader.through)) return undefined;
      // A full batch waits for nothing.
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
    // All of them left meanwhile, and others came.
    if (window !== this.#window) return;
    for (const event of events) window.push(event);
    this.#at = events.at(-1)?.position ?? this.#at;
    if (all) this.#read = version;
  }
}
