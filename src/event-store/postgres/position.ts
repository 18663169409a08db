import type { Position } from '../event-store.js';

/** The number of digits of the largest bigint, so that positions compare as text. */
const DIGITS = 19;

/** @param number a bigint in decimal, as Postgres writes it */
export function positionOf(number: string): Position {
  return number.padStart(DIGITS, '0') as Position;
}

/** The position before the first event. Postgres can cast a padded decimal as it is. */
export const BEFORE_ALL = positionOf('0');
