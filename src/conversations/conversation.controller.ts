import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req, Res } from '@nestjs/common';
import { CommandBus, QueryBus } from '@nestjs/cqrs';
import { IsOptional, ValidateIf } from 'class-validator';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Answers, dataAndWarningsOf, dataOf, pageOf, partOf } from '../platform/answers.js';
import { Roles } from '../platform/auth.guard.js';
import { principalOf } from '../platform/callers.js';
import { ThreadlogError } from '../platform/errors.js';
import { KeyInLog } from '../platform/idempotency.js';
import { commandContext, describeAnswer } from '../platform/request-context.js';
import {
  IfGiven,
  IfGivenOrWithout,
  IsAttributes,
  IsInstant,
  IsList,
  IsMatching,
  IsNested,
  IsOneOf,
  IsResourceId,
  IsTag,
  IsVisibleText,
  IsWhole,
  Limit,
  limited,
  NullIsAbsent,
  parseInstant,
} from '../platform/validation.js';
import { ConversationReader, GetConversation, GetMessages, MESSAGES_SHOWN } from './conversation.reader.js';
import { ListConversations } from './conversation.list.js';
import { EventsQueryDto, eventSchema, type HistoryOf, type HistoryPage, HistoryReader } from '../read-models/history.js';
import type { PageMeta } from '../read-models/paging.js';
import { ReadModel } from '../read-models/read-your-writes.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { VisitorInputDto } from '../visitors/visitor.controller.js';
import type { KeyLeft } from '../visitors/visitor.directory.js';
import {
  type ConversationAnswer,
  conversationSchema,
  type ConversationSummary,
  conversationSummarySchema,
  type MessageAnswer,
  messageSchema,
} from './conversation.answer.js';
import {
  AddTags,
  AssignConversation,
  type Assignment,
  type CannedResponseUse,
  ChangeConversation,
  type ConversationChanged,
  OpenConversation,
  RateConversation,
  ReceiveMessage,
  RemoveTag,
  ReplyToConversation,
  SnoozeConversation,
} from './conversation.commands.js';
import {
  type Conversation,
  conversationAggregate,
  type ConversationEvent,
  MAX_ATTRIBUTES,
  MAX_TAGS,
  PRIORITIES,
  type Priority,
  type SettableStatus,
} from './conversation.js';
import { type MessageInput, openConversationEvent } from './conversation.opening.js';
import { ListQueryDto } from './list-query.dto.js';
import { IsMessage, type MessageDto } from './message.dto.js';
import {
  type VisitorConversationAnswer,
  visitorConversationSchema,
  type VisitorConversationSummary,
  visitorConversationSummarySchema,
  type VisitorMessageAnswer,
  visitorMessageSchema,
} from './visitor-conversation.answer.js';
import { VisitorConversations } from './visitor-conversations.js';

export const SETTABLE = ['open', 'pending', 'resolved', 'closed'] as const;
const MAX_SUBJECT = 500;
export const MAX_TAG = 100;
const TAGS_AT_ONCE = 50;

class OpenConversationDto {
  /** With an API key it must be there; with a visitor token it is the token's visitor, and may be left out. */
  @NullIsAbsent() @IsNested(VisitorInputDto) visitor?: VisitorInputDto;
  @NullIsAbsent() @IsResourceId() inboxId?: string;
  @IsMessage() message!: MessageDto;
  @NullIsAbsent() @IsVisibleText(MAX_SUBJECT) subject?: string;
  @NullIsAbsent()
  @IsAttributes(MAX_ATTRIBUTES)
  customAttributes?: Record<string, unknown>;
  @NullIsAbsent() @IsOneOf(PRIORITIES) priority?: Priority;
  @NullIsAbsent() @IsResourceId() previousConversationId?: string;
  /** Who wrote the first message; the visitor when absent. */
  @NullIsAbsent() @IsOneOf(['visitor', 'agent']) as?: 'visitor' | 'agent';
}

export class ReplyDto {
  @IfGivenOrWithout('cannedResponseId')
  @IsMessage()
  message?: MessageDto;
  /** In the place of a message: what the canned response says in this conversation, at this moment. */
  @IfGiven() @IsResourceId() cannedResponseId?: string;
  /** `reply` when absent. */
  @IfGiven() @IsOneOf(['reply', 'note']) type?: 'reply' | 'note';
  /** Set in the same append. */
  @IfGiven()
  @IsOneOf(SETTABLE, { hint: 'to snooze, POST to /snooze' })
  status?: SettableStatus;

