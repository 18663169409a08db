import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import type { CommandBus } from '@nestjs/cqrs';
import type { FastifyInstance } from 'fastify';
import type pg from 'pg';
import {
  AggregatorRegistry,
  collectDefaultMetrics,
  Counter,
  Gauge,
  Histogram,
  type MetricObjectWithValues,
  type MetricValue,
  Registry,
} from 'prom-client';
import type { EventStore } from '../event-store/event-store.js';
import type { Transacted, Transactor } from '../commands/transactor.js';
import type { Clock } from '../clock.js';
import { ERRORS, ThreadlogError } from '../errors.js';
import type { Checkpoints, KindOfJobs } from '../read-models/checkpoints.js';
import { projectionLag } from './projection-lag.js';

/** The text format 0.0.4, which every Prometheus reads. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const EVENTS = [1, 5, 20, 100, 500, 2_000, 5_000];

const OUTCOMES: readonly string[] = ['appended', 'repeated', 'unchanged'] satisfies Transacted<unknown, never>['outcome'][];

/** Gauges that are left out: their names are reserved for counters, and they are only the sums of the gauges beside them over `type`. */
const SUMS = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/** What a process has measured itself, in a form that another process can show beside its own. */
export type Measured = readonly MetricObjectWithValues<MetricValue<string>>[];

/** Measurements of the whole process: heap, garbage collection, event loop. */
let ofProcess: Registry | undefined;
function processMetrics(): Registry {
  if (ofProcess === undefined) {
    collectDefaultMetrics({ register: (ofProcess = new Registry()) });
    for (const name of SUMS) ofProcess.removeSingleMetric(name);
  }
  return ofProcess;
}

/** The measurements of a process. No label is an id or comes from a request's content, so that clients cannot multiply the labels. */
export class Metrics {
  /** Where features register measurements of their own. */
  readonly registry = new Registry();
  /** What all processes read from the same stores, so that one of them answers it. */
  private readonly ofStores = new Registry();
  private readonly commands: Histogram<'command' | 'outcome'>;
  private readonly requests: Histogram<'method' | 'route' | 'status'>;
  private readonly batches: Histogram<'group'>;
  private readonly batchEvents: Histogram<'group'>;
  private readonly jobs: Histogram<'kind' | 'outcome'>;
  private readonly webhooks: Histogram<'outcome'>;
  private readonly webhookDelay: Histogram;
  private readonly lag: Record<'group' | 'reactor', Record<'events' | 'seconds' | 'idle' | 'parked' | 'stopped', Gauge>>;
  private readonly waiting: Record<'jobs' | 'oldest' | 'attempts', Gauge<'kind'>>;
  private readonly lagKnown: Gauge;
  private refreshing: Promise<void> | undefined;

