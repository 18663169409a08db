import { readFileSync } from 'node:fs';
import { WebSocket } from 'ws';
import { load, percentile } from './http-load.js';

export interface LiveTimes {
  /** From the answer of a write to its frame at one socket, at the given rate (ms). */
  readonly frame: { readonly p50: number; readonly p99: number; readonly samples: number };
  /** From the answer of a write to its frame at each of many sockets (ms). */
  readonly crowd: { readonly sockets: number; readonly p50: number; readonly p99: number };
  /** The same with five writes a second. */
  readonly crowdOfFive: { readonly p50: number; readonly p99: number };
  /** Memory that a socket takes in the API's process (KB). */
  readonly socketKb: number;
}

interface Measured {
  readonly port: number;
  readonly pid: number;
  readonly key: string;
}

const address = ({ port }: Measured) => `ws://127.0.0.1:${port}/support/conversations/live`;

/** Opens sockets a few at a time, and waits until each is told that it is ready. */
async function open(server: Measured, count: number, onFrame: (text: string, socket: number) => void): Promise<WebSocket[]> {
  const sockets: WebSocket[] = [];
  while (sockets.length < count) {
    const first = sockets.length;
    const some = Array.from({ length: Math.min(50, count - first) }, (_, i) => {
      const ws = new WebSocket(address(server), { headers: { 'x-api-key': server.key }, perMessageDeflate: false });
      const ready = new Promise<WebSocket>((resolve, reject) => {
        ws.once('error', reject);
        ws.on('message', (data) => {
          const text = (data as Buffer).toString('latin1');
          if (text.startsWith('{"type":"ready"')) resolve(ws);
          else onFrame(text, first + i);
        });
      });
      return ready;
    });
    sockets.push(...(await Promise.all(some)));
  }
  return sockets;
}

const residentKb = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
const positionOf = (text: string) => /"position":"([^"]+)"\}$/.exec(text.slice(-64))?.[1] ?? '';

/**
 * @param measured.next a reply as a request of HTTP
 * @param measured.perSecond the rate of the replies
 */
export async function measureLive(
  server: Measured,
  measured: {
    readonly next: () => { method: string; path: string; headers: Record<string, string>; body: string };
    readonly clients: number;
    readonly seconds: number;
    readonly perSecond: number;
    readonly sockets: number;
  },
): Promise<LiveTimes> {
  const { next, clients, seconds, perSecond } = measured;
  const answered = new Map<string, number>();
  const arrived = new Map<string, number>();
  const [listener] = await open(server, 1, (text) => arrived.set(positionOf(text), performance.now()));
  await load({
    port: server.port,
    clients,
    seconds,
    perSecond,
    next,
    onAnswer: (_client, _status, head) => {
      const position = /x-position: (\S+)/i.exec(head)?.[1];
      if (position !== undefined) answered.set(position, performance.now());
    },
  });
  for (const end = Date.now() + 10_000; arrived.size < answered.size && Date.now() < end;)
    await new Promise((resolve) => setTimeout(resolve, 50));
  listener?.terminate();
  if (arrived.size < answered.size) throw new Error(`${answered.size} replies, and ${arrived.size} frames`);
  // A frame that came before the answer took no time.
  const waits = [...answered].map(([position, at]) => Math.max(0, (arrived.get(position) ?? Infinity) - at)).sort((a, b) => a - b);

  const before = residentKb(server.pid);
  /** When each event was answered, and which each socket had last: none may come out of order. */
  const writtenAt = new Map<string, number>();
  const last: string[] = [];
  let got: { readonly position: string; readonly at: number }[] = [];
  const crowd = await open(server, measured.sockets, (text, socket) => {
    const position = positionOf(text);
    if (position <= (last[socket] ?? '')) throw new Error(`the socket ${socket} had ${position} after ${last[socket]}`);
    last[socket] = position;
    got.push({ position, at: performance.now() });
  });
  const socketKb = (residentKb(server.pid) - before) / measured.sockets;
  const write = async () => {
    const { method, path, headers, body } = next();
    const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method, headers, body });
    writtenAt.set(response.headers.get('x-position') ?? '', performance.now());
    await response.text();
  };
  const arrivals = async (writes: number) => {
    for (const end = Date.now() + 20_000; got.length < writes * crowd.length;) {
      if (Date.now() > end) throw new Error(`${got.length} of ${writes * crowd.length} frames`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const times = got.map(({ position, at }) => Math.max(0, at - (writtenAt.get(position) ?? NaN))).sort((a, b) => a - b);
    got = [];
    return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) };
  };
  // One after the other: the next when all sockets have the one before.
  const one = { p50: [] as number[], p99: [] as number[] };
  for (let round = 0; round < 10; round++) {
    await write();
    const { p50, p99 } = await arrivals(1);
    one.p50.push(p50);
    one.p99.push(p99);
  }
  const writes: Promise<void>[] = [];
  for (let i = 0; i < 5 * seconds; i++) {
    writes.push(write());
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await Promise.all(writes);
  const crowdOfFive = await arrivals(writes.length);
  for (const ws of crowd) ws.terminate();
  const middle = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
  return {
    frame: { p50: percentile(waits, 0.5), p99: percentile(waits, 0.99), samples: waits.length },
    crowd: { sockets: crowd.length, p50: middle(one.p50), p99: Math.max(...one.p99) },
    crowdOfFive,
    socketKb,
  };
}
