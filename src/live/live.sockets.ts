import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { WebSocket, WebSocketServer } from 'ws';
import { Speaks } from '../docs/asyncapi.js';
import { ThreadlogError } from '../errors.js';
import { Shutdown } from '../http/shutdown.js';
import { MOST_MESSAGE_BYTES } from '../http/socket-io.adapter.js';
import { SocketPlaces } from '../http/socket-places.js';
import { UpgradeAnswer, Upgrades } from '../http/upgrades.js';
import { parseStrictJson } from '../texts/strict-json.js';
import { CLOSE_CODES, type CloseCode, type LiveCarrier, type LiveConnection, MOST_WAITING_BYTES } from './live-connection.js';
import type { LiveFrame } from './live-frame.js';
import { LiveAuthentication, type LiveCaller, SUBPROTOCOL } from './live.authentication.js';
import { LIVE_CHANNEL, LIVE_PATH } from './live.channel.js';
import { authMessageOf } from './live-message.js';
import { LiveMetrics } from './live.metrics.js';
import { closeOf, LiveSessions } from './live.sessions.js';
import type { LiveSession } from './live.session.js';

/** How often a client is asked for a sign of life (ms); without an answer to the last question it is cut off. */
export const PING_MS = 25_000;
/** Messages that a client may send before the first of them is answered. */
export const MOST_QUEUED = 50;
/** How long a client may take to answer a close (ms). */
const CLOSE_MS = 2_000;

/** The feed over plain WebSockets. */
@Speaks(LIVE_CHANNEL)
@Injectable()
export class LiveSockets implements LiveCarrier, OnModuleInit, OnModuleDestroy {
  readonly transport = 'websocket';
  readonly #server = new WebSocketServer({
    noServer: true,
    maxPayload: MOST_MESSAGE_BYTES,
    perMessageDeflate: false,
    clientTracking: false,
    handleProtocols: (protocols) => (protocols.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  });
  readonly #connections = new Set<WsConnection>();
  #pings: NodeJS.Timeout | undefined;

  constructor(
    @Inject(Upgrades) private readonly upgrades: Upgrades,
    @Inject(Shutdown) private readonly shutdown: Shutdown,
    @Inject(LiveAuthentication) private readonly authentication: LiveAuthentication,
    @Inject(SocketPlaces) readonly places: SocketPlaces,
    @Inject(LiveSessions) readonly sessions: LiveSessions,
    @Inject(LiveMetrics) readonly metrics: LiveMetrics,
  ) {}

  onModuleInit(): void {
    this.upgrades.take(LIVE_PATH, (request, socket, head, answer) => this.#take(request, socket, head, answer));
  }

  /** Asks every client for a sign of life, and cuts those off that gave none since the last time. */
  ping(): void {
    for (const connection of this.#connections) connection.ping();
  }

  broadcast(connections: readonly LiveConnection[], frame: LiveFrame): void {
    let sent = 0;
    for (const connection of connections) if (connection instanceof WsConnection && connection.hand(frame)) sent++;
    this.metrics.sent(this.transport, sent);
  }

  async onModuleDestroy(): Promise<void> {
    clearInterval(this.#pings);
    const open = [...this.#connections];
    for (const connection of open) connection.end(1012);
    await Promise.all(open.map(({ closed }) => closed));
  }

  /** Everything is checked before the connection becomes a WebSocket, so that a refusal is an answer of HTTP with its status. */
  async #take(request: IncomingMessage, socket: Duplex, head: Buffer, answer: UpgradeAnswer): Promise<void> {
    if (this.shutdown.begun) throw new ThreadlogError('too_many_sockets', 'this process ends');
    this.authentication.assertOrigin(request);
    this.places.assertRoom();
    const { ticket, ...given } = parametersOf(request);
    const caller = await this.authentication.ofHandshake(request, ticket, answer);
    // Without a key nothing of the wish is checked: whoever has none learns nothing of the log.
    const wish = caller === undefined ? undefined : await this.authentication.wishOf(caller.principal, given);
    if (socket.destroyed) return;
    let connection: WsConnection | undefined;
    if (caller === undefined) this.places.admitStranger(socket, this.authentication.addressOf(request), () => connection?.end(4408));
    else this.places.admit(socket, caller.principal);
    socket.once('close', () => this.places.leave(socket));
    this.#server.handleUpgrade(request, socket, head, (ws) => {
      const opened = new WsConnection(ws, socket, this);
      connection = opened;
      this.#connections.add(opened);
      this.#pings ??= setInterval(() => this.ping(), PING_MS).unref();
      ws.once('close', () => this.#connections.delete(opened));
      opened.serve({ request, given, caller, wish }, this.authentication);
    });
  }
}

/** What the address of a handshake asks for. @throws ThreadlogError validation_failed for a name that is given twice */
function parametersOf(request: IncomingMessage): Readonly<Record<string, string>> & { readonly ticket?: string } {
  const { searchParams } = new URL(request.url ?? '/', 'http://localhost');
  const given: Record<string, string> = {};
  for (const [name, value] of searchParams) {
    if (name in given)
      throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: name, message: 'must be given once' }] });
    given[name] = value;
  }
  return given;
}