  constructor(
    private readonly store: EventStore,
    private readonly checkpoints: Checkpoints,
    private readonly clock: Clock,
    measured: { readonly pool: pg.Pool; readonly transactor: Transactor },
    private readonly ownWorker?: { measured(): Promise<Measured> },
  ) {
    const registers = [this.registry];
    const ofStores = [this.ofStores];
    this.commands = new Histogram({
      name: 'threadlog_command_duration_seconds',
      help: 'Commands from the bus to their answer. Outcome: appended, repeated, unchanged; done, when none is reported; refused; failed.',
      labelNames: ['command', 'outcome'],
      buckets: SECONDS,
      registers,
    });
    this.requests = new Histogram({
      name: 'threadlog_http_request_duration_seconds',
      help: 'Requests by the route that answered them; none when no route did.',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers,
    });
    this.batches = new Histogram({
      name: 'threadlog_projection_batch_duration_seconds',
      help: 'Batches that this process wrote, each in one transaction.',
      labelNames: ['group'],
      buckets: SECONDS,
      registers,
    });
    this.batchEvents = new Histogram({
      name: 'threadlog_projection_batch_events',
      help: 'Events in a batch.',
      labelNames: ['group'],
      buckets: EVENTS,
      registers,
    });
    this.jobs = new Histogram({
      name: 'threadlog_job_duration_seconds',
      help: 'Attempts at jobs in this process. Outcome: done; again, when the job is tried once more; gave up.',
      labelNames: ['kind', 'outcome'],
      buckets: SECONDS,
      registers,
    });
    this.webhooks = new Histogram({
      name: 'threadlog_webhook_attempt_duration_seconds',
      help: 'Requests to webhooks from this process. Outcome: delivered; refused, with another status than 2xx; timeout; unreachable; blocked, since the address is private; unsent, when the request could not be made up.',
      labelNames: ['outcome'],
      buckets: SECONDS,
      registers,
    });
    this.webhookDelay = new Histogram({
      name: 'threadlog_webhook_delay_seconds',
      help: 'From the event to the answer of the webhook that was told of it.',
      buckets: [...SECONDS, 60, 600, 3_600, 36_000],
      registers,
    });
    const lagOf = (prefix: string, label: string) => {
      const gauge = (name: string, help: string) =>
        new Gauge({ name: `threadlog_${prefix}_${name}`, help, labelNames: [label], registers: ofStores });
      return {
        events: gauge('lag_events', `Events between the ${label}’s checkpoint and the log’s head; counted up to 10000.`),
        seconds: gauge('lag_seconds', `Age of the oldest event that the ${label} has not handled.`),
        idle: gauge('idle_seconds', `Time since the ${label} last moved or had nothing to do.`),
        parked: gauge('parked_streams', `Streams that are parked in the ${label}.`),
        stopped: gauge('stopped', `1 when the ${label} waits for a person.`),
      };
    };
    this.lag = { group: lagOf('projection', 'group'), reactor: lagOf('reactor', 'reactor') };
    const ofKind = (name: string, help: string) =>
      new Gauge({ name: `threadlog_jobs_${name}`, help, labelNames: ['kind'] as const, registers: ofStores });
    this.waiting = {
      jobs: ofKind('waiting', 'Open jobs, including jobs that are not due yet.'),
      oldest: ofKind('overdue_seconds', 'Time for which the oldest due job has been due.'),
      attempts: ofKind('most_attempts', 'Attempts at the job that was tried most often.'),
    };
    this.lagKnown = new Gauge({
      name: 'threadlog_projection_lag_known',
      help: '0 when a store did not answer, so that the lag of the projections is unknown.',
      registers: ofStores,
    });
    const { pool, transactor } = measured;
    const live = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    live('threadlog_pool_connections_in_use', 'Database connections in use.', () => pool.totalCount - pool.idleCount);
    live('threadlog_pool_connections_open', 'Database connections that are open.', () => pool.totalCount);
    live('threadlog_pool_waiting', 'Callers that wait for a database connection.', () => pool.waitingCount);
    live('threadlog_state_cache_bytes', 'Bytes of the streams in memory.', () => transactor.cached.bytes);
    live('threadlog_state_cache_streams', 'Streams in memory.', () => transactor.cached.streams);
    live('threadlog_commands_in_flight', 'Commands that are being handled.', () => transactor.inFlight);
    const counted = (name: string, help: string, read: () => number) =>
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    counted('threadlog_state_cache_hits_total', 'Streams that were in memory when they were asked for.', () => transactor.cached.hits);
    counted('threadlog_state_cache_misses_total', 'Streams that had to be read.', () => transactor.cached.misses);
  }

  /** Measures every command on the bus, from all senders. */
  measureCommands(bus: CommandBus): void {
    const execute = bus.execute.bind(bus) as (command: object, ...rest: unknown[]) => Promise<unknown>;
    bus.execute = (async (command: object, ...rest: unknown[]) => {
      const began = performance.now();
      const done = (outcome: string) =>
        this.commands.observe({ command: command.constructor.name, outcome }, (performance.now() - began) / 1_000);
      try {
        const answer = await execute(command, ...rest);
        const { outcome } = (answer ?? {}) as { outcome?: unknown };
        done(OUTCOMES.find((one) => one === outcome) ?? 'done');
        return answer;
      } catch (error) {
        done(error instanceof ThreadlogError && ERRORS[error.code].status < 500 ? 'refused' : 'failed');
        throw error;
      }
    }) as typeof bus.execute;
  }

  measureRequests(server: FastifyInstance): void {
    server.addHook('onResponse', (request, reply, done) => {
      const route = request.routeOptions.url;
      const known = route !== undefined && !request.is404;
      this.requests.observe(
        { method: known ? request.method : 'other', route: known ? route : 'none', status: reply.statusCode },
        reply.elapsedTime / 1_000,
      );
      done();
    });
  }

