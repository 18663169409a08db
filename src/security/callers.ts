import type { IncomingMessage } from 'node:http';
import { Inject, Injectable } from '@nestjs/common';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiKeyLookup, type Principal } from './api-key-lookup.js';
import { ConsoleSessions, sessionIn } from './console-sessions.js';
import { assertFromConsole } from './console-request.js';
import { ThreadlogError } from '../errors.js';
import { type AnswerHeaders, RateLimits } from '../http/rate-limits.js';
import { SESSION_PATH } from '../http/routes.js';
import type { VisitorTokenClaims } from './visitor-token-signer.js';

/** Identifies the visitor of a token. */
export interface VisitorTokenReader {
  /**
   * Undefined when no server with this MASTER_KEY signed the token. Otherwise a promise of the visitor, or of undefined when the token has
   * expired or was revoked, or its visitor is archived.
   */
  recognize(token: string): Promise<Principal | undefined> | undefined;
  /** The holder of a token with these claims, whether it is still valid or not. */
  holder(claims: Omit<VisitorTokenClaims, 'id'>): Principal;
  /** Whether a token that was recognized before is still valid. */
  isValid(holder: Principal): Promise<boolean>;
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

/** Bytes of the body with which somebody signs in. */
const SIGN_IN_BYTES = 2_048;

/** Identifies and counts the sender of a request. */
@Injectable()
export class Callers {
  constructor(
    @Inject(ApiKeyLookup) private readonly apiKeys: ApiKeyLookup,
    @Inject(VISITOR_TOKENS) private readonly visitorTokens: VisitorTokenReader,
    @Inject(RateLimits) private readonly rateLimits: RateLimits,
    @Inject(ConsoleSessions) private readonly sessions: ConsoleSessions,
  ) {}

  /**
   * Runs once per request; a second call returns the same result.
   * @throws ThreadlogError unauthenticated, rate_limited
   */
  async identify(request: FastifyRequest, reply: FastifyReply): Promise<Principal> {
    if (request.principal !== undefined) return request.principal;
    const session = hasKey(request) ? undefined : sessionIn(request.headers.cookie);
    const principal =
      session === undefined ? await this.recognize(keyOf(request), request.ip, reply) : await this.ofSession(session, request, reply);
    request.principal = principal;
    return principal;
  }

  /** @throws ThreadlogError forbidden for a write that is not the console's own; otherwise as identify() */
  private async ofSession(session: string, request: FastifyRequest, reply: FastifyReply): Promise<Principal> {
    if (!WITHOUT_BODY.has(request.method)) assertFromConsole(request);
    const principal = this.sessions.isOurs(session)
      ? await this.sessions.recognize(session)
      : await this.rateLimits.authenticate(request.ip, reply, () => Promise.resolve(undefined));
    if (principal === undefined) throw new ThreadlogError('unauthenticated', 'the session is over');
    this.rateLimits.countRequest(principal, reply);
    return principal;
  }

  /**
   * Recognizes a key or token, and counts the request of its holder.
   * @param key undefined when there is none, or more than one: then the caller is not authenticated, but has not guessed either
   * @param headers receives what an answer says about the limits
   * @throws ThreadlogError unauthenticated, rate_limited
   */
  async recognize(key: string | undefined, address: string, headers: AnswerHeaders): Promise<Principal> {
    const principal = await this.authenticate(key, address, headers);
    if (principal === undefined) throw new ThreadlogError('unauthenticated');
    this.rateLimits.countRequest(principal, headers);
    return principal;
  }

  /** The holder of a visitor token with these claims, whether it is still valid or not. */
  visitor(claims: Omit<VisitorTokenClaims, 'id'>): Principal {
    return this.visitorTokens.holder(claims);
  }

  /** Whether a key or token that was recognized before is still valid: it has neither expired nor been revoked since. */
  async isValid(principal: Principal): Promise<boolean> {
    return principal.role === 'visitor' ? this.visitorTokens.isValid(principal) : this.apiKeys.isValid(principal);
  }

  /**
   * Reads bodies only for counted, authenticated callers: reading a body costs more than refusing it. Signing in is the one public route
   * that takes a body, which must be small.
   */
  install(server: FastifyInstance): void {
    server.addHook('preParsing', async (request, reply, payload) => {
      if (request.is404 || WITHOUT_BODY.has(request.method)) return payload;
      if (request.routeOptions.url !== SESSION_PATH) await this.identify(request, reply);
      else if (!(Number(request.headers['content-length'] ?? 0) <= SIGN_IN_BYTES) || request.headers['transfer-encoding'] !== undefined)
        throw new ThreadlogError('payload_too_large');
      return payload;
    });
  }

  private async authenticate(key: string | undefined, address: string, headers: AnswerHeaders): Promise<Principal | undefined> {
    if (key === undefined) return undefined;
    const recalled = this.apiKeys.recall(key);
    if (recalled !== undefined) return recalled;
    if (this.apiKeys.wasGood(key)) return this.apiKeys.recognize(key);
    // A token that we signed is not a guess, even when it has expired: visitors behind one address must not lock each other out.
    const signed = this.visitorTokens.recognize(key);
    if (signed !== undefined) return signed;
    return this.rateLimits.authenticate(address, headers, () => this.apiKeys.recognize(key));
  }
}

const hasKey = ({ headers }: FastifyRequest) => headers.authorization !== undefined || headers['x-api-key'] !== undefined;

/** The key of a request: X-API-Key, or Authorization: Bearer; undefined when there is none or more than one. */
function keyOf(request: FastifyRequest): string | undefined {
  // Node joins two X-API-Key headers into a text that is no valid key. Collecting all headers again would cost as much as finding the key.
  if (request.headers.authorization === undefined) return request.headers['x-api-key'] as string | undefined;
  // For a repeated header, Node's plain `headers` holds only the first value.
  const [key, ...others] = keysIn(request.raw);
  return others.length > 0 ? undefined : key;
}

/** Every key that a request's headers hold. */
export function keysIn(request: IncomingMessage): string[] {
  const { 'x-api-key': direct = [], authorization = [] } = request.headersDistinct;
  return [...direct, ...authorization.map((header) => /^Bearer +(\S+)$/i.exec(header)?.[1] ?? '')];
}

/** @throws Error when the guard did not run, which is a bug */
export function principalOf(request: FastifyRequest): Principal {
  if (request.principal === undefined) throw new Error('a route was reached without its guard');
  return request.principal;
}
