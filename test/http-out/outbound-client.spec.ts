import { execFileSync } from 'node:child_process';
import { createSocket as createUdpSocket } from 'node:dgram';
import { mkdtempSync, readFileSync } from 'node:fs';
import { createServer as createTlsServer } from 'node:https';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ANSWER_KEPT, type Outbound, OutboundClient } from '../../src/http-out/outbound-client.js';
import { namesFrom, Reachable, type Resolve } from '../../src/http-out/reachable.js';
import { eventually } from '../support/eventually.js';

const sockets = new Set<Socket>();
const servers: Server[] = [];
const clients: OutboundClient[] = [];

/** A receiver that does with a connection, once a request has come, whatever the test says. */
async function listen(answer: (socket: Socket, request: string) => void): Promise<number> {
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    let request = '';
    socket.on('data', (chunk) => {
      request += chunk.toString();
      if (!request.includes('"end"')) return;
      const whole = request;
      request = '';
      answer(socket, whole);
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as { port: number }).port;
}

function client(options: { networks?: readonly string[]; resolve?: Resolve; ca?: string } = {}): OutboundClient {
  const { networks = ['127.0.0.0/8'], resolve, ca } = options;
  const reachable = new Reachable(networks, ...(resolve === undefined ? [] : [resolve]));
  const made = new OutboundClient(reachable, ca === undefined ? {} : { ca });
  clients.push(made);
  return made;
}

const A_RECORD = 1;
/** Reads the question of a DNS query, and answers it with an address of version 4, or with none of version 6. */
function dnsAnswer(query: Buffer, address: readonly number[]): { name: string; type: number; answer: Buffer } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  const question = query.subarray(12, at + 5);
  const type = query.readUInt16BE(at + 1);
  const header = Buffer.from(query.subarray(0, 12));
  header.writeUInt16BE(0x8180, 2);
  header.writeUInt16BE(type === A_RECORD ? 1 : 0, 6);
  header.fill(0, 8);
  // The name at offset 12, A, IN, an hour, four bytes.
  const record = Buffer.from([0xc0, 12, 0, A_RECORD, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, ...address]);
  return { name: labels.join('.'), type, answer: Buffer.concat([header, question, ...(type === A_RECORD ? [record] : [])]) };
}

const BODY = '{"at":"end"}';
const post = (from: OutboundClient, url: string): Promise<Outbound> =>
  from.post(url, { 'x-test': '1' }, BODY, new AbortController().signal);
const head = (more = '', length = 2) => `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n${more}\r\n`;

afterAll(async () => {
  for (const one of clients) await one.close();
  for (const one of sockets) one.destroy();
  for (const one of servers) one.close();
});

