import { Inject } from '@nestjs/common';
import { type OnGatewayConnection, type OnGatewayInit, WebSocketGateway } from '@nestjs/websockets';
import type { Namespace, Socket } from 'socket.io';
import { ThreadlogError } from '../errors.js';
import { Shutdown } from '../http/shutdown.js';
import { SocketPlaces } from '../http/socket-places.js';
import { knownError, UpgradeAnswer } from '../http/upgrades.js';
import { problemOf } from '../http/problem.js';
import { CLOSE_CODES, type CloseCode, type LiveCarrier, type LiveConnection, MOST_WAITING_BYTES } from './live-connection.js';
import type { LiveFrame } from './live-frame.js';
import { LiveAuthentication, type LiveCaller, type LiveWish } from './live.authentication.js';
import { LiveMetrics } from './live.metrics.js';
import type { LiveSession } from './live.session.js';
import { closeOf, LiveSessions } from './live.sessions.js';
import { LIVE_PATH } from './live.channel.js';
import { MOST_QUEUED } from './live.sockets.js';
import { LiveWire } from './live.wire.js';

/** Packets that wait for a reader; with more it is cut off, as with more bytes than MOST_WAITING_BYTES. */
const MOST_WAITING_PACKETS = 500;
/** How often a socket that catches up is asked whether it has taken what was sent (ms): socket.io does not say so itself. */
const FLUSH_POLL_MS = 5;

/** What the handshake found out. */
interface LetIn {
  readonly caller: LiveCaller;
  readonly wish: LiveWish;
}

/** The feed as a namespace of socket.io: each frame is emitted under its type. */
@WebSocketGateway({ namespace: LIVE_PATH })
export class LiveGateway implements LiveCarrier, OnGatewayInit<Namespace>, OnGatewayConnection<Socket> {
  readonly transport = 'socket.io';
  #namespace: Namespace | undefined;
  readonly #letIn = new WeakMap<Socket, LetIn>();
  /** Connections of which a socket is being let in, or was. */
  readonly #entered = new WeakSet<Socket['conn']>();

  constructor(
    @Inject(LiveAuthentication) private readonly authentication: LiveAuthentication,
    @Inject(SocketPlaces) private readonly places: SocketPlaces,
    @Inject(LiveSessions) readonly sessions: LiveSessions,
    @Inject(LiveMetrics) readonly metrics: LiveMetrics,
    @Inject(LiveWire) private readonly wire: LiveWire,
    @Inject(Shutdown) private readonly shutdown: Shutdown,
  ) {}

  afterInit(namespace: Namespace): void {
    this.#namespace = namespace;
    this.wire.listen();
    const enter = async (socket: Socket, next: (refused?: Error) => void) => next(await this.#authenticate(socket));
    namespace.use((socket, next) => void enter(socket, next));
  }

  handleConnection(socket: Socket): void {
    const letIn = this.#letIn.get(socket);
    if (letIn !== undefined) new IoConnection(socket, this).serve(letIn);
  }

  broadcast(connections: readonly LiveConnection[], frame: LiveFrame): void {
    const own = connections.filter((one): one is IoConnection => one instanceof IoConnection && one.isOpen);
    if (own.length === 0) return;
    // Each socket is in a room of its own name. One emit to all of them encodes the frame once.
    this.#namespace?.local.to(own.map(({ id }) => id)).emit(frame.content.type, frame.content);
    this.metrics.sent(this.transport, own.length);
    for (const connection of own) connection.sent(frame);
  }

  /** Answers why the socket may not enter. */
  async #authenticate(socket: Socket): Promise<Error | undefined> {
    try {
      await this.#letInOrThrow(socket);
      return undefined;
    } catch (error) {
      const known = knownError(error);
      return Object.assign(new Error(known.message), { data: problemOf(known, LIVE_PATH, socket.id) });
    }
  }

  async #letInOrThrow(socket: Socket): Promise<void> {
    if (this.shutdown.begun) throw new ThreadlogError('too_many_sockets', 'this process ends');
    const { conn } = socket;
    // A client that asks again before it is answered would get many sockets for one place.
    if (this.#entered.has(conn)) throw new ThreadlogError('malformed_request', 'one socket of a connection enters once');
    this.#entered.add(conn);
    try {
      const letIn = await this.#askedBy(socket);
      // A place that is taken after the close would be given back by nobody.
      if (conn.readyState !== 'open') throw new ThreadlogError('unauthenticated', 'the client has gone');
      this.places.admit(conn, letIn.caller.principal);
      this.#letIn.set(socket, letIn);
    } catch (error) {
      this.#entered.delete(conn);
      throw error;
    }
  }

