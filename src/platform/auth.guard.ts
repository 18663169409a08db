import { type CanActivate, type ExecutionContext, Inject, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiKeys, type Principal } from './api-keys.js';
import { ThreadlogError } from './errors.js';
import { IdempotencyKeys } from './idempotency.js';
import { RateLimits } from './rate-limits.js';
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

/** Tells who a visitor token speaks for. */
export interface VisitorTokenReader {
  /**
   * Undefined for what no server with this MASTER_KEY has signed. Else answers the visitor, or undefined when the token has expired, was
   * revoked, or its visitor is archived.
   */
  recognize(token: string): Promise<Principal | undefined> | undefined;
}
export const VISITOR_TOKENS = Symbol('VisitorTokenReader');

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the guard on every route but public ones. */
    principal?: Principal;
  }
}

/** Recognizes the key and checks the role. A guard, not middleware, since paths can be spelled in ways that middleware does not match. */
@Injectable()
export class AuthGuard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    @Inject(ApiKeys) private readonly apiKeys: ApiKeys,
    @Inject(AGENT_DIRECTORY) private readonly agents: AgentDirectory,
    @Inject(IdempotencyKeys) private readonly idempotency: IdempotencyKeys,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
    @Inject(VISITOR_TOKENS) private readonly visitorTokens: VisitorTokenReader,
  ) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const roles = declaredRoles(this.reflector, context.getHandler());
    if (roles === 'public') return true;
    const http = context.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const reply = http.getResponse<FastifyReply>();
    const principal = await this.authenticate(request, reply);
    if (principal === undefined) throw new ThreadlogError('unauthenticated');
    request.principal = principal;
    this.rateLimits.countRequest(principal, reply);
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

  /** A request without any key fails too, but guesses nothing. */
  private async authenticate(request: FastifyRequest, reply: FastifyReply): Promise<Principal | undefined> {
    const key = keyOf(request);
    if (key === undefined) return undefined;
    const recalled = this.apiKeys.recall(key);
    if (recalled !== undefined) return recalled;
    if (this.apiKeys.wasGood(key)) return this.apiKeys.recognize(key);
    // What was signed is no guess, also when it has expired: visitors behind one address do not lock each other out.
    const signed = this.visitorTokens.recognize(key);
    if (signed !== undefined) return signed;
    return this.rateLimits.authenticate(request.ip, reply, () => this.apiKeys.recognize(key));
  }
}

/** The key of a request: X-API-Key, or Authorization: Bearer; undefined when there is none or more than one. */
function keyOf(request: FastifyRequest): string | undefined {
  // Of two X-API-Key headers Node makes one that is no key. Gathering all headers anew costs as much as finding the key.
  if (request.headers.authorization === undefined) return request.headers['x-api-key'] as string | undefined;
  // Of a header that came twice, Node's plain `headers` shows the first alone.
  const { 'x-api-key': direct = [], authorization = [] } = request.raw.headersDistinct;
  const [key, ...others] = [...direct, ...authorization.map((header) => /^Bearer +(\S+)$/i.exec(header)?.[1] ?? '')];
  return others.length > 0 ? undefined : key;
}

/** @throws Error when the guard did not run, which is a fault of ours */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === undefined) throw new Error('a route was reached without its guard');
  return request.principal;
}
