import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for so many ms, or until the signal fires, which is no error. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return;
  // All commands of half a second share a deadline; Node takes eleven that wait for one signal for a leak, and says so.
  setMaxListeners(0, signal);
  try {
    await sleep(ms, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
