import { setMaxListeners } from 'node:events';

/** A command is answered within this time, if only by outcome_unknown. */
const DEADLINE_MS = 10_000;

let shared: { readonly signal: AbortSignal; readonly until: number } | undefined;

/**
 * By when what begins now is answered, if only by outcome_unknown. One timer serves all commands of a half second: a timer each costs more
 * than the rest of the protocol.
 */
export function commandDeadline(): AbortSignal {
  const now = performance.now();
  if (shared === undefined || now > shared.until) {
    shared = { signal: AbortSignal.timeout(DEADLINE_MS), until: now + 500 };
    // Every command of a half second may wait on it; each takes its listener away again.
    setMaxListeners(0, shared.signal);
  }
  return shared.signal;
}
