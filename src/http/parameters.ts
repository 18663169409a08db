import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import type { Principal } from '../security/api-key-lookup.js';
import { principalOf } from '../security/callers.js';
import { actorOf, commandContext } from './request-context.js';
import type { HistoryCaller } from '../read-models/audited-resource.js';

const requestOf = (host: ExecutionContext) => host.switchToHttp().getRequest<FastifyRequest>();

/**
 * The CommandContext of the request.
 * @throws ThreadlogError revision_mismatch for an If-Match without a valid revision
 */
export const InContext = createParamDecorator((_: undefined, host: ExecutionContext): CommandContext | Promise<never> => {
  try {
    return commandContext(requestOf(host));
  } catch (error) {
    // The precondition counts only for an otherwise valid request, so errors in path and body come first. The pipes check both in this turn
    // of the event loop.
    return new Promise((_resolve, reject) => setImmediate(reject, error));
  }
});

/** The sender of the request: a Principal. */
export const Caller = createParamDecorator((_: undefined, host: ExecutionContext): Principal => principalOf(requestOf(host)));

/** Who asks, as the resources of a single agent or key see it: a HistoryCaller. Not for routes that visitors may call. */
export const By = createParamDecorator((_: undefined, host: ExecutionContext): HistoryCaller => {
  const request = requestOf(host);
  const { type, id } = actorOf(request);
  return { self: { type: type === 'agent' ? 'agent' : 'apiKey', id }, role: principalOf(request).role };
});

/** The id of the caller's organization, a string. */
export const OrganizationId = createParamDecorator((_: undefined, host: ExecutionContext) => principalOf(requestOf(host)).organizationId);
