/** At this many live events per second a rebuild rests as long as it has worked; at more, it rests longer. */
const EVEN_AT = 500;
/** Longest rest, as a multiple of the work: even under the greatest load a rebuild works a third of the time. */
const LONGEST = 2;

/**
 * Decides how long a rebuild rests between two batches, by the number of events that its group's live generation handles meanwhile.
 * PostgreSQL has no priorities among sessions, so only these rests keep rows visible in time during a rebuild. An idle log needs no rest.
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
   * @param live events that the live generation has handled so far; when the number falls, the generation has changed, and there is no rest
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
