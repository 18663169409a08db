import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import { VISITOR_TOKENS } from '../security/callers.js';
import * as commands from './visitor.commands.js';
import { VisitorController } from './visitor.controller.js';
import { VisitorTokenController } from './visitor-token.controller.js';
import { VisitorTokenWriter } from './visitor-token.writer.js';
import { VisitorWriter } from './visitor.writer.js';

@Global()
@Module({
  controllers: [VisitorController, VisitorTokenController],
  providers: [VisitorWriter, VisitorTokenWriter, { provide: VISITOR_TOKENS, useExisting: VisitorTokenWriter }, ...handlersIn(commands)],
  exports: [VisitorWriter, VISITOR_TOKENS],
})
export class VisitorsModule {}
