import pg from 'pg';
import { endLeasesOfTheDead } from '../support/dead-leases.js';
import { eventually } from '../support/eventually.js';
import { asLongAsAsked, timeLimit } from '../support/fault-length.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { faultSeed, seededRandom } from '../support/seeded-random.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.js';
import { FaultRun } from './fault-run.js';
import { CORE_SCHEMA } from '../support/read-schema.js';

/*
 * What may happen to PostgreSQL and to the way to it, under two API processes and two workers and clients that write without a pause. One API
 * and one worker reach it through a proxy. No request hangs, every 503 says when to come again, health goes on answering, everything
 * recovers by itself, and what was acknowledged is in the log once. FAULT_MINUTES makes it longer, FAULT_SEED repeats a run.
 */
const SEED = faultSeed();
const WRITERS = 8;
/** How long PostgreSQL or the network is away (ms). A minute, if as much is asked for. */
const AWAY_MS = Math.min(asLongAsAsked(4_000, 12_000), 60_000);
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const random = seededRandom(SEED);
const shuffle = (pids: number[]) => {
  const left = [...pids];
  return pids.map(() => left.splice(random.int(left.length), 1)[0]!);
};
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

let postgres: PostgresServer;
let proxy: TcpProxy;
let installation: Installation;
let direct: ThreadlogProcess;
let proxied: ThreadlogProcess;
let workers: readonly ThreadlogProcess[];
let run: FaultRun;

beforeAll(async () => {
  postgres = await startPostgres();
  const { hostname, port } = new URL(postgres.url);
  proxy = await startTcpProxy({ host: hostname, port: Number(port) });
  const through = new URL(postgres.url);
  through.host = `${proxy.host}:${proxy.port}`;
  installation = await makeInstallation({ databaseUrl: postgres.url });
  direct = await installation.start('api');
  const started = await Promise.all([
    installation.start('api', { databaseUrl: through.href }),
    installation.start('worker'),
    installation.start('worker', { databaseUrl: through.href }),
  ]);
  [proxied, ...workers] = started;
  run = await FaultRun.begin(installation, [direct, proxied], { writers: WRITERS, seed: SEED });
}, 180_000);
afterAll(async () => {
  proxy?.heal();
  await installation?.dispose();
  await proxy?.close();
  await postgres?.dispose();
}, 60_000);

const FAULTS: readonly [string, () => Promise<void>][] = [
  ['restarted', () => postgres.restart()],
  [
    'frozen',
    async () => {
      await postgres.freeze();
      await pause(AWAY_MS);
      postgres.resume();
    },
  ],
  ['killed', () => postgres.kill(shuffle)],
  [
    'ending single sessions, again and again',
    async () => {
      for (let i = 0; i < asLongAsAsked(8, 100); i += 1) {
        await postgres.query(
          `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() order by random() limit 3`,
        );
        await pause(random.int(200));
      }
    },
  ],
  [
    'swallowed by the network of one API and one worker',
    async () => {
      proxy.blackhole();
      await pause(AWAY_MS);
      proxy.heal();
    },
  ],
  [
    'swallowed for good on every connection there was',
    async () => {
      proxy.blackhole('old');
      // A connection that says nothing is given up by whoever asked, and another one is made.
      await eventually(async () => (await fetch(`${proxied.url}/health/ready`)).status === 503, 5_000);
    },
  ],
  [
    'refused for a while',
    async () => {
      await proxy.refuse();
      await pause(AWAY_MS / 2);
      await proxy.accept();
    },
  ],
];

it.each(FAULTS)(
  `loses and doubles nothing, hangs nobody and recovers by itself when PostgreSQL is %s (seed ${SEED})`,
  (name, fault) => run.survive(name, fault),
  timeLimit(120_000),
);

it(
  'answers, if slowly, when the way to PostgreSQL is 200 ms long',
  () =>
    run.survive('200 ms away', async () => {
      proxy.delay(100);
      const before = run.writers.answers.get('503 store_unavailable') ?? 0;
      await pause(AWAY_MS / 2);
      const began = performance.now();
      const answer = await fetch(`${proxied.url}/api/support/conversations?limit=1`, { headers: { 'x-api-key': proxied.key } });
      expect(answer.status).toBe(200);
      expect(performance.now() - began).toBeGreaterThan(200);
      expect(run.writers.answers.get('503 store_unavailable') ?? 0).toBe(before);
      proxy.delay(0);
    }),
  timeLimit(120_000),
);

it(
  'answers 503 within a few seconds while every connection is taken, stays alive, and goes on when they are free',
  () =>
    run.survive('out of connections', async () => {
      const ask = async (path: string) => {
        const began = performance.now();
        const answer = await fetch(`${direct.url}${path}`, { headers: { 'x-api-key': direct.key } });
        await answer.text();
        return { status: answer.status, retryAfter: answer.headers.get('retry-after'), ms: performance.now() - began };
      };
      const holder = new pg.Client({ connectionString: postgres.url });
      await holder.connect();
      try {
        await holder.query(`begin; lock table ${CORE_SCHEMA}.conversations in access exclusive mode`);
        const waiting = await Promise.all(Array.from({ length: 40 }, () => ask('/api/support/conversations?limit=1')));
        expect(waiting.filter(({ status, retryAfter }) => status !== 503 || retryAfter !== '1')).toEqual([]);
        expect(Math.max(...waiting.map(({ ms }) => ms))).toBeLessThan(8_000);
        // Those who found no connection were told before those who wait for an answer.
        expect(waiting.filter(({ ms }) => ms < 4_000).length).toBeGreaterThan(20);
        expect(await ask('/health/live')).toMatchObject({ status: 200 });
        expect((await ask('/health/ready')).ms).toBeLessThan(5_000);
      } finally {
        await holder.query('rollback');
        await holder.end();
      }
      await eventually(async () => (await ask('/api/support/conversations?limit=1')).status === 200, 10_000);
    }),
  timeLimit(120_000),
);

