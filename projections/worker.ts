import { NestFactory } from '@nestjs/core';
import { CommandBus } from '@nestjs/cqrs';
import type { Logger } from 'pino';
import { AppModule } from '../src/app.module.js';
import { openBackend } from '../src/backend.js';
import type { Config } from '../src/config.js';
import { Metrics } from '../src/metrics/metrics.js';
import { QUERY_MS, startLiveProjections } from './live.js';

/** How long a worker may take to stop (ms): the longest batch, plus time for the rest. */
export const STOP_MS = QUERY_MS + 15_000;

export interface Worker {
  readonly metrics: Metrics;
  /** Rejects when a projection group cannot go on without a person. */
  readonly failed: Promise<never>;
  /** Finishes the batches in hand, gives the leases up, and closes the stores. */
  stop(): Promise<void>;
}

/**
 * Projections and reactors without the API, over stores of their own. Any number may run; for each group one works, the others stand by.
 * @param options.inFlight commands in flight in the API that the worker belongs to, if it belongs to one
 */
export async function startWorker(config: Config, logger: Logger, options: { readonly inFlight?: () => number } = {}): Promise<Worker> {
  const backend = await openBackend(config, logger, { name: 'threadlog-worker', queryTimeoutMs: QUERY_MS });
  const context = await NestFactory.createApplicationContext(AppModule.over(backend), { logger: false, abortOnError: false });
  const metrics = context.get(Metrics);
  const projections = await startLiveProjections(backend, { ...options, commands: context.get(CommandBus), metrics });
  return {
    metrics,
    failed: projections.failed,
    async stop() {
      await projections.stop();
      await context.close();
      await backend.close();
    },
  };
}
