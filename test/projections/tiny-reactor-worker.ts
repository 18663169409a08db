// A worker process of a tiny reactor, for tests that freeze it: node --import typescript.mjs tiny-reactor-worker.ts URL NAME MOMENT
// It stops itself at its second batch: 'handling' it, or 'before commit', with the checkpoint moved and the jobs added in its transaction.
// Its log lines go to stdout, one JSON object each.
import type { Kysely } from 'kysely';
import { Jobs, type NewJob } from '../../projections/runtime/jobs.js';
import { followFor } from '../../projections/runtime/reactor.js';
import type { Database } from '../../src/database/database.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { openWorkerDatabase, tinyDecode } from './tiny-group.js';
import { tinyReactor } from './tiny-reactor.js';

const [url = '', name = '', moment = ''] = process.argv.slice(2);
const say = (facts: object, message: string) => process.stdout.write(`${JSON.stringify({ message, ...facts })}\n`);

let met = 0;
const at = (now: string) => {
  if (now === moment && ++met === 2) process.kill(process.pid, 'SIGSTOP');
};

class JobsThatFreeze extends Jobs {
  override async add(jobs: readonly NewJob[], tx?: Kysely<Database>): Promise<number> {
    const added = await super.add(jobs, tx);
    if (jobs.length > 0) at('before commit');
    return added;
  }
}

const database = openWorkerDatabase(url);
await followFor({
  reactor: tinyReactor(name, () => at('handling')),
  jobs: new JobsThatFreeze(database.kysely, undefined),
  decode: tinyDecode(),
  store: await openPostgresEventStore({ url }),
  database: database.kysely,
  log: { info: say, warn: say, error: say },
}).run(new AbortController().signal);
