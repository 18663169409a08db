import { ThreadlogError } from '../errors.js';

/** A client that takes nothing for so long (ms) is gone, or keeps a place from others. */
const PATIENCE_MS = 60_000;

/** Places of long answers that are sent as they are made. */
export class StreamPlaces {
  /** How each running answer is cut, by whose place it has. */
  readonly #running = new Map<string, Set<() => void>>();

  /**
   * @param most answers at once with the same `whose`
   * @param full what a client is told that finds no place
   */
  constructor(
    private readonly most: number,
    private readonly full: string,
  ) {}

  /** How many answers run now. */
  get running(): number {
    return [...this.#running.values()].reduce((sum, those) => sum + those.size, 0);
  }

  /**
   * Hands on what a maker makes, as long as somebody takes it.
   * @param cut ends the connection to a client that stopped reading
   * @throws ThreadlogError rate_limited
   */
  async *hold<T>(whose: string, cut: () => void, made: AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
    const those = this.#running.get(whose) ?? new Set();
    if (those.size >= this.most) throw new ThreadlogError('rate_limited', this.full, { retryAfterSeconds: 5 });
    this.#running.set(whose, those.add(cut));
    let waiting: NodeJS.Timeout | undefined;
    try {
      for await (const one of made) {
        waiting = setTimeout(cut, PATIENCE_MS);
        yield one;
        clearTimeout(waiting);
      }
    } finally {
      clearTimeout(waiting);
      those.delete(cut);
      if (those.size === 0) this.#running.delete(whose);
    }
  }

  /** Ends all of them. Otherwise a server that shuts down would wait for the slowest client. */
  cutAll(): void {
    for (const those of this.#running.values()) for (const cut of those) cut();
  }
}
