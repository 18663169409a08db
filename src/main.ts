import { CommandBus } from '@nestjs/cqrs';
import type { Logger } from 'pino';
import type { LiveProjections } from '../projections/live.js';
import { AppModule } from './app.module.js';
import { openBackend } from './backend.js';
import { type Config, describeConfig, InvalidConfiguration, readConfig } from './config.js';
import { Transactor } from './commands/transactor.js';
import { firstStart } from './first-start.js';
import { Metrics, startMetricsServer } from './metrics/metrics.js';
import { endSignal } from './end-signal.js';
import { createHttpApp } from './http/http-app.js';
import { createLogger } from './log.js';
import { OwnWorker } from './own-worker.js';
import { Shutdown } from './http/shutdown.js';
import { ignoreFailure } from './ignore-failure.js';

/** How long requests in flight may take after a signal (ms). */
const DRAIN_MS = 10_000;

/** How long a request waits for one answer of the database (ms), so that the request itself is answered within a command's deadline. */
const QUERY_MS = 5_000;

async function main(): Promise<void> {
  const ended = endSignal();
  const config = readConfig();
  const logger = createLogger(config.LOG_LEVEL);
  logger.info({ config: describeConfig(config) }, 'starting');
  const delayMs = config.SHUTDOWN_DELAY_SECONDS * 1_000;
  void ended.then((signal) => {
    logger.info({ signal }, 'stopping');
    const late = () => {
      logger.error({}, 'could not stop in time');
      process.exit(1);
    };
    setTimeout(late, delayMs + DRAIN_MS + 5_000).unref();
  });
  // A signal that comes meanwhile is handled after the start, when everything can be stopped.
  const stop = await start(config, logger);
  await ended;
  try {
    await stop(delayMs);
    logger.info({}, 'stopped');
    process.exit(0);
  } catch (error) {
    logger.error({ error: String(error) }, 'could not stop in order');
    process.exit(1);
  }
}

/** @returns a function that stops everything, `delayMs` after readiness began to fail */
async function start(config: Config, logger: Logger): Promise<(delayMs: number) => Promise<void>> {
  const backend = await openBackend(config, logger, { name: 'threadlog-api', queryTimeoutMs: QUERY_MS });
  let projections: LiveProjections | undefined;
  const worker = config.PROJECTIONS === 'process' ? new OwnWorker(logger) : undefined;
  try {
    // Beside the API's own start, which takes about as long. Its failure is told below, where it is awaited.
    const working = worker?.start(backend);
    void ignoreFailure(working, 'it is awaited below');
    const app = await createHttpApp(AppModule.over(backend, worker) as never, {
      logger,
      trustProxy: config.TRUST_PROXY,
      corsOrigins: config.CORS_ORIGINS,
    });
    const transactor = app.get(Transactor);
    worker?.tellLoad(() => transactor.inFlight);
    if (config.PROJECTIONS === 'inline') {
      const { startLiveProjections } = await import('../projections/live.js');
      projections = await startLiveProjections(backend, {
        inFlight: () => transactor.inFlight,
        commands: app.get(CommandBus),
        metrics: app.get(Metrics),
      });
    }
    await working;
    projections?.failed.catch((error: unknown) => logger.error({ error: String(error) }, 'a projection group stopped; see /health/ready'));

    if (config.METRICS_PORT !== undefined) await startMetricsServer(app.get(Metrics), config.METRICS_PORT, config.HOST);
    const welcome = await firstStart(backend, app);
    await app.listen({ port: config.PORT, host: config.HOST });
    const address = app.getHttpServer().address() as { port: number };
    welcome(address.port);
    return async (delayMs) => {
      await app.get(Shutdown).begin(delayMs);
      // Requests first, then the parts that they write through, then the projections, then the stores.
      await app.close();
      await worker?.stop();
      await projections?.stop();
      await backend.close();
    };
  } catch (error) {
    // The start failed, for example because the port is taken. The embedded PostgreSQL must not be left running.
    await worker?.stop();
    await projections?.stop();
    await backend.close();
    throw error;
  }
}

main().catch((error: unknown) => {
  const message =
    error instanceof InvalidConfiguration
      ? `The configuration is not valid:\n${error.message}`
      : error instanceof Error
        ? error.message
        : String(error);
  process.stderr.write(`threadlog could not start: ${message}\n`);
  process.exit(1);
});
