import { readConfig } from '../src/config.js';
import { createLogger } from '../src/log.js';
import type { FromOwnWorker, ToOwnWorker } from '../src/own-worker.js';
import { startWorker, STOP_MS } from './worker.js';

/** The worker of an API process, which has started it (src/own-worker.ts): it ends when the API does, for whatever reason. */
async function main(): Promise<void> {
  // Ctrl-C, the end of the terminal and service managers reach both processes. The API ends first, and then tells this one.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  // Writing to a closed terminal fails, and nobody could read the error.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  let working = false;
  const parentGone = new Promise<void>((resolve) => {
    const gone = () => {
      // Before it works, there is nothing to finish: what it has begun is rolled back.
      if (!working) process.exit(0);
      setTimeout(() => process.exit(1), STOP_MS).unref();
      resolve();
    };
    process.once('disconnect', gone);
    if (!process.connected) gone();
  });
  const say = (what: FromOwnWorker) =>
    void process.send?.(what, undefined, undefined, (error) => {
      if (error !== null) logger.debug({ error: error.message }, 'the API does not listen any more');
    });

  const config = readConfig();
  const logger = createLogger(config.LOG_LEVEL);
  let inFlight = 0;
  const worker = await startWorker(config, logger, { inFlight: () => inFlight });
  process.on('message', (told: ToOwnWorker) => {
    if ('inFlight' in told) {
      inFlight = told.inFlight;
      return;
    }
    const { measuredAs: number } = told;
    worker.metrics.measured().then(
      (measured) => say({ number, measured }),
      (error: unknown) => logger.warn({ error: String(error) }, 'could not tell what was measured'),
    );
  });
  // As in the API's own process: the reactors and other groups go on, and readiness tells which group has stopped.
  worker.failed.catch((error: unknown) => logger.error({ error: String(error) }, 'a projection group stopped; see /health/ready'));
  working = true;
  say('ready');

  await parentGone;
  try {
    await worker.stop();
    process.exit(0);
  } catch (error) {
    logger.error({ error: String(error) }, 'could not stop in order');
    process.exit(1);
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`the worker could not start: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
