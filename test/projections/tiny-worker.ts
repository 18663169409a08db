// A worker process of the tiny group, for tests that freeze and kill it: node --import typescript.mjs tiny-worker.ts URL SUFFIX MOMENT SIGNAL
// At the given moment of its second batch it sends itself the signal. Its log lines go to stdout, one JSON object each.
import { ProjectionGroup } from '../../projections/runtime/group.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { openWorkerDatabase, tinyDecode, tinyProjections, type Hooks } from './tiny-group.js';

const [url = '', suffix = '', moment = '', signal = ''] = process.argv.slice(2);
const say = (facts: object, message: string) => process.stdout.write(`${JSON.stringify({ message, ...facts })}\n`);

let met = 0;
const hooks: Hooks = {
  at(now) {
    if (now === moment && ++met === 2) process.kill(process.pid, signal as NodeJS.Signals);
  },
};

const database = openWorkerDatabase(url);
const store = await openPostgresEventStore({ url });
const ending = new AbortController();
process.once('SIGTERM', () => ending.abort());
await new ProjectionGroup({
  name: `group${suffix}`,
  projections: tinyProjections(suffix, hooks),
  decode: tinyDecode(hooks),
  store,
  database: database.kysely,
  log: { info: say, warn: say, error: say },
}).run(ending.signal);
await store.close();
await database.close();
