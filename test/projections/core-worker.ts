// A worker of all read models, for a test that freezes it: node --import typescript.mjs core-worker.ts STATEMENT
// Once its parent says "arm", it stops itself right before it sends the so-manieth statement of its next batches: what is known of rows, and the
// batch itself. With 0 it stops right after it has sent a batch. It tells its parent each statement that it comes to.
import pg from 'pg';
import { startLiveProjections } from '../../projections/live.js';
import { openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';

const at = Number(process.argv[2]);
const BATCH = 'with "moved"';
let armed = false;
let count = 0;
const freeze = () => {
  armed = false;
  process.kill(process.pid, 'SIGSTOP');
};

const query = Reflect.get(pg.Client.prototype, 'query') as (...given: unknown[]) => unknown;
pg.Client.prototype.query = function (this: pg.Client, ...given: unknown[]) {
  const text = typeof given[0] === 'string' ? given[0] : '';
  const { application_name: session } = (this as unknown as { connectionParameters: { application_name: string } }).connectionParameters;
  const statement = /^\s*(select t\.|with "moved")/.exec(text)?.[1];
  if (!armed || session !== 'threadlog-projections' || statement === undefined) return query.apply(this, given);
  count++;
  process.send?.({ statement });
  if (count === at) freeze();
  const sent = query.apply(this, given);
  // The socket has it; the answer is never read.
  if (at === 0 && statement === BATCH) setImmediate(freeze);
  return sent;
} as typeof pg.Client.prototype.query;

process.on('message', () => (armed = true));
const backend = await openBackend(readConfig(), createLogger('silent'), { name: 'threadlog-core-worker' });
const projections = await startLiveProjections(backend, {});
process.once('SIGTERM', () => {
  void projections
    .stop()
    .then(() => backend.close())
    .then(() => process.exit(0));
});
process.send?.({ ready: true });
