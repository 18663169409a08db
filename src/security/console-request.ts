import type { FastifyRequest } from 'fastify';
import { ThreadlogError } from '../errors.js';
import { isOwnOrigin } from '../http/origins.js';

/** Sent by the console with everything that writes. A page elsewhere could send it only after a preflight, which no answer allows. */
export const CONSOLE_HEADER = 'x-threadlog-console';

/**
 * A cookie comes along with requests that other pages cause. So a write by session, and signing in and out, must come from a page of this
 * very host, by its Origin and by a header that a form cannot send.
 * @throws ThreadlogError forbidden
 */
export function assertFromConsole({ headers }: FastifyRequest): void {
  if (headers[CONSOLE_HEADER] === undefined)
    throw new ThreadlogError('forbidden', `with a session, a write needs the header ${CONSOLE_HEADER}`);
  if (headers.origin === undefined || !isOwnOrigin(headers.origin, headers.host))
    throw new ThreadlogError('forbidden', 'with a session, a write must come from a page of this host');
}
