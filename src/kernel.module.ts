import { type DynamicModule, Global, Module } from '@nestjs/common';
import { APP_GUARD, DiscoveryModule } from '@nestjs/core';
import { CqrsModule } from '@nestjs/cqrs';
import type { Backend } from './backend.js';
import { CLOCK } from './clock.js';
import { CONFIG } from './config.js';
import { IdempotencyKeys, KeptAnswers, UnchangedAnswerRows } from './commands/idempotency.js';
import { Transactor } from './commands/transactor.js';
import { DATABASE, DATABASE_URL, QUESTIONS } from './database/database.js';
import { DocsController } from './docs/docs.controller.js';
import { EVENT_STORE } from './event-store/event-store.js';
import { HealthController } from './health/health.controller.js';
import { Reachable } from './http-out/reachable.js';
import { RateLimits } from './http/rate-limits.js';
import { Shutdown } from './http/shutdown.js';
import { SocketPlaces } from './http/socket-places.js';
import { Upgrades } from './http/upgrades.js';
import { IDS } from './ids.js';
import { LOGGER } from './log.js';
import { Metrics } from './metrics/metrics.js';
import { METRICS_ELSEWHERE, MetricsController } from './metrics/metrics.controller.js';
import { OwnWorker } from './own-worker.js';
import { Checkpoints } from './read-models/checkpoints.js';
import { FoldLists } from './read-models/fold-list.js';
import { HistoryReader } from './read-models/history.js';
import { Cursors } from './read-models/paging.js';
import { ReadModels } from './read-models/read-models.js';
import { ResourceReader } from './read-models/resource-reader.js';
import { ReadYourWrites } from './read-models/read-your-writes.js';
import { ApiKeyLookup } from './security/api-key-lookup.js';
import { AuthGuard } from './security/auth.guard.js';
import { CallerPositions } from './security/caller-positions.js';
import { Callers } from './security/callers.js';
import { ConsoleSessions } from './security/console-sessions.js';
import { MasterKey } from './security/sealing.js';
import { VisitorKeys } from './security/visitor-keys.js';
import { VisitorTokenSigner } from './security/visitor-token-signer.js';

/** The base of every feature: the stores, the command protocol, the read models and access control. It depends on no feature. */
@Global()
@Module({})
export class KernelModule {
  static readonly controllers = [HealthController, DocsController, MetricsController];

  /**
   * @param backend an open backend; its opener closes it
   * @param ownWorker the worker that this process has started, if it has
   */
  static over(backend: Backend, ownWorker?: OwnWorker): DynamicModule {
    const { store, transactor, keys, database, readModels, checkpoints, cursors, masterKey, clock, ids, config, pool } = backend;
    const limits = { requests: config.RATE_LIMIT_PER_MINUTE, failures: config.AUTH_FAILURES_PER_MINUTE };
    const positions = new CallerPositions(masterKey.derive('visitor positions'));
    const apiKeys = new ApiKeyLookup(database);
    const parts = [
      { provide: EVENT_STORE, useValue: store },
      { provide: DATABASE, useValue: database },
      { provide: QUESTIONS, useValue: backend.questions },
      { provide: CLOCK, useValue: clock },
      { provide: LOGGER, useValue: backend.logger },
      { provide: CONFIG, useValue: config },
      { provide: DATABASE_URL, useValue: backend.databaseUrl },
      { provide: IDS, useValue: ids },
      { provide: Transactor, useValue: transactor },
      { provide: VisitorKeys, useValue: keys },
      { provide: MasterKey, useValue: masterKey },
      { provide: Reachable, useValue: backend.reachable },
      { provide: ReadModels, useValue: readModels },
      { provide: Checkpoints, useValue: checkpoints },
      { provide: Cursors, useValue: cursors },
      { provide: UnchangedAnswerRows, useValue: backend.unchangedAnswers },
      { provide: ApiKeyLookup, useValue: apiKeys },
      { provide: ConsoleSessions, useValue: new ConsoleSessions(database, masterKey, apiKeys, clock) },
      { provide: IdempotencyKeys, useValue: new IdempotencyKeys(keys, database) },
      { provide: KeptAnswers, useValue: new KeptAnswers(database) },
      { provide: VisitorTokenSigner, useValue: new VisitorTokenSigner(masterKey.derive('visitor tokens')) },
      { provide: CallerPositions, useValue: positions },
      { provide: RateLimits, useValue: new RateLimits(limits, clock) },
      { provide: HistoryReader, useValue: new HistoryReader(store, transactor, keys) },
      { provide: FoldLists, useValue: new FoldLists(database, readModels, cursors) },
      { provide: ReadYourWrites, useValue: new ReadYourWrites(checkpoints, store, positions) },
      { provide: Metrics, useValue: new Metrics(store, checkpoints, clock, { pool, transactor }, ownWorker) },
      ...(ownWorker === undefined ? [] : [{ provide: OwnWorker, useValue: ownWorker }]),
      ResourceReader,
      Callers,
      Shutdown,
      SocketPlaces,
      Upgrades,
    ];
    return {
      module: KernelModule,
      imports: [CqrsModule.forRoot(), DiscoveryModule],
      controllers: KernelModule.controllers,
      providers: [
        ...parts,
        { provide: METRICS_ELSEWHERE, useValue: config.METRICS_PORT !== undefined },
        { provide: APP_GUARD, useClass: AuthGuard },
      ],
      exports: parts.map((part) => ('provide' in part ? part.provide : part)),
    };
  }
}
