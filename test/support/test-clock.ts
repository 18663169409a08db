import type { Clock } from '../../src/clock.js';

/** The real time plus what the test has added: moved, never waited for. */
export class TestClock implements Clock {
  private offset = 0;
  private stopped: number | undefined;

  now(): number {
    return this.stopped ?? Date.now() + this.offset;
  }

  advance(ms: number): void {
    this.offset += ms;
    if (this.stopped !== undefined) this.stopped += ms;
  }

  /** Time stands at this instant (ms) until it is told to go on. */
  stopAt(instant: number): void {
    this.stopped = instant;
  }

  goOn(): void {
    this.stopped = undefined;
  }
}
