import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { type ErrorCode, ERRORS, ThreadlogError } from '../errors.js';
import { isStoreAway, storeUnavailable } from '../store-away.js';
import { problemOf } from './problem.js';

/** Every error of the API as application/problem+json (RFC 9457). */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    sendProblem(error, http.getRequest<FastifyRequest>(), http.getResponse<FastifyReply>());
  }
}

/** Fastify also calls it for requests that fail before a route is reached. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) return;
  const known = afterWrite(asThreadlogError(error), request, reply);
  const { status, title } = ERRORS[known.code];
  if (status >= 500) {
    // The text of an unknown fault may hold anything, so it goes to the log and never to the client.
    const cause = known.cause ?? error;
    // Any caller can ask for a position that is not reached in time: no error of ours. A parked stream was logged when it was parked.
    request.log[known.code === 'read_model_behind' || known.code === 'stream_parked' ? 'info' : 'error'](
      {
        requestId: request.id,
        code: known.code,
        err: cause instanceof Error ? { name: cause.name, message: cause.message, stack: cause.stack } : {},
      },
      title,
    );
  }
  const { retryAfterSeconds } = known.extra;
  if (retryAfterSeconds !== undefined || status === 503) void reply.header('retry-after', String(retryAfterSeconds ?? 1));
  void reply
    .status(status)
    .type('application/problem+json; charset=utf-8')
    .send(JSON.stringify(problemOf(known, request.url.split('?', 1)[0] ?? '', request.id)));
}

/**
 * When a store goes away after a part of the request is in the log, the answer must not claim that nothing was written: the client should
 * retry. Headers that describe a change belong only to answers about that change.
 */
function afterWrite(known: ThreadlogError, request: FastifyRequest, reply: FastifyReply): ThreadlogError {
  for (const name of ['x-position', 'etag', 'location']) void reply.removeHeader(name);
  if (request.writes?.any !== true || known.code !== 'store_unavailable') return known;
  return new ThreadlogError('outcome_unknown', undefined, known.extra, { cause: known.cause ?? known });
}

const FASTIFY_CODES: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'malformed_json',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'malformed_request',
  FST_ERR_BAD_URL: 'not_found',
  FST_ERR_MAX_PARAM_LENGTH: 'not_found',
};

const STATUS_CODES: Readonly<Record<number, ErrorCode>> = {
  400: 'malformed_request',
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'payload_too_large',
  415: 'unsupported_media_type',
  431: 'headers_too_large',
};

function asThreadlogError(error: unknown): ThreadlogError {
  if (error instanceof ThreadlogError) return error;
  const { code, statusCode } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown; statusCode?: unknown };
  const fastify = typeof code === 'string' ? FASTIFY_CODES[code] : undefined;
  if (fastify !== undefined) return new ThreadlogError(fastify);
  const status = error instanceof HttpException ? error.getStatus() : typeof statusCode === 'number' ? statusCode : 500;
  if (error instanceof Error && isStoreAway(error)) return storeUnavailable(error);
  return new ThreadlogError(STATUS_CODES[status] ?? 'internal_error', undefined, {}, { cause: error });
}
