import { setTimeout as sleep } from 'node:timers/promises';
import { isPassing } from './dialogue-import.js';
import { CommandFailed } from './command.js';

/** How long an import waits for a store that is away (ms) before it gives up; another run continues it. */
const PATIENCE_MS = 60_000;

/** Retries repeatable work while a store is away for a moment. */
export function patience(signal: AbortSignal): <T>(work: () => Promise<T>) => Promise<T> {
  return async (work) => {
    const until = performance.now() + PATIENCE_MS;
    for (let pause = 100; ; pause = Math.min(pause * 2, 3_000)) {
      try {
        return await work();
      } catch (error) {
        if (!isPassing(error) || signal.aborted) throw error;
        const why = error instanceof Error ? error.message : String(error);
        if (performance.now() > until) throw new CommandFailed(`gave up: ${why}; run it again to go on`, { cause: error });
        await sleep(pause, undefined, { signal });
      }
    }
  };
}
