import { Module } from '@nestjs/common';
import { auditedResources } from '../features.js';
import { EventsController } from './event-feed.controller.js';
import { EventsFeed } from './event-feed.reader.js';
import { FeedExports } from './event-feed.exports.js';
import { historyController } from './history.controller.js';

@Module({ controllers: [EventsController, ...(await auditedResources()).map(historyController)], providers: [EventsFeed, FeedExports] })
export class AuditModule {}
