import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import type { Position } from '../../src/event-store/event-store.js';
import { CORE_GROUP } from '../../src/read-models/groups.js';
import { startApi, type TestApi } from '../support/api.js';
import { eventually } from '../support/eventually.js';
import { expectReadModelsEqualFold } from '../support/read-models.js';

const TAKEOVER_MS = 15_000;
const START_MS = 60_000;

/** A worker that stops at one statement of its batch, beside an API whose own projections stand by. */
interface Case {
  readonly at: number;
  readonly api: TestApi;
  readonly worker: ChildProcess;
  readonly statements: string[];
}

const cases: Case[] = [];
afterAll(async () => {
  for (const { api, worker } of cases) {
    worker.kill('SIGKILL');
    await api.stop();
  }
});

const isFrozen = ({ pid }: ChildProcess) => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

/** @returns what becomes true when the worker stands by */
async function start(at: number): Promise<{ ready: Promise<unknown> }> {
  // A log for each: on one that they share, what one writes moves the others' checkpoints.
  const api = await startApi({ environment: { EVENTSTORE_URL: '' } });
  const { DATABASE_URL = '', EVENTSTORE_URL = '', DATA_DIR, MASTER_KEY = '' } = api.backend.config;
  const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
  const worker = fork(path('./core-worker.ts'), [String(at)], {
    execArgv: ['--import', path('../support/typescript.mjs')],
    env: { ...process.env, DATABASE_URL, EVENTSTORE_URL, DATA_DIR, MASTER_KEY },
  });
  const statements: string[] = [];
  worker.on('message', (message: { statement?: string }) => message.statement !== undefined && statements.push(message.statement));
  cases.push({ at, api, worker, statements });
  return { ready: once(worker, 'message') };
}

const owner = async ({ api }: Case) => (await api.backend.checkpoints.health())[0]?.owner ?? null;

/** Takes the lease from the API, which is idle and so notices later than the worker that stands by. */
async function handOver(one: Case): Promise<string> {
  await expectReadModelsEqualFold(one.api);
  const before = await owner(one);
  await sql`update read.checkpoints set owner = null, lease_until = '-infinity', epoch = epoch + 1 where group_name = ${CORE_GROUP}`.execute(
    one.api.backend.database,
  );
  return await eventually(async () => {
    const now = await owner(one);
    return now === null || now === before ? undefined : now;
  });
}

/** Both a conversation's and a visitor's events, of streams that are new and of one that is not. */
async function write({ api }: Case, conversation?: string): Promise<{ id: string; position: string }> {
  const opened = await api.expect(201, 'POST', '/conversations', { body: { visitor: { name: 'V' }, message: 'm' } });
  const { id } = (opened.body as { data: { id: string } }).data;
  const { headers } = await api.expect(201, 'POST', `/conversations/${conversation ?? id}/messages`, { body: { message: 'more' } });
  return { id, position: headers.get('x-position') ?? '' };
}

it(
  'a worker that freezes at any statement of a batch is replaced within 15 s, and writes nothing once it wakes',
  async () => {
    // What is known, and rows and checkpoint in one; then the next batch. 0 is after the first was sent.
    // One API after the other: several at once keep this process from its sockets until connections are given up.
    const standingBy: Promise<unknown>[] = [];
    for (const at of [0, 1, 2, 3]) standingBy.push((await start(at)).ready);
    await Promise.all(standingBy);
    const frozen = await Promise.all(
      cases.map(async (one) => {
        const { id } = await write(one);
        const worker = await handOver(one);
        one.worker.send('arm');
        const began = performance.now();
        const { position } = await write(one, id);
        await eventually(() => isFrozen(one.worker), TAKEOVER_MS);
        expect(await one.api.backend.checkpoints.waitFor(CORE_GROUP, position as Position, TAKEOVER_MS)).toBe('reached');
        const last = await write(one, id);
        expect(await one.api.backend.checkpoints.waitFor(CORE_GROUP, last.position as Position, TAKEOVER_MS)).toBe('reached');
        expect(performance.now() - began).toBeLessThan(TAKEOVER_MS);
        const after = await owner(one);
        expect(after).not.toBe(worker);
        await expectReadModelsEqualFold(one.api);
        return { owner: after, id };
      }),
    );
    // Each was met, down to the last.
    for (const { at, statements } of cases)
      if (at === 0) expect(statements.at(-1)).toBe('with "moved"');
      else expect(statements).toHaveLength(at);
    const state = ({ api }: Case) =>
      api.backend.database
        .selectFrom('read.checkpoints')
        .select(['epoch', 'position', 'events', 'owner'])
        .where('group_name', '=', CORE_GROUP)
        .executeTakeFirstOrThrow();
    for (const [i, one] of cases.entries()) {
      const before = await state(one);
      one.worker.kill('SIGCONT');
      // It runs again for as long as it takes to find out that it has lost, and the checkpoint does not move.
      await eventually(() => !isFrozen(one.worker));
      await sql`select pg_sleep(0.5)`.execute(one.api.backend.database);
      expect(await state(one)).toEqual(before);
      const { position } = await write(one, frozen[i]?.id);
      expect(await one.api.backend.checkpoints.waitFor(CORE_GROUP, position as Position, 5_000)).toBe('reached');
      expect(await owner(one)).toBe(frozen[i]?.owner);
      await expectReadModelsEqualFold(one.api);
    }
  },
  4 * START_MS,
);
