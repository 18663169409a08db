import type { Position } from '../event-store.js';

const latest = new Map<string, Position>();

/**
 * The greatest position of each log that this process knows of. A live subscription delivers an event at about the time of the append's
 * answer, sometimes later. A feed must not report that it has caught up while an event is known that it has not delivered.
 */
export const acknowledged = {
  note(logId: string, position: Position): void {
    const known = latest.get(logId);
    if (known === undefined || known < position) latest.set(logId, position);
  },
  /** Whether no event beyond `position` is known. */
  within(logId: string, position: Position): boolean {
    const known = latest.get(logId);
    return known === undefined || known <= position;
  },
};
