import { debuglog } from 'node:util';

/** Shown with NODE_DEBUG=threadlog. */
const debug = debuglog('threadlog');

/**
 * Waits for work that may fail without anybody having to hear of it: the only way to swallow an error. Not for a failure that changes what
 * is answered, stored or done next.
 * @param why the failure may be ignored
 * @returns what the work gives; undefined when it failed
 */
export async function ignoreFailure<T>(work: PromiseLike<T> | undefined, why: string): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    debug('ignored, since %s: %s', why, error instanceof Error ? error.message : String(error));
    return undefined;
  }
}
