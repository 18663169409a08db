/** At this many live events per second a rebuild rests as long as it has worked; at more, it rests longer. */
const EVEN_AT = 200;
/** Longest rest, as a multiple of the work: even under the greatest load a rebuild works a sixth of the time. */
const LONGEST = 5;
/** The load is measured over at least this time (ms): the live generation moves in batches, and between two of them it seems idle. */
const LOOK_MS = 250;
/** From this many live events per second on, a rebuild works in small steps. */
const BUSY = 20;
/** Events of a small step. A row that becomes due during a step waits for its end, which must not take long. */
const SMALL = 250;

/**
 * Decides how much a rebuild writes at once and how long it rests in between, by the number of events that its group's live generation
 * handles meanwhile. PostgreSQL has no priorities among sessions, so only this keeps rows visible in time during a rebuild. An idle log needs
 * neither.
 */
export class RebuildPace {
  #looked: { readonly at: number; readonly events: number } | undefined;
  /** Undefined until it was measured. */
  #perSecond: number | undefined;
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
    if (this.#looked === undefined) this.#looked = { at, events: live };
    else if (at - this.#looked.at >= LOOK_MS || live < this.#looked.events) {
      this.#perSecond = Math.max((live - this.#looked.events) / Math.max(at - this.#looked.at, 1), 0) * 1_000;
      this.#looked = { at, events: live };
    }
    return (at - this.#restedUntil) * Math.min((this.#perSecond ?? 0) / EVEN_AT, LONGEST);
  }

  rested(): void {
    this.#restedUntil = this.now();
  }

  /** How many events to write in the next transaction, and never more than `most`. */
  step(most: number): number {
    return this.#perSecond !== undefined && this.#perSecond < BUSY ? most : Math.min(most, SMALL);
  }
}
