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
import {
  IfGiven,
  IsAttributes,
  IsEmailAddress,
  IsHttpUrl,
  IsResourceId,
  IsTypedText,
  IsVisibleText,
  NullIsAbsent,
} from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader } from '../read-models/resource-reader.js';
import { type VisitorAnswer, visitorAnswer, visitorSchema } from './visitor.answer.js';
import { ArchiveVisitor, ChangeVisitor, CreateVisitor } from './visitor.commands.js';
import { VisitorWriter } from './visitor.writer.js';
import { MAX_ATTRIBUTES } from './visitor.js';
import { visitorList } from './visitor.list.js';

const MAX_NAME = 200;
const MAX_PHONE = 50;
const MAX_PLAN = 100;
const MAX_USER_ID = 256;

/** The visitor of a conversation: found by id, userId or email, created if unknown. A field that is null counts as absent. */
export class VisitorInputDto {
  @NullIsAbsent() @IsResourceId() id?: string;
  /** The caller's own id for the person. */
  @NullIsAbsent() @IsVisibleText(MAX_USER_ID) userId?: string;
  @NullIsAbsent() @IsEmailAddress() email?: string;
  @NullIsAbsent() @IsTypedText(MAX_NAME) name?: string;
  @NullIsAbsent() @IsVisibleText(MAX_PHONE) phone?: string;
  @NullIsAbsent() @IsVisibleText(MAX_PLAN) plan?: string;
  /** Merged into the attributes of an existing visitor; null removes an attribute. */
  @NullIsAbsent() @IsAttributes(MAX_ATTRIBUTES) attributes?: Record<string, unknown>;
  @NullIsAbsent() @IsResourceId() companyId?: string;
}

@Examples({ 'a visitor': { userId: 'u-1815', email: 'ada@example.com', name: 'Ada Lovelace', attributes: { locale: 'en' } } })
class CreateVisitorDto extends VisitorInputDto {
  @NullIsAbsent() @IsHttpUrl() avatarUrl?: string;
}

/** Only the fields to change; null clears a field. */
@Examples({ 'two fields': { plan: 'pro', phone: null } })
class ChangeVisitorDto {
  @IsOptional() @IsVisibleText(MAX_USER_ID) userId?: string | null;
  @IsOptional() @IsEmailAddress() email?: string | null;
  @IsOptional() @IsTypedText(MAX_NAME) name?: string | null;
  @IsOptional() @IsVisibleText(MAX_PHONE) phone?: string | null;
  @IsOptional() @IsHttpUrl() avatarUrl?: string | null;
  @IsOptional() @IsVisibleText(MAX_PLAN) plan?: string | null;
  @IsOptional() @IsResourceId() companyId?: string | null;
  /** Merged; null removes an attribute. */
  @IfGiven() @IsAttributes(MAX_ATTRIBUTES) attributes?: Record<string, unknown>;
}

@Controller('visitors')
@About('The people who write to the team.')
export class VisitorController {
  constructor(
    private readonly commands: CommandBus,
    @Inject(VisitorWriter) private readonly visitors: VisitorWriter,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  /** 201 for a new visitor; 200 when the userId or the email found a visitor. */
  @Post()
  @Roles('admin', 'agent')
  @Answers(
    'Creates a visitor, or finds the visitor with this userId or e-mail address.',
    'Appends `VisitorCreated`, or `VisitorChanged` where an existing visitor differs from the body. Answers 201 for a new visitor and 200 for an existing one. An `id` in the body must be new.',
    { 200: dataOf(visitorSchema), 201: dataOf(visitorSchema) },
    {
      errors: ['id_taken', 'user_id_taken', 'email_taken', 'visitor_conflict', 'visitor_erased', 'unknown_company', 'limit_exceeded'],
    },
  )
  async create(@Body() body: CreateVisitorDto, @InContext() context: CommandContext): Promise<Answered<{ data: VisitorAnswer }>> {
    const done = await this.commands.execute(new CreateVisitor(context, body));
    const made = { status: 201, location: `/api/support/visitors/${done.visitorId}` };
    return dataAnswer(done, visitorAnswer(done.visitorId, done.unsealed, done.revision), done.made ? made : { status: 200 });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists visitors.',
    'Pages and sorts visitors, and finds them by company, userId or email.',
    { 200: pageOf(visitorSchema) },
    { query: parametersOf(visitorList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: VisitorAnswer[]; meta: PageMeta }> {
    return this.reader.list(visitorList, organizationId, query, request);
  }

  /** Folds the stream, so it is always up to date. */
  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a visitor.',
    'Reads the event stream itself, and so is never behind a write. An archived visitor is answered with `archived: true`.',
    { 200: dataOf(visitorSchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: VisitorAnswer }>> {
    const view = await this.visitors.get(organizationId, id);
    return dataAnswer(view, visitorAnswer(id, view.unsealed, view.revision));
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a visitor.',
    'Appends `VisitorChanged` with the fields that differ. `null` clears a field; attributes are merged, and `null` removes one of them.',
    { 200: dataOf(visitorSchema) },
    { errors: ['visitor_erased', 'user_id_taken', 'email_taken', 'unknown_company', 'limit_exceeded'] },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeVisitorDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: VisitorAnswer }>> {
    const done = await this.commands.execute(new ChangeVisitor(context, id, body));
    return dataAnswer(done, visitorAnswer(id, done.unsealed, done.revision));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin', 'agent')
  @Answers(
    'Archives a visitor.',
    "Appends `VisitorArchived`, ends the visitor's tokens, and frees its userId and email for another visitor. Conversations keep naming the visitor.",
    { 204: null },
  )
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveVisitor(context, id)));
  }
}
