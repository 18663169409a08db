import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Transactor } from '../commands/transactor.js';
import { About, Answers, dataOf, pageOf, partOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { principalOf } from '../security/callers.js';
import { ThreadlogError } from '../errors.js';
import { commandContext, describeAnswer } from '../http/request-context.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IfGiven, IsAttributes, IsResourceId, IsTypedText, NullIsAbsent } from '../http/validation.js';
import { EventsQueryDto, eventSchema, type HistoryOf, type HistoryPage, HistoryReader } from '../read-models/history.js';
import type { PageMeta } from '../read-models/paging.js';
import { FoldLists, parametersOf } from '../read-models/fold-list.js';
import { ReadModel } from '../read-models/read-your-writes.js';
import { CORE_GROUP } from '../read-models/groups.js';
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
  /** Merged; null removes one. */
  @IfGiven()
  @IsAttributes(MAX_COMPANY_ATTRIBUTES)
  attributes?: Record<string, CompanyAttribute | null>;
}

const HISTORY: HistoryOf<Company, CompanyEvent> = { aggregate: companyAggregate };

/**
 * Companies. DELETE archives: visitors and conversations go on naming the company, GET answers it with `archived: true`, its id stays
 * taken, and it can be changed and named by visitors only once it is brought back.
 */
@Controller('companies')
@About('The companies that visitors belong to.')
export class CompanyController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(Transactor) private readonly transactor: Transactor,
    @Inject(FoldLists) private readonly lists: FoldLists,
    @Inject(HistoryReader) private readonly history: HistoryReader,
    @Inject(ReadModel) private readonly readModel: ReadModel,
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
  async create(
    @Body() body: CreateCompanyDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: CompanyAnswer }> {
    const { id, name, attributes } = body;
    const given = { name, ...(attributes === undefined ? {} : { attributes }) };
    const changed = await this.commands.execute(new CreateCompany(commandContext(request), id, given));
    void reply.header('location', `/api/support/companies/${changed.id}`);
    return answered(reply, changed);
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists companies.',
    'Pages and sorts companies; `archived=true` lists the archived ones instead.',
    { 200: pageOf(companySchema) },
    { query: parametersOf(companyList) },
  )
  async list(@Query() query: Record<string, unknown>, @Req() request: FastifyRequest): Promise<{ data: CompanyAnswer[]; meta: PageMeta }> {
    await this.readModel.reached(request, CORE_GROUP);
    return this.lists.page(companyList, principalOf(request).organizationId, query);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a company.',
    'Reads the event stream itself, and so is never behind a write. An archived company is answered with `archived: true`.',
    { 200: dataOf(companySchema) },
  )
  async get(
    @Param('id', ResourceIdPipe) id: string,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: CompanyAnswer }> {
    const found = await this.transactor.load(companyAggregate, principalOf(request).organizationId, id);
    if (found === undefined) throw new ThreadlogError('not_found');
    describeAnswer(reply, found);
    return { data: companyAnswer(id, found.state, found.revision) };
  }

  @Get(':id/events')
  @Roles('admin', 'agent', 'auditor')
  @Answers('Reads the events of a company.', 'Who made, changed and archived the company, oldest first.', { 200: partOf(eventSchema) })
  events(
    @Param('id', ResourceIdPipe) id: string,
    @Query() query: EventsQueryDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<HistoryPage> {
    return this.history.page(HISTORY, principalOf(request).organizationId, id, query, reply);
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
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: CompanyAnswer }> {
    const { name, attributes } = body;
    const changes = { ...(name === undefined ? {} : { name }), ...(attributes === undefined ? {} : { attributes }) };
    return answered(reply, await this.commands.execute(new ChangeCompany(commandContext(request), id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin', 'agent')
  @Answers(
    'Archives a company.',
    'Appends `CompanyArchived`. Visitors and conversations go on naming the company, and its id stays taken.',
    { 204: null },
  )
  async archive(
    @Param('id', ResourceIdPipe) id: string,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<void> {
    describeAnswer(reply, await this.commands.execute(new ArchiveCompany(commandContext(request), id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers('Brings a company back from the archive.', 'Appends `CompanyUnarchived`; a company that is not archived is answered as it is.', {
    200: dataOf(companySchema),
  })
  async unarchive(
    @Param('id', ResourceIdPipe) id: string,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: CompanyAnswer }> {
    return answered(reply, await this.commands.execute(new UnarchiveCompany(commandContext(request), id)));
  }
}

function answered(reply: FastifyReply, changed: CompanyChanged): { data: CompanyAnswer } {
  describeAnswer(reply, changed);
  return { data: companyAnswer(changed.id, changed.state, changed.revision) };
}
