import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { startEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { cpuOf, cpuOfTree, memoryOf } from './cpu.js';
import { bareEventStoreDbAppends } from './eventstoredb-appends.js';
import { load, percentile } from './http-load.js';
import { measureLists } from './lists.js';
import { measureMoving, type Rebuild, rebuild } from './moving.js';

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
    import: { type: 'string' },
    apart: { type: 'boolean', default: false },
    help: { type: 'boolean' },
  },
});
if (options.help === true) {
  process.stdout.write(
    'npm run bench -- [--seconds 5] [--rounds 3] [--clients 32] [--conversations 2000] [--lists 200000] [--import FILE.ndjson.gz] [--apart] [--json FILE]\n' +
      'EVENTSTORE_URL adds the same on EventStoreDB. DATABASE_URL measures on that server instead of the embedded one.\n',
  );
  process.exit(0);
}
const SECONDS = Number(options.seconds);
const ROUNDS = Number(options.rounds);
const CLIENTS = Number(options.clients);
const CONVERSATIONS = Number(options.conversations);
const LISTS = Number(options.lists);
const KEY = `bench_${randomBytes(24).toString('hex')}`;
const ROOT = new URL('../..', import.meta.url).pathname;
const TEXT = 'Thanks for reaching out! I have looked at your account and the second charge will be refunded by tomorrow evening.';

interface Server {
  readonly port: number;
  readonly process: ChildProcess;
  readonly pid: number;
  /** Where its projections run, unless they run in it. */
  readonly worker?: Server;
  stop(): Promise<void>;
}

const cpuOfServer = ({ pid, worker }: Server) => cpuOf(pid) + (worker === undefined ? 0 : cpuOf(worker.pid));

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
  const before = { api: cpuOfServer(server), database: databaseCpu(), load: cpuOf(process.pid) };
  const result = await replies(server, ids, SECONDS);
  ok(result.statuses);
  return {
    repliesPerSecond: result.perSecond,
    p50: result.p50,
    p99: result.p99,
    apiCpu: (cpuOfServer(server) - before.api) / result.requests,
    databaseCpu: (databaseCpu() - before.database) / result.requests,
    loadCpu: (cpuOf(process.pid) - before.load) / result.requests,
    memory: memoryOf(server.pid) + (server.worker === undefined ? 0 : memoryOf(server.worker.pid)),
  };
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
  };
  const report: Record<string, unknown> = {
    at: new Date().toISOString(),
    machine: { cores: cpus().length, cpu: cpus()[0]?.model, node: process.version },
    durable,
    load: { clients: CLIENTS, seconds: SECONDS, rounds: ROUNDS, conversations: CONVERSATIONS },
  };
  const rows: [string, string, string, string][] = [];
  const stops: (() => Promise<void>)[] = [];

  const startApart = async (url: string): Promise<Server & { readonly url: string }> => {
    const environmentApart = { ...environment, DATABASE_URL: url, EVENTSTORE_URL: '' };
    const server = await start([join(ROOT, 'bin/start.js')], { ...environmentApart, PROJECTIONS: 'off' }, /Threadlog listens/);
    stops.push(() => server.stop());
    const worker = await start([join(ROOT, 'dist/projections/main.js')], { ...environmentApart, LOG_LEVEL: 'info' }, /worker ready/);
    stops.push(() => worker.stop());
    return { ...server, worker, url };
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
  const apart = options.apart ? await startApart(await makeDatabase('bench_apart')) : undefined;
  const apartIds = apart === undefined ? [] : await makeConversations(apart.port);
  if (apart !== undefined) await replies(apart, apartIds, 2);

  // Warm, then in turns: what the machine does meanwhile falls on all of them alike.
  await replies(api, ids, 2);
  await replies(crudServer, crudIds, 2);
  const bares: number[] = [];
  const cruds: Bill[] = [];
  const ours: Bill[] = [];
  const aparts: Bill[] = [];
  let bareCpu = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const inserts = await bareInserts(bareUrl, SECONDS);
    bares.push(inserts.perSecond);
    bareCpu = inserts.databaseCpu;
    cruds.push(await billed(crudServer, crudIds));
    ours.push(await billed(api, ids));
    if (apart !== undefined) aparts.push(await billed(apart, apartIds));
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
  if (apart !== undefined) {
    const bill = middle(aparts);
    const apartSeen = await visibility(apart, apartIds, apart.url, our.repliesPerSecond);
    const toOurs = ratios(
      aparts.map(({ repliesPerSecond }) => repliesPerSecond),
      ourRates,
    );
    rows.push([
      'replies/s, projections in a process of their own',
      `${Math.round(bill.repliesPerSecond)}/s`,
      `${toOurs.toFixed(2)} of those with projections in the API's process`,
      '',
    ]);
    rows.push([
      'time to visible at the same half load',
      `p50 ${apartSeen.p50.toFixed(1)} ms, p99 ${apartSeen.p99.toFixed(1)} ms`,
      `API and worker ${bill.apiCpu.toFixed(0)} µs a reply, ${bill.memory.toFixed(0)} MB`,
      '',
    ]);
    report['apart'] = { threadlog: bill, ratioToInline: toOurs, visible: apartSeen, rounds: aparts };
  }
  rows.push(['memory of the API with projections', `${our.memory.toFixed(0)} MB`, '', '< 512 MB']);

  if (LISTS > 0) {
    say(`making ${LISTS} rows for lists`);
    const lists = await measureLists({ port: api.port, key: KEY, url: threadlogUrl }, LISTS);
    const slowest = (of: 'page' | 'withTotal') => lists.reduce((worst, one) => (one[of] > worst[of] ? one : worst));
    const cell = (of: 'page' | 'withTotal') =>
      [`p95 at most ${slowest(of)[of].toFixed(1)} ms`, `the slowest: ${slowest(of).name}`] as const;
    rows.push([`list of ${LISTS} conversations, page alone, 12 filters`, ...cell('page'), '< 20 ms']);
    rows.push(['the same with the total', ...cell('withTotal'), '< 100 ms']);
    report['lists'] = { conversations: LISTS, questions: lists };
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
    rows.push([
      'rebuild of all read models',
      `${Math.round(moved.rebuild.eventsPerSecond)} events/s`,
      `${moved.rebuild.events} events`,
      '≥ 15,000/s',
    ]);
    // The load's own half rate, while the rebuild takes what it can get of the same cores.
    const imported = await start([join(ROOT, 'bin/start.js')], importing, /Threadlog listens/);
    stops.push(() => imported.stop());
    const importedIds = await makeConversations(imported.port);
    await replies(imported, importedIds, 2);
    let going = true;
    const rebuilds: Rebuild[] = [];
    const rebuilding = (async () => {
      while (going) rebuilds.push(await rebuild(ROOT, importing));
    })();
    const meanwhile = await visibility(imported, importedIds, importUrl, our.repliesPerSecond);
    going = false;
    await rebuilding;
    rows.push([
      'time to visible at half load while a rebuild runs',
      `p50 ${meanwhile.p50.toFixed(1)} ms, p99 ${meanwhile.p99.toFixed(1)} ms`,
      `${meanwhile.samples} samples`,
      'p99 < 50 ms',
    ]);
    report['import'] = moved;
    report['visibleDuringRebuild'] = { ...meanwhile, rebuilds };
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
        [
          'rebuild on EventStoreDB',
          `${Math.round(esMoved.rebuild.eventsPerSecond)} events/s`,
          `${esMoved.rebuild.events} events`,
          '≥ 8,000/s',
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