  /** Records that this process wrote a batch of a projection group. */
  batch(group: string, events: number, ms: number): void {
    this.batches.observe({ group }, ms / 1_000);
    this.batchEvents.observe({ group }, events);
  }

  /** Records that an attempt at a job ended in this process. */
  job(kind: string, outcome: 'done' | 'again' | 'gave up', ms: number): void {
    this.jobs.observe({ kind, outcome }, ms / 1_000);
  }

  /** Records an attempt at a webhook delivery. @param delayMs since the event, when it was delivered */
  webhookAttempt(outcome: string, ms: number, delayMs?: number): void {
    this.webhooks.observe({ outcome }, ms / 1_000);
    if (delayMs !== undefined) this.webhookDelay.observe(Math.max(0, delayMs) / 1_000);
  }

  /** What this process has measured itself, without what it reads from the stores. */
  measured(): Promise<Measured> {
    return Registry.merge([this.registry, processMetrics()]).getMetricsAsJSON();
  }

  /**
   * The answer to Prometheus. Concurrent requests share one look at the stores. The worker's series have a label of their own and are not
   * added to the API's: a worker that starts anew counts from 0, and a sum that falls would look like an API that has started anew.
   */
  async text(): Promise<string> {
    const [ofWorker] = await Promise.all([
      this.ownWorker?.measured() ?? [],
      (this.refreshing ??= this.refresh().finally(() => (this.refreshing = undefined))),
    ]);
    const own = Registry.merge([this.registry, this.ofStores, processMetrics()]);
    if (ofWorker.length === 0) return own.metrics();
    const labelled = ofWorker.map((one) => ({
      ...one,
      values: one.values.map((value) => ({ ...value, labels: { ...value.labels, process: 'worker' } })),
    }));
    // Each series is there once, so any of prom-client's ways to aggregate keeps its value, except those that leave it out.
    const kept = [await own.getMetricsAsJSON(), labelled].map((metrics) => metrics.map((one) => ({ ...one, aggregator: 'sum' })));
    return AggregatorRegistry.aggregate(kept).metrics();
  }

  private async refresh(): Promise<void> {
    let known: Awaited<ReturnType<typeof projectionLag>> = { groups: [], reactors: [] };
    let jobs: readonly KindOfJobs[] = [];
    let isKnown = 1;
    try {
      [known, jobs] = await Promise.all([projectionLag(this.store, this.checkpoints, this.clock.now()), this.checkpoints.jobs()]);
    } catch {
      // While a store is away, the other measurements are still answered, and the lag is marked as unknown.
      isKnown = 0;
    }
    this.lagKnown.set(isKnown);
    const lags = [
      ...known.groups.map((one) => ({ ...one, gauges: this.lag.group, labels: { group: one.group } })),
      ...known.reactors.map((one) => ({ ...one, gauges: this.lag.reactor, labels: { reactor: one.reactor } })),
    ];
    for (const gauges of Object.values(this.lag)) for (const gauge of Object.values(gauges)) gauge.reset();
    for (const { gauges, labels, events, seconds, idleMs, parked, stopped } of lags) {
      gauges.events.set(labels, events);
      gauges.seconds.set(labels, seconds);
      gauges.idle.set(labels, idleMs / 1_000);
      gauges.parked.set(labels, parked);
      gauges.stopped.set(labels, stopped === null ? 0 : 1);
    }
    for (const gauge of Object.values(this.waiting)) gauge.reset();
    for (const { kind, waiting, overdueMs, mostAttempts } of jobs) {
      this.waiting.jobs.set({ kind }, waiting);
      this.waiting.oldest.set({ kind }, overdueMs / 1_000);
      this.waiting.attempts.set({ kind }, mostAttempts);
    }
  }
}

/** Serves `/metrics` on a separate port, for a worker, which has no other port, or for an API whose port is open to others. */
export async function startMetricsServer(metrics: Metrics, port: number, host: string): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    metrics.text().then(
      (text) => response.writeHead(200, { 'content-type': METRICS_TYPE }).end(text),
      (error: unknown) => response.writeHead(500).end(error instanceof Error ? error.message : ''),
    );
  });
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}
