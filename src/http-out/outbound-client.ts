import { isIP, type Socket } from 'node:net';
import { callbackify } from 'node:util';
import { Agent, buildConnector, errors } from 'undici';
import { ignoreFailure } from '../ignore-failure.js';
import { NotReachable, NotResolved, type Reachable } from './reachable.js';

/** The time for the whole of a request: name, connection, sending, answer (ms). */
export const REQUEST_MS = 15_000;
const CONNECT_MS = 10_000;
/** What is kept of an answer's body (bytes). */
export const ANSWER_KEPT = 4_096;
/** What is read of an answer's body, so that its connection can be used again; one with a longer body is closed (bytes). */
const ANSWER_READ = 65_536;
/** How long the body may take once the status is there (ms). */
const BODY_MS = 2_000;
const MAX_HEADERS = 16_384;
/** How long an idle connection is kept (ms): most servers keep theirs for a minute. */
const IDLE_MS = 10_000;
/** Connections are closed after so many requests, so that a name's new address is used at last. */
const REQUESTS_OF_A_CONNECTION = 1_000;

/** How a request ended that got no status. */
export type OutboundFailure = 'blocked' | 'unresolved' | 'timeout' | 'unreachable';

export type Outbound =
  | {
      readonly status: number;
      /** The value of Retry-After. */
      readonly retryAfter: string | undefined;
      /** The first ANSWER_KEPT bytes of the body, as text. */
      readonly body: string;
    }
  | { readonly failure: OutboundFailure; readonly error: string };

/**
 * Sends requests to addresses that customers named. Every connection is checked, also one to an address that no name was looked up for, and
 * goes to the very address that was checked: a name cannot change between the check and the connection. Redirects are not followed, bodies
 * not unpacked, no proxy of the environment is used, and connections are kept per origin. An origin has as many connections as there are
 * requests to it at the same time: several tenants may share it, and none of them waits for the slow answers to another one.
 */
export class OutboundClient {
  private readonly agent: Agent;

  /** @param options.ca certificates to trust instead of the usual ones */
  constructor(
    private readonly reachable: Reachable,
    options: { readonly ca?: string | Buffer } = {},
  ) {
    this.agent = new Agent({
      connect: checkedConnector(reachable, options.ca),
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MS,
      headersTimeout: REQUEST_MS,
      bodyTimeout: BODY_MS,
      maxHeaderSize: MAX_HEADERS,
      maxRequestsPerClient: REQUESTS_OF_A_CONNECTION,
    });
  }

  /** Never throws for what a receiver does. @param signal ends the request at once */
  async post(url: string, headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal): Promise<Outbound> {
    const fault = this.reachable.faultOf(url);
    if (fault !== undefined) return { failure: 'blocked', error: fault };
    const { origin, pathname, search } = new URL(url);
    const time = new AbortController();
    const timer = setTimeout(() => time.abort(), REQUEST_MS);
    try {
      const answer = await this.agent.request({
        origin,
        path: `${pathname}${search}`,
        method: 'POST',
        headers,
        body,
        signal: AbortSignal.any([signal, time.signal]),
      });
      const retryAfter = answer.headers['retry-after'];
      return {
        status: answer.statusCode,
        retryAfter: typeof retryAfter === 'string' ? retryAfter : undefined,
        body: await beginning(answer.body),
      };
    } catch (error) {
      if (time.signal.aborted) return { failure: 'timeout', error: `no answer within ${REQUEST_MS / 1_000} s` };
      return described(error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await this.agent.destroy();
  }
}

/** The beginning of a body. */
async function beginning(body: AsyncIterable<Buffer> & { destroy(): unknown }): Promise<string> {
  const kept: Buffer[] = [];
  const timer = setTimeout(() => body.destroy(), BODY_MS);
  await ignoreFailure(readInto(kept, body), 'the status has been received, and whatever the body does changes nothing about it');
  clearTimeout(timer);
  // PostgreSQL stores no U+0000.
  return Buffer.concat(kept).toString('utf8').replaceAll('\0', '\ufffd');
}

async function readInto(kept: Buffer[], body: AsyncIterable<Buffer>): Promise<void> {
  let read = 0;
  for await (const chunk of body) {
    if (read < ANSWER_KEPT) kept.push(chunk.subarray(0, ANSWER_KEPT - read));
    read += chunk.length;
    // Leaving the loop destroys the body, and with it the connection.
    if (read >= ANSWER_READ) return;
  }
}

function described(error: unknown): Outbound {
  const cause = error instanceof errors.ConnectTimeoutError ? error : causeOf(error);
  if (cause instanceof NotReachable) return { failure: 'blocked', error: cause.message };
  if (cause instanceof NotResolved) return { failure: 'unresolved', error: cause.message };
  if (cause instanceof errors.ConnectTimeoutError || cause instanceof errors.HeadersTimeoutError)
    return { failure: 'timeout', error: 'no answer in time' };
  if (cause instanceof errors.HeadersOverflowError) return { failure: 'unreachable', error: 'the headers of the answer are too large' };
  const { code } = cause as { code?: unknown };
  return { failure: 'unreachable', error: typeof code === 'string' ? `the connection failed: ${code}` : 'the connection failed' };
}

function causeOf(error: unknown): unknown {
  for (let at = error; ;) {
    if (at instanceof NotReachable || at instanceof NotResolved || !(at instanceof Error) || at.cause === undefined) return at;
    at = at.cause;
  }
}

function checkedConnector(reachable: Reachable, ca: string | Buffer | undefined): buildConnector.connector {
  return callbackify(async (options: buildConnector.Options): Promise<Socket> => {
    const { protocol, hostname } = options;
    const host = hostname.replace(/^\[|\]$/g, '');
    const target = { protocol, host, port: Number(options.port) || (protocol === 'https:' ? 443 : 80) };
    const addresses = await reachable.addressesOf(target);
    const connect = buildConnector({
      timeout: CONNECT_MS,
      ...(ca === undefined ? {} : { ca }),
      // The addresses that were checked, and no second look at the name.
      autoSelectFamily: true,
      lookup: (_name, _options, found) =>
        found(
          null,
          addresses.map((address) => ({ address, family: isIP(address) })),
        ),
    });
    const socket = await new Promise<Socket>((resolve, reject) =>
      connect(options, (error, connected) => (error === null ? resolve(connected) : reject(error))),
    );
    try {
      reachable.assertAddress(target, socket.remoteAddress ?? '');
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return socket;
  }) as unknown as buildConnector.connector;
}
