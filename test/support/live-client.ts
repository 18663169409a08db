import { once } from 'node:events';
import { WebSocket, type ClientOptions } from 'ws';
import { eventually } from './eventually.js';

export interface ReceivedFrame {
  readonly type: string;
  readonly position?: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into frames of every shape
  readonly data: any;
  /** The bytes as they came. */
  readonly text: string;
}

/** A client of the live feed over a plain WebSocket, which keeps what it gets. */
export class LiveClient {
  readonly frames: ReceivedFrame[] = [];
  readonly ws: WebSocket;
  /** The code and the reason of the close. */
  readonly closed: Promise<{ code: number; reason: string }>;

  constructor(url: string, options: ClientOptions & { protocols?: string[] } = {}) {
    const { protocols, ...rest } = options;
    this.ws = new WebSocket(url.replace(/^http/, 'ws'), protocols ?? [], rest);
    this.ws.on('message', (data) => {
      const text = (data as Buffer).toString('utf8');
      // What engine.io says first is no JSON.
      if (text.startsWith('{')) this.frames.push({ ...(JSON.parse(text) as ReceivedFrame), text });
    });
    this.closed = new Promise((resolve) => this.ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
    this.ws.on('error', () => undefined);
  }

  /** Connected with a key, and told that it is ready. */
  static async open(api: { readonly url: string }, key: string, query = ''): Promise<LiveClient> {
    const client = new LiveClient(`${api.url}/support/conversations/live${query}`, { headers: { authorization: `Bearer ${key}` } });
    await client.ready();
    return client;
  }

  async ready(): Promise<ReceivedFrame> {
    return await eventually(() => this.frames.find(({ type }) => type === 'ready'));
  }

  /** What of the log it was told. */
  get told(): ReceivedFrame[] {
    return this.frames.filter(({ position, type }) => position !== undefined && type !== 'ready');
  }

  /** Waits for so many frames of the log. */
  async expectTold(count: number): Promise<ReceivedFrame[]> {
    return await eventually(() => {
      if (this.told.length < count) throw new Error(`${this.told.length} frames instead of ${count}`);
      return this.told;
    });
  }

  send(message: unknown): void {
    this.ws.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  async close(): Promise<void> {
    this.ws.close();
    await this.closed;
  }
}

/** The answer of HTTP to a handshake that is refused. */
export async function refusedHandshake(
  url: string,
  options: ClientOptions & { protocols?: string[] } = {},
): Promise<{ status: number; body: { code: string; errors?: { field: string; message: string }[] }; headers: Record<string, unknown> }> {
  const { protocols, ...rest } = options;
  const ws = new WebSocket(url.replace(/^http/, 'ws'), protocols ?? [], rest);
  ws.on('error', () => undefined);
  const [, response] = (await once(ws, 'unexpected-response')) as [unknown, import('node:http').IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString()), headers: response.headers };
}
