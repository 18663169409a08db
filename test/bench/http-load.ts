import { connect, type Socket } from 'node:net';

export interface LoadResult {
  readonly requests: number;
  readonly seconds: number;
  readonly perSecond: number;
  /** Latency in ms. */
  readonly p50: number;
  readonly p99: number;
  /** Answers by status. */
  readonly statuses: Readonly<Record<number, number>>;
}

export interface Request {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * Sends requests over `clients` keep-alive connections, one at a time on each, for a while. Own sockets and no parser but for the status
 * and the length, since the load shares the machine's cores with what it measures.
 * @param perSecond paces the whole load; as fast as it can without
 */
export async function load(options: {
  readonly port: number;
  readonly clients: number;
  readonly seconds: number;
  readonly next: (client: number) => Request;
  readonly perSecond?: number;
  readonly onAnswer?: (client: number, status: number, headers: string, body: string) => void;
}): Promise<LoadResult> {
  const latencies: number[] = [];
  const statuses: Record<number, number> = {};
  const started = performance.now();
  const end = started + options.seconds * 1000;
  await Promise.all(
    Array.from({ length: options.clients }, async (_, client) => {
      const connection = await Connection.open(options.port);
      const interval = options.perSecond === undefined ? 0 : (1000 * options.clients) / options.perSecond;
      let due = performance.now() + Math.random() * interval;
      for (;;) {
        if (interval > 0) {
          const wait = due - performance.now();
          if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
          due += interval;
        }
        const before = performance.now();
        if (before >= end) break;
        const { status, headers, body } = await connection.send(options.next(client));
        latencies.push(performance.now() - before);
        statuses[status] = (statuses[status] ?? 0) + 1;
        options.onAnswer?.(client, status, headers, body);
      }
      connection.close();
    }),
  );
  const seconds = (performance.now() - started) / 1000;
  latencies.sort((a, b) => a - b);
  return {
    requests: latencies.length,
    seconds,
    perSecond: latencies.length / seconds,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    statuses,
  };
}

export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

class Connection {
  private received: Buffer = Buffer.alloc(0);
  private settle: ((answer: { status: number; headers: string; body: string }) => void) | undefined;
  private fail: ((error: Error) => void) | undefined;

  private constructor(private readonly socket: Socket) {
    socket.on('data', (chunk) => this.take(chunk));
    socket.on('error', (error) => this.fail?.(error));
    socket.on('close', () => this.fail?.(new Error('the server closed the connection')));
  }

  static open(port: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => resolve(new Connection(socket)));
      socket.once('error', reject);
    });
  }

  send(request: Request): Promise<{ status: number; headers: string; body: string }> {
    const headers = Object.entries(request.headers)
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('');
    this.socket.write(
      `${request.method} ${request.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${headers}content-length: ${Buffer.byteLength(request.body)}\r\n\r\n${request.body}`,
    );
    return new Promise((resolve, reject) => {
      this.settle = resolve;
      this.fail = reject;
    });
  }

  close(): void {
    this.fail = undefined;
    this.socket.destroy();
  }

  private take(chunk: Buffer): void {
    this.received = this.received.length === 0 ? chunk : Buffer.concat([this.received, chunk]);
    const headEnd = this.received.indexOf('\r\n\r\n');
    if (headEnd < 0) return;
    const head = this.received.toString('latin1', 0, headEnd);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (this.received.length < headEnd + 4 + length) return;
    const body = this.received.toString('utf8', headEnd + 4, headEnd + 4 + length);
    this.received = this.received.subarray(headEnd + 4 + length);
    this.settle?.({ status: Number(head.slice(9, 12)), headers: head, body });
  }
}
