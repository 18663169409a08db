import { makeLiveGeneration } from '../../projections/runtime/generations.js';
import { installReactor } from '../../projections/runtime/reactor.js';
import { snoozeTimer } from '../../projections/snooze-timer.reactor.js';
import type { Backend } from '../../src/backend.js';
import type { Position } from '../../src/event-store/event-store.js';

const beganAfter = new Map<string, Position | 'start'>();

/**
 * A server that was given to the tests may hold a long history of others, which the read models of a new database would begin with. They
 * begin at its head instead, once for each database.
 */
export async function beginReadModelsAtHead({ database, databaseUrl, store, readModels }: Backend): Promise<Position | 'start'> {
  const known = beganAfter.get(databaseUrl);
  if (known !== undefined) return known;
  const head = await store.head();
  beganAfter.set(databaseUrl, head);
  if (head === 'start') return head;
  for (const group of readModels.groups) await makeLiveGeneration(database, group, { id: store.log.id, empty: true });
  await database.updateTable('read.checkpoints').set({ position: head }).where('position', '=', '').execute();
  await installReactor(database, store, { ...snoozeTimer, begins: 'head' });
  return head;
}

/** Where the log ended before the test's own events; 'start' for a log that is the test's alone. */
export const beganAt = ({ databaseUrl }: Pick<Backend, 'databaseUrl'>): Position | 'start' => beganAfter.get(databaseUrl) ?? 'start';
