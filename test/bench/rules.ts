import { once } from 'node:events';
import { createServer } from 'node:http';
import pg from 'pg';

export interface RuleTimes {
  /** Evaluations per second of the reactor as it catches up on a log, with two rules that are asked about every event of it. */
  readonly evaluationsPerSecond: number;
  readonly evaluations: number;
  /** Replies per second with two rules that are asked about each of them and an endpoint that is told of each, and without, in turns. */
  readonly rounds: readonly { readonly with: number; readonly without: number }[];
}

/** Both look at the message, the visitor and the conversation, and do not match: an action would be a command like any other. */
const RULES = [
  {
    name: 'refunds of paying customers',
    conditions: [
      { field: 'message.content', operator: 'contains', value: 'chargeback' },
      { field: 'visitor.plan', operator: 'in', value: ['pro', 'enterprise'] },
    ],
  },
  {
    name: 'order numbers',
    conditions: {
      all: [
        { field: 'message.content', operator: 'matches', value: '(?i)order #[0-9]+' },
        { not: { field: 'conversation.tags', operator: 'contains', value: 'order' } },
      ],
    },
  },
] as const;

/**
 * @param server.url the database
 * @param measured.replies sends replies at full load and answers their rate
 */
export async function measureRules(
  server: { readonly port: number; readonly key: string; readonly url: string },
  measured: { readonly rounds: number; readonly replies: () => Promise<number> },
): Promise<RuleTimes> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  const number = async (sql: string) => Number((await client.query<{ n: string }>(sql)).rows[0]?.n);
  const ask = async (method: string, path: string, body: object) => {
    const response = await fetch(`http://127.0.0.1:${server.port}/api/support${path}`, {
      method,
      headers: { 'x-api-key': server.key, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(await response.text());
    return (await response.json()) as { data: { id: string } };
  };
  const evaluations = () => number('select count(*) as n from keep.rule_evaluations');
  /** The reactor has nothing left to do, so that a measurement does not pay for the one before. */
  const caughtUp = async () => {
    const { rows } = await client.query<{ head: string }>('select max(position) as head from threadlog.conversations');
    for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 5)))
      if ((await number(`select count(*) as n from keep.reactors where name = 'rules' and position >= '${rows[0]?.head}'`)) > 0) return;
    throw new Error('the rules do not catch up');
  };
  const ids: string[] = [];
  for (const rule of RULES)
    ids.push(
      (await ask('POST', '/automation-rules', { ...rule, trigger: 'message.sent', actions: [{ type: 'addTag', tag: 'order' }] })).data.id,
    );
  // It answers at once, like that of test/bench/webhooks.ts.
  const receiver = createServer((request, response) => request.resume().once('end', () => response.writeHead(204).end()));
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as { port: number };
  const { id: endpoint } = (await ask('POST', '/webhooks', { url: `http://127.0.0.1:${port}/`, events: ['message.sent'] })).data;
  const enable = async (enabled: boolean) => {
    for (const id of ids) await ask('PUT', `/automation-rules/${id}`, { enabled });
    await ask('PUT', `/webhooks/${endpoint}`, { enabled });
    await caughtUp();
  };
  const delivered = async () => {
    for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50)))
      if ((await number("select count(*) as n from keep.jobs where kind = 'deliver-webhook'")) === 0) return;
    throw new Error('the deliveries do not end');
  };

  const rounds: { with: number; without: number }[] = [];
  for (let round = 0; round < measured.rounds; round++) {
    await enable(false);
    const without = await measured.replies();
    await enable(true);
    rounds.push({ without, with: await measured.replies() });
    await caughtUp();
    await delivered();
  }
  await ask('PUT', `/webhooks/${endpoint}`, { enabled: false });

  await client.query("update keep.reactors set paused = true where name = 'rules'");
  const before = await evaluations();
  await measured.replies();
  await client.query("update keep.reactors set paused = false where name = 'rules'");
  // It looks every few hundred ms whether it may go on.
  while ((await evaluations()) === before) await new Promise((resolve) => setTimeout(resolve, 1));
  const [first, began] = [await evaluations(), performance.now()];
  await caughtUp();
  const [last, ended] = [await evaluations(), performance.now()];
  await enable(false);
  await client.end();
  receiver.closeAllConnections();
  receiver.close();
  return { rounds, evaluations: last - before, evaluationsPerSecond: ((last - first) / (ended - began)) * 1_000 };
}
