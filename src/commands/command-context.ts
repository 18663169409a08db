import type { ThreadlogError } from '../errors.js';
import type { Actor } from '../event-store/aggregate.js';
import { randomIds } from '../ids.js';

/** Distinguishes requests that have the same commandId. */
export interface RequestIdentity {
  /** Keyed hash of the request. Set only when the commandId can come again (`keyed`). */
  readonly requestHash: string;
  /**
   * The hash that earlier builds gave this request; absent when it is the same. It is compared with the hashes that they stored, so that a
   * retry is answered after an upgrade. It is never stored.
   */
  readonly earlierRequestHash?: string;
}

/** Whether a stored hash belongs to this request. */
export function isSameRequest(stored: string, { requestHash, earlierRequestHash }: RequestIdentity): boolean {
  return stored === requestHash || stored === earlierRequestHash;
}

/** Who asks, and under which id the log remembers the command. */
export interface CommandContext extends RequestIdentity {
  readonly organizationId: string;
  readonly actor: Actor;
  /** The same command sent again carries the same id. It is then answered again, but not done again. */
  readonly commandId: string;
  /** True when the client sent an Idempotency-Key. If the command appends nothing, its answer is then stored beside the log. */
  readonly keyed?: true;
  readonly correlationId: string;
  /** Id of the command or event that caused this command; the command's own id by default. */
  readonly causationId?: string;
  readonly causationDepth?: number;
  readonly imported?: true;
  /** The caller has just seen that the stream does not exist. The stream is not read again, since the append proves this. */
  readonly fresh?: true;
  /** Looks for the commandId in the whole stream, not only in its last 24 h, for commands that may be tried again much later. */
  readonly thorough?: true;
  /** Names the data key that sealed the personal values of this command's events. */
  readonly keyId?: string;
  /** The revision that the stream must have, or a list of allowed revisions: If-Match may name several. */
  readonly ifMatch?: number | readonly number[];
  /** Why the caller may no longer send this command. A command that was done before is still answered; any other is refused with this. */
  readonly refused?: ThreadlogError;
  /** The deadline of the whole request, for all streams that it writes (commandDeadline()). When absent, each command has its own. */
  readonly deadline?: AbortSignal;
  /** Shared by all commands of one request. `any` is set when the first of them is in the log. */
  readonly writes?: { any: boolean };
}

/**
 * For a command from whose id its new stream's id derives. However late it is repeated, it finds the stream that it made, and must look for
 * its commandId in the whole stream; otherwise it would take the stream for another command's.
 */
export const everAgain = (command: CommandContext): CommandContext => ({ ...command, thorough: true });

/** Whether a revision matches If-Match. Without If-Match every revision does. */
export const isExpected = (ifMatch: CommandContext['ifMatch'], revision: number): boolean =>
  ifMatch === undefined || (typeof ifMatch === 'number' ? ifMatch === revision : ifMatch.includes(revision));

/**
 * To be called by commands that read or write elsewhere before their own stream shows whether they were done before.
 * @throws ThreadlogError the context's `refused`
 */
export function assertNotRefused({ refused }: CommandContext): void {
  if (refused !== undefined) throw refused;
}

/**
 * The context for a step of a command in another stream. If-Match and the stored answer belong only to the stream that is answered.
 * `refused` is dropped as well: a refused command takes no steps, and the steps of a command that was done before are not refused.
 */
export function aside({ ifMatch: _ifMatch, keyed: _keyed, refused: _refused, ...rest }: CommandContext): CommandContext {
  return rest;
}

/**
 * As aside(), with its own id, for a step that one command may take several times, such as claiming, losing and claiming a key again. A
 * later step must not get the answer of the first.
 */
export function step(command: CommandContext): CommandContext {
  const { keyId: _keyId, fresh: _fresh, thorough: _thorough, ...rest } = aside(command);
  return { ...rest, commandId: randomIds.next(), causationId: command.commandId };
}
