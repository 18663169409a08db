import type { Inbox } from './inbox.js';
import { isWithinWorkingHours } from './working-hours.js';

/**
 * The text by which an inbox answers a visitor's message by itself; undefined when it does not answer.
 * @param writtenAt when the visitor wrote (ms)
 */
export function automaticAnswer({ archived, autoResponder, workingHours }: Inbox, writtenAt: number): string | undefined {
  if (archived || autoResponder?.enabled !== true) return undefined;
  // Without working hours an inbox is always open.
  if (autoResponder.onlyOutsideWorkingHours && (workingHours === null || isWithinWorkingHours(workingHours, writtenAt))) return undefined;
  return autoResponder.message;
}
