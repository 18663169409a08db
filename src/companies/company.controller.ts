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
import { IfGiven, IsAttributes, IsResourceId, IsTypedText, NullIsAbsent } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { type CompanyAnswer, companyAnswer, companySchema } from './company.answer.js';
import { ArchiveCompany, ChangeCompany, type CompanyChanged, CreateCompany, UnarchiveCompany } from './company.commands.js';
import { type Company, companyAggregate, type CompanyAttribute, type CompanyEvent, MAX_COMPANY_ATTRIBUTES } from './company.js';
import { companyList } from './company.list.js';

@Examples({ 'a company': { id: 'acme', name: 'Acme', attributes: { seats: 12 } } })
class CreateCompanyDto {
  @IsResourceId() id!: string;
  @IsTypedText(200) name!: string;
  @NullIsAbsent()
  @IsAttributes(MAX_COMPANY_ATTRIBUTES)
  attributes?: Record<string, CompanyAttribute | null>;
}

@Examples({ 'an attribute': { attributes: { seats: 13, trial: null } } })
class ChangeCompanyDto {
  @IfGiven() @IsTypedText(200) name?: string;
  /** Merged; null removes an attribute. */
  @IfGiven()
  @IsAttributes(MAX_COMPANY_ATTRIBUTES)
  attributes?: Record<string, CompanyAttribute | null>;
}

const STREAM: ResourceStream<Company, CompanyEvent> = { aggregate: companyAggregate };

/**
 * Companies. DELETE archives: visitors and conversations keep their reference, GET answers with `archived: true`, and the id stays taken.
 * An archived company must be unarchived before it can be changed or visitors can name it.
 */
@Controller('companies')
@About('The companies that visitors belong to.')
export class CompanyController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent')
  @Answers(
    'Makes a company.',
    'Appends `CompanyCreated`. The caller chooses the id, which is unique in the organization.',
    { 201: dataOf(companySchema) },
    { errors: ['id_taken'] },
  )
  async create(@Body() body: CreateCompanyDto, @InContext() context: CommandContext): Promise<Answered<{ data: CompanyAnswer }>> {
    const { id, name, attributes } = body;
    const given = { name, ...(attributes === undefined ? {} : { attributes }) };
    const changed = await this.commands.execute(new CreateCompany(context, id, given));
    return answered(changed, { location: `/api/support/companies/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists companies.',
    'Pages and sorts companies; `archived=true` lists the archived ones instead.',
    { 200: pageOf(companySchema) },
    { query: parametersOf(companyList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: CompanyAnswer[]; meta: PageMeta }> {
    return this.reader.list(companyList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a company.',
    'Reads the event stream itself, and so is never behind a write. An archived company is answered with `archived: true`.',
    { 200: dataOf(companySchema) },
  )
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: CompanyAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, companyAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a company.',
    'Appends `CompanyChanged` with the fields that differ. Attributes are merged, and `null` removes one of them.',
    { 200: dataOf(companySchema) },
    { errors: ['limit_exceeded'] },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeCompanyDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: CompanyAnswer }>> {
    const { name, attributes } = body;
    const changes = { ...(name === undefined ? {} : { name }), ...(attributes === undefined ? {} : { attributes }) };
    return answered(await this.commands.execute(new ChangeCompany(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin', 'agent')
  @Answers(
    'Archives a company.',
    'Appends `CompanyArchived`. Visitors and conversations keep naming the company, and its id stays taken.',
    { 204: null },
  )
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveCompany(context, id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers('Brings a company back from the archive.', 'Appends `CompanyUnarchived`; a company that is not archived is answered as it is.', {
    200: dataOf(companySchema),
  })
  async unarchive(
    @Param('id', ResourceIdPipe) id: string,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: CompanyAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveCompany(context, id)));
  }
}

const answered = (changed: CompanyChanged, made?: { readonly location: string }): Answered<{ data: CompanyAnswer }> =>
  dataAnswer(changed, companyAnswer(changed.id, changed.state, changed.revision), made);
