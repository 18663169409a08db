import { describeConfig, InvalidConfiguration, readConfig } from '../src/config.js';
import { startMetricsServer } from '../src/metrics/metrics.js';
import { endSignal } from '../src/end-signal.js';
import { createLogger } from '../src/log.js';
import { startWorker, STOP_MS } from './worker.js';

/** A worker that somebody has started: it ends by a signal. */
async function main(): Promise<void> {
  const ended = endSignal();
  const config = readConfig();
  const logger = createLogger(config.LOG_LEVEL);
  logger.info({ config: describeConfig(config) }, 'worker starting');
  void ended.then(() => setTimeout(() => process.exit(1), STOP_MS).unref());
  const worker = await startWorker(config, logger);
  if (config.METRICS_PORT !== undefined) await startMetricsServer(worker.metrics, config.METRICS_PORT, config.HOST);
  logger.info({}, 'worker ready');

  const code = await Promise.race([
    ended.then(() => 0),
    // A worker has nothing else to do, so it ends, and its supervisor sees that.
    worker.failed.catch((error: unknown) => {
      logger.error({ error: String(error) }, 'a projection group stopped');
      return 1;
    }),
  ]);
  try {
    await worker.stop();
    process.exit(code);
  } catch (error) {
    logger.error({ error: String(error) }, 'could not stop in order');
    process.exit(1);
  }
}

main().catch((error: unknown) => {
  const message =
    error instanceof InvalidConfiguration
      ? `The configuration is not valid:\n${error.message}`
      : error instanceof Error
        ? error.message
        : String(error);
  process.stderr.write(`the worker could not start: ${message}\n`);
  process.exit(1);
});
