import { metadataOf } from '../event-store/aggregate.js';
import type { EventStore, Position } from '../event-store/event-store.js';
import type { Checkpoints, GroupHealth, ReactorHealth } from '../read-models/checkpoints.js';

/** Events that are counted at most: further behind is said as this many. */
export const MOST_COUNTED = 10_000;
/** What takes longer is told as far as it was counted (ms). */
const PATIENCE_MS = 2_000;

/** How far something that follows the feed is behind the log. */
export type Lag<H> = H & {
  /** Events between the checkpoint and the log's head. */
  readonly events: number;
  /** Age of the oldest of them; of imported history, which is old by itself, how long ago the checkpoint moved. */
  readonly seconds: number;
};

/**
 * How far each group and reactor is behind the log. One that is not costs nothing beyond its row; of one that is, the missing events are read
 * and counted, since a log need not number its events without gaps.
 * @param now ms
 * @throws what the stores throw
 */
export async function projectionLag(
  store: EventStore,
  checkpoints: Checkpoints,
  now: number,
): Promise<{ readonly groups: Lag<GroupHealth>[]; readonly reactors: Lag<ReactorHealth>[] }> {
  // The head first: what is appended between the two looks is not behind yet.
  const head = await store.head();
  const [groups, reactors] = await Promise.all([checkpoints.health(), checkpoints.reactors()]);
  const behind = <H extends Pick<GroupHealth, 'position' | 'idleMs'>>(one: H) => lagOf(store, head, one, now);
  return { groups: await Promise.all(groups.map(behind)), reactors: await Promise.all(reactors.map(behind)) };
}

async function lagOf<H extends Pick<GroupHealth, 'position' | 'idleMs'>>(
  store: EventStore,
  head: Position | 'start',
  one: H,
  now: number,
): Promise<Lag<H>> {
  if (head === 'start' || (one.position !== 'start' && one.position >= head)) return { ...one, events: 0, seconds: 0 };
  let events = 0;
  let seconds = 0;
  const signal = AbortSignal.timeout(PATIENCE_MS);
  for await (const batch of store.feed(one.position, { maxEvents: 1_000, signal })) {
    for (const event of batch.events) {
      if (event.position > head) break;
      if (events++ > 0) continue;
      const { occurredAt, imported } = metadataOf(event);
      seconds = Math.max(0, imported === true ? one.idleMs : now - Date.parse(occurredAt)) / 1_000;
    }
    if (batch.through >= head || batch.caughtUp || events >= MOST_COUNTED) break;
  }
  return { ...one, events: Math.min(events, MOST_COUNTED), seconds };
}