  async #askedBy({ handshake, request }: Socket): Promise<LetIn> {
    const { token, ticket, since, filter = {}, ...others } = handshake.auth as Readonly<Record<string, unknown>>;
    const [unknown] = Object.keys(others);
    const wrong = (field: string, message: string) =>
      new ThreadlogError('validation_failed', undefined, { errors: [{ field: `auth.${field}`, message }] });
    if (unknown !== undefined) throw wrong(unknown, 'is unknown; it takes token or ticket, since and filter');
    if (typeof filter !== 'object' || filter === null || Array.isArray(filter)) throw wrong('filter', 'must be an object');
    const answer = new UpgradeAnswer();
    const given = await this.authentication.ofHandshake(request, ticket, answer);
    if (given !== undefined && token !== undefined) throw new ThreadlogError('unauthenticated', 'more than one key');
    if (given === undefined && typeof token !== 'string') throw new ThreadlogError('unauthenticated');
    const caller = given ?? (await this.authentication.ofKey(String(token), request, answer));
    return { caller, wish: await this.authentication.wishOf(caller.principal, { ...filter, since }, (field) => `filter.${field}`) };
  }
}

/** One socket of socket.io. */
class IoConnection implements LiveConnection {
  #session: LiveSession | undefined;
  #open = true;
  #queued = 0;
  #buffered = 0;

  constructor(
    private readonly socket: Socket,
    readonly carrier: LiveGateway,
  ) {
    carrier.metrics.opened(carrier.transport);
  }

  get id(): string {
    return this.socket.id;
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** What engine.io keeps, and what its WebSocket keeps. */
  get waiting(): number {
    const { writeBuffer, transport } = insideOf(this.socket);
    return (writeBuffer.length === 0 ? 0 : this.#buffered) + (transport.socket?.bufferedAmount ?? 0);
  }

  serve({ caller, wish }: LetIn): void {
    const { socket, carrier } = this;
    const flushed = () => (this.#buffered = 0);
    socket.conn.on('flush', flushed);
    socket.once('disconnect', () => {
      this.#open = false;
      socket.conn.off('flush', flushed);
      // A connection that has left the namespace has no use, and would keep its place.
      socket.conn.close();
      carrier.metrics.closed(carrier.transport);
      if (this.#session !== undefined) carrier.sessions.gone(this.#session);
    });
    socket.onAny((type: unknown, content: unknown) => {
      if (this.#session === undefined) return this.end(4400, 'nothing may be sent before ready');
      if (this.#queued >= MOST_QUEUED) return this.end(4429);
      this.#queued++;
      const fields = typeof content === 'object' && content !== null ? content : {};
      void carrier.sessions.receive(this.#session, { ...fields, type }).finally(() => this.#queued--);
    });
    void this.#begin(caller, wish);
  }

  async #begin(caller: LiveCaller, wish: LiveWish): Promise<void> {
    try {
      const session = await this.carrier.sessions.open(this, caller, wish);
      this.#session = session;
      if (!this.#open) this.carrier.sessions.gone(session);
    } catch (error) {
      this.end(...closeOf(error));
    }
  }

  send(frame: LiveFrame): void {
    if (!this.#open) return;
    this.socket.emit(frame.content.type, frame.content);
    this.carrier.metrics.sent('socket.io', 1);
    this.sent(frame);
  }

  /** The frame was given to socket.io. */
  sent(frame: LiveFrame): void {
    const { writeBuffer, transport } = insideOf(this.socket);
    this.#buffered = writeBuffer.length === 0 ? 0 : this.#buffered + frame.size;
    if (writeBuffer.length <= MOST_WAITING_PACKETS && this.waiting <= MOST_WAITING_BYTES) return;
    this.#open = false;
    this.carrier.metrics.cut('socket.io');
    // A close would wait behind everything that the client does not read.
    if (transport.socket === undefined) this.socket.conn.close(true);
    else transport.socket.terminate();
  }

  async flushed(): Promise<void> {
    const taken = () => {
      const { writeBuffer, transport } = insideOf(this.socket);
      return writeBuffer.length === 0 && transport.writable;
    };
    while (this.#open && !taken()) await new Promise((resolve) => setTimeout(resolve, FLUSH_POLL_MS));
  }

  /** There are no close codes: the reason comes as a last frame. */
  end(code: CloseCode, reason: string = CLOSE_CODES[code]): void {
    if (!this.#open) return;
    this.socket.emit('error', { type: 'error', data: { code, reason } });
    this.socket.disconnect(true);
  }
}

/** What engine.io does not show of a connection: the packets that it keeps, and the WebSocket below, unless the client polls. */
interface Inside {
  readonly writeBuffer: readonly unknown[];
  readonly transport: { readonly writable: boolean; readonly socket?: { readonly bufferedAmount: number; terminate(): void } };
}

const insideOf = ({ conn }: Socket) => conn as unknown as Inside;
