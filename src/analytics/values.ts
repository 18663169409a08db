import type { Unit } from './metrics.js';

/** A value as it is answered: durations in seconds, whole to the millisecond; ratings and shares to four decimals. */
export const told = (unit: Unit, value: number): number =>
  unit === 'seconds' ? Math.round(value) / 1_000 : Math.round(value * 10_000) / 10_000;

/** As told(), of a number that PostgreSQL answers as text. */
export const toldText = (unit: Unit, text: string | null): number | null => (text === null ? null : told(unit, Number(text)));
