import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus, QueryBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { CountConversations, type Sort, SORTS } from '../conversations/conversation.list.js';
import { ConversationFilterDto, sorting } from '../conversations/list-query.dto.js';
import { type Answered, type AnswerHead, dataAnswer, emptyAnswer } from '../http/answered.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { By, InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IfGiven, IsNested, IsOneOf, IsResourceId, IsTrueOrFalse, IsTypedText, NullIsAbsent } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { Roles } from '../security/auth.guard.js';
import { type ListedViewAnswer, listedViewSchema, type ViewAnswer, viewAnswer, viewSchema } from './view.answer.js';
import { ArchiveView, ChangeView, CreateView, UnarchiveView, type ViewChanged } from './view.commands.js';
import { conversationFilter, isVisible, type View, viewAggregate, type ViewCaller, type ViewEvent, viewFilter } from './view.js';
import { VIEW_LIST_PARAMETERS, viewList } from './view.list.js';

const MAX_NAME = 200;

class ViewSortDto {
  @IsOneOf(SORTS) by!: Sort;
  /** By default as in the list of conversations. */
  @NullIsAbsent() @IsOneOf(['asc', 'desc']) order?: 'asc' | 'desc';
}

@Examples({
  'a private view': { name: 'My urgent ones', filter: { assigneeId: ['agent-ada'], priority: ['urgent'] } },
  'a shared view': {
    name: 'Waiting longest',
    filter: { status: ['open'], assigneeId: ['none'] },
    sort: { by: 'waitingSince', order: 'asc' },
    shared: true,
  },
})
class CreateViewDto {
  @NullIsAbsent() @IsResourceId() id?: string;
  @IsTypedText(MAX_NAME) name!: string;
  /** The names and values of the filters of GET /conversations; `{}` finds all conversations. */
  @IsNested(ConversationFilterDto) filter!: ConversationFilterDto;
  /** By default `updatedAt`, newest first. */
  @NullIsAbsent() @IsNested(ViewSortDto) sort?: ViewSortDto;
  /** By default private to its owner. */
  @NullIsAbsent() @IsTrueOrFalse() shared?: boolean;
}

@Examples({ 'its name': { name: 'Urgent' }, 'its filter': { filter: { priority: ['urgent', 'high'] } } })
class ChangeViewDto {
  @IfGiven() @IsTypedText(MAX_NAME) name?: string;
  /** Replaced as a whole. */
  @IfGiven() @IsNested(ConversationFilterDto) filter?: ConversationFilterDto;
  /** Replaced as a whole. */
  @IfGiven() @IsNested(ViewSortDto) sort?: ViewSortDto;
  /** Only the owner may make a shared view private. */
  @IfGiven() @IsTrueOrFalse() shared?: boolean;
}

/**
 * Saved views of the list of conversations: a named filter and sort, private to the agent or key that made it or shared with the
 * organization. Another owner's private view is answered as if it did not exist. DELETE archives.
 */
@Controller('views')
@About('Saved views of the list of conversations, private or shared, each with its number of conversations.')
export class ViewController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(QueryBus) private readonly queries: QueryBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent')
  @Answers(
    'Saves a view of the list of conversations.',
    'Appends `ViewCreated`. Its owner is the agent that the key is bound to or acts for, or else the key. Without an `id` the server makes one, and a filter may name archived or unknown resources.',
    { 201: dataOf(viewSchema) },
    { errors: ['id_taken'] },
  )
  async create(
    @Body() { id, name, filter, sort, shared = false }: CreateViewDto,
    @InContext() context: CommandContext,
    @By() by: ViewCaller,
  ): Promise<Answered<{ data: ViewAnswer }>> {
    const given = { name, filter: viewFilter(filter.filter('filter')), sort: sorting(sort?.by, sort?.order), shared };
    const changed = await this.commands.execute(new CreateView(context, id, given, by.self));
    return answered(changed, { location: `/api/support/views/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists the shared views and those of the caller.',
    'Pages and sorts views; auditors see the private views of all owners. `counts=true` adds how many conversations each view of the page finds, exact up to 10,000; `archived=true` lists the archived views instead.',
    { 200: pageOf(listedViewSchema) },
    { query: VIEW_LIST_PARAMETERS },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @By() by: ViewCaller,
    @Req() request: FastifyRequest,
  ): Promise<{ data: ListedViewAnswer[]; meta: PageMeta }> {
    const page = await this.reader.list(viewList(by), organizationId, query, request);
    if (query['counts'] !== 'true') return page;
    const found = await this.queries.execute(
      new CountConversations(
        organizationId,
        page.data.map(({ filter }) => conversationFilter(filter)),
      ),
    );
    return { ...page, data: page.data.map((view, i) => ({ ...view, ...found[i] })) };
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a view.',
    'Reads the event stream itself, and so is never behind a write. An archived view is answered with `archived: true`.',
    { 200: dataOf(viewSchema) },
  )
  async get(
    @Param('id', ResourceIdPipe) id: string,
    @OrganizationId() organizationId: string,
    @By() by: ViewCaller,
  ): Promise<Answered<{ data: ViewAnswer }>> {
    const found = await this.reader.one(visibleTo(by), organizationId, id);
    return dataAnswer(found, viewAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a view.',
    'Appends `ViewChanged` with the fields that differ. The owner or an admin may change a shared view, and only the owner may make it private.',
    { 200: dataOf(viewSchema) },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { name, filter, sort, shared }: ChangeViewDto,
    @InContext() context: CommandContext,
    @By() by: ViewCaller,
  ): Promise<Answered<{ data: ViewAnswer }>> {
    const changes = {
      ...(name === undefined ? {} : { name }),
      ...(filter === undefined ? {} : { filter: viewFilter(filter.filter('filter')) }),
      ...(sort === undefined ? {} : { sort: sorting(sort.by, sort.order) }),
      ...(shared === undefined ? {} : { shared }),
    };
    return answered(await this.commands.execute(new ChangeView(context, id, by, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin', 'agent')
  @Answers('Archives a view.', 'Appends `ViewArchived`. The owner or an admin may archive a shared view.', { 204: null })
  async archive(
    @Param('id', ResourceIdPipe) id: string,
    @InContext() context: CommandContext,
    @By() by: ViewCaller,
  ): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveView(context, id, by)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Brings a view back from the archive.',
    'Appends `ViewUnarchived`; a view that is not archived is answered as it is. The owner may do this, and for a shared view an admin too.',
    { 200: dataOf(viewSchema) },
  )
  async unarchive(
    @Param('id', ResourceIdPipe) id: string,
    @InContext() context: CommandContext,
    @By() by: ViewCaller,
  ): Promise<Answered<{ data: ViewAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveView(context, id, by)));
  }
}

const visibleTo = (by: ViewCaller): ResourceStream<View, ViewEvent> => ({ aggregate: viewAggregate, shows: (view) => isVisible(view, by) });

const answered = (changed: ViewChanged, more?: Pick<AnswerHead, 'location'>) =>
  dataAnswer(changed, viewAnswer(changed.id, changed.state, changed.revision), more);
