import cors from '@fastify/cors';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { CorsOrigins } from './origins.js';

/** Only these paths answer other origins: /metrics and /health are for operators, and `*` must not open them to every page. */
const BELOW = '/api/';

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE'];
const ALLOWED_HEADERS = [
  'Authorization',
  'X-API-Key',
  'Content-Type',
  'Idempotency-Key',
  'If-Match',
  'X-Min-Position',
  'X-Agent-Id',
  'X-Request-Id',
];
const EXPOSED_HEADERS = [
  'X-Position',
  'X-Request-Id',
  'ETag',
  'Location',
  'Retry-After',
  'X-RateLimit-Limit',
  'X-RateLimit-Remaining',
  'X-RateLimit-Reset',
];
/** How long a browser may cache the answer to a preflight (seconds). Chromium caches no answer for longer. */
const MAX_AGE = 7_200;

/** Answers preflights, and lets pages of these origins read every answer below /api, including errors. Cookies are never allowed. */
export async function allowOrigins(server: FastifyInstance, origins: CorsOrigins): Promise<void> {
  const shared = {
    methods: METHODS,
    allowedHeaders: ALLOWED_HEADERS,
    exposedHeaders: EXPOSED_HEADERS,
    maxAge: MAX_AGE,
    strictPreflight: false,
  };
  await server.register(cors, {
    delegator: (request, callback) =>
      callback(null, {
        ...shared,
        origin: !request.url.startsWith(BELOW) ? false : origins === '*' ? origins : [...origins],
        // Any other OPTIONS request is not a preflight; the API itself answers it.
        preflight: isPreflight(request),
      }),
  });
}

/**
 * Like the hook of allowOrigins(), for requests that are answered before any hook runs.
 * @returns true if the request was a preflight, which is answered now
 */
export function answerOrigin(origins: CorsOrigins, request: FastifyRequest, reply: FastifyReply): boolean {
  const { origin } = request.headers;
  if (!request.url.startsWith(BELOW)) return false;
  void reply.header('vary', 'Origin');
  if (origins === '*' || (origin !== undefined && origins.includes(origin)))
    void reply
      .header('access-control-allow-origin', origins === '*' ? origins : origin)
      .header('access-control-expose-headers', EXPOSED_HEADERS.join(', '));
  if (request.method !== 'OPTIONS' || !isPreflight(request)) return false;
  void reply
    .status(204)
    .header('access-control-allow-methods', METHODS.join(', '))
    .header('access-control-allow-headers', ALLOWED_HEADERS.join(', '))
    .header('access-control-max-age', MAX_AGE)
    .send();
  return true;
}

const isPreflight = ({ headers }: FastifyRequest) => headers['access-control-request-method'] !== undefined;
