import { Inject, Injectable } from '@nestjs/common';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiKeyLookup, type Principal } from './api-key-lookup.js';
import { ThreadlogError } from '../errors.js';
import { RateLimits } from '../http/rate-limits.js';

/** Identifies the visitor of a token. */
export interface VisitorTokenReader {
  /**
   * Undefined when no server with this MASTER_KEY signed the token. Otherwise a promise of the visitor, or of undefined when the token has
   * expired or was revoked, or its visitor is archived.
   */
  recognize(token: string): Promise<Principal | undefined> | undefined;
}

export const VISITOR_TOKENS = Symbol('VisitorTokens');

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on every route except public ones, before the guard lets a request through. */
    principal?: Principal;
  }
}

/** No route of ours answers OPTIONS: the request is a browser's preflight, which has no key, or gets 405. */
const WITHOUT_BODY = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Identifies and counts the sender of a request. */
@Injectable()
export class Callers {
  constructor(
    @Inject(ApiKeyLookup) private readonly apiKeys: ApiKeyLookup,
    @Inject(VISITOR_TOKENS) private readonly visitorTokens: VisitorTokenReader,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
  ) {}

  /**
   * Runs once per request; a second call returns the same result.
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

  /** Reads bodies only for counted, authenticated callers: reading a body costs more than refusing it. No public route takes a body. */
  install(server: FastifyInstance): void {
    server.addHook('preParsing', async (request, reply, payload) => {
      if (!request.is404 && !WITHOUT_BODY.has(request.method)) await this.identify(request, reply);
      return payload;
    });
  }

  /** A request without any key fails too, but does not count as a guess. */
  private async authenticate(request: FastifyRequest, reply: FastifyReply): Promise<Principal | undefined> {
    const key = keyOf(request);
    if (key === undefined) return undefined;
    const recalled = this.apiKeys.recall(key);
    if (recalled !== undefined) return recalled;
    if (this.apiKeys.wasGood(key)) return this.apiKeys.recognize(key);
    // A token that we signed is not a guess, even when it has expired: visitors behind one address must not lock each other out.
    const signed = this.visitorTokens.recognize(key);
    if (signed !== undefined) return signed;
    return this.rateLimits.authenticate(request.ip, reply, () => this.apiKeys.recognize(key));
  }
}

/** The key of a request: X-API-Key, or Authorization: Bearer; undefined when there is none or more than one. */
function keyOf(request: FastifyRequest): string | undefined {
  // Node joins two X-API-Key headers into a text that is no valid key. Collecting all headers again would cost as much as finding the key.
  if (request.headers.authorization === undefined) return request.headers['x-api-key'] as string | undefined;
  // For a repeated header, Node's plain `headers` holds only the first value.
  const { 'x-api-key': direct = [], authorization = [] } = request.raw.headersDistinct;
  const [key, ...others] = [...direct, ...authorization.map((header) => /^Bearer +(\S+)$/i.exec(header)?.[1] ?? '')];
  return others.length > 0 ? undefined : key;
}

/** @throws Error when the guard did not run, which is a bug */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === undefined) throw new Error('a route was reached without its guard');
  return request.principal;
}
