import { debuglog } from 'node:util';

/** Shown with NODE_DEBUG=threadlog. */
const debug = debuglog('threadlog');

/**
 * Waits for work whose failure nobody needs to know. This is the only way to swallow an error. Not for a failure that changes an answer, a
 * stored value or the next step.
 * @param why the reason why the failure may be ignored
 * @returns the result of the work; undefined when it failed
 */
export async function ignoreFailure<T>(work: PromiseLike<T> | undefined, why: string): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    debug('ignored, since %s: %s', why, error instanceof Error ? error.message : String(error));
    return undefined;
  }
}
