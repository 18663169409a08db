import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import type { Principal } from '../security/api-key-lookup.js';
import { principalOf } from '../security/callers.js';
import { commandContext } from './request-context.js';

const requestOf = (host: ExecutionContext) => host.switchToHttp().getRequest<FastifyRequest>();

/**
 * The context of the command that the request asks for: a CommandContext.
 * @throws ThreadlogError revision_mismatch for an If-Match that names no revision
 */
export const InContext = createParamDecorator((_: undefined, host: ExecutionContext): CommandContext | Promise<never> => {
  try {
    return commandContext(requestOf(host));
  } catch (error) {
    // Only a request that is good in itself has a precondition, so what is wrong with its path and body is told first. The pipes look at
    // both in this turn of the event loop.
    return new Promise((_resolve, reject) => setImmediate(reject, error));
  }
});

/** Who sends the request: a Principal. */
export const Caller = createParamDecorator((_: undefined, host: ExecutionContext): Principal => principalOf(requestOf(host)));

/** The id of the caller's organization: a string. */
export const OrganizationId = createParamDecorator((_: undefined, host: ExecutionContext) => principalOf(requestOf(host)).organizationId);
