import { Body, Controller, Get, HttpCode, Inject, Param, Post, Query, Req } from '@nestjs/common';
import { IsOptional } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { conversationAggregate } from '../conversations/conversation.js';
import { ThreadlogError } from '../errors.js';
import { Answers, dataOf } from '../http/answers.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IsMatching, IsOneOf, IsResourceId, IsWhole, Limit, limited, NullIsAbsent } from '../http/validation.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import { Roles } from '../security/auth.guard.js';
import { OUTCOMES, type Outcome } from './ask.js';
import { type EvaluationAnswer, evaluationSchema, type EvaluationsPage, evaluationsPageSchema } from './evaluation.answer.js';
import { EvaluationReader } from './evaluation.reader.js';
import { RULES_REACTOR } from './evaluation.store.js';
import { RuleDryRuns } from './rule.dry-run.js';
import { ruleAggregate } from './rule.js';

const MAX_LIMIT = 100;
const DEFAULT_LIMIT = 25;

class EvaluationsQueryDto {
  @IsOptional() @IsOneOf(OUTCOMES) outcome?: Outcome;
  @IsOptional() @Limit(MAX_LIMIT) limit?: string;
  /** nextCursor of the page before, with the same outcome. */
  @IsOptional() @IsMatching(/^[\w.-]{1,500}$/, 'must be a nextCursor of this list') cursor?: string;

  page() {
    return { outcome: this.outcome, cursor: this.cursor, limit: limited(this.limit, DEFAULT_LIMIT, MAX_LIMIT) };
  }
}

@Examples({ 'its last event': { conversationId: 'a-conversation' }, 'an event': { conversationId: 'a-conversation', revision: 1 } })
class DryRunDto {
  @IsResourceId() conversationId!: string;
  /** The event's revision; by default the conversation's last event that triggers the rule is taken. */
  @NullIsAbsent() @IsWhole(0, 999_999_999) revision?: number;
}

/** What rules were asked, what they saw, and what they did. */
@Controller()
export class EvaluationController {
  constructor(
    @Inject(EvaluationReader) private readonly evaluations: EvaluationReader,
    @Inject(RuleDryRuns) private readonly dryRuns: RuleDryRuns,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  @Get('automation-rules/:id/evaluations')
  @Roles('admin', 'agent', 'auditor')
  @Answers(
    'Reads what a rule was asked, newest first.',
    'Each event that the rule was asked about, with what each condition saw and what became of each action. Evaluations are kept for 90 days.',
    { 200: evaluationsPageSchema },
    { name: 'evaluations' },
  )
  async ofRule(
    @Param('id', ResourceIdPipe) id: string,
    @Query() query: EvaluationsQueryDto,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<EvaluationsPage> {
    if ((await this.transactor.load(ruleAggregate, organizationId, id))?.state.exists !== true) throw new ThreadlogError('not_found');
    await this.readYourWrites.reachedByReactor(request, RULES_REACTOR);
    return this.evaluations.page(organizationId, { ruleId: id }, query.page());
  }

  @Get('conversations/:id/evaluations')
  @Roles('admin', 'agent', 'auditor')
  @Answers(
    'Reads which rules looked at a conversation, newest first.',
    "Each rule that was asked about one of the conversation's events, with what each condition saw and what became of each action. Evaluations are kept for 90 days.",
    { 200: evaluationsPageSchema },
    { name: 'evaluations' },
  )
  async ofConversation(
    @Param('id', ResourceIdPipe) id: string,
    @Query() query: EvaluationsQueryDto,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<EvaluationsPage> {
    if ((await this.transactor.load(conversationAggregate, organizationId, id, Infinity)) === undefined)
      throw new ThreadlogError('not_found');
    await this.readYourWrites.reachedByReactor(request, RULES_REACTOR);
    return this.evaluations.page(organizationId, { conversationId: id }, query.page());
  }

  @Post('automation-rules/:id/dry-run')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Asks a rule about an event of a conversation, and does nothing.',
    'Answers the evaluation that the rule would get at that event, as it is saved now, even if it is off. `not_asked` with the reason `trigger` means that this event does not trigger it. Appends nothing.',
    { 200: dataOf(evaluationSchema) },
    { errors: ['unknown_conversation'] },
  )
  async dryRun(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { conversationId, revision }: DryRunDto,
    @InContext() context: CommandContext,
  ): Promise<{ data: EvaluationAnswer }> {
    return { data: await this.dryRuns.run(context, id, conversationId, revision) };
  }
}
