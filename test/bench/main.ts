import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { cpuOf, cpuOfTree, memoryOfTree } from './cpu.js';
import { bareEventStoreDbAppends } from './eventstoredb-appends.js';
import { load, percentile } from './http-load.js';
import { measureLists } from './lists.js';
import { measureNumbers } from './numbers.js';
import { measureLive } from './live.js';
import { measureSearches } from './searches.js';
import { measureMoving, rebuild, type RebuiltGroup } from './moving.js';
import { measureParts } from './parts.js';
import { measureRules } from './rules.js';
import { measureWebhooks } from './webhooks.js';

/*
 * npm run bench: what Threadlog does per second, beside what the same machine does without it in the same run. Ratios are the result;
 * rates differ from machine to machine and from hour to hour.
 */
const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    clients: { type: 'string', default: '32' },
    conversations: { type: 'string', default: '2000' },
    lists: { type: 'string', default: '200000' },
    sockets: { type: 'string', default: '5000' },
    import: { type: 'string' },
    inline: { type: 'boolean', default: false },
    help: { type: 'boolean' },
  },
});
if (options.help === true) {
  process.stdout.write(
    'npm run bench -- [--seconds 5] [--rounds 3] [--clients 32] [--conversations 2000] [--lists 200000] [--sockets 5000] [--import FILE.ndjson.gz] [--inline] [--json FILE]\n' +
      'EVENTSTORE_URL adds the same on EventStoreDB. DATABASE_URL measures on that server instead of the embedded one.\n',
  );
  process.exit(0);
}
const SECONDS = Number(options.seconds);
const ROUNDS = Number(options.rounds);
const CLIENTS = Number(options.clients);
const CONVERSATIONS = Number(options.conversations);
const LISTS = Number(options.lists);
/** The aims of some questions to analytics. */
const AIMS = new Map([
  ['the six numbers over everything', '< 100 ms'],
  ['conversations resolved by day and agent over a year', '< 300 ms'],
]);
const SOCKETS = Number(options.sockets);
const KEY = `bench_${randomBytes(24).toString('hex')}`;
const ROOT = new URL('../..', import.meta.url).pathname;
const TEXT = 'Thanks for reaching out! I have looked at your account and the second charge will be refunded by tomorrow evening.';

interface Server {
  readonly port: number;
  readonly process: ChildProcess;
  readonly pid: number;
  stop(): Promise<void>;
}

/** Ended with the bench, however that ends. */
const children: ChildProcess[] = [];
const say = (line: string) => void process.stderr.write(`${line}\n`);
const free = async (): Promise<number> => {
  const { createServer } = await import('node:net');
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
};

async function start(argv: readonly string[], environment: Record<string, string>, ready: RegExp): Promise<Server> {
  const port = await free();
  const child = spawn(process.execPath, argv, {
    cwd: ROOT,
    env: { ...process.env, LOG_LEVEL: 'error', RATE_LIMIT_PER_MINUTE: '1000000', PORT: String(port), ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (ready.test(text)) resolve();
    });
    child.once('exit', (code) => reject(new Error(`it ended with ${code}`)));
  });
  return {
    port,
    process: child,
    pid: child.pid ?? 0,
    stop: () =>
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGTERM');
      }),
  };
}

/** Single-row inserts per second over `clients` connections: what the database gives without anything around it. */
async function bareInserts(url: string, seconds: number): Promise<{ perSecond: number; databaseCpu: number }> {
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      return client;
    }),
  );
  const before = databaseCpu();
  const end = performance.now() + seconds * 1000;
  const started = performance.now();
  let inserted = 0;
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() < end) {
        await client.query({
          name: 'insert',
          text: 'insert into bench.bare (id, stream, data, metadata) values ($1, $2, $3, $4)',
          values: [randomUUID(), 'conversation-main.1', DATA, METADATA],
        });
        inserted++;
      }
    }),
  );
  const perSecond = (inserted / (performance.now() - started)) * 1000;
  const databaseCpuPer = (databaseCpu() - before) / inserted;
  await Promise.all(clients.map((client) => client.end()));
  return { perSecond, databaseCpu: databaseCpuPer };
}

