import { z } from 'zod';
import type { CommandContext } from '../src/commands/command-context.js';
import type { DomainEvent, Recorded } from '../src/event-store/aggregate.js';
import { ERRORS, ThreadlogError } from '../src/errors.js';

/** The event that led to a job, as the job's payload names it. */
export const causeSchema = z.strictObject({ eventId: z.string(), correlationId: z.string(), depth: z.number().int() });
export type Cause = z.infer<typeof causeSchema>;

/** Names an event as the cause of a job. */
export const causeOf = ({ id: eventId, metadata }: Recorded<DomainEvent>): Cause => ({
  eventId,
  correlationId: metadata.correlationId,
  depth: metadata.causationDepth,
});

/**
 * The part of a job's command that names its cause. The depth is counted on from the cause, since otherwise rules whose actions cause each other
 * would go on for ever.
 */
export const causedBy = ({ eventId, correlationId, depth }: Cause) =>
  ({ requestHash: '', correlationId, causationId: eventId, causationDepth: depth + 1 }) satisfies Partial<CommandContext>;

/** Whether a command was refused because of its content, so that it would be refused again. */
export function isRefused(error: unknown): error is ThreadlogError {
  return error instanceof ThreadlogError && ERRORS[error.code].status < 500 && error.code !== 'concurrent_changes';
}
