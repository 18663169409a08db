/**
 * How much of a fault test is run: a little by default, or as much as about FAULT_MINUTES minutes hold.
 * @param short kills, commands or rounds of a default run
 * @param aMinute about how many of them a machine with two cores does in a minute
 */
export function asLongAsAsked(short: number, aMinute: number): number {
  return Math.max(short, Math.round(aMinute * MINUTES));
}

const MINUTES = Number(process.env['FAULT_MINUTES'] ?? 0) || 0;

/** For the time limit of a test: what it may take by default, and what it may take as it is run (ms). */
export function timeLimit(shortMs: number): number {
  // A loaded machine is several times slower, and that is no fault.
  return shortMs + MINUTES * 60_000 * 4;
}
