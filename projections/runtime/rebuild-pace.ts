/** Live events per second for which a rebuild rests as long as it has worked; more of them, longer. */
const EVEN_AT = 500;
/** Times the work: even under the greatest load it has a third of its time. */
const LONGEST = 2;

/**
 * How long a rebuild rests between two batches, by what the live generation of its group handles meanwhile. PostgreSQL knows no priority
 * among sessions, so this is what keeps rows visible in time beside a rebuild. Beside an idle log it rests not at all.
 */
export class RebuildPace {
  #looked: { readonly at: number; readonly events: number } | undefined;
  #restedUntil: number;

  /** @param now milliseconds of a clock that never goes back */
  constructor(private readonly now: () => number) {
    this.#restedUntil = now();
  }

  /**
   * The rest after a batch, in ms; rested() is to be called after it.
   * @param live events that the live generation has handled so far; a number that falls is that of another generation, and asks no rest
   */
  rest(live: number): number {
    const at = this.now();
    const before = this.#looked ?? { at, events: live };
    this.#looked = { at, events: live };
    const perSecond = ((live - before.events) / Math.max(at - before.at, 1)) * 1_000;
    return (at - this.#restedUntil) * Math.min(Math.max(perSecond / EVEN_AT, 0), LONGEST);
  }

  rested(): void {
    this.#restedUntil = this.now();
  }
}
