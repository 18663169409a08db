import { Kysely, type KyselyPlugin, sql } from 'kysely';
import type { FeedPart } from '../../projections/runtime/batches.js';
import { BatchWriter } from '../../projections/runtime/batch-writer.js';
import { GroupPaused, LeaseLost } from '../../projections/runtime/failures.js';
import { makeLiveGeneration, tableOf } from '../../projections/runtime/generations.js';
import { type Lease, takeLease } from '../../projections/runtime/lease.js';
import { groupOf, type Projection, type ProjectionTarget } from '../../projections/runtime/projection.js';
import type { Metadata } from '../../src/event-store/aggregate.js';
import type { Position } from '../../src/event-store/event-store.js';
import type { Database, OpenDatabase } from '../../src/database/database.js';
import { readTable } from '../../src/read-models/table.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { conversation, openWorkerDatabase } from './tiny-group.js';

let created: TestDatabase;
let open: OpenDatabase;
/** With a count of what is sent. */
let database: Kysely<Database>;
let statements = 0;

beforeAll(async () => {
  created = await createDatabase();
  open = openWorkerDatabase(created.url);
  const counting: KyselyPlugin = {
    transformQuery: ({ node }) => (statements++, node),
    transformResult: ({ result }) => Promise.resolve(result),
  };
  database = open.kysely.withPlugin(counting);
});
afterAll(async () => {
  await open.close();
  await created.drop();
});

interface Row {
  organization_id: string;
  id: string;
  revision: number;
  said: string;
}
const tableNamed = (name: string) =>
  readTable<Row>({
    name,
    group: 'any',
    version: 1,
    columns: { organization_id: 'text', id: 'text', revision: 'integer not null', said: 'text not null' },
    key: ['organization_id', 'id'],
    guard: 'revision',
    indexes: {},
  });
let groups = 0;

interface World {
  readonly group: string;
  readonly lease: Lease;
  readonly writer: BatchWriter;
  readonly forgotten: () => number;
  readonly rows: (table?: string) => Promise<string[]>;
  readonly position: () => Promise<string>;
}

/** A group of two projections that write rows: of the greatest revision of each stream that they were given. */
async function world(second?: (target: ProjectionTarget, name: string) => Promise<void>): Promise<World> {
  const group = `g${++groups}`;
  let forgotten = 0;
  const projection = (name: string, then?: (target: ProjectionTarget, name: string) => Promise<void>): Projection => ({
    name,
    kinds: ['conversation'],
    tables: [tableNamed(name)],
    async apply(events, target) {
      const last = new Map(
        events.map(({ streamId: id, event: { revision } }) => [id, { organization_id: 'org', id, revision, said: name }]),
      );
      await target.write(tableNamed(name), { made: [], changed: [...last.values()] });
      await then?.(target, name);
    },
    forget: () => void forgotten++,
  });
  const projections = [projection(`${group}_a`), projection(`${group}_b`, second)];
  const own = groupOf(group, projections);
  await makeLiveGeneration(open.kysely, own, { id: 'log', empty: true });
  const lease = await takeLease(open.kysely, own, 'worker', 'log');
  if (lease === undefined) throw new Error('the lease is free');
  const nothing = () => undefined;
  const writer = new BatchWriter({ group, projections, database, log: { info: nothing, warn: nothing, error: nothing } }, lease);
  await writer.begin();
  forgotten = 0;
  return {
    group,
    lease,
    writer,
    forgotten: () => forgotten,
    async rows(table = 'a') {
      const { rows } = await sql<{ row: string }>`
        select id || '@' || revision as row from ${sql.raw(tableOf(lease.generation)(`${group}_${table}`))} order by 1`.execute(
        open.kysely,
      );
      return rows.map(({ row }) => row);
    },
    async position() {
      return (await open.kysely.selectFrom('read.checkpoints').select('position').where('group_name', '=', group).executeTakeFirstOrThrow())
        .position;
    },
  };
}

