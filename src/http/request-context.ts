import type { FastifyRequest } from 'fastify';
import type { Actor } from '../event-store/aggregate.js';
import type { CommandContext, RequestIdentity } from '../commands/command-context.js';
import { commandDeadline } from '../commands/deadline.js';
import { principalOf } from '../security/callers.js';
import { ThreadlogError } from '../errors.js';
import { randomIds } from '../ids.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** commandId of a keyed request while it is in flight. */
    keyedCommandId?: string;
    /** Only for a keyed request. */
    identity?: RequestIdentity;
    /** Whether the log holds any of the request's changes. */
    writes?: { any: boolean };
  }
}

/** The actor: the token's visitor, the key's agent, the agent that an admin key acts for, or the key itself. */
export function actorOf(request: FastifyRequest): Actor {
  const principal = principalOf(request);
  if (principal.visitorId !== null) return { type: 'visitor', id: principal.visitorId };
  const agentId = principal.agentId ?? actingAgent(request);
  return agentId === null ? { type: 'apiKey', id: principal.keyId } : { type: 'agent', id: agentId };
}

/** The guard has checked the permission and that the agent exists; it sets `refused` when the agent is archived. */
function actingAgent(request: FastifyRequest): string | null {
  const header = request.headers['x-agent-id'];
  return typeof header === 'string' ? header : null;
}

/** The command's entries in the log's metadata, from the request. */
export function commandContext(request: FastifyRequest): CommandContext {
  const { organizationId } = principalOf(request);
  const commandId = request.keyedCommandId ?? randomIds.next();
  const ifMatch = ifMatchOf(request);
  return {
    organizationId,
    actor: actorOf(request),
    commandId,
    ...(request.identity ?? { requestHash: '' }),
    ...(request.keyedCommandId === undefined ? {} : { keyed: true as const }),
    correlationId: request.id,
    deadline: commandDeadline(),
    writes: (request.writes ??= { any: false }),
    ...(ifMatch === undefined ? {} : { ifMatch }),
    ...(request.refused === undefined ? {} : { refused: request.refused }),
  };
}

/** RFC 9110, 8.8.3: the characters allowed between two quotes. */
const ENTITY_TAGS = /^[ \t,]*(?:(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+$/;

/**
 * The revisions of If-Match, one of which must be the resource's: `"5"`, or a list of these (RFC 9110, 13.1.1). Weak tags match nothing,
 * nor do strong tags that are not revisions. `*` requires only that the resource exists, which every write requires anyway.
 */
function ifMatchOf(request: FastifyRequest): readonly number[] | undefined {
  const header = request.headers['if-match'];
  if (header === undefined || header === '*') return undefined;
  const revisions = ENTITY_TAGS.test(header)
    ? [...header.matchAll(/(W\/)?"([^"]*)"/g)].flatMap(([, weak, tag = '']) =>
        weak === undefined && /^(0|[1-9]\d{0,9})$/.test(tag) ? [Number(tag)] : [],
      )
    : [];
  if (revisions.length === 0)
    throw new ThreadlogError('revision_mismatch', 'If-Match names no revision of this resource; it looks like "5"');
  return revisions;
}
