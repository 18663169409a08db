import { pause } from '../../src/pause.js';

/** Ends a wait early. A call between two waits is not lost: the next wait ends at once, unless seen() comes before it. */
export class WakeUp {
  #called = false;
  #end: () => void = () => undefined;

  call(): void {
    this.#called = true;
    this.#end();
  }

  /** What was called for until now is being looked at. To be called before the look, so that a call during it is not lost. */
  seen(): void {
    this.#called = false;
  }

  /** Waits for a call, the signal or so many ms. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#called) return;
    const waiting = new AbortController();
    this.#end = () => waiting.abort();
    await pause(ms, AbortSignal.any([signal, waiting.signal]));
    this.#end = () => undefined;
  }
}
