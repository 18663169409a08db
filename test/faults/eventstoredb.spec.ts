import { type EventStoreDbServer, startEventStoreDb } from '../support/eventstoredb-server.js';
import { asLongAsAsked, timeLimit } from '../support/fault-length.js';
import { type Installation, makeInstallation } from '../support/installation.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { faultSeed } from '../support/seeded-random.js';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.js';
import { FaultRun } from './fault-run.js';

/*
 * What may happen to EventStoreDB and to the way to it, under two API processes, a worker and clients that write without a pause. One API
 * reaches it through a proxy. What must hold is what postgres.spec.ts asks for. FAULT_MINUTES makes it longer, FAULT_SEED repeats a run.
 */
const SEED = faultSeed();
const WRITERS = 8;
/** How long it is away (ms). A minute, if as much is asked for. */
const AWAY_MS = Math.min(asLongAsAsked(4_000, 12_000), 60_000);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const executable = process.env['EVENTSTORE_BIN'];
if (executable) {
  describe('with the log in EventStoreDB', () => faults(executable));
} else {
  it('EventStoreDB: NOT RUN, because EVENTSTORE_BIN is not set, and another’s server is not to be harmed', () => {
    process.stderr.write('EventStoreDB: NOT RUN (test/faults/eventstoredb.spec.ts needs EVENTSTORE_BIN)\n');
    expect(executable).toBeFalsy();
  });
}

function faults(bin: string): void {
  let log: EventStoreDbServer;
  let postgres: PostgresServer;
  let proxy: TcpProxy;
  let installation: Installation;
  let run: FaultRun;

  beforeAll(async () => {
    [log, postgres] = await Promise.all([startEventStoreDb(bin), startPostgres()]);
    proxy = await startTcpProxy({ host: '127.0.0.1', port: log.port });
    installation = await makeInstallation({ databaseUrl: postgres.url, eventstoreUrl: log.url });
    const direct = await installation.start('api');
    const [proxied] = await Promise.all([
      installation.start('api', { eventstoreUrl: `esdb://${proxy.host}:${proxy.port}?tls=false` }),
      installation.start('worker'),
    ]);
    run = await FaultRun.begin(installation, [direct, proxied], { writers: WRITERS, seed: SEED });
  }, 240_000);
  afterAll(async () => {
    proxy?.heal();
    await installation?.dispose();
    await proxy?.close();
    await Promise.all([log?.dispose(), postgres?.dispose()]);
  }, 60_000);

  const FAULTS: readonly [string, () => Promise<void>][] = [
    [
      'frozen',
      async () => {
        log.freeze();
        await pause(AWAY_MS);
        log.resume();
      },
    ],
    [
      'killed',
      async () => {
        await log.kill();
        await log.start();
      },
    ],
    [
      'away for a while',
      async () => {
        await log.stop();
        await pause(AWAY_MS);
        await log.start();
      },
    ],
    [
      'slow on the way to one API',
      async () => {
        proxy.delay(100);
        await pause(AWAY_MS);
        proxy.delay(0);
      },
    ],
    [
      'swallowed by the network of one API',
      async () => {
        proxy.blackhole();
        await pause(AWAY_MS);
        proxy.heal();
      },
    ],
    [
      'cut off from one API, again and again',
      async () => {
        for (let i = 0; i < asLongAsAsked(5, 60); i += 1) {
          proxy.kill();
          await pause(300);
        }
      },
    ],
  ];

  it.each(FAULTS)(
    `loses and doubles nothing, hangs nobody and recovers by itself when EventStoreDB is %s (seed ${SEED})`,
    (name, fault) => run.survive(name, fault),
    timeLimit(180_000),
  );

  it('has read models that are the fold of the log, and chains that verify', () => run.judge(SEED), timeLimit(60_000));
}
