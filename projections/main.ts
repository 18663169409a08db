import { NestFactory } from '@nestjs/core';
import { CommandBus } from '@nestjs/cqrs';
import { AppModule } from '../src/app.module.js';
import { openBackend } from '../src/backend.js';
import { describeConfig, InvalidConfiguration, readConfig } from '../src/config.js';
import { Metrics, startMetricsServer } from '../src/metrics/metrics.js';
import { endSignal } from '../src/end-signal.js';
import { createLogger } from '../src/log.js';
import { QUERY_MS, startLiveProjections } from './live.js';

/** How long a worker may take to stop (ms): the longest batch, plus time for the rest. */
const STOP_MS = QUERY_MS + 15_000;

/** A worker: projections and reactors without the API. Any number of workers may run; for each group one works, the others stand by. */
async function main(): Promise<void> {
  const ended = endSignal();
  const config = readConfig();
  const logger = createLogger(config.LOG_LEVEL);
  logger.info({ config: describeConfig(config) }, 'worker starting');
  void ended.then(() => setTimeout(() => process.exit(1), STOP_MS).unref());
  const backend = await openBackend(config, logger, { name: 'threadlog-worker', queryTimeoutMs: QUERY_MS });
  const context = await NestFactory.createApplicationContext(AppModule.over(backend), { logger: false, abortOnError: false });
  const projections = await startLiveProjections(backend, { commands: context.get(CommandBus), metrics: context.get(Metrics) });
  if (config.METRICS_PORT !== undefined) await startMetricsServer(context.get(Metrics), config.METRICS_PORT, config.HOST);
  logger.info({}, 'worker ready');

  const code = await Promise.race([
    ended.then(() => 0),
    // A worker has nothing else to do, so it ends, and its supervisor sees that.
    projections.failed.catch((error: unknown) => {
      logger.error({ error: String(error) }, 'a projection group stopped');
      return 1;
    }),
  ]);
  try {
    await projections.stop();
    await context.close();
    await backend.close();
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
