import { setMaxListeners } from 'node:events';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';

/** Waits for a time, or until the signal fires, if there is one, which is no error. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (ms <= 0 || signal?.aborted === true) return;
  if (signal === undefined) return await sleep(ms);
  // All commands of half a second share a deadline, and Node warns of a leak when eleven listeners wait on one signal.
  setMaxListeners(0, signal);
  try {
    await sleep(ms, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Lets other work of the process run. */
export const nextTurn = (): Promise<void> => setImmediate();
