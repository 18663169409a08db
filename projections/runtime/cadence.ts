/** Shortest pause between batches (ms). Pauses pay under load: an event in a batch of 20 costs three to four times as much as in 5,000. */
const SHORTEST = 3;
/** Longest pause of a group that knows how many commands are in flight beside it (ms), unless it names another. */
const LONGEST = 100;
/** Longest pause of a group that knows only its events (ms): it cannot tell half load from full, and at half rows are due within 50 ms. */
const LONGEST_ALONE = 25;
/** The pause grows from this many commands in flight on, and is longest at twice as many. */
const BUSY = 16;
/** How often a long pause checks that the load is still there (ms): a short pile-up of commands, such as behind a slow disk, is no load. */
const LOOK = 10;
/** When only the rate is known, the pause gets one millisecond for each of this many events per second. */
const RATE_PER_MS = 100;

/** How long a group that has caught up waits before it asks for more, so that the next batch is worth its transaction. */
export class Cadence {
  #rate = 0;
  #since: number;
  readonly #longest: number;

  /**
   * @param inFlight commands in flight in this process; absent in a worker without an API
   * @param now milliseconds of a clock that never goes back
   * @param longest longest pause (ms), of a group whose rows may be later than those of lists
   */
  constructor(
    private readonly inFlight: (() => number) | undefined,
    private readonly now: () => number,
    longest?: number,
  ) {
    this.#since = now();
    this.#longest = longest ?? (inFlight === undefined ? LONGEST_ALONE : LONGEST);
  }

  /**
   * Rests after a batch of so many events, for as long as the load lasts.
   * @param wait waits for a number of ms, or until the signal
   */
  async rest(events: number, signal: AbortSignal, wait: (ms: number, signal: AbortSignal) => Promise<void>): Promise<void> {
    const began = this.now();
    let wanted = this.pause(events);
    for (let left = wanted; left > 0 && !signal.aborted; left = wanted - (this.now() - began)) {
      await wait(Math.min(left, LOOK), signal);
      if (this.inFlight !== undefined) wanted = Math.min(wanted, forCommands(this.inFlight(), this.#longest));
    }
  }

  /** The pause after a batch of so many events, in ms, as estimated when the pause begins. */
  pause(events: number): number {
    const now = this.now();
    const elapsed = Math.max(now - this.#since, 1);
    this.#since = now;
    if (this.inFlight !== undefined) return forCommands(this.inFlight(), this.#longest);
    // The rate is weighted by time, so that neither many small batches nor a single large one decides it: a second ago counts for a third.
    const weight = 1 - Math.exp(-elapsed / 1_000);
    this.#rate += ((events / elapsed) * 1_000 - this.#rate) * weight;
    return between(SHORTEST, this.#rate / RATE_PER_MS, this.#longest);
  }
}

function forCommands(inFlight: number, longest: number): number {
  return between(SHORTEST, SHORTEST + ((inFlight - BUSY) / BUSY) * (longest - SHORTEST), longest);
}

function between(least: number, value: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
