import { Module } from '@nestjs/common';
import { EventsController } from './event-feed.controller.js';
import { EventsFeed } from './event-feed.reader.js';

@Module({ controllers: [EventsController], providers: [EventsFeed] })
export class AuditModule {}
