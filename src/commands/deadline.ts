import { setMaxListeners } from 'node:events';

/** Every command is answered within this time, possibly with outcome_unknown. */
const DEADLINE_MS = 10_000;

let shared: { readonly signal: AbortSignal; readonly until: number } | undefined;

/**
 * The deadline of a command that begins now. One timer serves all commands of half a second, since a timer for each command would cost more
 * than the rest of the protocol.
 */
export function commandDeadline(): AbortSignal {
  const now = performance.now();
  if (shared === undefined || now > shared.until) {
    shared = { signal: AbortSignal.timeout(DEADLINE_MS), until: now + 500 };
    // All commands of half a second may listen to the signal; each removes its listener again.
    setMaxListeners(0, shared.signal);
  }
  return shared.signal;
}
