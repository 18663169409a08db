import { Inject, Injectable } from '@nestjs/common';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiKeyLookup, type Principal } from './api-key-lookup.js';
import { ThreadlogError } from '../errors.js';
import { RateLimits } from '../http/rate-limits.js';

/** Tells who a visitor token speaks for. */
export interface VisitorTokenReader {
  /**
   * Undefined for what no server with this MASTER_KEY has signed. Else answers the visitor, or undefined when the token has expired, was
   * revoked, or its visitor is archived.
   */
  recognize(token: string): Promise<Principal | undefined> | undefined;
}

export const VISITOR_TOKENS = Symbol('VisitorTokens');

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on every route but public ones, before its guard lets anybody through. */
    principal?: Principal;
  }
}

/** No route of ours answers OPTIONS: it is a browser's preflight, which has no key, or 405. */
const WITHOUT_BODY = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Says of a request who sends it, and counts it. */
@Injectable()
export class Callers {
  constructor(
    @Inject(ApiKeyLookup) private readonly apiKeys: ApiKeyLookup,
    @Inject(VISITOR_TOKENS) private readonly visitorTokens: VisitorTokenReader,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
  ) {}

  /**
   * Once per request; asked again it answers the same.
   * @throws ThreadlogError unauthenticated, rate_limited
   */
  async identify(request: FastifyRequest, reply: FastifyReply): Promise<Principal> {
    if (request.principal !== undefined) return request.principal;
    const principal = await this.authenticate(request, reply);
    if (principal === undefined) throw new ThreadlogError('unauthenticated');
    request.principal = principal;
    this.rateLimits.countRequest(principal, reply);
    return principal;
  }

  /** A body is read for callers alone, and counts whatever is in it: reading one costs more than refusing it. No public route takes one. */
  install(server: FastifyInstance): void {
    server.addHook('preParsing', async (request, reply, payload) => {
      if (!request.is404 && !WITHOUT_BODY.has(request.method)) await this.identify(request, reply);
      return payload;
    });
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
