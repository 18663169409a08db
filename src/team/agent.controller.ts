import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import { IsOptional } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IfGiven, IsEmailAddress, IsOneOf, IsResourceId, IsTypedText, NullIsAbsent, NullsAreAbsent } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { type AgentAnswer, agentAnswer, agentSchema } from './assignee.answer.js';
import {
  type AgentChanges,
  assigneeAggregate,
  type AssigneeEvent,
  type AssigneeState,
  AVAILABILITIES,
  type Availability,
} from './assignee.js';
import { ArchiveAssignee, type AssigneeChanged, ChangeAgent, CreateAgent, UnarchiveAssignee } from './team.commands.js';
import { agentList } from './agent.list.js';

class AgentFieldsDto {
  /** null clears it. */
  @IsOptional() @IsEmailAddress() email?: string | null;
  /** `online` by default. */
  @IfGiven() @IsOneOf(AVAILABILITIES) availability?: Availability;
}

@NullsAreAbsent('availability')
@Examples({ 'an agent': { id: 'agent-ada', name: 'Ada Lovelace', email: 'ada@example.com' } })
class CreateAgentDto extends AgentFieldsDto {
  @NullIsAbsent() @IsResourceId() id?: string;
  @IsTypedText(200) name!: string;
}

@Examples({ 'gone home': { availability: 'away' } })
class ChangeAgentDto extends AgentFieldsDto {
  @IfGiven() @IsTypedText(200) name?: string;
}

function fieldsOf({ email, availability }: AgentFieldsDto): AgentChanges {
  return { ...(email === undefined ? {} : { email }), ...(availability === undefined ? {} : { availability }) };
}

const STREAM: ResourceStream<AssigneeState, AssigneeEvent> = { aggregate: assigneeAggregate, shows: ({ type }) => type === 'agent' };

/**
 * Agents. DELETE archives: records of the agent's work keep its name, GET answers with `archived: true`, its API keys are revoked, and its
 * id stays taken (also for teams). An archived agent must be unarchived before it can be changed or assigned.
 */
@Controller('agents')
@About('The people who answer.')
export class AgentController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin')
  @Answers(
    'Makes an agent.',
    "Appends `AgentCreated`. Agents and teams share their ids, since a conversation's assignee is either of them. Without an `id` the server makes one.",
    { 201: dataOf(agentSchema) },
    { errors: ['id_taken'] },
  )
  async create(@Body() body: CreateAgentDto, @InContext() context: CommandContext): Promise<Answered<{ data: AgentAnswer }>> {
    const changed = await this.commands.execute(new CreateAgent(context, body.id, { ...fieldsOf(body), name: body.name }));
    return answered(changed, { location: `/api/support/agents/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists agents.',
    'Pages and sorts agents; `archived=true` lists the archived ones instead.',
    { 200: pageOf(agentSchema) },
    { query: parametersOf(agentList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: AgentAnswer[]; meta: PageMeta }> {
    return this.reader.list(agentList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads an agent.',
    'Reads the event stream itself, and so is never behind a write. An archived agent is answered with `archived: true`.',
    { 200: dataOf(agentSchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: AgentAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, agentAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin')
  @Answers('Changes the named fields of an agent.', 'Appends `AgentChanged` with the fields that differ.', { 200: dataOf(agentSchema) })
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeAgentDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: AgentAnswer }>> {
    const changes = { ...fieldsOf(body), ...(body.name === undefined ? {} : { name: body.name }) };
    return answered(await this.commands.execute(new ChangeAgent(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers(
    'Archives an agent and revokes the keys that are bound to it.',
    'Appends `AssigneeArchived`, and `ApiKeyRevoked` to each key that is bound to the agent. Removes the agent from every conversation that has not ended (`ConversationUnassigned`); its earlier messages keep its name.',
    { 204: null },
  )
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveAssignee(context, 'agent', id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Brings an agent back from the archive.',
    'Appends `AssigneeUnarchived`; an agent that is not archived is answered as it is. Its API keys stay revoked.',
    { 200: dataOf(agentSchema) },
  )
  async unarchive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<{ data: AgentAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveAssignee(context, 'agent', id)));
  }
}

const answered = (changed: AssigneeChanged, made?: { readonly location: string }): Answered<{ data: AgentAnswer }> =>
  dataAnswer(changed, agentAnswer(changed.id, changed.state, changed.revision), made);
