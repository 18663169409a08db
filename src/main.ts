import { CommandBus } from '@nestjs/cqrs';
import { AppModule } from './app.module.js';
import { openBackend } from './backend.js';
import { describeConfig, InvalidConfiguration, readConfig } from './config.js';
import { Transactor } from './event-store/transact.js';
import { firstStart } from './first-start.js';
import { Metrics, startMetricsServer } from './metrics/metrics.js';
import { createHttpApp } from './platform/http.js';
import { createLogger } from './platform/log.js';
import { Shutdown } from './platform/shutdown.js';

/** How long requests in flight may take to end after a signal (ms). */
const DRAIN_MS = 10_000;

/** How long a request waits for one answer of the database (ms), so that it is answered itself within the deadline of a command. */
const QUERY_MS = 5_000;

async function main(): Promise<void> {
  const config = readConfig();
  const logger = createLogger(config.LOG_LEVEL);
  logger.info({ config: describeConfig(config) }, 'starting');
  const backend = await openBackend(config, logger, { name: 'threadlog-api', queryTimeoutMs: QUERY_MS });
  const app = await createHttpApp(AppModule.over(backend) as never, { logger, trustProxy: config.TRUST_PROXY });
  const commands = app.get(CommandBus);
  const transactor = app.get(Transactor);
  const projections =
    config.PROJECTIONS === 'inline'
      ? await import('../projections/live.js').then(({ startLiveProjections }) =>
          startLiveProjections(backend, { inFlight: () => transactor.inFlight, commands, metrics: app.get(Metrics) }),
        )
      : undefined;
  projections?.failed.catch((error: unknown) => logger.error({ error: String(error) }, 'a projection group stopped; see /health/ready'));

  if (config.METRICS_PORT !== undefined) await startMetricsServer(app.get(Metrics), config.METRICS_PORT, config.HOST);
  const welcome = await firstStart(backend, app);
  await app.listen({ port: config.PORT, host: config.HOST });
  const address = app.getHttpServer().address() as { port: number };
  welcome(address.port);

  let ending = false;
  const end = (signal: string) => {
    if (ending) return;
    ending = true;
    logger.info({ signal }, 'stopping');
    const delayMs = config.SHUTDOWN_DELAY_SECONDS * 1_000;
    const forced = setTimeout(
      () => {
        logger.error({}, 'requests did not end in time');
        process.exit(1);
      },
      delayMs + DRAIN_MS + 5_000,
    );
    forced.unref();
    void (async () => {
      await app.get(Shutdown).begin(delayMs);
      // Requests first, then what they write through, then the projections, then the stores.
      await app.close();
      await projections?.stop();
      await backend.close();
      logger.info({}, 'stopped');
      process.exit(0);
    })().catch((error: unknown) => {
      logger.error({ error: String(error) }, 'could not stop in order');
      process.exit(1);
    });
  };
  process.on('SIGINT', () => end('SIGINT'));
  process.on('SIGTERM', () => end('SIGTERM'));
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
