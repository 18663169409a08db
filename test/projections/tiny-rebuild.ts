// A process that rebuilds the tiny group, for tests that freeze and kill it: node --import typescript.mjs tiny-rebuild.ts URL SUFFIX MOMENT SIGNAL
// At the given phase of the rebuild, or moment of its first batch, it sends itself the signal.
import { rebuildGroup } from '../../projections/runtime/rebuild.js';
import { openPostgresEventStore } from '../../src/event-store/postgres/postgres-event-store.js';
import { tinyDecode, tinyProjections } from './tiny-group.js';

const [url = '', suffix = '', moment = '', signal = ''] = process.argv.slice(2);
let sent = false;
const meet = (now: string) => {
  if (now !== moment || sent) return;
  sent = true;
  process.stdout.write(`${now}\n`);
  process.kill(process.pid, signal as NodeJS.Signals);
};
const hooks = { at: meet };
const nothing = () => undefined;
const store = await openPostgresEventStore({ url });
try {
  await rebuildGroup({
    group: `group${suffix}`,
    projections: tinyProjections(suffix, hooks),
    decode: tinyDecode(),
    store,
    databaseUrl: url,
    log: { info: nothing, warn: nothing, error: nothing },
    signal: new AbortController().signal,
    maxEvents: 5,
    onProgress: ({ phase }) => meet(phase),
  });
} catch {
  process.exitCode = 1;
}
await store.close();
