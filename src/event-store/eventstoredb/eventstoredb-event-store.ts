import { randomUUID } from 'node:crypto';
import { pause } from '../../pause.js';
import { appendEach, assertAppendable, OutcomeUnknown, StoreUnavailable } from '../event-store.js';
import type { Append, Appended, EventStore, Expected, FeedBatch, NewEvent, Position, StoredEvent, StreamName } from '../event-store.js';
import { acknowledged } from './acknowledged.js';
import { BatchAppends } from './batch-appends.js';
import { CatchUp } from './catch-up.js';
import { GuardedClient } from './guarded-client.js';
import { SharedSubscription } from './shared-subscription.js';
import { readPage } from './stream-reads.js';
import { untilAborted } from './until-aborted.js';
import {
  assertPosition,
  IDENTITY_STREAM,
  lastEventsRequest,
  ORIGIN,
  proposeEvents,
  serverStreamName,
  streamReadRequest,
} from './wire-format.js';

const READ_BATCH = 500;
const OPEN_MS = 10_000;
/** How long head() may take (ms). The server searches all foreign events after Threadlog's last event, which may be many. */
const HEAD_MS = 10_000;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 500;
/** Revisions are int64 on the server, but a JavaScript number here. */
const LAST_REVISION = Number.MAX_SAFE_INTEGER;

/** How to reach EventStoreDB, and how to warn operators. */
export interface EventStoreDbEventStoreOptions {
  /** An EventStoreDB connection string: `esdb://user:password@host:2113?tls=true`, with commas between several nodes of a cluster. */
  readonly url: string;
  /** Gets a sentence for a feed that cannot go on for now. */
  readonly onWarning?: (warning: string) => void;
}

/**
 * Opens Threadlog's log in an EventStoreDB, and gives it its identity when it is new.
 * @throws StoreUnavailable when the server cannot be reached within ten seconds or denies access
 * @throws Error when the connection string cannot be used or the server is too old
 */