// As large as the event of a reply.
const DATA = JSON.stringify({
  messageId: randomUUID(),
  contentType: 'text',
  content: 'x'.repeat(200),
  author: { type: 'agent', id: randomUUID(), name: 'Ada' },
});
const METADATA = JSON.stringify({ organizationId: 'main', actor: {}, text: 'x'.repeat(420) });

let postmaster = 0;
const databaseCpu = () => (postmaster === 0 ? 0 : cpuOfTree(postmaster));

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

async function request(
  port: number,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; body: unknown }> {
  const response = await fetch(`http://127.0.0.1:${port}/api/support${path}`, {
    method,
    headers: { 'x-api-key': KEY, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

async function makeConversations(port: number): Promise<string[]> {
  await request(port, 'POST', '/agents', { id: 'agent-bench', name: 'Bench' });
  const ids: string[] = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      while (next < CONVERSATIONS) {
        const i = next++;
        const { status, body } = await request(port, 'POST', '/conversations', {
          visitor: { name: `Visitor ${i}` },
          message: 'Hello, I was charged twice.',
        });
        if (status !== 201) throw new Error(JSON.stringify(body));
        ids.push((body as { data: { id: string } }).data.id);
      }
    }),
  );
  return ids;
}

function replies(
  server: Server,
  ids: readonly string[],
  seconds: number,
  perSecond?: number,
  onAnswer?: (client: number, status: number, headers: string, body: string) => void,
) {
  const headers = { 'x-api-key': KEY, 'x-agent-id': 'agent-bench', 'content-type': 'application/json' };
  const body = JSON.stringify({ message: TEXT });
  return load({
    port: server.port,
    clients: CLIENTS,
    seconds,
    next: () => ({
      method: 'POST',
      path: `/api/support/conversations/${ids[Math.floor(Math.random() * ids.length)]}/reply`,
      headers,
      body,
    }),
    ...(perSecond === undefined ? {} : { perSecond }),
    ...(onAnswer === undefined ? {} : { onAnswer }),
  });
}

const ok = (statuses: Readonly<Record<number, number>>) => {
  if (Object.keys(statuses).some((status) => status !== '201')) throw new Error(`not every reply was stored: ${JSON.stringify(statuses)}`);
};

/** Time from a reply's answer to its row, in ms, at half of the rate that was reached. */
async function visibility(
  server: Server,
  ids: readonly string[],
  url: string,
  rate: number,
): Promise<{ p50: number; p99: number; samples: number }> {
  const reader = new pg.Client({ connectionString: url });
  await reader.connect();
  const waits: number[] = [];
  const open = new Map<string, { revision: number; at: number }>();
  const half = rate / 2;
  let answers = 0;
  const target: string[] = [];
  const headers = { 'x-api-key': KEY, 'x-agent-id': 'agent-bench', 'content-type': 'application/json' };
  const body = JSON.stringify({ message: TEXT });
  const running = load({
    port: server.port,
    clients: CLIENTS,
    seconds: SECONDS,
    perSecond: half,
    next: (client) => {
      const id = ids[Math.floor(Math.random() * ids.length)] ?? '';
      target[client] = id;
      return { method: 'POST', path: `/api/support/conversations/${id}/reply`, headers, body };
    },
    onAnswer: (client, _status, head) => {
      // Every tenth is followed; one look at the database serves all that are open.
      if (answers++ % 10 === 0)
        open.set(target[client] ?? '', { revision: Number(/etag: "(\d+)"/i.exec(head)?.[1]), at: performance.now() });
    },
  });
  let going = true;
  const looking = (async () => {
    while (going || open.size > 0) {
      if (open.size > 0) {
        const asked = [...open];
        const { rows } = await reader.query<{ id: string; revision: number }>({
          name: 'look',
          text: 'select id, revision from threadlog.conversations where id = any($1)',
          values: [asked.map(([id]) => id)],
        });
        const now = performance.now();
        const seen = new Map(rows.map((row) => [row.id, row.revision]));
        for (const [id, { revision, at }] of asked)
          if ((seen.get(id) ?? -1) >= revision) {
            waits.push(now - at);
            if (open.get(id)?.revision === revision) open.delete(id);
          }
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  await running;
  going = false;
  await looking;
  await reader.end();
  waits.sort((a, b) => a - b);
  return { p50: percentile(waits, 0.5), p99: percentile(waits, 0.99), samples: waits.length };
}

interface Bill {
  repliesPerSecond: number;
  p50: number;
  p99: number;
  apiCpu: number;
  databaseCpu: number;
  loadCpu: number;
  memory: number;
}

/** Replies at full load with the CPU that each took, in µs. */
async function billed(server: Server, ids: readonly string[]): Promise<Bill> {
  const before = { api: cpuOfTree(server.pid), database: databaseCpu(), load: cpuOf(process.pid) };
  const result = await replies(server, ids, SECONDS);
  ok(result.statuses);
  return {
    repliesPerSecond: result.perSecond,
    p50: result.p50,
    p99: result.p99,
    apiCpu: (cpuOfTree(server.pid) - before.api) / result.requests,
    databaseCpu: (databaseCpu() - before.database) / result.requests,
    loadCpu: (cpuOf(process.pid) - before.load) / result.requests,
    memory: memoryOfTree(server.pid),
  };
}

/** The CPU of a reply at a fixed rate, in µs: of the API with its worker and of the database. */
async function cpuOfReply(server: Server, ids: readonly string[], perSecond: number): Promise<number> {
  const before = cpuOfTree(server.pid) + databaseCpu();
  const { statuses, requests } = await replies(server, ids, SECONDS, perSecond);
  ok(statuses);
  return (cpuOfTree(server.pid) + databaseCpu() - before) / requests;
}

const middle = (bills: readonly Bill[]): Bill =>
  Object.fromEntries(
    Object.keys(bills[0] ?? {}).map((name) => [name, median(bills.map((bill) => bill[name as keyof Bill]))]),
  ) as unknown as Bill;

async function main(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'threadlog-bench-'));
  const given = process.env['DATABASE_URL'];
  const embedded = given === undefined ? await startEmbeddedPostgres({ dataDir: dir }) : undefined;
  const adminUrl = given ?? embedded?.url ?? '';
  const admin = new pg.Client({ connectionString: adminUrl });
  await admin.connect();
  const setting = async (name: string) =>
    (await admin.query<{ value: string }>('select current_setting($1) as value', [name])).rows[0]?.value;
  const durable = {
    fsync: await setting('fsync'),
    synchronous_commit: await setting('synchronous_commit'),
    full_page_writes: await setting('full_page_writes'),
  };
  if (embedded !== undefined) {
    const backend = (await admin.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0]?.pid ?? 0;
    postmaster = Number((await readFile(`/proc/${backend}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ')[1]);
  }
  const makeDatabase = async (name: string) => {
    await admin.query(`drop database if exists ${name} with (force)`);
    await admin.query(`create database ${name}`);
    const url = new URL(adminUrl);
    url.pathname = `/${name}`;
    return url.href;
  };
  const environment = {
    MASTER_KEY: randomBytes(32).toString('base64'),
    BOOTSTRAP_API_KEY: KEY,
    DEMO: 'false',
    DATA_DIR: dir,
    RATE_LIMIT_PER_MINUTE: '0',
    WEBHOOK_ALLOWED_NETWORKS: '127.0.0.1/32',
  };
  const report: Record<string, unknown> = {
    at: new Date().toISOString(),
    machine: { cores: cpus().length, cpu: cpus()[0]?.model, node: process.version },
    durable,
    load: { clients: CLIENTS, seconds: SECONDS, rounds: ROUNDS, conversations: CONVERSATIONS },
  };
  const rows: [string, string, string, string][] = [];
  const stops: (() => Promise<void>)[] = [];

  const startInline = async (url: string): Promise<Server> => {
    const settings = { ...environment, DATABASE_URL: url, EVENTSTORE_URL: '', PROJECTIONS: 'inline' };
    const server = await start([join(ROOT, 'bin/start.js')], settings, /Threadlog listens/);
    stops.push(() => server.stop());
    return server;
  };

  const bareUrl = await makeDatabase('bench_bare');
  const bare = new pg.Client({ connectionString: bareUrl });
  await bare.connect();
  await bare.query('create schema bench');
  await bare.query(
    'create table bench.bare (position bigint generated always as identity primary key, id uuid, stream text, data text, metadata text)',
  );
  await bare.end();
  const crudUrl = await makeDatabase('bench_crud');
  const crud = new pg.Client({ connectionString: crudUrl });
  await crud.connect();
  await crud.query('create schema crud');
  await crud.query(
    'create table crud.conversations (id uuid primary key, status text, updated_at timestamptz, waiting_since timestamptz, message_count int, last_message text)',
  );
  await crud.query('create index on crud.conversations (status, updated_at)');
  await crud.query(
    'create table crud.messages (id uuid primary key, conversation_id uuid, type text, content text, author_id text, created_at timestamptz)',
  );
  await crud.query('create index on crud.messages (conversation_id, created_at)');
  const crudIds = Array.from({ length: CONVERSATIONS }, () => randomUUID());
  await crud.query("insert into crud.conversations select id, 'open', now(), now(), 0, '' from unnest($1::uuid[]) as id", [crudIds]);
  await crud.end();

  const threadlogUrl = await makeDatabase('bench_threadlog');
  const crudServer = await start(
    ['--import', new URL('../support/register.mjs', import.meta.url).href, new URL('crud-server.ts', import.meta.url).pathname],
    { DATABASE_URL: crudUrl },
    /ready/,
  );
  stops.push(() => crudServer.stop());
  const api = await start(
    [join(ROOT, 'bin/start.js')],
    { ...environment, DATABASE_URL: threadlogUrl, EVENTSTORE_URL: '' },
    /Threadlog listens/,
  );
  stops.push(() => api.stop());
  say(`making ${CONVERSATIONS} conversations`);
  const ids = await makeConversations(api.port);
  const inlineUrl = options.inline ? await makeDatabase('bench_inline') : '';
  const inline = options.inline ? await startInline(inlineUrl) : undefined;
  const inlineIds = inline === undefined ? [] : await makeConversations(inline.port);
  if (inline !== undefined) await replies(inline, inlineIds, 2);

  // Warm, then in turns: what the machine does meanwhile falls on all of them alike.
  await replies(api, ids, 2);
  await replies(crudServer, crudIds, 2);
  const bares: number[] = [];
  const cruds: Bill[] = [];
  const ours: Bill[] = [];
  const inlines: Bill[] = [];
  let bareCpu = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const inserts = await bareInserts(bareUrl, SECONDS);
    bares.push(inserts.perSecond);
    bareCpu = inserts.databaseCpu;
    cruds.push(await billed(crudServer, crudIds));
    ours.push(await billed(api, ids));
    if (inline !== undefined) inlines.push(await billed(inline, inlineIds));
    say(
      `round ${round}: bare ${Math.round(bares.at(-1) ?? 0)}/s, CRUD ${Math.round(cruds.at(-1)?.repliesPerSecond ?? 0)}/s, Threadlog ${Math.round(ours.at(-1)?.repliesPerSecond ?? 0)}/s`,
    );
  }
  const our = middle(ours);
  const crudBill = middle(cruds);
  const bareRate = median(bares);
  const ratios = (values: readonly number[], against: readonly number[]) => median(values.map((value, i) => value / (against[i] ?? NaN)));
  const ourRates = ours.map((bill) => bill.repliesPerSecond);
  const toBare = ratios(ourRates, bares);
  const toCrud = ratios(
    ourRates,
    cruds.map((bill) => bill.repliesPerSecond),
  );
  rows.push([
    'replies/s over HTTP, durable, projections live',
    `${Math.round(our.repliesPerSecond)}/s`,
    `${toBare.toFixed(2)} of ${Math.round(bareRate)} bare inserts/s`,
    '≥ 0.60',
  ]);
  rows.push([
    'the same',
    `p50 ${our.p50.toFixed(1)} ms, p99 ${our.p99.toFixed(1)} ms`,
    `${toCrud.toFixed(2)} of ${Math.round(crudBill.repliesPerSecond)} CRUD replies/s`,
    '≥ 1.3',
  ]);
  rows.push([
    'CPU a reply',
    `API ${our.apiCpu.toFixed(0)} µs, Postgres ${our.databaseCpu.toFixed(0)} µs`,
    `CRUD: API ${crudBill.apiCpu.toFixed(0)} µs, Postgres ${crudBill.databaseCpu.toFixed(0)} µs`,
    '',
  ]);
  report['postgres'] = {
    bareInsertsPerSecond: bareRate,
    bareDatabaseCpu: bareCpu,
    threadlog: our,
    crud: crudBill,
    ratioToBare: toBare,
    ratioToCrud: toCrud,
    rounds: { bares, cruds, ours },
  };

  const seen = await visibility(api, ids, threadlogUrl, our.repliesPerSecond);
  rows.push([
    'time to visible at half load',
    `p50 ${seen.p50.toFixed(1)} ms, p99 ${seen.p99.toFixed(1)} ms`,
    `${seen.samples} samples`,
    'p99 < 50 ms',
  ]);
  report['visible'] = seen;
  rows.push(['memory of the API and its worker', `${our.memory.toFixed(0)} MB`, '', '< 512 MB']);
  if (inline !== undefined) {
    const bill = middle(inlines);
    const inlineSeen = await visibility(inline, inlineIds, inlineUrl, our.repliesPerSecond);
    const inlineRates = inlines.map(({ repliesPerSecond }) => repliesPerSecond);
    const toOurs = ratios(ourRates, inlineRates);
    rows.push([
      'replies/s, PROJECTIONS=inline',
      `${Math.round(bill.repliesPerSecond)}/s, p99 ${bill.p99.toFixed(1)} ms`,
      `the default makes ${toOurs.toFixed(2)} of them`,
      '',
    ]);
    rows.push([
      'time to visible at the same half load',
      `p50 ${inlineSeen.p50.toFixed(1)} ms, p99 ${inlineSeen.p99.toFixed(1)} ms`,
      `API ${bill.apiCpu.toFixed(0)} µs a reply, Postgres ${bill.databaseCpu.toFixed(0)} µs, ${bill.memory.toFixed(0)} MB`,
      '',
    ]);
    report['inline'] = { threadlog: bill, ratioOfDefault: toOurs, visible: inlineSeen, rounds: inlines };
  }

  say('pausing one part after the other');
  const half = our.repliesPerSecond / 2;
  const parts = await measureParts(
    ROOT,
    { ...environment, DATABASE_URL: threadlogUrl, EVENTSTORE_URL: '' },
    { url: threadlogUrl, cpu: () => cpuOfReply(api, ids, half) },
  );
  rows.push([
    'CPU a reply at half load, by part',
    parts
      .filter(({ cpu }) => cpu >= 5)
      .map(({ name, cpu }) => `${name} ${cpu.toFixed(0)} µs`)
      .join(', '),
    'the others within the noise',
    '',
  ]);
  report['parts'] = parts;

  say('asking rules, telling an endpoint');
  const rules = await measureRules(
    { port: api.port, key: KEY, url: threadlogUrl },
    { rounds: ROUNDS, replies: async () => (await billed(api, ids)).repliesPerSecond },
  );
  const [withRules, withoutRules] = [rules.rounds.map((one) => one.with), rules.rounds.map((one) => one.without)];
  rows.push([
    'replies/s with two rules and an endpoint active',
    `${Math.round(median(withRules))}/s`,
    `${ratios(withRules, withoutRules).toFixed(2)} of ${Math.round(median(withoutRules))}/s without`,
    '≥ 0.85',
  ]);
  rows.push([
    'rule evaluations, catching up on a log',
    `${Math.round(rules.evaluationsPerSecond)}/s`,
    `${rules.evaluations} evaluations`,
    '≥ 5,000/s',
  ]);
  report['rules'] = rules;

  const reply = () => ({
    method: 'POST',
    path: `/api/support/conversations/${ids[Math.floor(Math.random() * ids.length)] ?? ''}/reply`,
    headers: { 'x-api-key': KEY, 'x-agent-id': 'agent-bench', 'content-type': 'application/json' },
    body: JSON.stringify({ message: TEXT }),
  });
  if (SOCKETS > 0) {
    say(`opening ${SOCKETS} sockets`);
    const live = await measureLive(
      { port: api.port, pid: api.pid, key: KEY },
      {
        clients: CLIENTS,
        seconds: SECONDS,
        perSecond: our.repliesPerSecond / 2,
        sockets: SOCKETS,
        next: reply,
      },
    );
    const { frame, crowd, crowdOfFive, socketKb } = live;
    rows.push([
      "from a write's answer to its live frame, half load",
      `p50 ${frame.p50.toFixed(1)} ms, p99 ${frame.p99.toFixed(1)} ms`,
      `${frame.samples} samples`,
      'p99 < 50 ms',
    ]);
    rows.push([
      `one event to ${crowd.sockets} sockets`,
      `p50 ${crowd.p50.toFixed(0)} ms, p99 ${crowd.p99.toFixed(0)} ms`,
      `${socketKb.toFixed(1)} KB of the API a socket`,
      'p99 < 300 ms',
    ]);
    rows.push([
      'five events a second to them, in order',
      `p50 ${crowdOfFive.p50.toFixed(0)} ms, p99 ${crowdOfFive.p99.toFixed(0)} ms`,
      '',
      'p99 < 1 s',
    ]);
    report['live'] = live;
  }

  say('delivering to a webhook');
  const webhook = await measureWebhooks(
    { port: api.port, key: KEY },
    { clients: CLIENTS, seconds: SECONDS, perSecond: our.repliesPerSecond / 2, next: reply },
  );
  rows.push([
    'deliveries to one fast receiver',
    `${Math.round(webhook.deliveries.perSecond)}/s`,
    `${webhook.deliveries.count} deliveries that waited`,
    '≥ 1,000/s',
  ]);
  rows.push([
    "from a write's answer to its webhook, half load",
    `p50 ${webhook.arrival.p50.toFixed(1)} ms, p99 ${webhook.arrival.p99.toFixed(1)} ms`,
    `${webhook.arrival.samples} samples at ${Math.round(webhook.arrival.perSecond)}/s`,
    'p99 < 250 ms',
  ]);
  report['webhook'] = webhook;

  if (LISTS > 0) {
    say(`making ${LISTS} rows for lists`);
    const lists = await measureLists({ port: api.port, key: KEY, url: threadlogUrl }, LISTS);
    const slowest = (of: 'page' | 'withTotal') => lists.reduce((worst, one) => (one[of] > worst[of] ? one : worst));
    const cell = (of: 'page' | 'withTotal') =>
      [`p95 at most ${slowest(of)[of].toFixed(1)} ms`, `the slowest: ${slowest(of).name}`] as const;
    rows.push([`list of ${LISTS} conversations, page alone, 12 filters`, ...cell('page'), '< 20 ms']);
    rows.push(['the same with the total', ...cell('withTotal'), '< 100 ms']);
    report['lists'] = { conversations: LISTS, questions: lists };

    say(`making facts of ${LISTS} conversations`);
    const numbers = await measureNumbers({ port: api.port, key: KEY, url: threadlogUrl }, LISTS);
    for (const { name, p95 } of numbers)
      rows.push([`analytics of ${LISTS} conversations: ${name}`, `p95 ${p95.toFixed(0)} ms`, '', AIMS.get(name) ?? '']);
    report['numbers'] = { conversations: LISTS, questions: numbers };
    say(`making the texts of ${LISTS} conversations for searches`);
    const searches = await measureSearches({ port: api.port, key: KEY, url: threadlogUrl });
    const dearest = (of: 'search' | 'list') => searches.reduce((worst, one) => (one[of] > worst[of] ? one : worst));
    for (const where of ['search', 'list'] as const)
      rows.push([
        where === 'search'
          ? `search in ${LISTS * 8} messages, ${searches.length} questions`
          : 'the same as a filter of the list, page alone',
        `p95 at most ${dearest(where)[where].toFixed(1)} ms`,
        `the slowest: ${dearest(where).name}`,
        where === 'search' ? '< 30 ms' : '',
      ]);
    report['searches'] = { messages: LISTS * 8, questions: searches };
  }

  if (options.import !== undefined) {
    const importUrl = await makeDatabase('bench_import');
    const importing = { ...environment, DATABASE_URL: importUrl, EVENTSTORE_URL: '' };
    // The first start makes the organization and its key; the import then has the machine for itself.
    await (await start([join(ROOT, 'bin/start.js')], importing, /Threadlog listens/)).stop();
    const moved = await measureMoving(ROOT, importing, options.import);
    rows.push([
      'import, read models caught up',
      `${Math.round(moved.messagesPerSecond)} messages/s`,
      `${moved.messages} messages`,
      '≥ 8,000/s',
    ]);
    for (const { group, events, eventsPerSecond } of moved.rebuild)
      rows.push([`rebuild of the group ${group}`, `${Math.round(eventsPerSecond)} events/s`, `${events} events`, '≥ 15,000/s']);
    rows.push(['verify the whole log', `${Math.round(moved.verify.eventsPerSecond)} events/s`, `${moved.verify.events} events`, '']);
    // The load's own half rate, while the rebuild takes what it can get of the same cores; in turns, where there are two ways to run.
    const ways = [undefined, ...(options.inline ? ['inline'] : [])];
    const seenMeanwhile = new Map(ways.map((way) => [way, [] as Awaited<ReturnType<typeof visibility>>[]]));
    const rebuilds: RebuiltGroup[] = [];
    for (let round = 1; round <= ROUNDS; round++)
      for (const way of ways) {
        const settings = way === undefined ? importing : { ...importing, PROJECTIONS: way };
        const imported = await start([join(ROOT, 'bin/start.js')], settings, /Threadlog listens/);
        const importedIds = await makeConversations(imported.port);
        await replies(imported, importedIds, 2);
        let going = true;
        const rebuilding = (async () => {
          while (going) rebuilds.push(...(await rebuild(ROOT, importing)));
        })();
        seenMeanwhile.get(way)?.push(await visibility(imported, importedIds, importUrl, our.repliesPerSecond));
        going = false;
        await rebuilding;
        await imported.stop();
      }
    for (const [way, meanwhiles] of seenMeanwhile) {
      const [p50, p99] = (['p50', 'p99'] as const).map((name) => median(meanwhiles.map((one) => one[name])));
      rows.push([
        `time to visible at half load while a rebuild runs${way === undefined ? '' : `, PROJECTIONS=${way}`}`,
        `p50 ${p50?.toFixed(1)} ms, p99 ${p99?.toFixed(1)} ms`,
        `${meanwhiles.reduce((sum, { samples }) => sum + samples, 0)} samples`,
        'p99 < 50 ms',
      ]);
    }
    report['import'] = moved;
    report['visibleDuringRebuild'] = { rounds: [...seenMeanwhile].map(([way = 'process', of]) => ({ way, of })), rebuilds };
  }

  const eventstoreUrl = process.env['EVENTSTORE_URL'];
  if (eventstoreUrl === undefined) say('EventStoreDB: NOT RUN (set EVENTSTORE_URL)');
  else {
    const esUrl = await makeDatabase('bench_eventstoredb');
    const es = await start([join(ROOT, 'bin/start.js')], { ...environment, DATABASE_URL: esUrl }, /Threadlog listens/);
    stops.push(() => es.stop());
    const esIds = await makeConversations(es.port);
    await replies(es, esIds, 2);
    const bareAppends: number[] = [];
    const esBills: Bill[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      bareAppends.push(await bareEventStoreDbAppends(eventstoreUrl, CLIENTS, SECONDS, DATA, METADATA));
      esBills.push(await billed(es, esIds));
      say(
        `round ${round}: bare appends ${Math.round(bareAppends.at(-1) ?? 0)}/s, Threadlog ${Math.round(esBills.at(-1)?.repliesPerSecond ?? 0)}/s`,
      );
    }
    const bill = middle(esBills);
    const ratio = ratios(
      esBills.map(({ repliesPerSecond }) => repliesPerSecond),
      bareAppends,
    );
    rows.push([
      'replies/s over HTTP on EventStoreDB',
      `${Math.round(bill.repliesPerSecond)}/s`,
      `${ratio.toFixed(2)} of ${Math.round(median(bareAppends))} bare appends/s`,
      '≥ 0.5',
    ]);
    const esSeen = await visibility(es, esIds, esUrl, bill.repliesPerSecond);
    rows.push([
      'time to visible at half load on EventStoreDB',
      `p50 ${esSeen.p50.toFixed(1)} ms, p99 ${esSeen.p99.toFixed(1)} ms`,
      `${esSeen.samples} samples`,
      'p99 < 50 ms',
    ]);
    const esEnvironment = { ...environment, DATABASE_URL: esUrl };
    const esMoved = options.import === undefined ? undefined : await measureMoving(ROOT, esEnvironment, options.import);
    if (esMoved !== undefined)
      rows.push(
        [
          'import on EventStoreDB, read models caught up',
          `${Math.round(esMoved.messagesPerSecond)} messages/s`,
          `${esMoved.messages} messages`,
          '',
        ],
        ...esMoved.rebuild.map(({ group, events, eventsPerSecond }): [string, string, string, string] => [
          `rebuild of the group ${group} on EventStoreDB`,
          `${Math.round(eventsPerSecond)} events/s`,
          `${events} events`,
          '≥ 8,000/s',
        ]),
        [
          'verify the whole log on EventStoreDB',
          `${Math.round(esMoved.verify.eventsPerSecond)} events/s`,
          `${esMoved.verify.events} events`,
          '',
        ],
      );
    report['eventstoredb'] = {
      moved: esMoved,
      bareAppendsPerSecond: median(bareAppends),
      threadlog: bill,
      ratioToBare: ratio,
      visible: esSeen,
      rounds: { bareAppends, esBills },
    };
  }

  for (const stop of stops.reverse()) await stop();
  await admin.end();
  await embedded?.stop();
  await rm(dir, { recursive: true, force: true });

  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  for (const row of rows)
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd()}\n`,
    );
  if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
}

await main().catch((error: unknown) => {
  say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  for (const child of children) child.kill('SIGKILL');
  process.exit(1);
});
