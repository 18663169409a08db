import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import { IsOptional } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { Transactor } from '../commands/transactor.js';
import { organizationAggregate } from '../organizations/organization.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { ThreadlogError } from '../errors.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { Examples } from '../http/request-schema.js';
import {
  Becomes,
  IfGiven,
  IsEmailAddress,
  IsList,
  IsNested,
  IsOneOf,
  IsResourceId,
  IsTrueOrFalse,
  IsTypedText,
  IsVisibleText,
  IsWhole,
  NullIsAbsent,
  NullsAreAbsent,
  rule,
} from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader } from '../read-models/resource-reader.js';
import { type InboxAnswer, inboxAnswer, inboxSchema } from './inbox.answer.js';
import { ArchiveInbox, ChangeInbox, CreateInbox, type InboxChanged, UnarchiveInbox } from './inbox.commands.js';
import {
  type Assignment,
  ASSIGNMENT_MODES,
  type AutoResponder,
  inboxAggregate,
  type InboxChanges,
  scheduleFaults,
  WEEKDAYS,
  type WorkingHours,
} from './inbox.js';
import { inboxList } from './inbox.list.js';
import { timeZoneNamed } from './time-zone.js';

const MAX_MEMBERS = 500;
const MAX_CAP = 10_000;
const MAX_REPLY = 5_000;
const DAY_SECONDS = 86_400;

class AssignmentDto {
  @IsOneOf(ASSIGNMENT_MODES) mode!: Assignment['mode'];
  /** No members by default. */
  @NullIsAbsent()
  @IsList({ max: MAX_MEMBERS, unique: true })
  @IsResourceId({ each: true })
  agentIds?: string[];
  /** The most open conversations for one member; no limit when absent or null. */
  @IsOptional() @IsWhole(1, MAX_CAP) cap?: number | null;
}

const WEEKDAY = {
  type: 'array',
  items: { type: 'array', items: { type: 'string' }, minItems: 2, maxItems: 2 },
} as const;

class WorkingHoursDto {
  @Becomes((value) => timeZoneNamed(value) ?? value)
  @rule(
    'isTimeZone',
    (value) => (timeZoneNamed(value) === undefined ? 'must be the IANA name of a time zone, such as Europe/Berlin' : undefined),
    { type: 'string', description: 'An IANA zone, such as Europe/Berlin; no abbreviation.' },
  )
  timezone!: string;
  /** The intervals of each weekday; an absent day is a day off. */
  @rule('isSchedule', scheduleFaults, {
    type: 'object',
    properties: Object.fromEntries(WEEKDAYS.map((day) => [day, WEEKDAY])),
    additionalProperties: false,
    description: 'The intervals of each weekday, from and to as HH:MM; an absent day is a day off.',
  })
  schedule!: WorkingHours['schedule'];
}

class AutoResponderDto {
  @IsTrueOrFalse() enabled!: boolean;
  @IsVisibleText(MAX_REPLY) message!: string;
  /** No delay by default. */
  @NullIsAbsent()
  @IsWhole(0, DAY_SECONDS)
  delaySeconds?: number;
  @NullIsAbsent() @IsTrueOrFalse() onlyOutsideWorkingHours?: boolean;
}

/** The fields that null can clear. */
class InboxFieldsDto {
  @IsOptional() @IsVisibleText(2_000) description?: string | null;
  @IsOptional() @IsEmailAddress() email?: string | null;
  @IsOptional() @IsVisibleText(50) color?: string | null;
  @IsOptional() @IsVisibleText(100) icon?: string | null;
  /** Replaced as a whole; by default `manual` without members. */
  @IfGiven() @IsNested(AssignmentDto) assignment?: AssignmentDto;
  /** Replaced as a whole; null means always open. */
  @IsOptional() @IsNested(WorkingHoursDto) workingHours?: WorkingHoursDto | null;
  /** Replaced as a whole. */
  @IsOptional() @IsNested(AutoResponderDto) autoResponder?: AutoResponderDto | null;
  /** True makes this inbox the default instead of the present one; false is refused on the default inbox. */
  @IfGiven() @IsTrueOrFalse() isDefault?: boolean;
}

@NullsAreAbsent('assignment', 'isDefault')
@Examples({
  'an inbox': { id: 'inbox-sales', name: 'Sales', email: 'sales@example.com' },
  'with working hours': {
    name: 'Support',
    assignment: { mode: 'round_robin', agentIds: ['agent-ada'], cap: 5 },
    workingHours: {
      timezone: 'Europe/Berlin',
      schedule: {
        monday: [
          ['09:00', '12:30'],
          ['13:30', '17:00'],
        ],
      },
    },
    autoResponder: { enabled: true, message: 'We are back in the morning.', onlyOutsideWorkingHours: true },
  },
})
class CreateInboxDto extends InboxFieldsDto {
  @NullIsAbsent() @IsResourceId() id?: string;
  @IsTypedText(200) name!: string;
}

