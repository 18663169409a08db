import pg from 'pg';
import { isAlive } from './processes.js';

/** Where a worker's name stands, and the column that says until when it has what it took. */
const LEASES = [
  ['read.checkpoints', 'lease_until'],
  ['keep.reactors', 'lease_until'],
  ['keep.jobs', 'leased_until'],
] as const;

/**
 * Lets the leases of killed workers run out now, as they would by themselves 8 s or 15 s after the kill. How long that takes, and that nobody
 * gets them sooner, is what projections/takeover, faults/job-kill and faults/kill are about; other tests need not wait for it.
 */
export async function endLeasesOfTheDead(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    for (const [table, until] of LEASES) {
      const { rows } = await client.query<{ owner: string }>(`select distinct owner from ${table} where owner is not null`);
      // A worker's name is host:pid:random.
      const dead = rows.map(({ owner }) => owner).filter((owner) => !isAlive(Number(owner.split(':')[1])));
      await client.query(`update ${table} set ${until} = clock_timestamp() - interval '1 ms' where owner = any ($1)`, [dead]);
    }
  } finally {
    await client.end();
  }
}
