import { createServer } from 'node:http';
import { once } from 'node:events';
import { load, percentile, type Request } from './http-load.js';

export interface WebhookTimes {
  /** Deliveries that were waiting, to one receiver that answers at once. */
  readonly deliveries: { readonly perSecond: number; readonly count: number };
  /** From the answer of a write to its arrival at the receiver (ms), while writes come at `perSecond`. */
  readonly arrival: { readonly perSecond: number; readonly p50: number; readonly p99: number; readonly samples: number };
}

const WAIT_MS = 120_000;

/**
 * Measures one endpoint that is told of every reply.
 * @param measured.next a reply as a request of HTTP
 * @param measured.perSecond half of the replies that the API takes
 */
export async function measureWebhooks(
  server: { readonly port: number; readonly key: string },
  measured: { readonly next: () => Request; readonly clients: number; readonly seconds: number; readonly perSecond: number },
): Promise<WebhookTimes> {
  const { next, clients, seconds } = measured;
  const arrived = new Map<string, number>();
  const receiver = createServer((request, response) => {
    let text = '';
    request.setEncoding('latin1');
    request.on('data', (chunk: string) => (text += chunk));
    request.on('end', () => {
      response.writeHead(204).end();
      arrived.set(/"position":"([^"]+)"/.exec(text)?.[1] ?? '', performance.now());
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as { port: number };
  const call = async (method: string, path: string, body: object): Promise<{ data: Record<string, unknown>; position: string }> => {
    const response = await fetch(`http://127.0.0.1:${server.port}/api/support${path}`, {
      method,
      headers: { 'x-api-key': server.key, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${text}`);
    return { data: (JSON.parse(text) as { data: Record<string, unknown> }).data, position: response.headers.get('x-position') ?? '' };
  };
  const arrivals = async (count: number) => {
    for (const end = Date.now() + WAIT_MS; arrived.size < count; await new Promise((resolve) => setTimeout(resolve, 20)))
      if (Date.now() > end) throw new Error(`${arrived.size} of ${count} deliveries arrived`);
  };
  try {
    const { data } = await call('POST', '/webhooks', { url: `http://127.0.0.1:${port}/`, events: ['message.sent'] });
    const path = `/webhooks/${String(data['id'])}`;
    // What happens while it is disabled waits for a replay, and is then delivered as fast as can be.
    const { position } = await call('PUT', path, { enabled: false });
    await load({ port: server.port, clients, seconds, next });
    await call('PUT', path, { enabled: true });
    const began = performance.now();
    const { data: replay } = await call('POST', `${path}/replay`, { after: position });
    const count = Number(replay['count']);
    await arrivals(count);
    const perSecond = (count / (Math.max(...arrived.values()) - began)) * 1_000;

    arrived.clear();
    const answered = new Map<string, number>();
    const rate = Math.min(measured.perSecond, perSecond / 2);
    await load({
      port: server.port,
      clients,
      seconds,
      perSecond: rate,
      next,
      onAnswer: (_client, _status, head) => {
        const at = /x-position: (\S+)/i.exec(head)?.[1];
        if (at !== undefined) answered.set(at, performance.now());
      },
    });
    await arrivals(answered.size);
    // What arrived before the answer took no time.
    const waits = [...answered].map(([at, time]) => Math.max(0, (arrived.get(at) ?? Infinity) - time)).sort((a, b) => a - b);
    await fetch(`http://127.0.0.1:${server.port}/api/support${path}`, { method: 'DELETE', headers: { 'x-api-key': server.key } });
    return {
      deliveries: { perSecond, count },
      arrival: { perSecond: rate, p50: percentile(waits, 0.5), p99: percentile(waits, 0.99), samples: waits.length },
    };
  } finally {
    receiver.closeAllConnections();
    receiver.close();
  }
}