describe('a receiver', () => {
  test('gets the request whole, and many over a few connections', async () => {
    const seen: string[] = [];
    const port = await listen((socket, request) => {
      seen.push(`${socket.remotePort} ${request}`);
      socket.write(`${head()}ok`);
    });
    const one = client();
    for (let i = 0; i < 10; i++)
      expect(await post(one, `http://127.0.0.1:${port}/a/b?c=d`)).toEqual({ status: 200, retryAfter: undefined, body: 'ok' });
    expect(seen[0]).toContain('POST /a/b?c=d HTTP/1.1');
    expect(seen[0]).toContain(BODY);
    expect(new Set(seen.map((line) => line.split(' ', 1)[0])).size).toBeLessThanOrEqual(2);
  });

  test('that answers slowly keeps nobody else at its origin waiting', async () => {
    let silent = 0;
    const port = await listen((socket, request) => (request.startsWith('POST /slow') ? void silent++ : socket.write(`${head()}ok`)));
    const one = client();
    const ending = new AbortController();
    const slow = Array.from({ length: 150 }, () => one.post(`http://127.0.0.1:${port}/slow`, {}, BODY, ending.signal));
    await eventually(() => silent === slow.length);
    expect(await post(one, `http://127.0.0.1:${port}/`)).toMatchObject({ status: 200 });
    ending.abort();
    for (const answer of await Promise.all(slow)) expect(answer).toMatchObject({ failure: 'unreachable' });
  });

  test('that redirects is not followed', async () => {
    let followed = 0;
    const inside = await listen((socket) => {
      followed++;
      socket.end(`${head()}ok`);
    });
    for (const status of [301, 302, 303, 307, 308]) {
      const port = await listen((socket) =>
        socket.end(`HTTP/1.1 ${status} x\r\nLocation: http://127.0.0.1:${inside}/\r\nContent-Length: 0\r\n\r\n`),
      );
      expect(await post(client(), `http://127.0.0.1:${port}/`)).toMatchObject({ status });
    }
    expect(followed).toBe(0);
  });

  test('that sends a gigabyte is cut off', async () => {
    let written = 0;
    const port = await listen((socket) => {
      socket.write(head('', 1_000_000_000));
      const chunk = Buffer.alloc(65_536, 'x');
      const more = () => {
        while (!socket.destroyed && written < 1_000_000_000 && socket.write(chunk)) written += chunk.length;
      };
      socket.on('drain', more);
      more();
    });
    const answer = await post(client(), `http://127.0.0.1:${port}/`);
    expect(answer).toEqual({ status: 200, retryAfter: undefined, body: 'x'.repeat(ANSWER_KEPT) });
    expect(written).toBeLessThan(50_000_000);
  });

  test('that sends a packed bomb has it kept packed', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000));
    const port = await listen((socket) => {
      socket.write(head('Content-Encoding: gzip\r\n', bomb.length));
      socket.end(bomb);
    });
    const answer = await post(client(), `http://127.0.0.1:${port}/`);
    expect(answer).toMatchObject({ status: 200 });
    expect(('body' in answer ? answer.body : '').length).toBeLessThanOrEqual(ANSWER_KEPT);
    expect('body' in answer ? answer.body : '\0').not.toContain('\0');
  });

  test('that sends a hundred thousand headers is left', async () => {
    const port = await listen((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n');
      for (let i = 0; i < 100_000 && !socket.destroyed; i++) socket.write(`x-${i}: ${i}\r\n`);
      socket.end('\r\n');
    });
    expect(await post(client(), `http://127.0.0.1:${port}/`)).toMatchObject({ failure: 'unreachable' });
  });

  test('that says it takes, and breaks off in the middle of the body, has taken', async () => {
    const port = await listen((socket) => {
      socket.write(`${head('', 100)}half`);
      setTimeout(() => socket.destroy(), 20);
    });
    expect(await post(client(), `http://127.0.0.1:${port}/`)).toMatchObject({ status: 200, body: 'half' });
  });

  test.each([
    ['hangs up', (socket: Socket) => socket.destroy()],
    ['resets the connection', (socket: Socket) => socket.resetAndDestroy()],
    ['speaks no HTTP', (socket: Socket) => socket.end('SSH-2.0-OpenSSH_9.6\r\n')],
    ['breaks off in the middle of the headers', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-')],
    ['answers a status that is none', (socket: Socket) => socket.end('HTTP/1.1 9999 x\r\n\r\n')],
  ])('that %s has failed', async (_, answer) => {
    const port = await listen((socket) => void answer(socket));
    expect(await post(client(), `http://127.0.0.1:${port}/`)).toMatchObject({ failure: 'unreachable' });
  });

  test('that nobody is has failed', async () => {
    expect(await post(client(), 'http://127.0.0.1:9/')).toMatchObject({
      failure: 'unreachable',
      error: expect.stringContaining('ECONNREFUSED'),
    });
  });

  test('that sends a byte a second, or nothing, has fifteen seconds', async () => {
    const slow = await listen((socket) => {
      const text = `HTTP/1.1 200 OK\r\n${'x'.repeat(1_000)}`;
      let at = 0;
      const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write(text[at++] ?? '')), 1_000);
      socket.on('close', () => clearInterval(timer));
    });
    const silent = await listen(() => undefined);
    const slowBody = await listen((socket) => {
      socket.write(head('', 1_000));
      const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write('x')), 1_000);
      socket.on('close', () => clearInterval(timer));
    });
    const one = client();
    const began = performance.now();
    const took = async (port: number) => ({ answer: await post(one, `http://127.0.0.1:${port}/`), ms: performance.now() - began });
    const [byte, nothing, body] = await Promise.all([took(slow), took(silent), took(slowBody)]);
    for (const { answer, ms } of [byte, nothing]) {
      expect(answer).toMatchObject({ failure: 'timeout' });
      expect(ms).toBeGreaterThan(14_000);
      expect(ms).toBeLessThan(17_000);
    }
    // The status has come, and a slow body changes nothing about it.
    expect(body.answer).toMatchObject({ status: 200 });
    expect(body.ms).toBeLessThan(5_000);
  }, 30_000);

  test('is told apart by its certificate', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'threadlog-tls-'));
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    execFileSync(
      'openssl',
      [
        ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
        ['-subj', '/CN=hooks.example', '-addext', 'subjectAltName=DNS:hooks.example', '-keyout', key, '-out', cert],
      ].flat(),
      { stdio: 'ignore' },
    );
    const ca = readFileSync(cert, 'utf8');
    const server = createTlsServer({ key: readFileSync(key), cert: ca }, (request, response) => {
      request.resume().on('end', () => response.end(String(request.headers.host)));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const resolve = () => Promise.resolve(['127.0.0.1']);
    try {
      expect(await post(client({ resolve, ca }), `https://hooks.example:${port}/`)).toMatchObject({
        status: 200,
        body: `hooks.example:${port}`,
      });
      expect(await post(client({ resolve, ca }), `https://other.example:${port}/`)).toMatchObject({ failure: 'unreachable' });
      expect(await post(client({ resolve }), `https://hooks.example:${port}/`)).toMatchObject({ failure: 'unreachable' });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('an address inside', () => {
  /** Listens where nobody may be led. */
  async function inside(): Promise<{ port: number; hits: () => number }> {
    let hits = 0;
    const port = await listen((socket) => socket.end(`${head()}ok`));
    servers.at(-1)?.on('connection', () => hits++);
    return { port, hits: () => hits };
  }

  test('is not connected to, by any spelling', async () => {
    const { port, hits } = await inside();
    for (const host of ['127.0.0.1', '127.1', '2130706433', '0x7f.1', '0177.0.0.1', '[::ffff:127.0.0.1]', '0.0.0.0', 'localhost', '[::1]'])
      for (const protocol of ['http', 'https'])
        expect([host, await post(client({ networks: [] }), `${protocol}://${host}:${port}/`)]).toEqual([
          host,
          { failure: 'blocked', error: expect.any(String) },
        ]);
    expect(hits()).toBe(0);
  });

  test('is not connected to by a name whose answer changes between two looks, or has both', async () => {
    const { port, hits } = await inside();
    for (const answers of [[['127.0.0.2'], ['127.0.0.1']], [['127.0.0.1', '127.0.0.2']], [['127.0.0.2', '127.0.0.1']]]) {
      let looks = 0;
      // The operator's network stands for what is public; the last byte tells inside from outside.
      const rebound = client({
        networks: ['127.0.0.2/32'],
        resolve: () => Promise.resolve(answers[Math.min(looks++, answers.length - 1)] ?? []),
      });
      for (let i = 0; i < 3; i++) {
        const answer = await post(rebound, `http://rebound.example:${port}/`);
        expect('failure' in answer && ['blocked', 'unreachable'].includes(answer.failure)).toBe(true);
      }
    }
    expect(hits()).toBe(0);
  });

  test('is not connected to by a name server that answers another address at each look', async () => {
    const { port, hits } = await inside();
    // Answers a public address first, and then the one inside; a long time to live changes nothing.
    const asked: string[] = [];
    const server = createUdpSocket('udp4');
    server.on('message', (query, { port: from, address }) => {
      const { name, type, answer } = dnsAnswer(query, asked.length === 0 ? [127, 0, 0, 2] : [127, 0, 0, 1]);
      if (type === A_RECORD) asked.push(name);
      server.send(answer, from, address);
    });
    server.bind(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const resolve = namesFrom([`127.0.0.1:${server.address().port}`]);
      // The operator's network stands for what is public; the last byte tells inside from outside.
      const reachable = new Reachable(['127.0.0.2/32'], resolve);
      expect(await reachable.faultNow(`http://rebound.example:${port}/`)).toBeUndefined();
      const rebound = new OutboundClient(reachable);
      clients.push(rebound);
      for (let i = 0; i < 3; i++) expect(await post(rebound, `http://rebound.example:${port}/`)).toMatchObject({ failure: 'blocked' });
      expect(asked.length).toBe(4);
      expect(new Set(asked)).toEqual(new Set(['rebound.example']));
      expect(hits()).toBe(0);
    } finally {
      server.close();
    }
  });

  test('is looked for again at every connection', async () => {
    const { port, hits } = await inside();
    let looks = 0;
    const kept = client({ networks: ['127.0.0.1/32'], resolve: () => Promise.resolve([looks++ === 0 ? '127.0.0.1' : '127.0.0.3']) });
    expect(await post(kept, `http://kept.example:${port}/`)).toMatchObject({ status: 200 });
    expect(await post(kept, `http://kept.example:${port}/`)).toMatchObject({ failure: 'blocked' });
    expect(hits()).toBe(1);
  });
});
