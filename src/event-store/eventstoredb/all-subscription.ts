import type { ReadResp } from '@eventstore/db-client/generated/streams_pb.js';
import { pause } from '../../pause.js';
import type { Position, StoredEvent } from '../event-store.js';
import { connectionIsDoubtful } from './guarded-client.js';
import type { GuardedClient } from './guarded-client.js';
import { readPage } from './stream-reads.js';
import { lastEventsRequest, subscriptionRequest, toPosition, toStoredEvent } from './wire-format.js';
import type { ReadCall } from './wire-format.js';

/** Is called synchronously, in log order. */
export interface SubscriptionListener {
  event(event: StoredEvent): void;
  /** The server read up to here and found no more events of Threadlog. A place to resume from, but no news for readers. */
  passed(position: Position): void;
  /** True: the log has no more events. False: there may be more, or the subscription was dropped. */
  caughtUp(now: boolean): void;
  /** The subscription was dropped this many times in a row without any progress in between. */
  stuck(times: number, error: unknown): void;
}

const CONFIRMATION_MS = 5_000;
/** After this silence (ms), a read checks whether the server has events that it did not send. */
const SILENCE_MS = 5_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/**
 * Delivers Threadlog's events after a position until it is stopped. Drops (for slowness, by a restart, by a broken connection) are normal:
 * it subscribes again after the last event that it delivered, so that its listener sees neither a gap nor an event twice.
 */
export class AllSubscription {
  readonly #client: GuardedClient;
  readonly #listener: SubscriptionListener;
  readonly #ended = new AbortController();
  #after: Position;
  #call: ReadCall | undefined;
  #paused = false;
  #dropsInARow = 0;

  constructor(client: GuardedClient, after: Position, listener: SubscriptionListener) {
    this.#client = client;
    this.#after = after;
    this.#listener = listener;
    void this.#run();
  }

  /** Stops reading from the server, which then stops sending after a window's worth. A few events that were already read still come. */
  pause(): void {
    this.#paused = true;
    this.#call?.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#call?.resume();
  }

  end(): void {
    this.#ended.abort();
    this.#call?.cancel();
  }

  async #run(): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted && !this.#client.closed) {
      let error: unknown;
      try {
        const connection = await this.#client.connected(signal);
        error = await this.#follow(connection.read(subscriptionRequest(this.#after), Infinity));
        if (connectionIsDoubtful(error)) this.#client.giveUp(connection);
      } catch (failure) {
        error = failure;
      }
      if (signal.aborted) return;
      this.#listener.caughtUp(false);
      if (this.#dropsInARow > 0) this.#listener.stuck(this.#dropsInARow, error);
      await pause(Math.min(this.#dropsInARow * FIRST_PAUSE_MS, LONGEST_PAUSE_MS), signal);
      this.#dropsInARow++;
    }
  }

  /** @returns why the subscription was dropped. A drop emits one error, but neither end nor close, so waiting for those is not enough. */
  #follow(call: ReadCall): Promise<unknown> {
    this.#call = call;
    let heard = false;
    return new Promise((resolve) => {
      const over = (error?: unknown): void => {
        clearTimeout(confirmation);
        clearInterval(silence);
        call.cancel();
        resolve(error);
      };
      // Nothing else detects a server that took the request and froze, or a subscription that the server forgot.
      const confirmation = setTimeout(() => heard || this.#paused || over(doubtful('was not confirmed')), CONFIRMATION_MS);
      const silence = setInterval(() => {
        if (!heard && !this.#paused) this.#missesNothing().then((fine) => fine || heard || over(doubtful('has fallen silent')), over);
        heard = false;
      }, SILENCE_MS);
      call.on('data', (response: ReadResp) => {
        heard = true;
        if (this.#ended.signal.aborted) return;
        try {
          this.#tell(response);
        } catch (error) {
          over(error);
        }
      });
      call.on('error', over);
      call.on('end', over);
      if (this.#paused) call.pause();
    });
  }

  /** Checks by a read. A read without an answer gives up the connection, which ends the subscription as well. */
  async #missesNothing(): Promise<boolean> {
    const { events } = await readPage(this.#client, lastEventsRequest(1), this.#ended.signal);
    const last = events[0];
    return !last || last.position <= this.#after;
  }

  #tell(response: ReadResp): void {
    const record = response.getEvent()?.getEvent();
    if (record) {
      const event = toStoredEvent(record);
      if (event.position <= this.#after) return;
      this.#after = event.position;
      this.#dropsInARow = 0;
      this.#listener.event(event);
      return;
    }
    const checkpoint = response.getCheckpoint();
    if (checkpoint) {
      const position = toPosition(checkpoint.getCommitPosition(), checkpoint.getPreparePosition());
      // Some servers report 2^64-1 or a lower position than before. Trusting either would lose or repeat events.
      if (position === undefined || position <= this.#after) return;
      this.#after = position;
      this.#dropsInARow = 0;
      this.#listener.passed(position);
      return;
    }
    if (response.hasCaughtUp()) {
      this.#dropsInARow = 0;
      this.#listener.caughtUp(true);
    } else if (response.hasFellBehind()) this.#listener.caughtUp(false);
  }
}

/** Makes an error with the gRPC code of a missed deadline, which marks the connection as doubtful. */
function doubtful(what: string): Error {
  return Object.assign(new Error(`a subscription ${what}`), { code: 4 });
}