export async function openEventStoreDbEventStore(options: EventStoreDbEventStoreOptions): Promise<EventStore> {
  const client = new GuardedClient(options.url);
  try {
    const deadline = AbortSignal.timeout(OPEN_MS);
    await client.assertServer(deadline);
    const appends = new BatchAppends(client);
    const id = await identify(client, appends, deadline);
    const store = new EventStoreDbEventStore(client, appends, id, options.onWarning ?? (() => undefined));
    // Reading $all needs separate rights. A refusal is better seen here than in a feed, which takes it for a dropped subscription.
    await store.head();
    return store;
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** Reads or makes the log's identity. Any number of processes may open a new log at once: the stream's first event wins for all of them. */
async function identify(client: GuardedClient, appends: BatchAppends, deadline: AbortSignal): Promise<string> {
  for (;;) {
    const { events } = await readPage(client, streamReadRequest(IDENTITY_STREAM, 0, 1, false), deadline);
    const found = events[0];
    if (found) return (JSON.parse(found.data) as { id: string }).id;
    const event = { id: randomUUID(), type: 'LogOpened', data: JSON.stringify({ id: randomUUID() }), metadata: '{}' };
    const answer = await appends.send(await client.connected(deadline), IDENTITY_STREAM, 'none', proposeEvents([event]));
    if (answer.kind === 'refused') throw new StoreUnavailable(answer.reason);
  }
}

class EventStoreDbEventStore implements EventStore {
  readonly log: { readonly adapter: 'eventstoredb'; readonly id: string };
  readonly #client: GuardedClient;
  readonly #appends: BatchAppends;
  readonly #shared: SharedSubscription;
  readonly #stuck: (times: number, error: unknown) => void;
  readonly #closing = new AbortController();
  /** The end of each stream's queue. Without the queues, concurrent appends would overtake each other on the server. */
  readonly #queues = new Map<StreamName, Promise<void>>();

  constructor(client: GuardedClient, appends: BatchAppends, id: string, onWarning: (warning: string) => void) {
    this.log = { adapter: 'eventstoredb', id };
    this.#client = client;
    this.#appends = appends;
    this.#stuck = (times, error) => {
      if (times === 5) onWarning(`a feed of the log cannot read on: ${error instanceof Error ? error.message : String(error)}`);
    };
    this.#shared = new SharedSubscription(client, id, this.#stuck);
  }

  async append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    assertAppendable(stream, expected, events);
    const before = this.#queues.get(stream);
    const mine = before
      ? untilAborted(before, deadline).then(() => this.#appendNow(stream, expected, events, deadline))
      : this.#appendNow(stream, expected, events, deadline);
    // An append that gave up waiting must not let the next append overtake the one before it.
    const over = Promise.allSettled([before, mine]).then(() => undefined);
    this.#queues.set(stream, over);
    try {
      const answer = await mine;
      if (answer.outcome === 'appended') acknowledged.note(this.log.id, answer.position);
      return answer;
    } finally {
      void over.then(() => this.#queues.get(stream) === over && this.#queues.delete(stream));
    }
  }

  /** Each append waits for the one before, since the server keeps no order between concurrent appends and an append has only one stream. */
  appendInOrder(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]> {
    return appendEach(this, appends, deadline);
  }

  async *read(
    stream: StreamName,
    options: { from?: number; to?: number; backwards?: boolean; limit?: number } = {},
  ): AsyncGenerator<readonly StoredEvent[]> {
    const { backwards = false, limit = Infinity } = options;
    let from = Math.max(options.from ?? 0, 0);
    let to = Math.min(options.to ?? LAST_REVISION, LAST_REVISION);
    let left = limit;
    while (from <= to && left > 0) {
      const count = Math.min(READ_BATCH, left, to - from + 1);
      const start = backwards ? (to === LAST_REVISION ? 'end' : to) : from;
      const page = await readPage(this.#client, streamReadRequest(serverStreamName(stream), start, count, backwards));
      const events = backwards ? page.events.filter((event) => event.revision >= from) : page.events;
      const last = events.at(-1);
      if (!last) return;
      yield events;
      if (!page.cut && page.events.length < count) return;
      left -= events.length;
      if (backwards) to = last.revision - 1;
      else from = last.revision + 1;
    }
  }

  /**
   * The position of Threadlog's last event, not the end of $all: feeds report no foreign positions, so a wait for one would never end.
   * @throws StoreUnavailable
   */
  async head(): Promise<Position | 'start'> {
    const { events } = await readPage(this.#client, lastEventsRequest(1), undefined, HEAD_MS);
    const last = events[0]?.position;
    if (last) acknowledged.note(this.log.id, last);
    return last ?? 'start';
  }

  async *feed(after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }): AsyncGenerator<FeedBatch> {
    const { maxEvents } = options;
    const signal = AbortSignal.any([options.signal, this.#closing.signal]);
    if (after !== 'start') assertPosition(after);
    let through = after === 'start' ? ORIGIN : after;
    // The position to go on from, beyond `through` when foreign events follow. Such positions stay in here, since head() never answers one.
    let position = through;
    let saidCaughtUp = false;
    while (!signal.aborted) {
      if (!this.#shared.covers(position)) {
        const catchUp = new CatchUp(this.#client, position, maxEvents, this.#stuck);
        try {
          for (;;) {
            const found = await catchUp.next(signal);
            if (!found) return;
            position = found.position;
            const last = found.events.at(-1);
            // Near the end. Only the shared subscription can tell that this is the end, since its readers never hold it up.
            if (!last) break;
            through = last.position;
            saidCaughtUp = false;
            yield { events: found.events, through, caughtUp: false };
            if (this.#shared.covers(position)) break;
          }
        } finally {
          catchUp.end();
        }
      }
      const seat = this.#shared.join(position);
      if (!seat) continue;
      try {
        for (;;) {
          const news = await this.#shared.next(position, maxEvents, !saidCaughtUp, signal);
          if (!news) return;
          if (news === 'lagging') break;
          const last = news.events.at(-1);
          if (last) position = through = last.position;
          saidCaughtUp = news.caughtUp;
          yield { events: news.events, through, caughtUp: news.caughtUp };
        }
      } finally {
        seat.leave();
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#shared.close();
    this.#appends.close();
    await this.#client.close();
  }

  /** Sends the events, reads after an unclear outcome, sends the same bytes again if nothing was written, and so on until the deadline. */
  async #appendNow(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    const proposed = proposeEvents(events);
    let sent = false;
    let reason = 'the deadline passed';
    for (let pauseMs = 0; !deadline.aborted && !this.#client.closed; pauseMs = longer(pauseMs)) {
      if (pauseMs > 0) await pause(pauseMs, deadline);
      const resent = sent;
      try {
        if (resent) {
          const settled = await this.#look(stream, expected, events, deadline);
          if (settled) return settled;
        }
        const connection = await this.#client.connected(deadline);
        sent = true;
        const answer = await untilAborted(this.#appends.send(connection, serverStreamName(stream), expected, proposed), deadline);
        if (!answer) break;
        // The position belongs to this answer. Only the events themselves show whether a resend or an earlier attempt wrote them.
        if (answer.kind === 'written' && answer.position && !resent)
          return { outcome: 'appended', revision: answer.revision, position: answer.position };
        if (answer.kind === 'refused' && !resent) return refuse(answer.reason);
        if (answer.kind === 'written' || answer.kind === 'wrong-revision') {
          const settled = await this.#look(stream, expected, events, deadline);
          if (settled) return settled;
          // No event is in the place of these events, so the stream ends before the expected revision.
          if (answer.kind === 'wrong-revision') return { outcome: 'conflict', actual: await this.#lastRevision(stream, deadline) };
        } else reason = answer.reason;
      } catch (error) {
        if (!(error instanceof StoreUnavailable) || error instanceof Refused) throw error;
        reason = error.message;
      }
    }
    throw sent ? new OutcomeUnknown(reason) : new StoreUnavailable(reason);
  }

  /**
   * Reads the place of these events in the stream: it holds the events themselves, other events (then these can never be written), or
   * nothing yet. The server's conflict is not enough: it also answers a resend of written events, and does not say whose events it found.
   */
  async #look(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended | undefined> {
    const from = expected === 'none' ? 0 : expected + 1;
    const request = streamReadRequest(serverStreamName(stream), from, events.length, false);
    const { events: found } = await readPage(this.#client, request, deadline);
    const last = found.at(-1);
    if (!last) return undefined;
    if (found.length === events.length && found.every((event, i) => event.id === events[i]?.id))
      return { outcome: 'appended', revision: last.revision, position: last.position };
    return { outcome: 'conflict', actual: await this.#lastRevision(stream, deadline) };
  }

  async #lastRevision(stream: StreamName, deadline: AbortSignal): Promise<Expected> {
    const { events } = await readPage(this.#client, streamReadRequest(serverStreamName(stream), 'end', 1, true), deadline);
    return events[0]?.revision ?? 'none';
  }
}

/** The append was certainly not written, and another attempt would not help. */
class Refused extends StoreUnavailable {}

function refuse(reason: string): never {
  throw new Refused(reason);
}

const longer = (pauseMs: number): number => Math.min(Math.max(FIRST_PAUSE_MS, 2 * pauseMs), LONGEST_PAUSE_MS);
