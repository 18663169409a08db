import { Module } from '@nestjs/common';
import { handlersIn } from '../commands/handlers.js';
import { BackTestController } from './back-test.controller.js';
import { EvaluationController } from './evaluation.controller.js';
import { EvaluationReader } from './evaluation.reader.js';
import * as commands from './rule.commands.js';
import { RuleController } from './rule.controller.js';
import { RulesCount } from './rules-count.reader.js';
import { RuleDryRuns } from './rule.dry-run.js';

@Module({
  controllers: [BackTestController, EvaluationController, RuleController],
  providers: [commands.RuleWriter, RulesCount, EvaluationReader, RuleDryRuns, ...handlersIn(commands)],
})
export class AutomationModule {}
