/** Pauses between batches (ms). A batch of 20 events costs three to four times as much per event as one of 5,000, so load is worth a wait. */
const SHORTEST = 3;
/** Of a group that knows how many commands are in flight beside it. */
const LONGEST = 100;
/** Of a group that knows only what arrives: it cannot tell half load from full load, and at half load a row must be visible within 50 ms. */
const LONGEST_ALONE = 25;
/** Commands in flight from which on the pause grows; twice as many make it the longest. */
const BUSY = 16;
/** Events per second for each millisecond of pause, when only the rate is known. */
const RATE_PER_MS = 100;

/** How long a group that has caught up waits before it asks for more, so that the next batch is worth its transaction. */
export class Cadence {
  #rate = 0;
  #since: number;

  /**
   * @param inFlight commands in flight in this process; absent in a worker that runs beside no API
   * @param now milliseconds of a clock that never goes back
   */
  constructor(
    private readonly inFlight: (() => number) | undefined,
    private readonly now: () => number,
  ) {
    this.#since = now();
  }

  /** The pause after a batch of so many events, in ms. */
  pause(events: number): number {
    const now = this.now();
    const elapsed = Math.max(now - this.#since, 1);
    this.#since = now;
    if (this.inFlight !== undefined) return between(SHORTEST, SHORTEST + ((this.inFlight() - BUSY) / BUSY) * (LONGEST - SHORTEST), LONGEST);
    // Weighted by time, so that neither many small batches nor one large one decides: a second ago counts for a third.
    const weight = 1 - Math.exp(-elapsed / 1_000);
    this.#rate += ((events / elapsed) * 1_000 - this.#rate) * weight;
    return between(SHORTEST, this.#rate / RATE_PER_MS, LONGEST_ALONE);
  }
}

function between(least: number, value: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
