import {
  type Appended,
  appendEach,
  type EventStore,
  type Expected,
  type NewEvent,
  type StoredEvent,
  type StreamName,
} from '../../src/event-store/event-store.js';

/** What a process meets at its n-th append: it is killed before it or after it, or stands still until it is let go. */
export interface Fault {
  readonly before?: () => Promise<void> | void;
  readonly after?: () => Promise<void> | void;
}

/** The process is dead: nothing of it runs on. */
export class Killed extends Error {}

/** One process's way to a log that others share: every append may meet a fault, and a killed process writes and reads nothing more. */
export class ProcessStore implements EventStore {
  dead = false;

  constructor(
    private readonly shared: EventStore,
    private readonly fault: (stream: StreamName, events: readonly NewEvent[]) => Fault | undefined = () => undefined,
    private readonly pause: () => Promise<void> = () => Promise.resolve(),
  ) {}

  get log() {
    return this.shared.log;
  }

  async append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    this.live();
    await this.pause();
    const fault = this.fault(stream, events);
    await fault?.before?.();
    this.live();
    const answer = await this.shared.append(stream, expected, events, deadline);
    await this.pause();
    await fault?.after?.();
    this.live();
    return answer;
  }

  appendInOrder: EventStore['appendInOrder'] = (appends, deadline) => appendEach(this, appends, deadline);

  async *read(stream: StreamName, options?: Parameters<EventStore['read']>[1]): AsyncGenerator<readonly StoredEvent[]> {
    this.live();
    await this.pause();
    yield* this.shared.read(stream, options);
    this.live();
  }

  head() {
    return this.shared.head();
  }
  feed: EventStore['feed'] = (after, options) => this.shared.feed(after, options);
  close() {
    return Promise.resolve();
  }

  private live(): void {
    if (this.dead) throw new Killed();
  }
}

/** Every event in the log, in its order. */
export async function everything(store: EventStore): Promise<StoredEvent[]> {
  const events: StoredEvent[] = [];
  const head = await store.head();
  if (head === 'start') return events;
  const stop = new AbortController();
  for await (const batch of store.feed('start', { maxEvents: 1_000, signal: stop.signal })) {
    events.push(...batch.events);
    if (batch.through >= head) break;
  }
  stop.abort();
  return events;
}

/**
 * Runs something in a process that is killed at its n-th append, before or after it.
 * @returns true when it lived that long
 */
export async function killedAtAppend(
  shared: EventStore,
  n: number,
  after: boolean,
  run: (store: EventStore) => Promise<unknown>,
): Promise<boolean> {
  let appends = 0;
  const store: ProcessStore = new ProcessStore(shared, () => {
    if (++appends !== n) return undefined;
    const kill = () => {
      store.dead = true;
      throw new Killed();
    };
    return after ? { after: kill } : { before: kill };
  });
  try {
    await run(store);
    return false;
  } catch (error) {
    if (store.dead) return true;
    throw error;
  }
}