interface Handshake {
  readonly request: IncomingMessage;
  readonly given: Readonly<Record<string, unknown>>;
  readonly caller: LiveCaller | undefined;
  readonly wish: Awaited<ReturnType<LiveAuthentication['wishOf']>> | undefined;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** One plain WebSocket. */
class WsConnection implements LiveConnection {
  readonly closed: Promise<void>;
  #session: LiveSession | undefined;
  #alive = true;
  /** The client's messages, one after the other. */
  #turn: Promise<void> = Promise.resolve();
  #queued = 0;

  constructor(
    private readonly ws: WebSocket,
    /** Below the WebSocket. Whole frames are written to it, as ws does. */
    private readonly socket: Duplex,
    readonly carrier: LiveSockets,
  ) {
    const { metrics, transport, sessions } = carrier;
    metrics.opened(transport);
    this.closed = new Promise((resolve) => {
      ws.once('close', () => {
        metrics.closed(transport);
        if (this.#session !== undefined) sessions.gone(this.#session);
        resolve();
      });
    });
    // ws closes the connection itself, with a code that says why; 'close' follows.
    ws.on('error', () => undefined);
    ws.on('pong', () => (this.#alive = true));
  }

  serve({ request, given, caller, wish }: Handshake, authentication: LiveAuthentication): void {
    // Messages that come meanwhile wait for it.
    if (caller !== undefined && wish !== undefined) this.#turn = this.#begin(caller, wish);
    this.ws.on('message', (data, isBinary) => {
      if (isBinary) return this.end(1003);
      if (++this.#queued > MOST_QUEUED) return this.end(4429);
      this.#turn = this.#turn.then(async () => {
        this.#queued--;
        if (this.ws.readyState === WebSocket.OPEN) await this.#receive(data as Buffer, request, given, authentication);
      });
    });
  }

  async #receive(data: Buffer, request: IncomingMessage, given: Handshake['given'], authentication: LiveAuthentication): Promise<void> {
    const text = data.toString('utf8');
    if (!isJson(text)) return this.end(1007);
    try {
      const message = parseStrictJson(text);
      if (this.#session !== undefined) return await this.carrier.sessions.receive(this.#session, message);
      const { token, filter, since } = authMessageOf(message);
      const caller = await authentication.ofKey(token, request, new UpgradeAnswer());
      const wish = await authentication.wishOf(
        caller.principal,
        { ...given, ...filter, ...(since === undefined ? {} : { since }) },
        // What is not in the message is in the address.
        (field) => (filter !== undefined && Object.hasOwn(filter, field) ? `filter.${field}` : field),
      );
      // A place that is taken after the close would be given back by nobody.
      if (this.ws.readyState !== WebSocket.OPEN) return;
      this.carrier.places.admit(this.socket, caller.principal);
      await this.#begin(caller, wish);
    } catch (error) {
      this.end(...closeOf(error));
    }
  }

  async #begin(caller: LiveCaller, wish: NonNullable<Handshake['wish']>): Promise<void> {
    try {
      const session = await this.carrier.sessions.open(this, caller, wish);
      this.#session = session;
      if (this.ws.readyState !== WebSocket.OPEN) this.carrier.sessions.gone(session);
    } catch (error) {
      this.end(...closeOf(error));
    }
  }

  get waiting(): number {
    return this.socket.writableLength;
  }

  send(frame: LiveFrame): void {
    if (this.hand(frame)) this.carrier.metrics.sent('websocket', 1);
  }

  /** Answers false when the connection is no longer open. */
  hand({ framed }: LiveFrame): boolean {
    const { ws, socket, carrier } = this;
    if (ws.readyState !== WebSocket.OPEN) return false;
    // ws would make a header for each socket, and write it apart.
    socket.write(framed);
    if (socket.writableLength <= MOST_WAITING_BYTES) return true;
    carrier.metrics.cut('websocket');
    // A close would wait behind everything that the client does not read.
    ws.terminate();
    return true;
  }

  async flushed(): Promise<void> {
    const { socket } = this;
    if (!socket.writableNeedDrain) return;
    let drained = () => {};
    await Promise.race([new Promise<void>((resolve) => socket.once('drain', (drained = resolve))), this.closed]);
    socket.off('drain', drained);
  }

  ping(): void {
    const { ws } = this;
    if (!this.#alive) return ws.terminate();
    this.#alive = false;
    ws.ping();
  }

  end(code: CloseCode, reason: string = CLOSE_CODES[code]): void {
    const { ws } = this;
    if (ws.readyState !== WebSocket.OPEN) return;
    // A reason has at most 123 bytes.
    ws.close(code, Buffer.from(reason).subarray(0, 120).toString('utf8').replace(/�+$/, ''));
    const late = setTimeout(() => ws.terminate(), CLOSE_MS);
    void this.closed.then(() => clearTimeout(late));
  }
}