function batch(through: string, ...revisions: readonly (readonly [id: string, revision: number])[]): FeedPart {
  const decoded = revisions.map(([id, revision]) => ({
    kind: 'conversation' as const,
    organizationId: 'org',
    streamId: id,
    event: {
      id: `${id}-${revision}`,
      stream: conversation(id),
      revision,
      position: through as Position,
      type: 'Happened',
      data: {},
      metadata: {} as Metadata,
    },
  }));
  return { decoded, failed: [], stored: [], looked: decoded.length, through: through as Position, events: decoded.length, caughtUp: true };
}

it('is one statement, whatever the number of tables', async () => {
  const { writer, rows, position } = await world();
  statements = 0;
  await writer.write(batch('1', ['x', 0], ['y', 0], ['x', 1]), 'start');
  expect(statements).toBe(1);
  await writer.write(batch('2'), '1' as Position);
  expect(statements).toBe(2);
  expect([await rows('a'), await rows('b'), await position()]).toEqual([['x@1', 'y@0'], ['x@1', 'y@0'], '2']);
});

it('never puts an older revision in the place of a newer one', async () => {
  const { writer, rows } = await world();
  await writer.write(batch('1', ['x', 5]), 'start');
  await writer.write(batch('2', ['x', 4], ['y', 0]), '1' as Position);
  expect(await rows()).toEqual(['x@5', 'y@0']);
});

it.each([
  ['another has taken over', { epoch: 99 }, LeaseLost],
  ['the checkpoint stands elsewhere', { position: '7' }, LeaseLost],
  ['the group is paused', { paused: true }, GroupPaused],
])('writes nothing and forgets its rows when %s', async (_, change, fault) => {
  const { group, writer, rows, forgotten } = await world();
  await open.kysely.updateTable('read.checkpoints').set(change).where('group_name', '=', group).execute();
  await expect(writer.write(batch('1', ['x', 0]), 'start')).rejects.toThrow(fault);
  expect([await rows('a'), await rows('b'), forgotten()]).toEqual([[], [], 2]);
});

describe('a projection that asks for the transaction', () => {
  const own = async ({ transaction, table, write }: ProjectionTarget, name: string) => {
    const tx = await transaction();
    await sql`insert into ${sql.raw(table(name))} values ('org', 'own', 0, 'by itself')`.execute(tx);
    await write(tableNamed(name), { made: [{ organization_id: 'org', id: 'after', revision: 0, said: name }], changed: [] });
    // As it is there: what was given to write() before it too.
    const { rows } = await sql`select from ${sql.raw(table(name.replace('_b', '_a')))}`.execute(tx);
    if (rows.length !== 1) throw new Error('what the first projection wrote is not in the transaction');
  };

  it('finds the rows of those before it there, and all of it is one transaction', async () => {
    const { writer, rows, position } = await world(own);
    await writer.write(batch('1', ['x', 0]), 'start');
    expect([await rows('a'), await rows('b'), await position()]).toEqual([['x@0'], ['after@0', 'own@0', 'x@0'], '1']);
  });

  it('leaves nothing when the surroundings end it', async () => {
    const { writer, rows, position, forgotten } = await world(async (target, name) => {
      await own(target, name);
      throw Object.assign(new Error('terminating connection'), { code: '57P01' });
    });
    await expect(writer.write(batch('1', ['x', 0]), 'start')).rejects.toThrow('terminating connection');
    expect([await rows('a'), await rows('b'), await position(), forgotten()]).toEqual([[], [], '', 2]);
  });

  it('is refused it when another has taken over', async () => {
    const { group, writer, rows } = await world(own);
    await open.kysely.updateTable('read.checkpoints').set({ epoch: 99 }).where('group_name', '=', group).execute();
    await expect(writer.write(batch('1', ['x', 0]), 'start')).rejects.toThrow(LeaseLost);
    expect([await rows('a'), await rows('b')]).toEqual([[], []]);
  });
});
