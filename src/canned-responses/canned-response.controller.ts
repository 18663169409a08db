import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import { ConversationWriter } from '../conversations/conversation.commands.js';
import { assertNotRefused } from '../commands/command-context.js';
import type { CommandContext } from '../commands/command-context.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import type { Principal } from '../security/api-key-lookup.js';
import { ThreadlogError } from '../errors.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { Caller, InContext, OrganizationId } from '../http/parameters.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import { IfGiven, IsResourceId, IsShortcut, IsTypedText, IsVisibleText } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { type CannedResponseAnswer, cannedResponseAnswer, cannedResponseSchema, renderedSchema } from './canned-response.answer.js';
import {
  ArchiveCannedResponse,
  type CannedResponseChanged,
  ChangeCannedResponse,
  CreateCannedResponse,
  UnarchiveCannedResponse,
} from './canned-response.commands.js';
import { CannedResponseRenderer } from './canned-response.rendering.js';
import { type CannedResponse, cannedResponseAggregate, type CannedResponseEvent } from './canned-response.js';
import { cannedResponseList } from './canned-response.list.js';
import type { Rendered } from './template.js';

const MAX_TITLE = 200;
const MAX_SHORTCUT = 50;
const MAX_TEMPLATE = 10_000;

@Examples({ 'a greeting': { title: 'Greeting', shortcut: '/hello', content: 'Hi {{visitor.name | "there"}}, how can we help?' } })
class CreateCannedResponseDto {
  @IsTypedText(MAX_TITLE) title!: string;
  @IsShortcut(MAX_SHORTCUT) shortcut!: string;
  /** With placeholders such as {{visitor.name | "there"}}. */
  @IsVisibleText(MAX_TEMPLATE) content!: string;
}

@Examples({ 'its text': { content: 'Hello {{visitor.name | "there"}}!' } })
class ChangeCannedResponseDto {
  @IfGiven() @IsTypedText(MAX_TITLE) title?: string;
  @IfGiven() @IsShortcut(MAX_SHORTCUT) shortcut?: string;
  @IfGiven() @IsVisibleText(MAX_TEMPLATE) content?: string;
}

@Examples({ 'in a conversation': { conversationId: 'a-conversation' } })
class RenderDto {
  @IsResourceId() conversationId!: string;
}

const STREAM: ResourceStream<CannedResponse, CannedResponseEvent> = {
  aggregate: cannedResponseAggregate,
  shows: ({ exists }) => exists,
};

/**
 * Canned responses. DELETE archives: GET answers with `archived: true`, and the shortcut is free for another response. An archived
 * response must be unarchived before it can be changed or sent.
 */
@Controller('canned-responses')
@About('Texts with placeholders that agents send again and again.')
export class CannedResponseController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
    @Inject(CannedResponseRenderer) private readonly renderer: CannedResponseRenderer,
    @Inject(ConversationWriter) private readonly conversations: ConversationWriter,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent')
  @Answers(
    'Makes a canned response.',
    'Appends `CannedResponseCreated`. Only one response at a time may have a shortcut, and unknown variables in the content are refused now instead of when it is sent.',
    { 201: dataOf(cannedResponseSchema) },
    { errors: ['shortcut_taken', 'unknown_variable'] },
  )
  async create(
    @Body() { title, shortcut, content }: CreateCannedResponseDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: CannedResponseAnswer }>> {
    const changed = await this.commands.execute(new CreateCannedResponse(context, { title, shortcut, content }));
    return answered(changed, { location: `/api/support/canned-responses/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists canned responses.',
    'Pages and sorts canned responses, and finds one by its shortcut; `archived=true` lists the archived ones instead.',
    { 200: pageOf(cannedResponseSchema) },
    { query: parametersOf(cannedResponseList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: CannedResponseAnswer[]; meta: PageMeta }> {
    return this.reader.list(cannedResponseList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Reads a canned response.',
    'Reads the event stream itself, and so is never behind a write. An archived response is answered with `archived: true`.',
    { 200: dataOf(cannedResponseSchema) },
  )
  async get(
    @Param('id', ResourceIdPipe) id: string,
    @OrganizationId() organizationId: string,
  ): Promise<Answered<{ data: CannedResponseAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, cannedResponseAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a canned response.',
    'Appends `CannedResponseChanged` with the fields that differ. Messages that were sent with the response stay as they are.',
    { 200: dataOf(cannedResponseSchema) },
    { errors: ['shortcut_taken', 'unknown_variable'] },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { title, shortcut, content }: ChangeCannedResponseDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: CannedResponseAnswer }>> {
    const changes = {
      ...(title === undefined ? {} : { title }),
      ...(shortcut === undefined ? {} : { shortcut }),
      ...(content === undefined ? {} : { content }),
    };
    return answered(await this.commands.execute(new ChangeCannedResponse(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin', 'agent')
  @Answers('Archives a canned response.', 'Appends `CannedResponseArchived` and frees the shortcut for another response.', { 204: null })
  async archive(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new ArchiveCannedResponse(context, id)));
  }

  @Post(':id/unarchive')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Brings a canned response back from the archive.',
    'Appends `CannedResponseUnarchived`; its shortcut must still be free. A response that is not archived is answered as it is.',
    { 200: dataOf(cannedResponseSchema) },
    { errors: ['shortcut_taken'] },
  )
  async unarchive(
    @Param('id', ResourceIdPipe) id: string,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: CannedResponseAnswer }>> {
    return answered(await this.commands.execute(new UnarchiveCannedResponse(context, id)));
  }

  /** The text that it would send in a conversation now. Writes no event. */
  @Post(':id/render')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Renders a canned response for a conversation, without sending it.',
    "Fills in the current values of the conversation's visitor and company, and of the caller. `missing` names the variables that had no value. Appends nothing.",
    { 200: dataOf(renderedSchema) },
    { errors: ['unknown_conversation'] },
  )
  async render(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { conversationId }: RenderDto,
    @InContext() context: CommandContext,
    @Caller() { organizationId, keyName }: Principal,
  ): Promise<{ data: Rendered }> {
    const answered = await this.renderer.answered(context);
    if (answered !== undefined) return { data: answered };
    assertNotRefused(context);
    const found = await this.reader.one(STREAM, organizationId, id);
    if (found.state.archived) throw new ThreadlogError('resource_archived');
    const { name } = await this.conversations.author(context, keyName);
    const rendered = await this.renderer.render(organizationId, found.state.content, conversationId, name);
    if (rendered === undefined) throw new ThreadlogError('unknown_conversation', `no conversation has the id ${conversationId}`);
    await this.renderer.keep(context, conversationId, rendered);
    return { data: rendered };
  }
}

const answered = (changed: CannedResponseChanged, made?: { readonly location: string }): Answered<{ data: CannedResponseAnswer }> =>
  dataAnswer(changed, cannedResponseAnswer(changed.id, changed.state, changed.revision), made);
