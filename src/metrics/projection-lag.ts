import { metadataOf } from '../event-store/aggregate.js';
import type { EventStore, Position } from '../event-store/event-store.js';
import type { Checkpoints, GroupHealth, ReactorHealth } from '../read-models/checkpoints.js';

/** Most events that are counted. A larger lag is reported as this many. */
export const MOST_COUNTED = 10_000;
/** How long the counting may take (ms). After that the count so far is reported. */
const PATIENCE_MS = 2_000;

/** How far a follower of the feed is behind the log. */
export type Lag<H> = H & {
  /** Number of events between the checkpoint and the log's head. */
  readonly events: number;
  /** Age of the oldest of these events. For imported history, which is always old, the time since the checkpoint moved. */
  readonly seconds: number;
};

/**
 * How far each group and reactor is behind the log. A follower that is not behind costs only the read of its row. For the others the
 * missing events are read and counted, since a log may number its events with gaps.
 * @param now ms
 * @throws errors of the stores
 */
export async function projectionLag(
  store: EventStore,
  checkpoints: Checkpoints,
  now: number,
): Promise<{ readonly groups: Lag<GroupHealth>[]; readonly reactors: Lag<ReactorHealth>[] }> {
  // The head is read first, so that events appended between the two reads do not count as missing.
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