it.each([
  ['two days ahead', 2 * DAY_MS],
  ['a day behind', -DAY_MS],
])(
  'wakes no snooze and asks no rule early, late or twice, and lets no stream run backwards, while the clocks of one API and of the workers are %s',
  (name, skewMs) =>
    run.survive(name, async () => {
      const wrong = [proxied, ...workers];
      await Promise.all(wrong.map((one) => one.setClock(skewMs)));
      const ask = async (server: ThreadlogProcess, method: string, path: string, body?: object) => {
        const answer = await fetch(`${server.url}/api/support${path}`, {
          method,
          headers: { 'x-api-key': server.key, 'content-type': 'application/json' },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
        const { data } = (await answer.json()) as { data: Record<string, string> & { createdAt: string }[] };
        expect(answer.status).toBeLessThan(300);
        return data;
      };
      const open = async () => (await ask(direct, 'POST', '/conversations', { visitor: { name: 'Ada' }, message: 'Hi' }))['id'] ?? '';
      // The process reads its clock when the signal reaches it.
      await eventually(async () => {
        const { createdAt = '' } = await ask(proxied, 'POST', '/conversations', { visitor: { name: 'Ada' }, message: 'Hi' });
        return Math.abs(Date.parse(createdAt) - Date.now() - skewMs) < HOUR_MS;
      });
      const rule = await ask(direct, 'POST', '/automation-rules', {
        trigger: { type: 'no_agent_reply_for', seconds: 2 },
        conditions: [{ field: 'message.content', operator: 'equals', value: name }],
        actions: [{ type: 'addTag', tag: 'waits' }],
      });
      const [soon, later, both] = [await open(), await open(), await open()];
      const waits = await ask(direct, 'POST', '/conversations', { visitor: { name: 'Ada' }, message: name });
      const due = Date.now() + 2_000;
      await ask(direct, 'POST', `/conversations/${soon}/snooze`, { until: new Date(due).toISOString() });
      await ask(direct, 'POST', `/conversations/${later}/snooze`, { until: new Date(due + 12 * HOUR_MS).toISOString() });
      // One stream, written by processes that do not agree on the time.
      for (let i = 0; i < 10; i += 1)
        await ask(i % 2 === 0 ? proxied : direct, 'POST', `/conversations/${both}/reply`, { message: `${i}` });
      await eventually(async () => (await ask(direct, 'GET', `/conversations/${soon}`))['status'] === 'open', 20_000);
      expect(Date.now()).toBeGreaterThanOrEqual(due);
      expect(Date.now()).toBeLessThan(due + 10_000);
      // Every timer of both workers has looked since.
      await pause(1_000);
      expect((await ask(direct, 'GET', `/conversations/${later}`))['status']).toBe('snoozed');
      const woken = (await ask(direct, 'GET', `/conversations/${soon}/events`)) as unknown as { type: string }[];
      expect(woken.filter(({ type }) => type === 'ConversationStatusChanged')).toHaveLength(1);
      const asked = (await ask(direct, 'GET', `/conversations/${waits['id']}/evaluations`)) as unknown as { outcome: string }[];
      expect(asked.map(({ outcome }) => outcome)).toEqual(['matched']);
      const [, , ...caused] = (await ask(direct, 'GET', `/conversations/${waits['id']}/events`)) as unknown as { type: string }[];
      expect(caused.map(({ type }) => type)).toEqual(['TagsAdded']);
      const lateBy = `select extract(epoch from created_at - at)::float8 as s from keep.rule_evaluations where conversation_id = '${waits['id']}'`;
      const [late] = await postgres.query<{ s: number }>(lateBy);
      expect(late?.s).toBeGreaterThanOrEqual(0);
      expect(late?.s).toBeLessThan(10);
      await fetch(`${direct.url}/api/support/automation-rules/${rule['id']}`, { method: 'DELETE', headers: { 'x-api-key': direct.key } });
      const times = ((await ask(direct, 'GET', `/conversations/${both}/events`)) as unknown as { occurredAt: string }[]).map(
        ({ occurredAt }) => occurredAt,
      );
      expect(times).toEqual([...times].sort());
      await Promise.all(wrong.map((one) => one.setClock(0)));
    }),
  timeLimit(120_000),
);

it(
  'goes on without a wait for anybody when processes are killed one after the other',
  () =>
    run.survive(
      'processes killed',
      async () => {
        for (let i = 0; i < asLongAsAsked(2, 12); i += 1) {
          const victims = [proxied, ...workers];
          const victim = victims[i % victims.length] ?? proxied;
          await victim.kill();
          await pause(random.int(500));
          await victim.start();
        }
      },
      [direct],
    ),
  timeLimit(120_000),
);

it(
  'comes up by itself after everything was killed, in whatever order it is started, the database last',
  () =>
    run.survive(
      'everything killed',
      async () => {
        const all = [direct, proxied, ...workers];
        await Promise.all([...all.map((one) => one.kill()), postgres.kill(shuffle)]);
        const order = shuffle(all.map((_, i) => i));
        const starting: Promise<void>[] = [];
        await postgres.restart(async () => {
          for (const i of order) {
            starting.push(all[i]!.start());
            await pause(random.int(500));
          }
        });
        await Promise.all(starting);
        // They ran out by themselves when the workers were killed above.
        await endLeasesOfTheDead(postgres.url);
      },
      [],
    ),
  timeLimit(120_000),
);

it(
  'has read models that are the fold of the log, chains that verify, and the same answers for keys that come again',
  () => run.judge(SEED),
  timeLimit(60_000),
);