@Examples({ 'the default inbox': { isDefault: true }, 'open at any time': { workingHours: null } })
class ChangeInboxDto extends InboxFieldsDto {
  @IfGiven() @IsTypedText(200) name?: string;
}

function fieldsOf({ description, email, color, icon, assignment, workingHours, autoResponder }: InboxFieldsDto): InboxChanges {
  return {
    ...(description === undefined ? {} : { description }),
    ...(email === undefined ? {} : { email }),
    ...(color === undefined ? {} : { color }),
    ...(icon === undefined ? {} : { icon }),
    ...(assignment === undefined
      ? {}
      : { assignment: { mode: assignment.mode, agentIds: assignment.agentIds ?? [], cap: assignment.cap ?? null } }),
    ...(workingHours === undefined ? {} : { workingHours }),
    ...(autoResponder === undefined ? {} : { autoResponder: autoResponder === null ? null : autoResponderOf(autoResponder) }),
  };
}

function autoResponderOf({ enabled, message, delaySeconds = 0, onlyOutsideWorkingHours = false }: AutoResponderDto): AutoResponder {
  return { enabled, message, delaySeconds, onlyOutsideWorkingHours };
}

/**
 * Inboxes. DELETE archives: conversations keep their reference, GET answers with `archived: true`, and the id stays taken. An archived
 * inbox must be unarchived before it can be changed (409 resource_archived). The default inbox cannot be archived.
 */
@Controller('inboxes')
@About('Where conversations arrive, with assignment, working hours and an automatic answer.')
export class InboxController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin')
  @Answers(
    'Makes an inbox.',
    'Appends `InboxCreated`, and with `isDefault` also `DefaultInboxChanged` to the organization. Without an `id` the server makes one.',
    { 201: dataOf(inboxSchema) },
    { errors: ['id_taken'] },
  )
  async create(@Body() body: CreateInboxDto, @InContext() context: CommandContext): Promise<Answered<{ data: InboxAnswer }>> {
    const given = { ...fieldsOf(body), name: body.name };
    const changed = await this.commands.execute(new CreateInbox(context, body.id, given, body.isDefault === true));
    return answered(changed, { location: `/api/support/inboxes/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists inboxes.',
    'Pages and sorts inboxes; `archived=true` lists the archived ones instead.',
    { 200: pageOf(inboxSchema) },
    { query: parametersOf(inboxList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: InboxAnswer[]; meta: PageMeta }> {
    return this.reader.list(inboxList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads an inbox.',
    'Reads the event stream itself, and so is never behind a write. An archived inbox is answered with `archived: true`.',
    { 200: dataOf(inboxSchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: InboxAnswer }>> {
    const [inbox, organization] = await Promise.all([
      this.transactor.load(inboxAggregate, organizationId, id),
      this.transactor.load(organizationAggregate, organizationId, organizationId),
    ]);
    if (inbox === undefined || organization === undefined) throw new ThreadlogError('not_found');
    const position = organization.position > inbox.position ? organization.position : inbox.position;
    return dataAnswer(
      { revision: inbox.revision, position },
      inboxAnswer(id, inbox.state, inbox.revision, organization.state.defaultInboxId === id),
    );
  }

  @Put(':id')
  @Roles('admin')
  @Answers(
    'Changes the named fields of an inbox.',
    'Appends `InboxChanged` with the fields that differ; `isDefault: true` appends `DefaultInboxChanged` to the organization. Assignment, working hours and automatic answer are each replaced as a whole.',
    { 200: dataOf(inboxSchema) },
    { errors: ['default_inbox_required'] },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeInboxDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: InboxAnswer }>> {
    const changes = { ...fieldsOf(body), ...(body.name === undefined ? {} : { name: body.name }) };
    return answered(await this.commands.execute(new ChangeInbox(context, id, changes, body.isDefault)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers(
    'Archives an inbox.',
    'Appends `InboxArchived`, and `InboxRetired` to the organization. Conversations keep naming the inbox. The default inbox is refused: make another one the default first.',
    { 204: null },
    { errors: ['default_inbox_required'] },
  )
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveInbox(context, id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Brings an inbox back from the archive.',
    'Appends `InboxUnarchived`, and `InboxReinstated` to the organization; an inbox that is not archived is answered as it is.',
    { 200: dataOf(inboxSchema) },
  )
  async unarchive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<{ data: InboxAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveInbox(context, id)));
  }
}

const answered = (changed: InboxChanged, made?: { readonly location: string }): Answered<{ data: InboxAnswer }> =>
  dataAnswer(changed, inboxAnswer(changed.id, changed.state, changed.revision, changed.isDefault), made);
