import type { Position } from '../event-store.js';

const latest = new Map<string, Position>();

/**
 * The greatest position of each log that anybody in this process has been told of. A live subscription brings an event about when its
 * append is answered, sometimes after: a feed that knows of an event that it has not delivered must not say that it has caught up.
 */
export const acknowledged = {
  note(logId: string, position: Position): void {
    const known = latest.get(logId);
    if (known === undefined || known < position) latest.set(logId, position);
  },
  /** Whether nothing beyond `position` is known. */
  within(logId: string, position: Position): boolean {
    const known = latest.get(logId);
    return known === undefined || known <= position;
  },
};
