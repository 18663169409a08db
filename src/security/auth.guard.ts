import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Principal } from './api-key-lookup.js';
import { Callers } from './callers.js';
import { ThreadlogError } from '../errors.js';
import { IdempotencyKeys, isKeyed } from '../commands/idempotency.js';
import type { CallerRole } from './roles.js';

const ROLES_KEY = 'threadlog:roles';

/** The roles that may call a route. Every route declares them; a route that does not stops the program at start. */
export const Roles = (...roles: readonly CallerRole[]) => SetMetadata(ROLES_KEY, roles);
/** A route that needs no key. */
export const Public = () => SetMetadata(ROLES_KEY, 'public');

/** The declared roles of a handler; undefined when it declares none. */
export function declaredRoles(reflector: Reflector, handler: object): readonly CallerRole[] | 'public' | undefined {
  return reflector.get<readonly CallerRole[] | 'public' | undefined>(ROLES_KEY, handler as () => void);
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Why a keyed request is refused unless it was answered before. */
    refused?: ThreadlogError;
  }
}

/** Looks up an agent by id, so that nobody acts for an unknown or archived agent. */
export interface AgentLookup {
  agent(organizationId: string, id: string): Promise<{ readonly archived: boolean } | undefined>;
}
export const AGENT_LOOKUP = Symbol('AgentLookup');

/** Authenticates the caller and checks its role. A guard, since spellings of a path can get past middleware. */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    @Inject(Callers) private readonly callers: Callers,
    @Inject(AGENT_LOOKUP) private readonly agents: AgentLookup,
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
    const refused = await this.actingRefused(request, principal);
    // Only the log knows whether a keyed request was answered before its agent was archived.
    if (refused !== undefined && !isKeyed(request)) throw refused;
    if (refused !== undefined) request.refused = refused;
    await this.idempotency.begin(request, principal, context.getHandler());
    return true;
  }

  /**
   * Why nobody may act any more for the agent in X-Agent-Id; undefined when the agent is active.
   * @throws ThreadlogError forbidden, unknown_agent
   */
  private async actingRefused(request: FastifyRequest, principal: Principal): Promise<ThreadlogError | undefined> {
    const agentId = request.headers['x-agent-id'];
    if (agentId === undefined) return undefined;
    if (principal.role !== 'admin' || principal.agentId !== null || typeof agentId !== 'string')
      throw new ThreadlogError('forbidden', 'only an admin key that is bound to no agent may act for one');
    const agent = await this.agents.agent(principal.organizationId, agentId);
    if (agent === undefined) throw new ThreadlogError('unknown_agent');
    return agent.archived ? new ThreadlogError('resource_archived', `the agent ${agentId} is archived`) : undefined;
  }
}
