import { setTimeout as pause } from 'node:timers/promises';
import { EventStoreDBClient } from '@eventstore/db-client';
import { StreamsClient } from '@eventstore/db-client/generated/streams_grpc_pb.js';
import type { ReadReq } from '@eventstore/db-client/generated/streams_pb.js';
import { StoreUnavailable } from '../event-store.js';
import { untilAborted } from './until-aborted.js';
import type { ReadCall } from './wire-format.js';
import { ignoreFailure } from '../../ignore-failure.js';

export type BatchAppendCall = ReturnType<StreamsClient['batchAppend']>;

/** The gRPC connectivity states that matter here. */
const READY = 2;
const FAILING = 3;
const SHUT_DOWN = 4;

const OLDEST = { major: 23, minor: 10 } as const;

/** Time to connect (ms), with TLS handshake and the server's settings frame. A frozen server accepts the socket and then stays silent. */
const CONNECT_MS = 3_000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** gRPC codes that only the server itself sends: invalid argument, not found, denied, precondition, aborted, unauthenticated. */
const ANSWERED = new Set<unknown>([3, 5, 7, 9, 10, 16]);

/**
 * Whether an error may come from the connection and not from the server: gRPC reports a dead node as UNAVAILABLE, but also as UNKNOWN,
 * INTERNAL or DATA_LOSS. Our own errors have no code and say nothing about the connection.
 */
export function connectionIsDoubtful(error: unknown): boolean {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'number') return false;
  return !ANSWERED.has(error.code) || /not.?leader|leader info/i.test(error.message);
}

/** One connected client. At the first doubt about it, the whole connection is given up. */
export class Connection {
  readonly #client: EventStoreDBClient;
  readonly #grpc: StreamsClient;
  readonly #calls = new Set<{ cancel(): void }>();
  #ended = false;

  constructor(client: EventStoreDBClient, grpc: StreamsClient) {
    this.#client = client;
    this.#grpc = grpc;
  }

  get usable(): boolean {
    return !this.#ended && this.#grpc.getChannel().getConnectivityState(false) === READY;
  }

  /** @param timeLimitMs gRPC enforces the limit on this side too, so that the call ends with an error when the server hangs. */
  read(request: ReadReq, timeLimitMs: number): ReadCall {
    return this.#track(this.#grpc.read(request, ...this.#arguments(timeLimitMs)));
  }

  batchAppend(): BatchAppendCall {
    return this.#track(this.#grpc.batchAppend(...this.#arguments(Infinity)));
  }

  /** A version such as `23.10.7.0`. */
  async serverVersion(): Promise<string> {
    return (await this.#client['capabilities']).serverVersion;
  }

  /** Ends every call with an error, since a closed gRPC channel would let them wait for an answer for ever. */
  end(): void {
    this.#ended = true;
    for (const call of this.#calls) call.cancel();
    this.#calls.clear();
    this.#grpc.close();
  }

  #arguments(timeLimitMs: number) {
    // Always the leader: a follower may lack events that were just acknowledged, which head() and the read after an unclear append need.
    const deadline = timeLimitMs === Infinity ? Infinity : Date.now() + timeLimitMs;
    return this.#client['callArguments']({ requiresLeader: true }, { deadline });
  }

  #track<Call extends { cancel(): void; once(event: 'close' | 'end' | 'error', listener: () => void): unknown }>(call: Call): Call {
    this.#calls.add(call);
    const forget = (): void => void this.#calls.delete(call);
    call.once('close', forget);
    call.once('end', forget);
    call.once('error', forget);
    return call;
  }
}

/**
 * Wraps the client to mend its faults. By itself it keeps a channel to a dead node when gRPC reports UNKNOWN or INTERNAL, waits up to two
 * minutes before it tries again after an outage, and hands out connections that are down. This wrapper drops a connection on every doubt,
 * reconnects within a second of the server's return, and hands out only live connections, so that "never sent" differs from "unclear".
 */
export class GuardedClient {
  readonly #url: string;
  readonly #closed = new AbortController();
  #current: Connection | undefined;
  #attempt: Promise<unknown> | undefined;
  #pauseMs = 0;
  #lastFailure: unknown;

  /** @throws TypeError for an unusable connection string; the message never contains its credentials */
  constructor(url: string) {
    assertConnectionString(url);
    this.#url = url;
  }

