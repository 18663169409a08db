import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IfGiven, IsList, IsResourceId, IsTypedText, NullIsAbsent } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { type TeamAnswer, teamAnswer, teamSchema } from './assignee.answer.js';
import { assigneeAggregate, type AssigneeEvent, type AssigneeState } from './assignee.js';
import { ArchiveAssignee, type AssigneeChanged, ChangeTeam, CreateTeam, UnarchiveAssignee } from './team.commands.js';
import { teamList } from './team.list.js';

const MAX_MEMBERS = 500;

@Examples({ 'a team': { id: 'team-billing', name: 'Billing', agentIds: ['agent-ada'] } })
class CreateTeamDto {
  @NullIsAbsent() @IsResourceId() id?: string;
  @IsTypedText(200) name!: string;
  /** No members by default. */
  @NullIsAbsent()
  @IsList({ max: MAX_MEMBERS, unique: true })
  @IsResourceId({ each: true })
  agentIds?: string[];
}

@Examples({ 'its members': { agentIds: ['agent-ada', 'agent-grace'] } })
class ChangeTeamDto {
  @IfGiven() @IsTypedText(200) name?: string;
  /** All members: agents that are not named leave the team. */
  @IfGiven()
  @IsList({ max: MAX_MEMBERS, unique: true })
  @IsResourceId({ each: true })
  agentIds?: string[];
}

const STREAM: ResourceStream<AssigneeState, AssigneeEvent> = { aggregate: assigneeAggregate, shows: ({ type }) => type === 'team' };

/**
 * Teams. DELETE archives: conversations keep their reference, GET answers with `archived: true`, and the id stays taken (also for agents).
 * An archived team must be unarchived before it can be changed or assigned. Archived members stay listed.
 */
@Controller('teams')
@About('Groups of agents that a conversation can be assigned to.')
export class TeamController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin')
  @Answers(
    'Makes a team.',
    "Appends `TeamCreated`. Agents and teams share their ids, since a conversation's assignee is either of them. Without an `id` the server makes one.",
    { 201: dataOf(teamSchema) },
    { errors: ['id_taken'] },
  )
  async create(@Body() body: CreateTeamDto, @InContext() context: CommandContext): Promise<Answered<{ data: TeamAnswer }>> {
    const given = { name: body.name, agentIds: body.agentIds ?? [] };
    const changed = await this.commands.execute(new CreateTeam(context, body.id, given));
    return answered(changed, { location: `/api/support/teams/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists teams.',
    'Pages and sorts teams; `archived=true` lists the archived ones instead.',
    { 200: pageOf(teamSchema) },
    { query: parametersOf(teamList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: TeamAnswer[]; meta: PageMeta }> {
    return this.reader.list(teamList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a team.',
    'Reads the event stream itself, and so is never behind a write. An archived team is answered with `archived: true`.',
    { 200: dataOf(teamSchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: TeamAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, teamAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin')
  @Answers(
    'Changes the named fields of a team.',
    'Appends `TeamChanged` with the fields that differ. `agentIds` is the whole list: agents that are not named leave the team.',
    { 200: dataOf(teamSchema) },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeTeamDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: TeamAnswer }>> {
    const { name, agentIds } = body;
    const changes = { ...(name === undefined ? {} : { name }), ...(agentIds === undefined ? {} : { agentIds }) };
    return answered(await this.commands.execute(new ChangeTeam(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers(
    'Archives a team.',
    'Appends `AssigneeArchived`. Removes the team from every conversation that has not ended (`ConversationUnassigned`, `ConversationTeamChanged`); its id stays taken.',
    { 204: null },
  )
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveAssignee(context, 'team', id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin')
  @Answers('Brings a team back from the archive.', 'Appends `AssigneeUnarchived`; a team that is not archived is answered as it is.', {
    200: dataOf(teamSchema),
  })
  async unarchive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<{ data: TeamAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveAssignee(context, 'team', id)));
  }
}

const answered = (changed: AssigneeChanged, made?: { readonly location: string }): Answered<{ data: TeamAnswer }> =>
  dataAnswer(changed, teamAnswer(changed.id, changed.state, changed.revision), made);
