import { Global, Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import { AGENT_LOOKUP } from '../security/auth.guard.js';
import { AgentController } from './agent.controller.js';
import { AssigneeReader } from './assignee.reader.js';
import * as commands from './team.commands.js';
import { TeamController } from './team.controller.js';

@Global()
@Module({
  controllers: [AgentController, TeamController],
  providers: [AssigneeReader, { provide: AGENT_LOOKUP, useExisting: AssigneeReader }, ...handlersIn(commands)],
  exports: [AssigneeReader, AGENT_LOOKUP],
})
export class TeamModule {}
