/** The time, injected so that tests move it instead of sleeping. */
export interface Clock {
  /** Milliseconds since 1970, UTC. */
  now(): number;
}
export const CLOCK = Symbol('Clock');
export const systemClock: Clock = { now: Date.now };
