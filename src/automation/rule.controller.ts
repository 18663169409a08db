import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req, UseFilters } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { parametersOf } from '../read-models/fold-list.js';
import type { PageMeta } from '../read-models/paging.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { Roles } from '../security/auth.guard.js';
import { type RuleAnswer, ruleAnswer, ruleSchema } from './rule.answer.js';
import { conditionsOf, triggerOf } from './rule.check.js';
import { ArchiveRule, ChangeRule, CreateRule, type RuleChanged, UnarchiveRule } from './rule.commands.js';
import { actionsOf, ChangeRuleDto, CreateRuleDto, ruleOf } from './rule.dto.js';
import { type Rule, ruleAggregate, type RuleEvent } from './rule.js';
import { ruleList } from './rule.list.js';
import { RuleFaultsFilter } from './rule-faults.filter.js';

const STREAM: ResourceStream<Rule, RuleEvent> = { aggregate: ruleAggregate, shows: ({ exists }) => exists };

const REFUSALS = ['unknown_assignee', 'unknown_team', 'unknown_inbox', 'unknown_company', 'resource_archived', 'limit_exceeded'] as const;

/** Automation rules. DELETE archives: GET answers with `archived: true`, and the rule is asked about no later event. */
@Controller('automation-rules')
@About('Rules that look at each event and act on its conversation.')
export class RuleController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @UseFilters(RuleFaultsFilter)
  @Roles('admin')
  @Answers(
    'Makes an automation rule.',
    'Appends `RuleCreated`. The rule is asked about events after that one. A part that could never hold or be done is refused now; one answer names every fault with its path, 100 at most.',
    { 201: dataOf(ruleSchema) },
    { errors: [...REFUSALS] },
  )
  async create(@Body() body: CreateRuleDto, @InContext() context: CommandContext): Promise<Answered<{ data: RuleAnswer }>> {
    const changed = await this.commands.execute(new CreateRule(context, ruleOf(body)));
    return answered(changed, { location: `/api/support/automation-rules/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists automation rules.',
    'Pages and sorts automation rules; `archived=true` lists the archived ones instead.',
    { 200: pageOf(ruleSchema) },
    { query: parametersOf(ruleList) },
  )
  list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: RuleAnswer[]; meta: PageMeta }> {
    return this.reader.list(ruleList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads an automation rule.',
    'Reads the event stream itself, and so is never behind a write. An archived rule is answered with `archived: true`.',
    { 200: dataOf(ruleSchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: RuleAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, ruleAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @UseFilters(RuleFaultsFilter)
  @Roles('admin')
  @Answers(
    'Changes the named fields of an automation rule.',
    'Appends `RuleChanged` with the fields that differ. Events before it were judged by the rule as it was, and actions that wait are done as it was then.',
    { 200: dataOf(ruleSchema) },
    { errors: [...REFUSALS] },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { name, trigger, conditions, actions, enabled, order, stopOnMatch }: ChangeRuleDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: RuleAnswer }>> {
    const changes = {
      ...(name === undefined ? {} : { name }),
      ...(trigger === undefined ? {} : { trigger: triggerOf(trigger) }),
      ...(conditions === undefined ? {} : { conditions: conditionsOf(conditions) }),
      ...(actions === undefined ? {} : { actions: actionsOf(actions) }),
      ...(enabled === undefined ? {} : { enabled }),
      ...(order === undefined ? {} : { order }),
      ...(stopOnMatch === undefined ? {} : { stopOnMatch }),
    };
    return answered(await this.commands.execute(new ChangeRule(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers('Archives an automation rule.', 'Appends `RuleArchived`; the rule is asked about no later event.', { 204: null })
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveRule(context, id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Brings an automation rule back from the archive.',
    'Appends `RuleUnarchived`; a rule that is not archived is answered as it is.',
    { 200: dataOf(ruleSchema) },
    { errors: ['limit_exceeded'] },
  )
  async unarchive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<{ data: RuleAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveRule(context, id)));
  }
}

const answered = (changed: RuleChanged, made?: { readonly location: string }): Answered<{ data: RuleAnswer }> =>
  dataAnswer(changed, ruleAnswer(changed.id, changed.state, changed.revision), made);
