import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as commands from './inbox.commands.js';
import { InboxController } from './inbox.controller.js';

const { InboxWriter } = commands;

@Global()
@Module({
  controllers: [InboxController],
  providers: [InboxWriter, ...handlersIn(commands)],
  exports: [InboxWriter],
})
export class InboxesModule {}
