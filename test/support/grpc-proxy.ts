import { once } from 'node:events';
import { connect, constants, createServer } from 'node:http2';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';

/** What becomes of one gRPC call. */
export type Fate =
  | 'forward'
  /** Taken, and never answered. */
  | 'hang'
  /** Forwarded, and the stream is reset when the first answer comes: what was asked for has been done. */
  | 'lose the answer'
  /** Forwarded, and the stream is reset after so many bytes of the answer. */
  | { readonly cutAfterBytes: number }
  /** Answered with these messages (serialized) instead of the server's, and ended with this status; without a status it stays open. */
  | { readonly messages?: readonly Uint8Array[]; readonly status?: number; readonly message?: string };

export interface GrpcCall {
  /** `Read`, `BatchAppend` … */
  readonly method: string;
  /** Counts the calls of this method from 0. */
  readonly number: number;
  /** The first message of the request, still serialized. */
  readonly request: Promise<Uint8Array>;
}

export interface GrpcProxy {
  readonly port: number;
  close(): Promise<void>;
}

/** A gRPC server (HTTP/2 without TLS) on loopback that decides about each call: hands it on, answers it itself, loses it. */
export async function startGrpcProxy(
  target: { host: string; port: number },
  decide: (call: GrpcCall) => Fate | Promise<Fate>,
): Promise<GrpcProxy> {
  const upstream = connect(`http://${target.host}:${target.port}`);
  upstream.on('error', () => undefined);
  const counts = new Map<string, number>();
  const sessions = new Set<{ destroy(): void }>();
  const server = createServer();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => undefined);
    session.once('close', () => sessions.delete(session));
  });
  server.on('stream', (stream: ServerHttp2Stream, headers) => void serve(stream, headers));

  async function serve(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
    stream.on('error', () => undefined);
    const method = String(headers[':path']).split('/').at(-1) ?? '';
    const number = counts.get(method) ?? 0;
    counts.set(method, number + 1);
    const chunks: Buffer[] = [];
    const sink: { forward?: (chunk: Buffer) => void } = {};
    const request = new Promise<Uint8Array>((resolve) => {
      stream.on('data', (chunk: Buffer) => {
        if (sink.forward) return sink.forward(chunk);
        chunks.push(chunk);
        const all = Buffer.concat(chunks);
        if (all.length >= 5 && all.length >= 5 + all.readUInt32BE(1)) resolve(all.subarray(5, 5 + all.readUInt32BE(1)));
      });
    });
    const fate = await decide({ method, number, request });
    if (fate === 'hang') return;
    if (typeof fate === 'object' && !('cutAfterBytes' in fate)) return answer(stream, fate);
    let left = typeof fate === 'object' ? fate.cutAfterBytes : Infinity;

    const out = upstream.request({
      ':method': 'POST',
      ':path': headers[':path'],
      'content-type': headers['content-type'],
      te: 'trailers',
      'requires-leader': headers['requires-leader'],
      'connection-name': headers['connection-name'],
    });
    out.on('error', () => stream.destroy());
    for (const chunk of chunks) out.write(chunk);
    sink.forward = (chunk) => void out.write(chunk);
    stream.on('end', () => out.end());
    stream.on('close', () => out.close(constants.NGHTTP2_CANCEL));
    let trailers: IncomingHttpHeaders = {};
    out.on('trailers', (got) => (trailers = got));
    out.on('response', (response, flags) => {
      if (stream.destroyed) return;
      // An answer of nothing but a status comes as one block of headers, and must stay one.
      if (flags & constants.NGHTTP2_FLAG_END_STREAM) return stream.respond(plain(response), { endStream: true });
      stream.respond(plain(response), { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers(plain(trailers)));
    });
    out.on('data', (chunk: Buffer) => {
      if (stream.destroyed) return;
      if (fate === 'lose the answer') return stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      stream.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) setImmediate(() => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
    });
    out.on('end', () => void (stream.destroyed || stream.end()));
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    port: address.port,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      for (const session of sessions) session.destroy();
      upstream.destroy();
      await closed;
    },
  };
}

function answer(
  stream: ServerHttp2Stream,
  { messages = [], status, message = '' }: Exclude<Fate, string | { cutAfterBytes: number }>,
): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': String(status), 'grpc-message': encodeURIComponent(message) }));
  for (const bytes of messages) {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes.length, 1);
    stream.write(Buffer.concat([head, bytes]));
  }
  if (status !== undefined) stream.end();
}

/** Without the pseudo headers of the other connection, apart from the status. */
function plain(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':') || name === ':status'));
}
