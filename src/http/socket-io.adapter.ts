import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http';
import type { INestApplicationContext } from '@nestjs/common';
import { IoAdapter } from '@nestjs/platform-socket.io';
import { Server, type ServerOptions, type Socket } from 'socket.io';
import { ThreadlogError } from '../errors.js';
import { clientAddress } from './client-address.js';
import { type CorsOrigins, mayConnect } from './origins.js';
import type { SocketPlaces } from './socket-places.js';
import { refusalOf, refuseUpgrade, SOCKET_IO_PATH, UpgradeAnswer } from './upgrades.js';

/** Bytes of a client's message. */
export const MOST_MESSAGE_BYTES = 16 * 1024;

/** A request as engine.io hands it on: with its answer, unless it asks for a WebSocket. */
type EngineRequest = IncomingMessage & { readonly res?: ServerResponse };

/**
 * The server of socket.io on the API's port. It answers its own path alone; Upgrades answers the others. A connection is a stranger until
 * its namespace has admitted it.
 */
export class SocketIoAdapter extends IoAdapter {
  constructor(
    app: INestApplicationContext,
    private readonly limits: {
      readonly corsOrigins: CorsOrigins | undefined;
      readonly trustProxy: number;
      readonly places: SocketPlaces;
    },
  ) {
    super(app);
  }

  /** The adapter's package has a socket.io of its own, of another version; this one is ours, which its types cannot know. */
  override createIOServer(): never {
    const { corsOrigins } = this.limits;
    const server = new Server(this.httpServer as HttpServer, {
      path: SOCKET_IO_PATH,
      // It would end the plain WebSockets within a second.
      destroyUpgrade: false,
      serveClient: false,
      perMessageDeflate: false,
      httpCompression: false,
      maxHttpBufferSize: MOST_MESSAGE_BYTES,
      pingInterval: 25_000,
      pingTimeout: 20_000,
      ...(corsOrigins === undefined ? {} : { cors: { origin: corsOrigins === '*' ? '*' : [...corsOrigins] } }),
      allowRequest: (request: IncomingMessage, answer: (error: string | null, allowed: boolean) => void) => {
        try {
          this.#assertAllowed(request);
          answer(null, true);
        } catch (error) {
          // engine.io would answer every refusal 403, or 400.
          refuse(request, error);
        }
      },
    } satisfies Partial<ServerOptions>);
    server.engine.on('connection', (connection: Socket['conn']) => this.#admit(connection));
    // Every namespace decides who may enter. Nothing is in the one that socket.io opens by itself.
    server.of('/').use((_socket, next) => next(new Error('there is nothing here; name a namespace')));
    return server as never;
  }

  /** Ends the sockets. The HTTP server, which socket.io would also close, is closed by whoever opened it. */
  override async close(server: unknown): Promise<void> {
    if (server instanceof Server) {
      server.disconnectSockets(true);
      server.engine.close();
    }
    await Promise.resolve();
  }

  #assertAllowed(request: IncomingMessage): void {
    const { corsOrigins, trustProxy, places } = this.limits;
    if (!mayConnect(request, corsOrigins)) throw new ThreadlogError('forbidden', 'pages of this origin may not connect (CORS_ORIGINS)');
    places.assertRoomForStranger(clientAddress(request, trustProxy));
  }

  /** Whoever connects and then enters no namespace is cut off, at once: a polling client would keep its place for another half minute. */
  #admit(connection: Socket['conn']): void {
    const { trustProxy, places } = this.limits;
    const cut = () => connection.close(true);
    connection.once('close', () => places.leave(connection));
    try {
      places.admitStranger(connection, clientAddress(connection.request, trustProxy), cut);
    } catch {
      // Others took the last places since this request was allowed. It cannot be answered any more.
      cut();
    }
  }
}

function refuse(request: EngineRequest, error: unknown): void {
  const answer = new UpgradeAnswer();
  if (request.res === undefined) return refuseUpgrade(request.socket, `${SOCKET_IO_PATH}/`, error, answer);
  const { status, headers, body } = refusalOf(`${SOCKET_IO_PATH}/`, error, answer);
  request.res.writeHead(status, headers).end(body);
}