  /** @throws ThreadlogError validation_failed */
  says(): MessageInput | CannedResponseUse {
    const { message, cannedResponseId } = this;
    if (message !== undefined && cannedResponseId !== undefined)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'cannedResponseId', message: 'must be absent beside message' }],
      });
    if (cannedResponseId !== undefined) return { cannedResponseId };
    if (message === undefined) throw new Error('a reply without a message passed its checks');
    return message;
  }
}

class ReceiveDto {
  @IsMessage() message!: MessageDto;
}

/** One of the two must be there; what is absent stays as it is. */
export class AssignDto {
  /** An agent's or a team's id; null unassigns. */
  @IfGivenOrWithout('teamId')
  @ValidateIf((body: AssignDto) => body.assigneeId !== null)
  @IsResourceId()
  assigneeId?: string | null;
  /** The team whose queue the conversation is put into; null takes it out of its queue. */
  @IsOptional() @IsResourceId() teamId?: string | null;

  /** Without what else a body that holds these two may hold. */
  assignment(): Assignment {
    const { assigneeId, teamId } = this;
    return { ...(assigneeId === undefined ? {} : { assigneeId }), ...(teamId === undefined ? {} : { teamId }) };
  }
}

export class SnoozeDto {
  @IsInstant({ or: 'next_reply' }) until!: string;
}

export class TagsDto {
  @IsList({ min: 1, max: Math.min(TAGS_AT_ONCE, MAX_TAGS) }) @IsTag(MAX_TAG, { each: true }) tags!: string[];
}

class RateDto {
  @IsWhole(1, 5) rating!: number;
  /** Absent keeps the comment of the rating that is changed; null removes it. */
  @IsOptional() @IsVisibleText(5_000) comment?: string | null;
}

class ChangeDto {
  @IfGiven()
  @IsOneOf(SETTABLE, { hint: 'to snooze, POST to /snooze' })
  status?: SettableStatus;
  /** null clears it. */
  @IsOptional() @IsVisibleText(MAX_SUBJECT) subject?: string | null;
  @IfGiven() @IsOneOf(PRIORITIES) priority?: Priority;
  /** Merged; null removes. */
  @IfGiven() @IsAttributes(MAX_ATTRIBUTES) customAttributes?: Record<string, unknown>;
  @IfGiven() @IsResourceId() inboxId?: string;
}

/** `?revision=` or `?at=`: the conversation as it was. */
class WhenDto {
  @IsOptional() @IsMatching(/^(0|[1-9]\d{0,8})$/, 'must be a whole number from 0') revision?: string;
  @IsOptional() @IsInstant() at?: string;

  when(): { revision?: number; at?: number } {
    if (this.revision !== undefined && this.at !== undefined)
      throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: 'at', message: 'must be absent beside revision' }] });
    if (this.revision !== undefined) return { revision: Number(this.revision) };
    const at = parseInstant(this.at);
    return at === undefined ? {} : { at };
  }
}

class MessagesQueryDto {
  /** A message's id: the answer holds those before it. The newest when absent. */
  @IsOptional() @IsVisibleText(128) before?: string;
  @IsOptional() @Limit(MESSAGES_SHOWN) limit?: string;

  size(): number {
    return limited(this.limit, 50, MESSAGES_SHOWN);
  }
}

const HISTORY: HistoryOf<Conversation, ConversationEvent> = { aggregate: conversationAggregate, open: openConversationEvent };

