import { z } from 'zod';
import { type FieldError, ThreadlogError } from '../errors.js';
import type { CallerRole } from '../security/roles.js';

/** What a client may send after it was let in. Each type of message declares who may send it. */
export const LIVE_MESSAGES = {
  viewing: { roles: ['admin', 'agent'], about: 'The sender looks at the conversation. Renewed every 10 s, over after 20 s.' },
  typing: { roles: ['admin', 'agent'], about: 'The sender writes to the visitor. Renewed every 10 s, over after 20 s.' },
} as const satisfies Record<string, { readonly roles: readonly CallerRole[]; readonly about: string }>;
export type LiveMessageType = keyof typeof LIVE_MESSAGES;

const id = z.string().min(1).max(128);
const MESSAGE_TYPES = Object.keys(LIVE_MESSAGES) as [LiveMessageType, ...LiveMessageType[]];

export const liveMessageSchema = z.strictObject({ type: z.enum(MESSAGE_TYPES), conversationId: id }).meta({ id: 'PresenceMessage' });
export type LiveMessage = z.infer<typeof liveMessageSchema>;

/** The first message of a client that could not send its key with the handshake. */
export const authMessageSchema = z
  .strictObject({
    type: z.literal('auth'),
    token: z.string().min(1).max(2_048).describe('An API key or a visitor token.'),
    since: z.string().max(64).optional(),
    filter: z.record(z.string(), z.unknown()).optional(),
  })
  .meta({ id: 'AuthMessage' });
export type AuthMessage = z.infer<typeof authMessageSchema>;

/** @throws ThreadlogError validation_failed that names the first wrong field, unauthenticated for anything that is no auth message */
export function authMessageOf(message: unknown): AuthMessage {
  if (typeof message === 'object' && message !== null && (message as { type?: unknown }).type !== 'auth')
    throw new ThreadlogError('unauthenticated', 'the first message must be {"type":"auth","token":…}');
  return parsed(authMessageSchema, message);
}

/** @throws ThreadlogError validation_failed, forbidden */
export function liveMessageOf(message: unknown, role: CallerRole): LiveMessage {
  const read = parsed(liveMessageSchema, message);
  const roles: readonly CallerRole[] = LIVE_MESSAGES[read.type].roles;
  if (!roles.includes(role)) throw new ThreadlogError('forbidden', `${read.type} needs the role ${roles.join(' or ')}`);
  return read;
}

function parsed<T>(schema: z.ZodType<T>, message: unknown): T {
  const read = schema.safeParse(message, { reportInput: true });
  if (read.success) return read.data;
  throw new ThreadlogError('validation_failed', undefined, { errors: read.error.issues.flatMap(faultsOf) });
}

/** A zod issue in the API's wording. */
function faultsOf(issue: z.core.$ZodIssue): FieldError[] {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((name) => ({ field: name, message: 'is not known here' }));
  return [{ field: issue.path.join('.') || 'message', message: faultOf(issue) }];
}

function faultOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'too_small') return 'must not be empty';
  if (issue.code === 'too_big') return `must have at most ${issue.maximum} characters`;
  if (issue.input === undefined) return 'is missing';
  if (issue.code === 'invalid_value') return `must be one of ${issue.values.join(', ')}`;
  if (issue.code === 'invalid_type') return `must be ${issue.expected === 'string' ? 'a text' : 'an object'}`;
  return issue.message;
}
