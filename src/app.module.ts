import { type DynamicModule, Inject, Module, type Type } from '@nestjs/common';
import { APP_GUARD, DiscoveryModule } from '@nestjs/core';
import { CommandBus, CqrsModule } from '@nestjs/cqrs';
import { apiKeyCommandHandlers } from './api-keys/api-key.commands.js';
import * as apiKeyCommands from './api-keys/api-key.commands.js';
import { ApiKeyController } from './api-keys/api-key.controller.js';
import { ApiKeyWriter } from './api-keys/api-key.writer.js';
import { EventsController } from './audit/event-feed.controller.js';
import { EventsFeed } from './audit/event-feed.reader.js';
import type { Backend } from './backend.js';
import { cannedResponseCommandHandlers, CannedResponseWriter } from './canned-responses/canned-response.commands.js';
import * as cannedResponseCommands from './canned-responses/canned-response.commands.js';
import { CannedResponseController } from './canned-responses/canned-response.controller.js';
import { CannedResponseRenderer } from './canned-responses/canned-response.rendering.js';
import { companyCommandHandlers } from './companies/company.commands.js';
import * as companyCommands from './companies/company.commands.js';
import { CompanyController } from './companies/company.controller.js';
import { bulkCommandHandlers } from './conversations/bulk.commands.js';
import * as bulkCommands from './conversations/bulk.commands.js';
import { BulkController } from './conversations/bulk.controller.js';
import { conversationCommandHandlers, ConversationWriter } from './conversations/conversation.commands.js';
import * as conversationCommands from './conversations/conversation.commands.js';
import { ConversationController } from './conversations/conversation.controller.js';
import { VisitorConversations } from './conversations/visitor-conversation.requests.js';
import { DocsController } from './docs/docs.controller.js';
import { EVENT_STORE } from './event-store/event-store.js';
import { Transactor } from './commands/transactor.js';
import { inboxCommandHandlers, InboxWriter } from './inboxes/inbox.commands.js';
import * as inboxCommands from './inboxes/inbox.commands.js';
import { InboxController } from './inboxes/inbox.controller.js';
import { Metrics } from './metrics/metrics.js';
import { METRICS_ELSEWHERE, MetricsController } from './metrics/metrics.controller.js';
import { OrganizationController } from './organizations/organization.controller.js';
import { OrganizationWriter } from './organizations/organization.writer.js';
import { ApiKeyLookup } from './security/api-key-lookup.js';
import { AGENT_LOOKUP, AuthGuard } from './security/auth.guard.js';
import { Callers } from './security/callers.js';
import { CLOCK } from './clock.js';
import { DATABASE } from './database/database.js';
import { IDS } from './ids.js';
import { IdempotencyKeys, KeptAnswers } from './commands/idempotency.js';
import { RateLimits } from './http/rate-limits.js';
import { MasterKey } from './security/sealing.js';
import { VisitorKeys } from './security/visitor-keys.js';
import { VisitorTokenSigner } from './security/visitor-token-signer.js';
import { Shutdown } from './http/shutdown.js';
import { assertHandled } from './http/start-checks.js';
import { Checkpoints } from './read-models/checkpoints.js';
import { ConversationReader, conversationQueryHandlers } from './conversations/conversation.reader.js';
import * as conversationQueries from './conversations/conversation.reader.js';
import { CountConversationsHandler, FindConversationIdsHandler, ListConversationsHandler } from './conversations/conversation.list.js';
import * as conversationListQueries from './conversations/conversation.list.js';
import { ListOwnConversationsHandler } from './conversations/visitor-conversation.list.js';
import * as visitorConversationListQueries from './conversations/visitor-conversation.list.js';
import { HealthController } from './health/health.controller.js';
import { HistoryReader } from './read-models/history.js';
import { Cursors } from './read-models/paging.js';
import { FoldLists } from './read-models/fold-list.js';
import { ReadModel } from './read-models/read-your-writes.js';
import { ReadModels } from './read-models/read-models.js';
import { AssigneeReader } from './team/assignee.reader.js';
import { AgentController } from './team/agent.controller.js';
import { TeamController } from './team/team.controller.js';
import { teamCommandHandlers } from './team/team.commands.js';
import * as teamCommands from './team/team.commands.js';
import { viewCommandHandlers, ViewWriter } from './views/view.commands.js';
import * as viewCommands from './views/view.commands.js';
import { ViewController } from './views/view.controller.js';
import { visitorCommandHandlers } from './visitors/visitor.commands.js';
import * as visitorCommands from './visitors/visitor.commands.js';
import { VisitorController } from './visitors/visitor.controller.js';
import { VisitorTokenController } from './visitors/visitor-token.controller.js';
import { VisitorTokens } from './visitors/visitor-token.writer.js';
import { VisitorWriter } from './visitors/visitor.writer.js';

/** Every file that declares commands or queries. */
const MESSAGES = [
  apiKeyCommands,
  cannedResponseCommands,
  bulkCommands,
  companyCommands,
  conversationCommands,
  inboxCommands,
  conversationQueries,
  conversationListQueries,
  visitorConversationListQueries,
  teamCommands,
  viewCommands,
  visitorCommands,
];

