/**
 * One listener per signal for all who wait on it: all commands of half a second share a deadline, and Node warns of a leak from the
 * eleventh listener on.
 */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls back when the signal fires, or at once if it has fired. @returns a function that removes the callback */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  if (signal.aborted) {
    callback();
    return () => undefined;
  }
  let callbacks = waiting.get(signal);
  if (!callbacks) {
    const all = new Set<() => void>();
    waiting.set(signal, all);
    signal.addEventListener('abort', () => all.forEach((each) => each()), { once: true });
    callbacks = all;
  }
  callbacks.add(callback);
  return () => void callbacks.delete(callback);
}

/** Settles with the promise, or with undefined as soon as the signal fires. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const forget = onAbort(signal, () => resolve(undefined));
    promise.then(
      (value) => {
        forget();
        resolve(value);
      },
      (error: unknown) => {
        forget();
        reject(error);
      },
    );
  });
}
