import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as commands from './canned-response.commands.js';
import { CannedResponseController } from './canned-response.controller.js';
import { CannedResponseRenderer } from './canned-response.rendering.js';

const { CannedResponseWriter } = commands;

@Global()
@Module({
  controllers: [CannedResponseController],
  providers: [CannedResponseWriter, CannedResponseRenderer, ...handlersIn(commands)],
  exports: [CannedResponseRenderer],
})
export class CannedResponsesModule {}
