import { ThreadlogError } from '../errors.js';

/** A client that takes nothing for so long (ms) is gone, or keeps a place from others. */
const PATIENCE_MS = 60_000;

/** So many answers at once, and what a client is told that finds no place. */
interface Most {
  readonly most: number;
  readonly full: string;
}

interface Places {
  /** Of the same `whose`. */
  readonly each: Most;
  /** Of all together, where each of them takes something that the process has few of. */
  readonly all?: Most;
  /** An answer that is not whole after so long (ms) is cut, so that a client that reads slowly does not keep its place. */
  readonly longestMs?: number;
}

/** Places of long answers that are sent as they are made. */
export class StreamPlaces {
  /** How each running answer is cut, by whose place it has. */
  readonly #running = new Map<string, Set<() => void>>();

  constructor(private readonly places: Places) {}

  /** How many answers run now. */
  get running(): number {
    return [...this.#running.values()].reduce((sum, those) => sum + those.size, 0);
  }

  /**
   * Hands on what a maker makes, as long as somebody takes it.
   * @param cut ends the connection to a client that stopped reading, or takes too long
   * @throws ThreadlogError rate_limited
   */
  async *hold<T>(whose: string, cut: () => void, made: AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
    const { each, all, longestMs } = this.places;
    const those = this.#running.get(whose) ?? new Set();
    if (those.size >= each.most) throw new ThreadlogError('rate_limited', each.full, { retryAfterSeconds: 5 });
    if (all !== undefined && this.running >= all.most) throw new ThreadlogError('rate_limited', all.full, { retryAfterSeconds: 5 });
    this.#running.set(whose, those.add(cut));
    const whole = longestMs === undefined ? undefined : setTimeout(cut, longestMs);
    let waiting: NodeJS.Timeout | undefined;
    try {
      for await (const one of made) {
        waiting = setTimeout(cut, PATIENCE_MS);
        yield one;
        clearTimeout(waiting);
      }
    } finally {
      clearTimeout(waiting);
      clearTimeout(whole);
      those.delete(cut);
      if (those.size === 0) this.#running.delete(whose);
    }
  }

  /** Ends all of them. Otherwise a server that shuts down would wait for the slowest client. */
  cutAll(): void {
    for (const those of this.#running.values()) for (const cut of those) cut();
  }
}
