import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';

/**
 * A TCP proxy on loopback that does to a connection what networks do: cuts it after so many bytes, delays it, swallows it, kills it.
 * Faults concern the connections of this proxy only; the server behind it stays healthy and can be asked directly.
 */
export interface TcpProxy {
  readonly host: string;
  readonly port: number;
  /**
   * After `bytes` more bytes from the server the connection that carried the last of them ends; those bytes still arrive. Once. With
   * `about`, only what follows a request with this text, on the connection that carried it.
   */
  cutReplyAfter(bytes: number, about?: string): void;
  /** After `bytes` more bytes towards the server, beginning with the request that holds the text, if given. Otherwise as cutReplyAfter. */
  cutRequestAfter(bytes: number, about?: string): void;
  /** From the next occurrence of these bytes towards the server on everything is swallowed, as after blackhole(). Once. Resolves when it was. */
  swallowRequestBefore(bytes: Buffer): Promise<void>;
  /** Undoes cuts that have not happened. True when one was still waiting. */
  uncut(): boolean;
  /** Holds each chunk back for so long, in both directions. */
  delay(ms: number): void;
  /**
   * From now on nothing passes, on old and new connections or on the old ones only, and nobody is told. heal() lets everything through
   * that was held.
   */
  blackhole(connections?: 'all' | 'old'): void;
  heal(): void;
  /** Ends all connections at once. */
  kill(): void;
  /** Refuses new connections, and ends the old ones unless they are kept; then a cut ends them all. */
  refuse(options?: { keep: boolean }): Promise<void>;
  accept(): Promise<void>;
  close(): Promise<void>;
}

type Direction = 'request' | 'reply';

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
}

interface Cut {
  left: number;
  readonly about: string | undefined;
  /** The connection that it concerns, once known. */
  pair: Pair | undefined;
}

export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  const cuts: Record<Direction, Cut | undefined> = { request: undefined, reply: undefined };
  let delayMs = 0;
  let swallowing = false;
  let swallowBefore: { readonly bytes: Buffer; readonly swallowed: () => void } | undefined;

  const server: Server = createServer((client) => {
    const upstream = connect(target.port, target.host);
    const pair: Pair = { client, upstream };
    pairs.add(pair);
    const end = () => {
      client.destroy();
      upstream.destroy();
      pairs.delete(pair);
    };
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on('error', end);
      socket.on('close', end);
      if (swallowing) socket.pause();
    }
    client.on('data', (chunk: Buffer) => {
      const awaited = swallowBefore;
      const at = awaited === undefined ? -1 : chunk.indexOf(awaited.bytes);
      if (at < 0) {
        pass('request', chunk, pair, end);
      } else {
        swallowBefore = undefined;
        pass('request', chunk.subarray(0, at), pair, end);
        blackhole();
        client.unshift(chunk.subarray(at));
        awaited?.swallowed();
      }
    });
    upstream.on('data', (chunk: Buffer) => pass('reply', chunk, pair, end));
    if (swallowing) pause(pair);
  });

  function pass(direction: Direction, chunk: Buffer, pair: Pair, end: () => void): void {
    if (direction === 'request') {
      for (const cut of [cuts.request, cuts.reply])
        if (cut !== undefined && cut.about !== undefined && chunk.includes(cut.about)) cut.pair ??= pair;
    }
    const to = direction === 'request' ? pair.upstream : pair.client;
    const cut = cuts[direction];
    let last = false;
    let bytes = chunk;
    if (cut !== undefined && (cut.about === undefined || cut.pair === pair)) {
      last = chunk.length >= cut.left;
      if (last) {
        bytes = chunk.subarray(0, cut.left);
        cuts[direction] = undefined;
      } else {
        cut.left -= chunk.length;
      }
    }
    // Ended only when the bytes before the cut are on their way; an immediate destroy would drop them as well. Of a server that is away,
    // no other connection that was kept may go on answering.
    const write = () => (last ? to.write(bytes, () => (server.listening ? end() : kill())) : to.write(bytes));
    if (delayMs > 0) setTimeout(write, delayMs);
    else write();
  }

  function blackhole(connections: 'all' | 'old' = 'all'): void {
    swallowing = connections === 'all';
    for (const pair of pairs) pause(pair);
  }

  function pause(pair: Pair): void {
    pair.client.pause();
    pair.upstream.pause();
  }

  async function listen(port: number): Promise<void> {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  }

  await listen(0);
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  const { port } = address;

  const kill = () => {
    for (const { client, upstream } of pairs) {
      client.destroy();
      upstream.destroy();
    }
  };
  const refuse = async (options?: { keep: boolean }) => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    // While connections are kept, the server is closed to new ones only.
    if (options?.keep) return;
    kill();
    await closed;
  };

  return {
    host: '127.0.0.1',
    port,
    cutReplyAfter: (bytes, about) => void (cuts.reply = { left: bytes, about, pair: undefined }),
    cutRequestAfter: (bytes, about) => void (cuts.request = { left: bytes, about, pair: undefined }),
    uncut: () => {
      const waiting = cuts.reply !== undefined || cuts.request !== undefined;
      cuts.reply = undefined;
      cuts.request = undefined;
      return waiting;
    },
    delay: (ms) => void (delayMs = ms),
    swallowRequestBefore: (bytes) => new Promise((swallowed) => (swallowBefore = { bytes, swallowed })),
    blackhole,
    heal: () => {
      swallowing = false;
      for (const { client, upstream } of pairs) {
        client.resume();
        upstream.resume();
      }
    },
    kill,
    refuse,
    accept: () => listen(port),
    close: async () => {
      kill();
      await refuse();
    },
  };
}
