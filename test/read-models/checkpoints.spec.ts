import { Kysely, PostgresDialect } from 'kysely';
import type { Position } from '../../src/event-store/event-store.js';
import { openDatabase, type Database, type OpenDatabase } from '../../src/database/database.js';
import { Checkpoints } from '../../src/read-models/checkpoints.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

let created: TestDatabase;
let database: OpenDatabase;
let counted: Kysely<Database>;
let queries = 0;

beforeAll(async () => {
  created = await createDatabase();
  database = openDatabase({ url: created.url, poolSize: 4, name: 'test', onError: () => undefined });
  counted = new Kysely<Database>({ dialect: new PostgresDialect({ pool: database.pool }), log: () => void queries++ });
});
afterAll(async () => {
  await database.close();
  await created.drop();
});

let generation = 0;
/** Each group's shape is called as the group. */
const shapes = new Map<string, string>();

async function group(position: string): Promise<string> {
  const name = `group_${++generation}`;
  shapes.set(name, name);
  await database.kysely
    .insertInto('read.checkpoints')
    .values({
      generation,
      group_name: name,
      live: true,
      shape: name,
      log_id: '',
      position,
      progress_at: new Date(),
    })
    .execute();
  return name;
}

async function move(name: string, to: string): Promise<void> {
  await database.kysely.updateTable('read.checkpoints').set({ position: to }).where('group_name', '=', name).execute();
}

const at = (n: number) => String(n).padStart(19, '0') as Position;

it('answers at once for what the rows hold, and says behind when the time is up', async () => {
  const checkpoints = new Checkpoints(counted, shapes);
  const name = await group(at(5));
  expect(await checkpoints.position(name)).toBe(at(5));
  expect(await checkpoints.waitFor(name, at(5), 0)).toBe('reached');
  expect(await checkpoints.waitFor(name, at(6), 30)).toBe('behind');
  expect(await checkpoints.waitFor('no such group', at(1), 30)).toBe('behind');
});

it('waits for another process with one poll for all waiters, and polls no more when they are gone', async () => {
  const checkpoints = new Checkpoints(counted, shapes);
  const name = await group('');
  queries = 0;
  const began = performance.now();
  const waiting = Array.from({ length: 300 }, (_, i) => checkpoints.waitFor(name, at(1 + (i % 3)), 10_000));
  await move(name, at(2));
  expect(await Promise.all(waiting.filter((_, i) => i % 3 < 2))).toEqual(Array.from({ length: 200 }, () => 'reached'));
  await move(name, at(3));
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['reached']));
  expect(queries).toBeLessThanOrEqual((performance.now() - began) / 5 + 2);
  // The loop looks once more for waiters and ends; a later waiter starts it anew.
  const later = checkpoints.waitFor(name, at(4), 10_000);
  await move(name, at(4));
  expect(await later).toBe('reached');
});

it('asks the database nothing while a worker of this process has the group, and polls when it leaves', async () => {
  const checkpoints = new Checkpoints(counted, shapes);
  const name = await group('');
  checkpoints.advanced(name, 'start', false);
  queries = 0;
  const waiting = checkpoints.waitFor(name, at(7), 10_000);
  const longer = checkpoints.waitFor(name, at(8), 10_000);
  checkpoints.advanced(name, at(7), false);
  expect(await waiting).toBe('reached');
  expect(queries).toBe(0);
  await move(name, at(8));
  checkpoints.left(name);
  expect(await longer).toBe('reached');
});

it('hands the failure of the database to those who wait', async () => {
  const closed = openDatabase({ url: created.url, poolSize: 1, name: 'test', onError: () => undefined });
  const checkpoints = new Checkpoints(closed.kysely, shapes);
  const name = await group('');
  expect(await checkpoints.position(name)).toBe('start');
  await closed.close();
  await expect(checkpoints.waitFor(name, at(1), 10_000)).rejects.toThrow();
});

it('shows an operator every live group of this build', async () => {
  const name = await group(at(9));
  await database.kysely
    .insertInto('keep.parked')
    .values({
      group_name: name,
      generation,
      stream: 'conversation-org.1',
      revision: 3,
      position: at(8),
      event_id: '00000000-0000-4000-8000-000000000000',
      type: 'Happened',
      error: 'Error',
    })
    .execute();
  const found = (await new Checkpoints(counted, shapes).health()).find((one) => one.group === name);
  expect(found).toEqual({
    group: name,
    generation,
    position: at(9),
    events: 0,
    owner: null,
    idleMs: expect.any(Number),
    parked: 1,
    stopped: null,
    paused: false,
    filling: false,
  });
});
