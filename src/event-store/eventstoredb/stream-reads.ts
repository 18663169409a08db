import type { ReadReq, ReadResp } from '@eventstore/db-client/generated/streams_pb.js';
import { pause } from '../../pause.js';
import { StoreUnavailable } from '../event-store.js';
import type { StoredEvent } from '../event-store.js';
import { connectionIsDoubtful } from './guarded-client.js';
import type { GuardedClient } from './guarded-client.js';
import { onAbort, untilAborted } from './until-aborted.js';
import { toStoredEvent } from './wire-format.js';
import type { ReadCall } from './wire-format.js';

export interface Page {
  readonly events: readonly StoredEvent[];
  /** True when the page ended early because of its size; the rest is read from the next revision. */
  readonly cut: boolean;
}

const PAGE_BYTES = 4_000_000;
const READ_MS = 5_000;
/** How long a read waits for a server that is away (ms): long enough for a restart; an outage is reported. */
const AWAY_MS = 3_000;
const ATTEMPTS = 4;
const RETRY_PAUSE_MS = 100;

/**
 * One read with a time limit. The client sets none for reads, and a frozen server would hold a read for ever. A broken read is tried again
 * on a new connection, since reading twice is harmless.
 * @param signal ends the read earlier
 * @throws StoreUnavailable
 */
export async function readPage(client: GuardedClient, request: ReadReq, signal?: AbortSignal, limitMs = READ_MS): Promise<Page> {
  const limit = new AbortController();
  const end = (): void => limit.abort();
  const away = setTimeout(() => client.current ?? end(), AWAY_MS);
  const timer = setTimeout(end, limitMs);
  const forget = signal && onAbort(signal, end);
  try {
    for (let attempt = 1; ; attempt++) {
      const connection = await client.connected(limit.signal);
      const call = connection.read(request, limitMs);
      try {
        const page = await untilAborted(collectPage(call), limit.signal);
        if (page) return page;
      } catch (error) {
        const doubtful = connectionIsDoubtful(error);
        if (doubtful) client.giveUp(connection);
        // If a read breaks every connection, giving up more connections would only break all other calls.
        if (!doubtful || attempt === ATTEMPTS) throw new StoreUnavailable('EventStoreDB failed a read', { cause: error });
        await pause((attempt - 1) * RETRY_PAUSE_MS, limit.signal);
        continue;
      } finally {
        call.cancel();
      }
      // If the server was slow, it will not answer other calls on this connection either.
      if (!signal?.aborted) client.giveUp(connection);
      throw new StoreUnavailable('EventStoreDB did not answer a read in time');
    }
  } finally {
    clearTimeout(away);
    clearTimeout(timer);
    forget?.();
  }
}

function collectPage(call: ReadCall): Promise<Page> {
  return new Promise((resolve, reject) => {
    const events: StoredEvent[] = [];
    let bytes = 0;
    call.on('data', (response: ReadResp) => {
      const record = response.getEvent()?.getEvent();
      // Confirmations have no event, and a missing stream is an empty page.
      if (!record || bytes > PAGE_BYTES) return;
      try {
        const event = toStoredEvent(record);
        bytes += event.data.length + event.metadata.length;
        events.push(event);
      } catch (error) {
        reject(error as Error);
      }
      if (bytes > PAGE_BYTES) resolve({ events, cut: true });
    });
    call.on('error', reject);
    call.on('end', () => resolve({ events, cut: false }));
  });
}
