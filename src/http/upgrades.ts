import { randomUUID } from 'node:crypto';
import { type IncomingMessage, type Server, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { Injectable } from '@nestjs/common';
import { ERRORS, ThreadlogError } from '../errors.js';
import { isStoreAway, storeUnavailable } from '../store-away.js';
import { problemOf } from './problem.js';

/** Takes over the connection of a request for a WebSocket. @throws ThreadlogError that is answered in plain HTTP */
export type TakeUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, answer: UpgradeAnswer) => Promise<void>;

/** The headers of a refusal. */
export class UpgradeAnswer {
  readonly requestId = randomUUID();
  readonly headers: Record<string, string> = { 'X-Request-Id': this.requestId };

  header(name: string, value: string | number): void {
    this.headers[name] = String(value);
  }
}

/** The path that socket.io itself answers. */
export const SOCKET_IO_PATH = '/socket.io';

/**
 * Requests for another protocol than HTTP. Each path belongs to one taker. A server with a listener for upgrades gets all of them, so every
 * other one is answered here, too: otherwise it would hang.
 */
@Injectable()
export class Upgrades {
  readonly #takers = new Map<string, TakeUpgrade>();

  take(path: string, taker: TakeUpgrade): void {
    this.#takers.set(path, taker);
  }

  install(server: Server): void {
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (request.headers.upgrade?.toLowerCase() !== 'websocket') return goOnAsHttp(server, request, socket, head);
      const path = request.url?.split('?', 1)[0] ?? '';
      if (path.startsWith(`${SOCKET_IO_PATH}/`)) return;
      void this.#take(path, request, socket, head);
    });
  }

  async #take(path: string, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const answer = new UpgradeAnswer();
    // A client that goes away during the check must not end the process.
    const gone = () => socket.destroy();
    socket.on('error', gone);
    try {
      const taker = this.#takers.get(path);
      if (taker === undefined) throw new ThreadlogError('not_found');
      await taker(request, socket, head, answer);
    } catch (error) {
      refuseUpgrade(socket, path, error, answer);
    } finally {
      socket.off('error', gone);
    }
  }
}

/** The answer of HTTP to a request for a socket that is refused. */
export function refusalOf(path: string, error: unknown, { requestId, headers }: UpgradeAnswer) {
  const known = knownError(error);
  const { status } = ERRORS[known.code];
  const { retryAfterSeconds } = known.extra;
  const body = JSON.stringify(problemOf(known, path, requestId));
  return {
    status,
    headers: {
      ...headers,
      ...(retryAfterSeconds !== undefined || status === 503 ? { 'Retry-After': String(retryAfterSeconds ?? 1) } : {}),
      'Content-Type': 'application/problem+json; charset=utf-8',
      'Content-Length': String(Buffer.byteLength(body)),
      Connection: 'close',
    },
    body,
  };
}

/** Answers a request for another protocol in HTTP, and closes the connection. */
export function refuseUpgrade(socket: Duplex, path: string, error: unknown, answer: UpgradeAnswer): void {
  socket.on('error', () => socket.destroy());
  const { status, headers, body } = refusalOf(path, error, answer);
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n${body}`);
}

/** The error that a client is told. */
export function knownError(error: unknown): ThreadlogError {
  if (error instanceof ThreadlogError) return error;
  if (error instanceof Error && isStoreAway(error)) return storeUnavailable(error);
  return new ThreadlogError('internal_error', undefined, {}, { cause: error });
}

/**
 * Some clients offer HTTP/2 with every request, which a server may ignore (RFC 9110 §7.8). Node has already taken its own parser off the
 * connection, so the request is put back without the offer, in front of what followed it.
 */
function goOnAsHttp(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const lines = [`${request.method ?? 'GET'} ${request.url ?? '/'} HTTP/${request.httpVersion}`];
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    const [name = '', value = ''] = request.rawHeaders.slice(i, i + 2);
    if (!/^(upgrade|connection|http2-settings)$/i.test(name)) lines.push(`${name}: ${value}`);
  }
  if (/\bclose\b/i.test(request.headers.connection ?? '')) lines.push('Connection: close');
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
  server.emit('connection', socket);
}
