import { randomUUID } from 'node:crypto';
import { type Server, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { RequestMethod, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { parse as parseQuery } from 'fast-querystring';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, LogController } from 'fastify';
import type { Logger } from 'pino';
import { Metrics } from '../metrics/metrics.js';
import { CallerPositions } from '../security/caller-positions.js';
import { Callers } from '../security/callers.js';
import { Answered, describeAnswer } from './answered.js';
import { Streamed } from './streamed.js';
import { allowOrigins, answerOrigin } from './cors.js';
import { ErrorFilter, sendProblem } from './error.filter.js';
import { ERRORS, ThreadlogError } from '../errors.js';
import { IdempotencyKeys } from '../commands/idempotency.js';
import type { CorsOrigins } from './origins.js';
import { API_PREFIX, OUTSIDE_THE_API } from './routes.js';
import { Shutdown } from './shutdown.js';
import { SocketPlaces } from './socket-places.js';
import { Upgrades } from './upgrades.js';
import { SocketIoAdapter } from './socket-io.adapter.js';
import { assertRoutesDeclared } from './start-checks.js';
import { FORBIDDEN_KEYS, parseStrictJson } from '../texts/strict-json.js';
import { DtoPipe } from './validation.js';

/** Bytes of a request's body. */
const BODY_LIMIT = 512 * 1024;
/** A longer address is refused before it is routed. */
const MAX_PARAM_LENGTH = 512;
const MAX_QUERY_PARAMETERS = 200;

/** Takes the request's id from the caller if it is short and harmless, so that both sides' logs can be matched. */
const REQUEST_ID = /^[A-Za-z0-9._:@-]{1,64}$/;

/**
 * The HTTP server: Nest on Fastify, with strict bodies, problem+json for every fault, request ids, and 405 with Allow. Refuses to start
 * when a route declares no roles or no answers.
 */
export async function createHttpApp(
  module: Type | { module: Type },
  options: { logger: Logger; trustProxy: number; corsOrigins?: CorsOrigins | undefined },
): Promise<NestFastifyApplication> {
  const { corsOrigins, trustProxy } = options;
  const server: FastifyInstance = Fastify({
    loggerInstance: options.logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_LIMIT,
    trustProxy: trustProxy === 0 ? false : (_address: string, hop: number) => hop < trustProxy,
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
    },
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH, querystringParser },
    // For requests that fail before any route, hook or handler of ours.
    frameworkErrors: (error, request, reply) => {
      void reply.header('x-request-id', request.id);
      if (corsOrigins !== undefined && answerOrigin(corsOrigins, request, reply)) return;
      sendProblem(error, request, reply);
    },
    clientErrorHandler,
    // Idle keep-alive connections must not delay the end of the process.
    forceCloseConnections: 'idle',
    // A request that still arrives on an open connection is answered as usual, and the connection is closed afterwards.
    return503OnClosing: false,
  });
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    const { 'content-type': contentType = '', 'content-encoding': encoding = 'identity' } = request.headers;
    const charset = /charset=\s*"?([^";\s]+)/i.exec(contentType)?.[1];
    if ((charset !== undefined && !/^utf-?8$/i.test(charset)) || encoding.toLowerCase() !== 'identity')
      return done(new ThreadlogError('unsupported_media_type'));
    // Many clients send a content type with every DELETE; with the other methods an announced body must be there.
    if (body.length === 0 && request.method === 'DELETE') return done(null, undefined);
    if (body.length === 0) return done(new ThreadlogError('malformed_json', 'the body is empty'));
    try {
      done(null, parseStrictJson(utf8(body as Buffer)));
    } catch (error) {
      done(error as Error);
    }
  });
  server.addHook('onRequest', async (request, reply) => {
    void reply.header('x-request-id', request.id);
    void reply.header('x-content-type-options', 'nosniff');
    void reply.header('cache-control', 'no-store');
  });
  // Before the first hook that refuses a request: a page can read a refusal only if it names the page's origin.
  if (corsOrigins !== undefined) await allowOrigins(server, corsOrigins);
  server.addHook('onRequest', async (request) => {
    if (request.query === TOO_MANY)
      throw new ThreadlogError('headers_too_large', `an address has at most ${MAX_QUERY_PARAMETERS} parameters`);
    refuseForbiddenNames(request.query as Record<string, unknown>);
  });
  const routes = rememberRoutes(server);

  const adapter = new ProblemAdapter(server as never, routes);
  const app = await NestFactory.create<NestFastifyApplication>(module as Type, adapter, {
    bodyParser: false,
    logger: false,
    abortOnError: false,
  });
  app.setGlobalPrefix(API_PREFIX, {
    exclude: OUTSIDE_THE_API.flatMap((base) => [base, `${base}/*path`].map((path) => ({ path, method: RequestMethod.ALL }))),
  });
  app.useWebSocketAdapter(new SocketIoAdapter(app, { corsOrigins, trustProxy, places: app.get(SocketPlaces) }));
  app.useGlobalFilters(new ErrorFilter());
  app.useGlobalPipes(new DtoPipe());
  app.get(IdempotencyKeys).install(server);
  app.get(Metrics).measureRequests(server);
  app.get(Callers).install(server);
  app.get(CallerPositions).install(server);
  app.get(Shutdown).install(server);
  app.get(Upgrades).install(app.getHttpServer() as Server);
  assertRoutesDeclared(app);
  await app.init();
  await server.ready();
  return app;
}