  get closed(): boolean {
    return this.#closed.signal.aborted;
  }

  /** The current connection if it is up, without waiting. */
  get current(): Connection | undefined {
    return this.#current?.usable ? this.#current : undefined;
  }

  /**
   * Waits for a connection that is up, however long the server is away.
   * @throws StoreUnavailable when the signal fires first or the store was closed
   */
  async connected(signal: AbortSignal): Promise<Connection> {
    for (;;) {
      if (this.closed) throw new StoreUnavailable('the event store was closed');
      if (signal.aborted) throw new StoreUnavailable('EventStoreDB could not be reached', { cause: this.#lastFailure });
      const connection = this.current;
      if (connection) return connection;
      await untilAborted(this.#reconnect(), signal);
    }
  }

  /** @throws Error when the server is older than 23.10, the first to report when a subscription has caught up */
  async assertServer(signal: AbortSignal): Promise<void> {
    const connection = await this.connected(signal);
    const version = await untilAborted(connection.serverVersion(), signal).catch((error: unknown) => {
      throw new StoreUnavailable('EventStoreDB did not report its version', { cause: error });
    });
    if (version === undefined) throw new StoreUnavailable('EventStoreDB did not report its version in time');
    const [major = 0, minor = 0] = version.split('.').map(Number);
    if (!(major > OLDEST.major || (major === OLDEST.major && minor >= OLDEST.minor)))
      throw new Error(`EventStoreDB ${OLDEST.major}.${OLDEST.minor} or newer is needed; the server is ${version}`);
  }

  /** Gives up `connection`, unless that was done before, and connects anew at once, so that the next caller need not wait. */
  giveUp(connection: Connection): void {
    if (this.#current !== connection) return;
    this.#current = undefined;
    connection.end();
    if (!this.closed) void this.#reconnect();
  }

  async close(): Promise<void> {
    this.#closed.abort();
    this.#current?.end();
    this.#current = undefined;
    await this.#attempt;
  }

  /** Makes one attempt at a time, shared by all callers that wait. Never rejects. */
  #reconnect(): Promise<unknown> {
    this.#attempt ??= ignoreFailure(this.#connect(), 'callers that wait for a connection try again until their own deadline').finally(
      () => (this.#attempt = undefined),
    );
    return this.#attempt;
  }

  async #connect(): Promise<void> {
    this.#current?.end();
    this.#current = undefined;
    await pause(this.#pauseMs, undefined, { signal: this.#closed.signal });
    let grpc: StreamsClient | undefined;
    try {
      const client = EventStoreDBClient.connectionString(this.#url);
      const streams: StreamsClient = await client['getGRPCClient'](StreamsClient, 'streams');
      grpc = streams;
      await channelUp(streams, Date.now() + CONNECT_MS);
      if (this.closed) throw new StoreUnavailable('the event store was closed');
      this.#pauseMs = 0;
      this.#current = new Connection(client, streams);
    } catch (error) {
      grpc?.close();
      this.#lastFailure = error;
      this.#pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, this.#pauseMs * 2));
      throw error;
    }
  }
}

/** Replaces gRPC's waitForReady, which waits through the channel's growing pauses, while a fresh channel tries at once. */
function channelUp(grpc: StreamsClient, deadline: number): Promise<void> {
  const channel = grpc.getChannel();
  return new Promise((resolve, reject) => {
    const look = (error?: Error): void => {
      if (error) return reject(error);
      const state = channel.getConnectivityState(true);
      if (state === READY) resolve();
      else if (state === FAILING || state === SHUT_DOWN) reject(new Error(`no connection to ${channel.getTarget()}`));
      else channel.watchConnectivityState(state, deadline, look);
    };
    look();
  });
}

function assertConnectionString(url: string): void {
  if (/^esdb\+discover:\/\/[^/?]*,/.test(url))
    throw new TypeError('esdb+discover:// takes one name; the client would ignore the others. Name several nodes as esdb://a:2113,b:2113');
  if (/[?&]tlsVerifyCert=false/i.test(url))
    throw new TypeError('tlsVerifyCert=false has no effect in the client; name the certificate authority with tlsCAFile');
  try {
    EventStoreDBClient.connectionString(url);
  } catch {
    // The parser's message repeats parts of the text, which may be the password.
    throw new TypeError('the EventStoreDB connection string cannot be read; it looks like esdb://user:password@host:2113?tls=true');
  }
}
