const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Pauses after a failed attempt (ms): after the first, the second and so on. After one more failure the delivery is given up. */
export const PAUSES: readonly number[] = [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
/** Each pause is longer or shorter by up to this part of it, so that what failed together does not come together. */
export const JITTER = 0.1;
/** The longest pause that a receiver's Retry-After can ask for (ms). */
export const MOST_RETRY_AFTER_MS = 10 * HOUR;
/** An endpoint at which every attempt failed for so long is disabled (ms). */
export const DISABLED_AFTER_MS = 5 * 24 * HOUR;

/**
 * What follows a failed attempt.
 * @param failures 1 for the first failed attempt
 * @param retryAfter the header's value: seconds, or an HTTP date. It never shortens a pause
 * @param now ms
 * @param random from 0 to 1
 */
export function afterAttempt(
  failures: number,
  retryAfter: string | undefined,
  now: number,
  random: number,
): 'give up' | { readonly inMs: number } {
  const pause = PAUSES[failures - 1];
  if (pause === undefined) return 'give up';
  const inMs = pause * (1 - JITTER + 2 * JITTER * random);
  return { inMs: Math.round(Math.max(inMs, Math.min(retryAfterMs(retryAfter, now), MOST_RETRY_AFTER_MS))) };
}

function retryAfterMs(value: string | undefined, now: number): number {
  if (value === undefined) return 0;
  if (/^\s*\d{1,9}\s*$/.test(value)) return Number(value) * SECOND;
  const at = Date.parse(value);
  return Number.isNaN(at) ? 0 : Math.max(0, at - now);
}
