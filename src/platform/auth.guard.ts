import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Callers } from './callers.js';
import { ThreadlogError } from './errors.js';
import { IdempotencyKeys } from './idempotency.js';
import type { CallerRole } from './roles.js';

const ROLES_KEY = 'threadlog:roles';

/** The roles that may call a route. Every route declares them; one that does not stops the program at start. */
export const Roles = (...roles: readonly CallerRole[]) => SetMetadata(ROLES_KEY, roles);
/** A route that needs no key. */
export const Public = () => SetMetadata(ROLES_KEY, 'public');

/** The roles that a handler declares; undefined when it declares none. */
export function declaredRoles(reflector: Reflector, handler: object): readonly CallerRole[] | 'public' | undefined {
  return reflector.get<readonly CallerRole[] | 'public' | undefined>(ROLES_KEY, handler as () => void);
}

/** Tells whether an agent exists, so that nobody acts for one who does not. */
export interface AgentDirectory {
  hasAgent(organizationId: string, agentId: string): Promise<boolean>;
}
export const AGENT_DIRECTORY = Symbol('AgentDirectory');

/** Asks who is calling and checks the role. A guard, not middleware, since paths can be spelled in ways that middleware does not match. */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    @Inject(Callers) private readonly callers: Callers,
    @Inject(AGENT_DIRECTORY) private readonly agents: AgentDirectory,
    @Inject(IdempotencyKeys) private readonly idempotency: IdempotencyKeys,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const roles = declaredRoles(this.reflector, context.getHandler());
    if (roles === 'public') return true;
    const http = context.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const principal = await this.callers.identify(request, http.getResponse<FastifyReply>());
    if (roles === undefined || !roles.includes(principal.role))
      throw new ThreadlogError('forbidden', `this needs the role ${roles?.join(' or ') ?? ''}`);
    const agentId = request.headers['x-agent-id'];
    if (agentId !== undefined) {
      if (principal.role !== 'admin' || principal.agentId !== null || typeof agentId !== 'string')
        throw new ThreadlogError('forbidden', 'only an admin key that is bound to no agent may act for one');
      if (!(await this.agents.hasAgent(principal.organizationId, agentId))) throw new ThreadlogError('unknown_agent');
    }
    await this.idempotency.begin(request, principal, context.getHandler());
    return true;
  }
}
