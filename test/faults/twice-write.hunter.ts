import type { Aggregate, DomainEvent } from '../../src/event-store/aggregate.js';
import type { EventStore } from '../../src/event-store/event-store.js';
import { openEventStoreDbEventStore } from '../../src/event-store/eventstoredb/eventstoredb-event-store.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { Transactor } from '../../src/commands/transactor.js';
import { systemClock } from '../../src/clock.js';
import { ThreadlogError } from '../../src/errors.js';
import { derivedId, randomIds, type Ids } from '../../src/ids.js';

/** What exactly-once rests on: the commands that the log remembers, or (planted, and wrong) the ids of events alone. */
export type Memory = 'commands' | 'event ids';

export interface HuntCommand {
  readonly streamId: string;
  readonly commandId: string;
  /** How many events it writes, in one append. */
  readonly events: number;
}

export interface HuntAnswer {
  readonly outcome: 'appended' | 'repeated' | 'unchanged';
  readonly revision: number;
}

/** Carries commands out on a log, as any process of Threadlog would. */
export interface Hunter {
  readonly store: EventStore;
  /** One attempt. @throws ThreadlogError */
  once(command: HuntCommand): Promise<HuntAnswer>;
  /** As a client with an Idempotency-Key does: the same command again until it is answered. */
  untilAnswered(command: HuntCommand): Promise<HuntAnswer>;
  close(): Promise<void>;
}

/** A decision that always writes, so that nothing but the memory of commands can keep it from being done twice. */
interface Written extends DomainEvent {
  readonly type: 'Written';
  readonly data: { readonly part: number };
}

// No projection reads streams of this kind, so the events do no harm in a log that others use too.
const KIND = 'head';
const written: Aggregate<{ readonly events: number }, Written> = {
  kind: KIND,
  codec: { versions: { Written: 1 }, sealed: {}, decode: (_type, _version, data) => ({ type: 'Written', data: data as Written['data'] }) },
  initial: { events: 0 },
  evolve: ({ events }) => ({ events: events + 1 }),
};

export async function openHunter(options: {
  readonly adapter: 'postgres' | 'eventstoredb';
  readonly url: string;
  readonly organizationId: string;
  readonly memory: Memory;
}): Promise<Hunter> {
  const { adapter, url, organizationId, memory } = options;
  const store = await (adapter === 'postgres' ? openPostgresEventStore({ url }) : openEventStoreDbEventStore({ url }));
  // Set when a command is decided and used before anything else can run: its events are stored under ids that a retry finds again.
  let upcoming: string[] = [];
  const ids: Ids = memory === 'commands' ? randomIds : { next: () => upcoming.shift() ?? randomIds.next() };
  const transactor = new Transactor(memory === 'commands' ? store : forgetful(store), systemClock, ids, {
    find: () => Promise.resolve(undefined),
    save: () => Promise.reject(new Error('every command of the hunt appends')),
  });

  const once = async ({ streamId, commandId, events }: HuntCommand): Promise<HuntAnswer> => {
    const context = {
      organizationId,
      actor: { type: 'system', id: 'hunt' },
      commandId,
      requestHash: '',
      correlationId: commandId,
    } as const;
    const { outcome, revision } = await transactor.transact(written, streamId, context, () => {
      upcoming = Array.from({ length: events }, (_, part) => derivedId('event', commandId, String(part)));
      return Array.from({ length: events }, (_, part) => ({ type: 'Written', data: { part } }) as const);
    });
    return { outcome, revision };
  };
  return {
    store,
    once,
    async untilAnswered(command) {
      for (const until = performance.now() + 60_000; ;) {
        try {
          return await once(command);
        } catch (error) {
          if (!mayBeRepeated(error) || performance.now() > until) throw error;
        }
      }
    },
    close: () => store.close(),
  };
}

/** Errors that ask the client to come again with the same key. */
export function mayBeRepeated(error: unknown): error is ThreadlogError {
  return error instanceof ThreadlogError && ['outcome_unknown', 'store_unavailable', 'concurrent_changes'].includes(error.code);
}

/** A log in which no command is recognized: each event that is read names another one. */
function forgetful(store: EventStore): EventStore {
  return {
    log: store.log,
    append: (stream, expected, events, deadline) => store.append(stream, expected, events, deadline),
    appendInOrder: (appends, deadline) => store.appendInOrder(appends, deadline),
    async *read(stream, options) {
      for await (const batch of store.read(stream, options))
        yield batch.map((event) => ({
          ...event,
          metadata: JSON.stringify({ ...(JSON.parse(event.metadata) as object), commandId: randomIds.next() }),
        }));
    },
    head: () => store.head(),
    feed: (after, options) => store.feed(after, options),
    close: () => store.close(),
  };
}
