import type { Position } from '../event-store/event-store.js';

/** How far a client has got: up to an event, of which it may have had only the first frames. */
export interface LiveCursor {
  readonly position: Position | 'start';
  /** How many frames of the event at `position` it had; Infinity for all. */
  readonly told: number;
}

/** The text of `since`. */
export function cursorOf({ position, told }: { readonly position: string; readonly told: number }): LiveCursor {
  return { position: position as Position | 'start', told };
}

/** Whether the client still lacks the frame with this number (from 0) of the event at a position. */
export function isAfter(cursor: LiveCursor, position: string, index: number): boolean {
  if (cursor.position === 'start' || position > cursor.position) return true;
  return position === cursor.position && index >= cursor.told;
}

/** Whether the client had all frames of every event up to a position, this one included. */
export function includes(cursor: LiveCursor, position: Position | 'start'): boolean {
  if (position === 'start') return true;
  if (cursor.position === 'start') return false;
  return cursor.position > position || (cursor.position === position && cursor.told === Infinity);
}
