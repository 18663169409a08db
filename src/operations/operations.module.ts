import { Module } from '@nestjs/common';
import { OperationsController } from './operations.controller.js';
import { OperationsReader } from './operations.reader.js';

@Module({ controllers: [OperationsController], providers: [OperationsReader] })
export class OperationsModule {}
