import { StoreUnavailable, type StreamName } from '../event-store/event-store.js';

/** Runs one command at a time on each stream, so that this process never races itself. */
export class StreamQueue {
  /** The last command of each stream that is being handled. */
  private readonly last = new Map<StreamName, Promise<unknown>>();

  /**
   * Runs a task once every earlier task of the stream has ended.
   * @throws StoreUnavailable when the deadline passed before the task's turn; the task did not run then
   */
  run<T>(stream: StreamName, deadline: AbortSignal, task: () => Promise<T>): Promise<T> {
    const before = this.last.get(stream);
    const run = before === undefined ? task() : turn(before, deadline).then(task);
    // A task that gave up waiting must still hold back later tasks until the earlier one has ended.
    const settled = (before === undefined ? run : Promise.all([before, run])).then(
      () => undefined,
      () => before,
    );
    this.last.set(stream, settled);
    void settled.then(() => {
      if (this.last.get(stream) === settled) this.last.delete(stream);
    });
    return run;
  }
}

/** Waits for the previous command on the stream, at most until the deadline. */
async function turn(before: Promise<unknown>, deadline: AbortSignal): Promise<void> {
  if (deadline.aborted) throw new StoreUnavailable('the deadline passed');
  let passed = () => undefined as void;
  const late = new Promise<never>((_, reject) => {
    passed = () => reject(new StoreUnavailable('the deadline passed behind other commands on the stream'));
    deadline.addEventListener('abort', passed);
  });
  try {
    await Promise.race([before, late]);
  } finally {
    deadline.removeEventListener('abort', passed);
  }
}
