import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import * as commands from './api-key.commands.js';
import { ApiKeyController } from './api-key.controller.js';
import { ApiKeyWriter } from './api-key.writer.js';

@Global()
@Module({
  controllers: [ApiKeyController],
  providers: [ApiKeyWriter, ...handlersIn(commands)],
  exports: [ApiKeyWriter],
})
export class ApiKeysModule {}
