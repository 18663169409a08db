/** Chance that can be had again: the same seed gives the same choices in the same order. */
export interface SeededRandom {
  readonly seed: number;
  /** A whole number from 0 to below `below`. */
  int(below: number): number;
  pick<T>(from: readonly T[]): T;
}

/** FAULT_SEED, or another one for each run. Print it: it is what a failure is repeated with. */
export function faultSeed(): number {
  const given = process.env['FAULT_SEED'];
  return given === undefined || given === '' ? Math.floor(Math.random() * 2 ** 31) : Number(given);
}

export function seededRandom(seed: number): SeededRandom {
  // Mulberry32: 32 bits of state are plenty for choosing faults.
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (below: number) => Math.floor(next() * below);
  return { seed, int, pick: (from) => from[int(from.length)]! };
}
