import pg from 'pg';
import { positionOf } from '../../src/event-store/postgres/position.js';
import { threadlog } from './moving.js';

/** What one group of read models or one reactor takes of the CPU of a reply (µs), in its own process and in the database. */
export interface PartCost {
  readonly name: string;
  readonly cpu: number;
}

/**
 * Pauses each group and each reactor in turn and compares the CPU of a reply with that of the measurements before and after. Small parts are
 * within the noise of the machine, and may come out below zero.
 * @param measured.cpu sends replies at a fixed rate, so that batches are of one size, and answers the CPU of each (µs)
 */
export async function measureParts(
  root: string,
  environment: Readonly<Record<string, string>>,
  measured: { readonly url: string; readonly cpu: () => Promise<number> },
): Promise<PartCost[]> {
  const client = new pg.Client({ connectionString: measured.url });
  await client.connect();
  /** Nobody has anything left to do, so that a measurement does not pay for what was paused before it. */
  const caughtUp = async () => {
    const { rows } = await client.query<{ head: string }>('select max(position) as head from log.events');
    const behind = `select from (select position from read.checkpoints where live union all select position from keep.reactors) p where position < $1`;
    for (const end = Date.now() + 120_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20)))
      if ((await client.query(behind, [positionOf(rows[0]?.head ?? '0')])).rowCount === 0) return;
    throw new Error('the groups and reactors do not catch up');
  };
  const { groups, reactors } = JSON.parse(await threadlog(root, environment, ['projections', 'list', '--json'])) as {
    groups: { group: string }[];
    reactors: { reactor: string }[];
  };
  const costs: PartCost[] = [];
  let before = await measured.cpu();
  for (const name of [...groups.map(({ group }) => group), ...reactors.map(({ reactor }) => reactor)]) {
    await threadlog(root, environment, ['projections', 'pause', name]);
    const without = await measured.cpu();
    await threadlog(root, environment, ['projections', 'resume', name]);
    await caughtUp();
    const after = await measured.cpu();
    costs.push({ name, cpu: (before + after) / 2 - without });
    before = after;
  }
  await client.end();
  return costs;
}
