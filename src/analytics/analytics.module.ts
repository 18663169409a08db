import { Module } from '@nestjs/common';
import { AnalyticsController } from './analytics.controller.js';
import { AnalyticsReader } from './analytics.reader.js';
import { BehindReader } from './behind.reader.js';

@Module({ controllers: [AnalyticsController], providers: [AnalyticsReader, BehindReader] })
export class AnalyticsModule {}
