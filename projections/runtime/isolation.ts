import { sql, type Kysely } from 'kysely';
import type { StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { isOfTheSurroundings, type Poison } from './failures.js';
import type { ProjectedEvent } from './projection.js';

/**
 * Applies the events of each stream up to the first that cannot be read or applied, and answers these first failures.
 * @param failed events that could not be read
 * @param apply handles events of the batch, in log order
 * @param forget called when rows in memory may differ from the database and must be read again
 * @throws errors of the surroundings, which no event caused
 */
export async function applyReadable(
  tx: Kysely<Database>,
  events: readonly ProjectedEvent[],
  failed: readonly { readonly event: StoredEvent; readonly error: Error }[],
  apply: (events: readonly ProjectedEvent[]) => Promise<void>,
  forget: () => void,
): Promise<Poison[]> {
  const poison = new Map<StreamName, Poison>();
  const note = (one: Poison) => {
    const earlier = poison.get(one.event.stream);
    if (earlier === undefined || earlier.event.revision > one.event.revision) poison.set(one.event.stream, one);
  };
  for (const one of failed) note(one);
  const readable = events.filter(({ event }) => event.revision < (poison.get(event.stream)?.event.revision ?? Infinity));
  for (const one of await applyIsolated(tx, readable, apply, forget)) note(one);
  return [...poison.values()];
}

/**
 * Applies as much of a batch as possible, and answers the first bad event of each bad stream. Each half of the batch is tried under a
 * savepoint, down to one stream and then to one event, so that one bad stream among thousands costs few attempts. A stream's events before
 * its bad event are applied.
 */
async function applyIsolated(
  tx: Kysely<Database>,
  events: readonly ProjectedEvent[],
  apply: (events: readonly ProjectedEvent[]) => Promise<void>,
  forget: () => void,
): Promise<Poison[]> {
  const poison: Poison[] = [];

  const attempt = async (part: readonly ProjectedEvent[]): Promise<{ error: unknown } | undefined> => {
    await sql`savepoint part`.execute(tx);
    try {
      await apply(part);
      await sql`release savepoint part`.execute(tx);
      return undefined;
    } catch (error) {
      forget();
      if (isOfTheSurroundings(error)) throw error;
      // When the session is broken, this fails and ends the batch.
      await sql`rollback to savepoint part`.execute(tx);
      await sql`release savepoint part`.execute(tx);
      return { error };
    }
  };

  const byStream = async (streams: readonly StreamName[]): Promise<void> => {
    const chosen = new Set(streams);
    const part = events.filter(({ event }) => chosen.has(event.stream));
    if (part.length === 0 || (await attempt(part)) === undefined) return;
    if (streams.length > 1) {
      const half = streams.length >> 1;
      await byStream(streams.slice(0, half));
      await byStream(streams.slice(half));
      return;
    }
    for (const one of part) {
      const failed = await attempt([one]);
      if (failed === undefined) continue;
      poison.push({ event: one.event, error: failed.error });
      return;
    }
  };

  await byStream([...new Set(events.map(({ event }) => event.stream))]);
  return poison;
}
