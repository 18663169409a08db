import pg from 'pg';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';

/*
 * A worker is killed after each action of a rule in turn: its event is in the log, and nothing else says so yet. The next worker does the
 * action again.
 */

const ACTIONS = [
  { type: 'reply', message: 'We have seen it.' },
  { type: 'addTag', tag: 'seen' },
  { type: 'setStatus', status: 'pending' },
] as const;
const EVENTS = ['MessageSent', 'TagsAdded', 'ConversationStatusChanged'];
/** A lock of the test's own. */
const HELD = 471_100;

let database: TestDatabase;
let installation: Installation;
let api: ThreadlogProcess;
let session: pg.Client;

beforeAll(async () => {
  database = await createDatabase();
  installation = await makeInstallation({ databaseUrl: database.url });
  api = await installation.start('api');
  session = new pg.Client({ connectionString: database.url });
  await session.connect();
}, 120_000);
afterAll(async () => {
  await session?.end();
  await installation?.dispose();
  await database?.drop();
}, 60_000);

interface Told {
  readonly id: string;
  readonly type: string;
  readonly data: unknown;
}

async function ask(method: string, path: string, body?: object): Promise<unknown> {
  const answer = await fetch(`${api.url}/api/support${path}`, {
    method,
    headers: { 'x-api-key': api.key, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const { data } = (await answer.json()) as { data: unknown };
  expect(answer.status).toBeLessThan(300);
  return data;
}

test('does each action once when its worker is killed after any of them', async () => {
  // What becomes of an action cannot be recorded at its first attempt: there the worker stands until it is killed.
  await session.query(`select pg_advisory_lock(${HELD})`);
  await session.query(`
    create function keep.hold_first_attempt() returns trigger language plpgsql as $$
    begin
      if exists (select from keep.jobs where kind = 'rule-action' and key like new.id || '.%' and owner is not null and attempt = 1) then
        perform pg_advisory_xact_lock(${HELD});
      end if;
      return new;
    end
    $$;
    create trigger hold_first_attempt before update on keep.rule_evaluations for each row execute function keep.hold_first_attempt()`);
  let worker = await installation.start('worker');
  await ask('POST', '/automation-rules', { trigger: 'message.received', conditions: [], actions: ACTIONS });
  const { id } = (await ask('POST', '/conversations', { visitor: {}, message: 'Hello' })) as { id: string };
  const caused = async () => ((await ask('GET', `/conversations/${id}/events`)) as Told[]).slice(2);

  for (const [index] of ACTIONS.entries()) {
    await eventually(async () => (await caused()).length === index + 1, 30_000);
    await eventually(async () => {
      const { rowCount } = await session.query(`select 1 from pg_locks where locktype = 'advisory' and objid = ${HELD} and not granted`);
      return (rowCount ?? 0) > 0;
    });
    await worker.kill();
    // The server would still record what the killed worker asked for.
    await session.query(`
      select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = ${HELD} and not granted`);
    await session.query(`update keep.jobs set leased_until = now() - interval '1 second' where kind = 'rule-action' and owner is not null`);
    worker = await installation.start('worker');
  }
  const evaluated = await eventually(async () => {
    const all = (await ask('GET', `/conversations/${id}/evaluations`)) as { actions: { outcome: string; eventIds: string[] }[] }[];
    return all[0]?.actions.every(({ outcome }) => outcome !== 'pending') === true ? all : undefined;
  }, 30_000);
  const events = await caused();
  expect(events.map(({ type }) => type)).toEqual(EVENTS);
  expect(evaluated).toHaveLength(1);
  expect(evaluated[0]?.actions).toEqual(events.map((event, i) => ({ type: ACTIONS[i]?.type, outcome: 'done', eventIds: [event.id] })));
  // The job goes after the outcome of its last action is recorded.
  await eventually(async () => (await session.query(`select from keep.jobs where kind = 'rule-action'`)).rowCount === 0);
}, 240_000);