@Controller('conversations')
export class ConversationController {
  constructor(
    private readonly commands: CommandBus,
    private readonly queries: QueryBus,
    @Inject(ConversationReader) private readonly reader: ConversationReader,
    @Inject(HistoryReader) private readonly history: HistoryReader,
    @Inject(ReadModel) private readonly readModel: ReadModel,
    @Inject(VisitorConversations) private readonly forVisitor: VisitorConversations,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Opens a conversation with its first message.',
    { 201: dataAndWarningsOf(conversationSchema) },
    {
      errors: ['unknown_inbox', 'unknown_company', 'unknown_conversation', 'visitor_erased', 'limit_exceeded'],
      visitor: { 201: dataOf(visitorConversationSchema) },
    },
  )
  async open(
    @Body() body: OpenConversationDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationAnswer | VisitorConversationAnswer; warnings?: readonly KeyLeft[] }> {
    if (isVisitor(request)) return this.forVisitor.open(request, reply, body);
    const { as = 'visitor', visitor, ...input } = body;
    if (visitor === undefined)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'visitor', message: 'is missing' }],
      });
    const context = commandContext(request);
    const changed = await this.commands.execute(
      new OpenConversation(context, principalOf(request).keyName, { ...input, visitor, as, channel: 'api' }),
    );
    describeAnswer(reply, changed);
    void reply.header('location', `/api/support/conversations/${changed.id}`);
    const messages = [await this.reader.message(context.organizationId, changed, body.message)];
    const { lastMessage: _lastMessage, ...summary } = await this.reader.summary(context.organizationId, changed);
    return { data: { ...summary, messages }, ...(changed.left.length === 0 ? {} : { warnings: changed.left }) };
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Lists conversations.',
    { 200: pageOf(conversationSummarySchema) },
    { visitor: { 200: pageOf(visitorConversationSummarySchema) } },
  )
  async list(
    @Query() query: ListQueryDto,
    @Req() request: FastifyRequest,
  ): Promise<{ data: ConversationSummary[] | VisitorConversationSummary[]; meta: PageMeta }> {
    const { organizationId, role } = principalOf(request);
    await this.readModel.reached(request, CORE_GROUP);
    if (isVisitor(request)) return this.forVisitor.list(request, query);
    return this.queries.execute(new ListConversations(organizationId, query.filter(), query.sorting(), query.paging(), role === 'analyst'));
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Reads a conversation, as it is or as it was.',
    { 200: dataOf(conversationSchema) },
    { visitor: { 200: dataOf(visitorConversationSchema) } },
  )
  async get(
    @Param('id') id: string,
    @Query() query: WhenDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationAnswer | VisitorConversationAnswer }> {
    if (isVisitor(request)) return this.forVisitor.get(request, reply, id, query);
    const { organizationId, role } = principalOf(request);
    const fresh = request.headers['x-min-position'] !== undefined;
    const { answer, revision, position } = await this.queries.execute(
      new GetConversation(organizationId, id, query.when(), role === 'analyst', fresh),
    );
    describeAnswer(reply, { revision, position });
    return { data: answer };
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a conversation.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['transition_not_allowed', 'conversation_closed', 'unknown_inbox', 'limit_exceeded', 'visitor_erased'],
    },
  )
  async change(
    @Param('id') id: string,
    @Body() body: ChangeDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary }> {
    return this.changed(reply, request, this.commands.execute(new ChangeConversation(commandContext(request), id, body)));
  }

  @Post(':id/reply')
  @HttpCode(201)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    'Replies, or writes an internal note.',
    { 201: dataOf(messageSchema) },
    {
      errors: [
        'transition_not_allowed',
        'conversation_closed',
        'visitor_erased',
        'limit_exceeded',
        'unknown_canned_response',
        'unsendable_message',
      ],
    },
  )
  async reply(
    @Param('id') id: string,
    @Body() body: ReplyDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: MessageAnswer }> {
    const command = new ReplyToConversation(
      commandContext(request),
      principalOf(request).keyName,
      id,
      body.type ?? 'reply',
      body.says(),
      body.status,
    );
    return this.said(reply, request, body.message, this.commands.execute(command));
  }

  @Post(':id/messages')
  @HttpCode(201)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Takes a message of the visitor.',
    { 201: dataOf(messageSchema) },
    {
      errors: ['conversation_closed', 'visitor_erased', 'limit_exceeded'],
      visitor: { 201: dataOf(visitorMessageSchema) },
    },
  )
  async receive(
    @Param('id') id: string,
    @Body() body: ReceiveDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: MessageAnswer | VisitorMessageAnswer }> {
    if (isVisitor(request)) return this.forVisitor.receive(request, reply, id, body.message);
    return this.said(reply, request, body.message, this.commands.execute(new ReceiveMessage(commandContext(request), id, body.message)));
  }

  @Get(':id/messages')
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Reads messages, the newest or those before one.',
    { 200: partOf(messageSchema) },
    { visitor: { 200: partOf(visitorMessageSchema) } },
  )
  async messages(
    @Param('id') id: string,
    @Query() query: MessagesQueryDto,
    @Req() request: FastifyRequest,
  ): Promise<{ data: MessageAnswer[] | VisitorMessageAnswer[]; meta: { limit: number; hasMore: boolean } }> {
    const { organizationId, role } = principalOf(request);
    const limit = query.size();
    if (isVisitor(request)) return this.forVisitor.messages(request, id, query.before, limit);
    const { messages, hasMore } = await this.queries.execute(new GetMessages(organizationId, id, query.before, limit, role === 'analyst'));
    return { data: messages, meta: { limit, hasMore } };
  }

  @Post(':id/assign')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    "Assigns an agent, a team or nobody, and puts a conversation into a team's queue or takes it out.",
    { 200: dataOf(conversationSummarySchema) },
    { errors: ['conversation_closed', 'unknown_assignee', 'unknown_team'] },
  )
  async assign(
    @Param('id') id: string,
    @Body() body: AssignDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary }> {
    return this.changed(reply, request, this.commands.execute(new AssignConversation(commandContext(request), id, body.assignment())));
  }

  @Post(':id/snooze')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    'Snoozes until an instant, or until the visitor writes.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['transition_not_allowed', 'conversation_closed', 'snooze_in_past', 'snooze_too_far'],
    },
  )
  async snooze(
    @Param('id') id: string,
    @Body() body: SnoozeDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary }> {
    return this.changed(reply, request, this.commands.execute(new SnoozeConversation(commandContext(request), id, body.until)));
  }

  @Post(':id/tags')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers('Adds tags.', { 200: dataOf(conversationSummarySchema) }, { errors: ['conversation_closed', 'limit_exceeded'] })
  async addTags(
    @Param('id') id: string,
    @Body() body: TagsDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary }> {
    return this.changed(reply, request, this.commands.execute(new AddTags(commandContext(request), id, body.tags)));
  }

  @Delete(':id/tags/:tag')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers('Removes a tag.', { 200: dataOf(conversationSummarySchema) }, { errors: ['conversation_closed'] })
  async removeTag(
    @Param('id') id: string,
    @Param('tag') tag: string,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary }> {
    return this.changed(reply, request, this.commands.execute(new RemoveTag(commandContext(request), id, tag)));
  }

  @Post(':id/rating')
  @HttpCode(200)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Rates the latest ended episode.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['no_ended_episode', 'visitor_erased'],
      visitor: { 200: dataOf(visitorConversationSummarySchema) },
    },
  )
  async rate(
    @Param('id') id: string,
    @Body() body: RateDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<{ data: ConversationSummary | VisitorConversationSummary }> {
    if (isVisitor(request)) return this.forVisitor.rate(request, reply, id, body.rating, body.comment);
    return this.changed(
      reply,
      request,
      this.commands.execute(new RateConversation(commandContext(request), id, body.rating, body.comment)),
    );
  }

  @Get(':id/events')
  @Roles('admin', 'agent', 'auditor')
  @Answers('Reads events, oldest first.', { 200: partOf(eventSchema) })
  events(
    @Param('id') id: string,
    @Query() query: EventsQueryDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<HistoryPage> {
    return this.history.page(HISTORY, principalOf(request).organizationId, id, query, reply);
  }

  private async changed(
    reply: FastifyReply,
    request: FastifyRequest,
    command: Promise<ConversationChanged>,
  ): Promise<{ data: ConversationSummary }> {
    const changed = await command;
    describeAnswer(reply, changed);
    return { data: await this.reader.summary(principalOf(request).organizationId, changed) };
  }

  private async said(
    reply: FastifyReply,
    request: FastifyRequest,
    /** Undefined when the request does not hold it itself. */
    message: MessageInput | undefined,
    command: Promise<ConversationChanged>,
  ): Promise<{ data: MessageAnswer }> {
    const changed = await command;
    describeAnswer(reply, changed);
    return { data: await this.reader.message(principalOf(request).organizationId, changed, message) };
  }
}

/** With a token the same routes answer less, in shapes of their own. */
const isVisitor = (request: FastifyRequest) => principalOf(request).visitorId !== null;