/** The API: every controller, every handler, and what they are made of. The parts come from an open backend. */
@Module({})
export class AppModule {
  constructor(@Inject(CommandBus) bus: CommandBus, @Inject(Metrics) metrics: Metrics) {
    metrics.measureCommands(bus);
  }

  /** Every controller; the documents of roles and routes are generated from them. */
  static readonly controllers: readonly Type[] = [
    ConversationController,
    BulkController,
    VisitorController,
    VisitorTokenController,
    OrganizationController,
    CompanyController,
    InboxController,
    AgentController,
    TeamController,
    CannedResponseController,
    ViewController,
    ApiKeyController,
    EventsController,
    HealthController,
    DocsController,
    MetricsController,
  ];

  static over(backend: Backend): DynamicModule {
    const { store, transactor, keys, database, readModels, checkpoints, cursors, masterKey, unchangedAnswers } = backend;
    const apiKeys = new ApiKeyLookup(database);
    const assignees = new AssigneeReader(transactor);
    const apiKeyWriter = new ApiKeyWriter(transactor, database, apiKeys, masterKey, assignees);
    const visitors = new VisitorWriter(transactor, keys, unchangedAnswers);
    const kept = new KeptAnswers(database);
    const signer = new VisitorTokenSigner(masterKey.derive('visitor tokens'));
    const visitorTokens = new VisitorTokens(transactor, visitors, signer, kept, backend.clock, backend.ids);
    const handlers = [
      ListConversationsHandler,
      FindConversationIdsHandler,
      CountConversationsHandler,
      ListOwnConversationsHandler,
      ...conversationCommandHandlers,
      ...bulkCommandHandlers,
      ...conversationQueryHandlers,
      ...visitorCommandHandlers,
      ...companyCommandHandlers,
      ...inboxCommandHandlers,
      ...teamCommandHandlers,
      ...cannedResponseCommandHandlers,
      ...viewCommandHandlers,
      ...apiKeyCommandHandlers,
    ];
    assertHandled(MESSAGES, handlers);
    const { RATE_LIMIT_PER_MINUTE, AUTH_FAILURES_PER_MINUTE } = backend.config;
    const rateLimits = new RateLimits({ requests: RATE_LIMIT_PER_MINUTE, failures: AUTH_FAILURES_PER_MINUTE }, backend.clock);
    return {
      module: AppModule,
      imports: [CqrsModule.forRoot(), DiscoveryModule],
      controllers: [...AppModule.controllers],
      providers: [
        { provide: APP_GUARD, useClass: AuthGuard },
        { provide: EVENT_STORE, useValue: store },
        { provide: DATABASE, useValue: database },
        { provide: CLOCK, useValue: backend.clock },
        { provide: IDS, useValue: backend.ids },
        { provide: Transactor, useValue: transactor },
        { provide: VisitorKeys, useValue: keys },
        { provide: MasterKey, useValue: masterKey },
        { provide: ReadModels, useValue: readModels },
        { provide: Checkpoints, useValue: checkpoints },
        { provide: Cursors, useValue: cursors },
        { provide: ApiKeyLookup, useValue: apiKeys },
        { provide: IdempotencyKeys, useValue: new IdempotencyKeys(keys, database) },
        { provide: Metrics, useValue: new Metrics(store, checkpoints, backend.clock, { pool: backend.pool, transactor }) },
        { provide: METRICS_ELSEWHERE, useValue: backend.config.METRICS_PORT !== undefined },
        { provide: Callers, useValue: new Callers(apiKeys, visitorTokens, rateLimits) },
        Shutdown,
        { provide: ReadModel, useValue: new ReadModel(checkpoints, store) },
        { provide: VisitorWriter, useValue: visitors },
        { provide: KeptAnswers, useValue: kept },
        { provide: VisitorTokens, useValue: visitorTokens },
        { provide: ConversationWriter, useValue: new ConversationWriter(transactor, keys) },
        { provide: CannedResponseWriter, useValue: new CannedResponseWriter(transactor, keys) },
        { provide: CannedResponseRenderer, useValue: new CannedResponseRenderer(transactor, keys, kept) },
        { provide: ConversationReader, useValue: new ConversationReader(store, transactor, keys) },
        { provide: EventsFeed, useValue: new EventsFeed(database, readModels, keys) },
        { provide: HistoryReader, useValue: new HistoryReader(transactor, keys) },
        { provide: FoldLists, useValue: new FoldLists(database, readModels, cursors) },
        { provide: AssigneeReader, useValue: assignees },
        { provide: AGENT_LOOKUP, useValue: assignees },
        VisitorConversations,
        ViewWriter,
        { provide: InboxWriter, useValue: new InboxWriter(transactor, assignees) },
        { provide: ApiKeyWriter, useValue: apiKeyWriter },
        { provide: OrganizationWriter, useValue: new OrganizationWriter(transactor, database, keys, apiKeyWriter) },
        ...handlers,
      ],
    };
  }
}
