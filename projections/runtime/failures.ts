import { ERRORS, ThreadlogError } from '../../src/errors.js';
import { OutcomeUnknown, type StoredEvent } from '../../src/event-store/event-store.js';
import { isStoreAway } from '../../src/store-away.js';

/** The group cannot go on until a person has acted. A restart meets the same failure. */
export class GroupStopped extends Error {
  override readonly name: string = 'GroupStopped';
}

/** The checkpoint belongs to another log than the open one, or is at a position that this log has not reached. */
export class CheckpointRefused extends GroupStopped {
  override readonly name = 'CheckpointRefused';
}

/** Another worker has the group now, or somebody else moved the checkpoint. Nothing of the batch was written. */
export class LeaseLost extends Error {
  override readonly name = 'LeaseLost';
}

/** An operator has paused the group. Nothing of the batch was written; the lease stays. */
export class GroupPaused extends Error {
  override readonly name = 'GroupPaused';
}

/** An event that the group cannot handle because of the event itself. */
export interface Poison {
  readonly event: Pick<StoredEvent, 'stream' | 'revision' | 'position' | 'id' | 'type'>;
  readonly error: unknown;
}

// 25: the session was ended in its transaction, 40: rollback, 55: locks, 58: system
const TRANSACTION_LOST = /^(25|40|55|58)[0-9A-Z]{3}$/;

/**
 * True when the event did not cause the error, so that the same batch may succeed later: a store is away, a transaction was lost, work was
 * stopped, or the system failed (codes such as EMFILE).
 */
export function isOfTheSurroundings(error: unknown): boolean {
  if (isStoreAway(error)) return true;
  // Readers that also serve the API report a store that is away in its words.
  if (error instanceof ThreadlogError) return ERRORS[error.code].status === 503;
  const code = codeOf(error);
  if (code !== undefined) return TRANSACTION_LOST.test(code) || /^E[A-Z_]{3,}$/.test(code);
  return error instanceof OutcomeUnknown || (error instanceof Error && error.name === 'AbortError');
}

/** A statement waited for a lock for longer than its session may. */
export const isLockTimeout = (error: unknown): boolean => codeOf(error) === '55P03';

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The part of an error that may be logged and stored. Quoted text is cut, since Postgres and JSON.parse quote the offending value. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return 'an error that is not an Error was thrown';
  const facts = ['code', 'table', 'column', 'constraint']
    .map((key) => [key, (error as unknown as Record<string, unknown>)[key]] as const)
    .filter((fact): fact is readonly [string, string] => typeof fact[1] === 'string')
    .map(([key, value]) => ` ${key}=${value}`);
  return `${error.name}: ${error.message.replace(/"[^"]*"?/gs, '"…"').slice(0, 500)}${facts.join('')}`;
}
