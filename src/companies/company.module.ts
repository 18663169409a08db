import { Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as commands from './company.commands.js';
import { CompanyController } from './company.controller.js';

@Module({ controllers: [CompanyController], providers: handlersIn(commands) })
export class CompaniesModule {}
