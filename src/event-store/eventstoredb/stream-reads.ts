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
  /** True when the page was ended for its size; the rest is read from the next revision. */
  readonly cut: boolean;
}

const PAGE_BYTES = 4_000_000;
const READ_MS = 5_000;
/** How long a read waits for a server that is away: a restart is ridden out, an outage is told. */
const AWAY_MS = 3_000;
const ATTEMPTS = 4;
const RETRY_PAUSE_MS = 100;

/**
 * One read with a time limit of its own: the client gives reads none, and a frozen server would hold one for ever. A read that breaks is
 * tried again on a new connection, since reading twice harms nobody.
 * @param signal ends it earlier
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
        // Giving up connections for a read that breaks each of them would take every other call with it.
        if (!doubtful || attempt === ATTEMPTS) throw new StoreUnavailable('EventStoreDB failed a read', { cause: error });
        await pause((attempt - 1) * RETRY_PAUSE_MS, limit.signal);
        continue;
      } finally {
        call.cancel();
      }
      // When the server is what was slow, other calls on this connection will not be answered either.
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
      // Confirmations carry nothing, and a missing stream is an empty page.
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
