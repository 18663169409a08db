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
 * Applies as much of a batch as possible, in log order also across streams, and answers the first bad event of each bad stream. A part that
 * fails is tried again in halves under a savepoint, down to one event, so that one bad stream among thousands costs few attempts. A bad
 * stream's later events are left out.
 */
async function applyIsolated(
  tx: Kysely<Database>,
  events: readonly ProjectedEvent[],
  apply: (events: readonly ProjectedEvent[]) => Promise<void>,
  forget: () => void,
): Promise<Poison[]> {
  const poison = new Map<StreamName, Poison>();

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

  const inOrder = async (part: readonly ProjectedEvent[]): Promise<void> => {
    const left = part.filter(({ event }) => !poison.has(event.stream));
    const [first] = left;
    if (first === undefined) return;
    const failed = await attempt(left);
    if (failed === undefined) return;
    if (left.length === 1) {
      poison.set(first.event.stream, { event: first.event, error: failed.error });
      return;
    }
    const half = left.length >> 1;
    await inOrder(left.slice(0, half));
    await inOrder(left.slice(half));
  };

  await inOrder(events);
  return [...poison.values()];
}
