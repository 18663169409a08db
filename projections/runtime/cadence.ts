/** Pauses between batches (ms). A batch of 20 events costs three to four times as much per event as one of 5,000, so load is worth a wait. */
const SHORTEST = 3;
/** Of a group that knows how many commands are in flight beside it. */
const LONGEST = 100;
/** Of a group that knows only what arrives: it cannot tell half load from full load, and at half load a row must be visible within 50 ms. */
const LONGEST_ALONE = 25;
/** Commands in flight from which on the pause grows; twice as many make it the longest. */
const BUSY = 16;
/** How often a long pause looks whether the load is still there (ms): a moment's crowd, behind a slow disk for one, is no load. */
const LOOK = 10;
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

  /**
   * Rests after a batch of so many events, for as long as the load is worth it.
   * @param wait for so many ms, or until the signal
   */
  async rest(events: number, signal: AbortSignal, wait: (ms: number, signal: AbortSignal) => Promise<void>): Promise<void> {
    const began = this.now();
    let wanted = this.pause(events);
    for (let left = wanted; left > 0 && !signal.aborted; left = wanted - (this.now() - began)) {
      await wait(Math.min(left, LOOK), signal);
      if (this.inFlight !== undefined) wanted = Math.min(wanted, forCommands(this.inFlight()));
    }
  }

  /** The pause after a batch of so many events, in ms, as far as can be told at its beginning. */
  pause(events: number): number {
    const now = this.now();
    const elapsed = Math.max(now - this.#since, 1);
    this.#since = now;
    if (this.inFlight !== undefined) return forCommands(this.inFlight());
    // Weighted by time, so that neither many small batches nor one large one decides: a second ago counts for a third.
    const weight = 1 - Math.exp(-elapsed / 1_000);
    this.#rate += ((events / elapsed) * 1_000 - this.#rate) * weight;
    return between(SHORTEST, this.#rate / RATE_PER_MS, LONGEST_ALONE);
  }
}

function forCommands(inFlight: number): number {
  return between(SHORTEST, SHORTEST + ((inFlight - BUSY) / BUSY) * (LONGEST - SHORTEST), LONGEST);
}

function between(least: number, value: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