/**
 * Otherwise Nest would answer unknown routes and early failures in its own words. This is also where answers with headers are taken apart:
 * an interceptor would cost an observable for each request.
 */
class ProblemAdapter extends FastifyAdapter {
  constructor(
    server: never,
    private readonly routes: { allowed(path: string): string[] },
  ) {
    super(server);
  }

  override reply(response: FastifyReply, body: unknown, statusCode?: number): ReturnType<FastifyAdapter['reply']> {
    // Nest waits for it, so that a fault before the first piece is still answered as an error.
    if (body instanceof Streamed) return body.send(response) as never;
    if (!(body instanceof Answered)) return super.reply(response, body, statusCode);
    describeAnswer(response, body.head);
    return super.reply(response, body.body, statusCode);
  }

  override setErrorHandler(): never {
    return this.getInstance().setErrorHandler((error, request, reply) => sendProblem(error, request, reply)) as never;
  }

  override setNotFoundHandler(): never {
    return this.getInstance().setNotFoundHandler((request, reply) => {
      const allowed = this.routes.allowed(request.url.split('?', 1)[0] ?? '');
      if (allowed.length === 0) return sendProblem(new ThreadlogError('not_found'), request, reply);
      void reply.header('allow', allowed.join(', '));
      return sendProblem(new ThreadlogError('method_not_allowed', `it answers ${allowed.join(', ')}`), request, reply);
    }) as never;
  }
}

/** Refuses bytes that are not UTF-8: with U+FFFD in their place, the text would no longer be what the client sent. */
function utf8(body: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
  } catch (error) {
    throw new ThreadlogError('malformed_json', 'the body is not UTF-8', {}, { cause: error });
  }
}

/** A request that Node's own parser refuses has no request and no reply object: the answer is written to the socket. */
function clientErrorHandler(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  if (socket.writable) {
    const code = error.code === 'HPE_HEADER_OVERFLOW' ? 'headers_too_large' : 'malformed_request';
    const { status, title } = ERRORS[code];
    const requestId = randomUUID();
    const body = JSON.stringify({ type: `urn:threadlog:error:${code}`, title, status, instance: '/', code, requestId });
    socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nContent-Type: application/problem+json; charset=utf-8\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\nX-Request-Id: ${requestId}\r\nConnection: close\r\n\r\n${body}`,
    );
  }
  socket.destroySoon();
}

/** Marks a query string with too many parameters: the router, which parses it, cannot throw to a handler. */
const TOO_MANY: Record<string, unknown> = Object.freeze({});

/** `a=1&a=2` is a list; `customAttributes[plan]=pro` is collected into one object. */
function querystringParser(text: string): Record<string, unknown> {
  const flat = parseQuery(text) as Record<string, unknown>;
  const names = Object.keys(flat);
  if (names.length > MAX_QUERY_PARAMETERS) return TOO_MANY;
  const gathered: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const name of names) {
    const attribute = /^customAttributes\[(.*)\]$/s.exec(name)?.[1];
    if (attribute === undefined) gathered[name] = flat[name];
    else (gathered['customAttributes'] ??= Object.create(null) as Record<string, unknown>)[attribute as never] = flat[name] as never;
  }
  return { ...gathered };
}

/** Later readers of the query string would silently ignore these names, and list everything instead of nothing. */
function refuseForbiddenNames(query: Readonly<Record<string, unknown>>): void {
  const { customAttributes = {} } = query;
  for (const name of [...Object.keys(query), ...Object.keys(customAttributes as object)])
    if (FORBIDDEN_KEYS.has(name))
      throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: name, message: 'is not a name that is allowed' }] });
}

/** The methods that a path supports, for 405. */
function rememberRoutes(server: FastifyInstance): { allowed(path: string): string[] } {
  const patterns: { method: string; pattern: RegExp }[] = [];
  server.addHook('onRoute', ({ method, url }) => {
    if (url.includes('*')) return;
    const pattern = new RegExp(`^${url.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`).replaceAll(/:\w+/g, '[^/]+')}$`);
    for (const one of Array.isArray(method) ? method : [method]) patterns.push({ method: one, pattern });
  });
  return { allowed: (path) => [...new Set(patterns.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method))].sort() };
}
