import { sql, type Kysely } from 'kysely';
import type { StoredEvent, StreamName } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { isOfTheSurroundings, type Poison } from './failures.js';
import type { ProjectedEvent } from './projection.js';

/**
 * Applies what can be applied of each stream, up to its first event that cannot, and answers those events: the ones that could not be
 * read, and the ones that could not be applied.
 * @param failed events that could not be read
 * @param apply handles events of the batch, in log order
 * @param forget called before rows that were written in memory must be read again
 * @throws what is of the surroundings and says nothing about an event
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
 * Applies as much of a batch as can be applied, and says which event of which stream stood in the way. Halves of the batch are tried
 * under a savepoint each, down to one stream and then to one event, so that one bad stream among thousands costs a few attempts. The
 * events of a stream before its bad one are applied.
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
      // Fails, and ends the batch, when the session itself is broken.
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
