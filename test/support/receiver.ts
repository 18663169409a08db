import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import { Webhook } from 'standardwebhooks';

/** A request as a receiver got it. */
export interface Received {
  readonly at: number;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into messages of every shape
  readonly body: any;
}

/** A customer's server. */
export interface Receiver {
  readonly url: string;
  readonly got: Received[];
  /** How it answers from now on; 200 by default. */
  answer(how: (request: Received, response: ServerResponse) => void): void;
  /** The message, once the published library has verified it with this secret. @param now the sender's clock (ms) */
  verified(request: Received, secret: string, now?: number): unknown;
  stop(): Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  const got: Received[] = [];
  let how = (_: Received, response: ServerResponse): void => void response.writeHead(200).end('ok');
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const received = { at: Date.now(), path: request.url ?? '', headers: request.headers, text, body: JSON.parse(text) as unknown };
      got.push(received);
      how(received, response);
    });
  });
  server.keepAliveTimeout = 60_000;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    got,
    answer: (next) => void (how = next),
    verified({ text, headers }, secret, now) {
      const real = Date.now;
      // The library compares the time of the message with that of this machine.
      if (now !== undefined) Date.now = () => now;
      try {
        return new Webhook(secret).verify(text, headers as Record<string, string>);
      } finally {
        Date.now = real;
      }
    },
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
