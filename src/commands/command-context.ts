import type { ThreadlogError } from '../errors.js';
import type { Actor } from '../event-store/aggregate.js';
import { randomIds } from '../ids.js';

/** Tells a request from another one that has the same commandId. */
export interface RequestIdentity {
  /** Keyed hash of the request; only where the commandId can come again (`keyed`). */
  readonly requestHash: string;
  /**
   * The hash that earlier builds gave this request; absent where it is the same. It is compared with what they stored and never stored, so
   * that a retry is answered across an upgrade.
   */
  readonly earlierRequestHash?: string;
}

/** Whether a stored hash is that of this request. */
export function isSameRequest(stored: string, { requestHash, earlierRequestHash }: RequestIdentity): boolean {
  return stored === requestHash || stored === earlierRequestHash;
}

/** Who asks, and under which id the log remembers it. */
export interface CommandContext extends RequestIdentity {
  readonly organizationId: string;
  readonly actor: Actor;
  /** The same command sent again carries the same id: it is then answered, not done, again. */
  readonly commandId: string;
  /** True when the client sent an Idempotency-Key: what appended nothing is then remembered beside the log. */
  readonly keyed?: true;
  readonly correlationId: string;
  /** The command's or event's id that led here; the command's own id by default. */
  readonly causationId?: string;
  readonly causationDepth?: number;
  readonly imported?: true;
  /** The caller has just seen that the stream does not exist: it is not read again, since the append proves it. */
  readonly fresh?: true;
  /** Looks for the commandId in the whole stream, not in the last 24 h of it alone: for what may be tried again much later. */
  readonly thorough?: true;
  /** Names the data key that sealed the personal values of this command's events. */
  readonly keyId?: string;
  /** The revision that the stream must have, or those of which it must have one: If-Match may list several. */
  readonly ifMatch?: number | readonly number[];
  /** Why the caller may not ask for this any more: what was done before is still answered, and what was not is refused with it. */
  readonly refused?: ThreadlogError;
  /** For all that one request does, to however many streams (commandDeadline()); each command has its own when absent. */
  readonly deadline?: AbortSignal;
  /** Shared by all that one request does; told when the first of it is in the log. */
  readonly writes?: { any: boolean };
}

/**
 * For a command whose new stream's id derives from it: however late it comes again, it meets the stream that it made, and would take it for
 * another's if it were not looked for in all of it.
 */
export const everAgain = (command: CommandContext): CommandContext => ({ ...command, thorough: true });

/** Whether a revision is what If-Match asks for; without one every revision is. */
export const isExpected = (ifMatch: CommandContext['ifMatch'], revision: number): boolean =>
  ifMatch === undefined || (typeof ifMatch === 'number' ? ifMatch === revision : ifMatch.includes(revision));

/**
 * For what looks or writes elsewhere before its own stream is asked whether the command was done before.
 * @throws ThreadlogError the context's `refused`
 */
export function assertNotRefused({ refused }: CommandContext): void {
  if (refused !== undefined) throw refused;
}

/**
 * A step of a command in another stream, and not its answer: If-Match and the request's own memory belong to the one that is answered. A
 * refused command takes no steps, and the steps of one that was done before are not refused.
 */
export function aside({ ifMatch: _ifMatch, keyed: _keyed, refused: _refused, ...rest }: CommandContext): CommandContext {
  return rest;
}

/**
 * As aside(), with an id of its own: for what one command may do several times, such as claim, lose and claim the same key again, and must
 * not be answered with the first time.
 */
export function step(command: CommandContext): CommandContext {
  const { keyId: _keyId, fresh: _fresh, thorough: _thorough, ...rest } = aside(command);
  return { ...rest, commandId: randomIds.next(), causationId: command.commandId };
}
