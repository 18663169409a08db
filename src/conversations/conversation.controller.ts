import { Body, Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { CommandBus, QueryBus } from '@nestjs/cqrs';
import { IsOptional, ValidateIf } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import { Answered, dataAnswer } from '../http/answered.js';
import { Caller, InContext } from '../http/parameters.js';
import { About, Answers, dataAndWarningsOf, dataOf, pageOf, partOf } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import type { Principal } from '../security/api-key-lookup.js';
import { ThreadlogError } from '../errors.js';
import { KeyInLog } from '../commands/idempotency.js';
import { Examples } from '../http/request-schema.js';
import { commandContext } from '../http/request-context.js';
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
} from '../http/validation.js';
import { ConversationReader, GetConversation, GetMessages, MESSAGES_SHOWN } from './conversation.reader.js';
import { ListConversations } from './conversation.list.js';
import type { PageMeta } from '../read-models/paging.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../read-models/groups.js';
import { VisitorInputDto } from '../visitors/visitor.controller.js';
import type { KeyLeft } from '../visitors/visitor.writer.js';
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
import { MAX_ATTRIBUTES, MAX_TAGS, PRIORITIES, type Priority, type SettableStatus } from './conversation.js';
import type { MessageInput } from './conversation.sealing.js';
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
import { VisitorConversations, type VisitorPrincipal } from './visitor-conversation.requests.js';

export const SETTABLE = ['open', 'pending', 'resolved', 'closed'] as const;
const MAX_SUBJECT = 500;
export const MAX_TAG = 100;
const TAGS_AT_ONCE = 50;

@Examples({
  'a message': { visitor: { email: 'ada@example.com', name: 'Ada Lovelace' }, message: 'Where is my order?' },
  'a card, from the team': {
    as: 'agent',
    visitor: { userId: 'u-1815' },
    subject: 'Your order is on its way',
    priority: 'low',
    customAttributes: { orderId: 4711 },
    message: {
      type: 'card',
      content: {
        title: 'Order 4711',
        description: 'It left our house today.',
        actions: [{ label: 'Track it', url: 'https://example.com/4711' }],
      },
    },
  },
})
class OpenConversationDto {
  /** Required with an API key; a visitor token implies its own visitor, and the field may be absent. */
  @NullIsAbsent() @IsNested(VisitorInputDto) visitor?: VisitorInputDto;
  @NullIsAbsent() @IsResourceId() inboxId?: string;
  @IsMessage() message!: MessageDto;
  @NullIsAbsent() @IsVisibleText(MAX_SUBJECT) subject?: string;
  @NullIsAbsent()
  @IsAttributes(MAX_ATTRIBUTES)
  customAttributes?: Record<string, unknown>;
  @NullIsAbsent() @IsOneOf(PRIORITIES) priority?: Priority;
  @NullIsAbsent() @IsResourceId() previousConversationId?: string;
  /** Who wrote the first message; the visitor by default. */
  @NullIsAbsent() @IsOneOf(['visitor', 'agent']) as?: 'visitor' | 'agent';
}

@Examples({
  'a reply': { message: 'It is on its way.' },
  'a reply that resolves': { message: 'It arrived. Have a good day!', status: 'resolved' },
  'an internal note': { type: 'note', message: 'The parcel service lost it once before.' },
  'a picture': {
    message: {
      type: 'attachment',
      content: 'The label',
      attachments: [{ name: 'label.png', url: 'https://example.com/label.png', type: 'image/png', size: 20480 }],
    },
  },
  'a canned response': { cannedResponseId: 'a-canned-response' },
})
export class ReplyDto {
  @IfGivenOrWithout('cannedResponseId')
  @IsMessage()
  message?: MessageDto;
  /** Instead of a message: sends the canned response as rendered for this conversation now. */
  @IfGiven() @IsResourceId() cannedResponseId?: string;
  /** `reply` by default. */
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

@Examples({ 'a message': { message: 'It has not come yet.' } })
class ReceiveDto {
  @IsMessage() message!: MessageDto;
}

/** At least one of the two fields is required; an absent field stays as it is. */
@Examples({
  'an agent or a team': { assigneeId: 'agent-ada' },
  nobody: { assigneeId: null },
  "a team's queue": { teamId: 'team-billing' },
})
export class AssignDto {
  /** An agent's or a team's id; null unassigns. */
  @IfGivenOrWithout('teamId')
  @ValidateIf((body: AssignDto) => body.assigneeId !== null)
  @IsResourceId()
  assigneeId?: string | null;
  /** The team whose queue takes the conversation; null removes it from its queue. */
  @IsOptional() @IsResourceId() teamId?: string | null;

  /** Only these two fields of a body that may hold more. */
  assignment(): Assignment {
    const { assigneeId, teamId } = this;
    return { ...(assigneeId === undefined ? {} : { assigneeId }), ...(teamId === undefined ? {} : { teamId }) };
  }
}

@Examples({ 'until the visitor writes': { until: 'next_reply' }, 'until an instant': { until: '2027-01-15T09:00:00Z' } })
export class SnoozeDto {
  @IsInstant({ or: 'next_reply' }) until!: string;
}

@Examples({ 'two tags': { tags: ['vip', 'refund'] } })
export class AddTagsDto {
  @IsList({ min: 1, max: Math.min(TAGS_AT_ONCE, MAX_TAGS) }) @IsTag(MAX_TAG, { each: true }) tags!: string[];
}

@Examples({ 'five stars': { rating: 5, comment: 'Quick and friendly.' } })
class RateDto {
  @IsWhole(1, 5) rating!: number;
  /** Absent keeps the comment of an earlier rating; null removes it. */
  @IsOptional() @IsVisibleText(5_000) comment?: string | null;
}

@Examples({
  resolve: { status: 'resolved' },
  'several fields': { priority: 'urgent', subject: 'Lost parcel', customAttributes: { orderId: 4711, carrier: null } },
})
class ChangeConversationDto {
  @IfGiven()
  @IsOneOf(SETTABLE, { hint: 'to snooze, POST to /snooze' })
  status?: SettableStatus;
  /** null clears it. */
  @IsOptional() @IsVisibleText(MAX_SUBJECT) subject?: string | null;
  @IfGiven() @IsOneOf(PRIORITIES) priority?: Priority;
  /** Merged; null removes an attribute. */
  @IfGiven() @IsAttributes(MAX_ATTRIBUTES) customAttributes?: Record<string, unknown>;
  @IfGiven() @IsResourceId() inboxId?: string;
}

/** `?revision=` or `?at=`: the conversation as it was then. */
class WhenDto {
  @IsOptional() @IsMatching(/^(0|[1-9]\d{0,8})$/, 'must be a whole number from 0', { type: 'integer', minimum: 0 }) revision?: string;
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
  /** A message's id: answers the messages before it. Without it, the newest messages. */
  @IsOptional() @IsVisibleText(128) before?: string;
  @IsOptional() @Limit(MESSAGES_SHOWN) limit?: string;

  size(): number {
    return limited(this.limit, 50, MESSAGES_SHOWN);
  }
}

@Controller('conversations')
@About('Conversations between a visitor and the team: messages, status, assignee and tags.')
export class ConversationController {
  constructor(
    private readonly commands: CommandBus,
    private readonly queries: QueryBus,
    @Inject(ConversationReader) private readonly reader: ConversationReader,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
    @Inject(VisitorConversations) private readonly forVisitor: VisitorConversations,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Opens a conversation with its first message.',
    "Finds the visitor by id, userId or email, or creates it, and puts the conversation into the named inbox or the default one. Appends `ConversationOpened` with `MessageReceived` or `MessageSent`, and `VisitorCreated` or `VisitorChanged` to the visitor where its fields are new. With a visitor token the conversation belongs to the token's visitor.",
    { 201: dataAndWarningsOf(conversationSchema) },
    {
      errors: ['unknown_inbox', 'unknown_company', 'unknown_conversation', 'visitor_erased', 'limit_exceeded'],
      visitor: { 201: dataOf(visitorConversationSchema) },
    },
  )
  async open(
    @Body() body: OpenConversationDto,
    @Req() request: FastifyRequest,
    @Caller() caller: Principal,
  ): Promise<Answered<{ data: ConversationAnswer | VisitorConversationAnswer; warnings?: readonly KeyLeft[] }>> {
    if (isVisitor(caller)) return this.forVisitor.open(request, caller, body);
    const { as = 'visitor', visitor, ...input } = body;
    if (visitor === undefined)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'visitor', message: 'is missing' }],
      });
    const context = commandContext(request);
    const changed = await this.commands.execute(new OpenConversation(context, caller.keyName, { ...input, visitor, as, channel: 'api' }));
    const messages = [await this.reader.message(context.organizationId, changed, body.message)];
    const { lastMessage: _lastMessage, ...summary } = await this.reader.summary(context.organizationId, changed);
    const { revision, position, left } = changed;
    const said = { data: { ...summary, messages }, ...(left.length === 0 ? {} : { warnings: left }) };
    return new Answered(said, { revision, position, location: `/api/support/conversations/${changed.id}` });
  }

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Lists conversations.',
    'All filters combine, every status is listed by default, and `q` lists what `GET /search` finds, in the order of the list. Answers `lastMessage` and `messageCount` of each conversation instead of its messages. A visitor token lists only the conversations of its visitor.',
    { 200: pageOf(conversationSummarySchema) },
    { errors: ['limit_exceeded'], visitor: { 200: pageOf(visitorConversationSummarySchema) } },
  )
  async list(
    @Query() query: ListQueryDto,
    @Caller() caller: Principal,
    @Req() request: FastifyRequest,
  ): Promise<{ data: ConversationSummary[] | VisitorConversationSummary[]; meta: PageMeta }> {
    await this.readYourWrites.reached(request, CORE_GROUP);
    if (isVisitor(caller)) return this.forVisitor.list(caller, query);
    if (query.q !== undefined) await this.readYourWrites.reached(request, INSIGHT_GROUP);
    const { organizationId, role } = caller;
    const withhold = role === 'analyst';
    return this.queries.execute(new ListConversations(organizationId, query.filter(), query.sorting(), query.paging(), withhold, query.q));
  }

  @Get(':id')
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Reads a conversation, as it is or as it was.',
    'Answers the last 200 messages, oldest first. With `revision` or `at` the answer shows the conversation at that moment, but the current names of visitor, assignee and team. Reads the event stream itself, and so is never behind a write.',
    { 200: dataOf(conversationSchema) },
    { visitor: { 200: dataOf(visitorConversationSchema) } },
  )
  async get(
    @Param('id') id: string,
    @Query() query: WhenDto,
    @Caller() caller: Principal,
    @Req() request: FastifyRequest,
  ): Promise<Answered<{ data: ConversationAnswer | VisitorConversationAnswer }>> {
    const fresh = this.readYourWrites.isAsked(request);
    if (isVisitor(caller)) return this.forVisitor.get(caller, id, query);
    const { organizationId, role } = caller;
    const { answer, revision, position } = await this.queries.execute(
      new GetConversation(organizationId, id, query.when(), role === 'analyst', fresh),
    );
    return dataAnswer({ revision, position }, answer);
  }

  @Put(':id')
  @Roles('admin', 'agent')
  @Answers(
    'Changes the named fields of a conversation.',
    'Sets only the fields that the body names: status, subject, priority, inbox, custom attributes (merged; `null` removes one). All changes are one append of `ConversationStatusChanged`, `SubjectChanged`, `PriorityChanged`, `InboxChanged` or `CustomAttributesChanged`; an unchanged value appends nothing.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['transition_not_allowed', 'conversation_closed', 'unknown_inbox', 'limit_exceeded', 'visitor_erased'],
    },
  )
  async change(
    @Param('id') id: string,
    @Body() body: ChangeConversationDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    return this.changed(context, this.commands.execute(new ChangeConversation(context, id, body)));
  }

  @Post(':id/reply')
  @HttpCode(201)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    'Replies, or writes an internal note.',
    "Appends `MessageSent`, or `NoteAdded` for an internal note; with `status` also `ConversationStatusChanged`, in the same append. The text comes from the request or from a canned response. A public reply ends the visitor's waiting time.",
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
    @InContext() context: CommandContext,
    @Caller() { keyName }: Principal,
  ): Promise<Answered<{ data: MessageAnswer }>> {
    const command = new ReplyToConversation(context, keyName, id, body.type ?? 'reply', body.says(), body.status);
    return this.said(context, body.message, this.commands.execute(command));
  }

  @Post(':id/messages')
  @HttpCode(201)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Takes a message of the visitor.',
    "Appends `MessageReceived`, and opens a conversation that is pending, snoozed or resolved (`ConversationStatusChanged`). With an API key the message counts as the visitor's.",
    { 201: dataOf(messageSchema) },
    {
      errors: ['conversation_closed', 'visitor_erased', 'limit_exceeded'],
      visitor: { 201: dataOf(visitorMessageSchema) },
    },
  )
  async receive(
    @Param('id') id: string,
    @Body() body: ReceiveDto,
    @InContext() context: CommandContext,
    @Caller() caller: Principal,
  ): Promise<Answered<{ data: MessageAnswer | VisitorMessageAnswer }>> {
    if (isVisitor(caller)) return this.forVisitor.receive(context, id, body.message);
    return this.said(context, body.message, this.commands.execute(new ReceiveMessage(context, id, body.message)));
  }

  @Get(':id/messages')
  @Roles('admin', 'agent', 'auditor', 'analyst', 'visitor')
  @Answers(
    'Reads messages: the newest, or those before a given message.',
    'Pages through the whole conversation, oldest first within a page. `before` takes the id of a message from an earlier page.',
    { 200: partOf(messageSchema) },
    { visitor: { 200: partOf(visitorMessageSchema) } },
  )
  async messages(
    @Param('id') id: string,
    @Query() query: MessagesQueryDto,
    @Caller() caller: Principal,
    @Req() request: FastifyRequest,
  ): Promise<{ data: MessageAnswer[] | VisitorMessageAnswer[]; meta: { limit: number; hasMore: boolean } }> {
    const limit = query.size();
    this.readYourWrites.isAsked(request);
    if (isVisitor(caller)) return this.forVisitor.messages(caller, id, query.before, limit);
    const { organizationId, role } = caller;
    const { messages, hasMore } = await this.queries.execute(new GetMessages(organizationId, id, query.before, limit, role === 'analyst'));
    return { data: messages, meta: { limit, hasMore } };
  }

  @Post(':id/assign')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    "Assigns an agent, a team or nobody, and puts a conversation into a team's queue or takes it out.",
    'Appends `ConversationAssigned`, `ConversationUnassigned` or `ConversationTeamChanged`, and nothing when nothing changes. The team of the queue stays when an agent takes the conversation.',
    { 200: dataOf(conversationSummarySchema) },
    { errors: ['conversation_closed', 'unknown_assignee', 'unknown_team'] },
  )
  async assign(
    @Param('id') id: string,
    @Body() body: AssignDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    return this.changed(context, this.commands.execute(new AssignConversation(context, id, body.assignment())));
  }

  @Post(':id/snooze')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    'Snoozes until an instant, or until the visitor writes.',
    'Appends `ConversationSnoozed`. The conversation opens by itself at that time, or as soon as the visitor writes. The instant is in the future, at most a year ahead.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['transition_not_allowed', 'conversation_closed', 'snooze_in_past', 'snooze_too_far'],
    },
  )
  async snooze(
    @Param('id') id: string,
    @Body() body: SnoozeDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    return this.changed(context, this.commands.execute(new SnoozeConversation(context, id, body.until)));
  }

  @Post(':id/tags')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @KeyInLog()
  @Answers(
    'Adds tags.',
    'Appends `TagsAdded` with the tags that the conversation does not have yet, and nothing when it has them all.',
    { 200: dataOf(conversationSummarySchema) },
    { errors: ['conversation_closed', 'limit_exceeded'] },
  )
  async addTags(
    @Param('id') id: string,
    @Body() body: AddTagsDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    return this.changed(context, this.commands.execute(new AddTags(context, id, body.tags)));
  }

  @Delete(':id/tags/:tag')
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Removes a tag.',
    'Appends `TagRemoved`; a missing tag is 200 too. The tag is URL-encoded in the path.',
    { 200: dataOf(conversationSummarySchema) },
    { errors: ['conversation_closed'] },
  )
  async removeTag(
    @Param('id') id: string,
    @Param('tag') tag: string,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    return this.changed(context, this.commands.execute(new RemoveTag(context, id, tag)));
  }

  @Post(':id/rating')
  @HttpCode(200)
  @Roles('admin', 'agent', 'visitor')
  @KeyInLog()
  @Answers(
    'Rates the latest ended episode.',
    'Appends `ConversationRated`. A rating can be given in every status once an episode has ended, and changed until the next episode ends.',
    { 200: dataOf(conversationSummarySchema) },
    {
      errors: ['no_ended_episode', 'visitor_erased'],
      visitor: { 200: dataOf(visitorConversationSummarySchema) },
    },
  )
  async rate(
    @Param('id') id: string,
    @Body() body: RateDto,
    @InContext() context: CommandContext,
    @Caller() caller: Principal,
  ): Promise<Answered<{ data: ConversationSummary | VisitorConversationSummary }>> {
    if (isVisitor(caller)) return this.forVisitor.rate(context, id, body.rating, body.comment);
    return this.changed(context, this.commands.execute(new RateConversation(context, id, body.rating, body.comment)));
  }

  private async changed(
    { organizationId }: CommandContext,
    command: Promise<ConversationChanged>,
  ): Promise<Answered<{ data: ConversationSummary }>> {
    const changed = await command;
    return dataAnswer(changed, await this.reader.summary(organizationId, changed));
  }

  private async said(
    { organizationId }: CommandContext,
    /** Undefined when the request did not send a text of its own. */
    message: MessageInput | undefined,
    command: Promise<ConversationChanged>,
  ): Promise<Answered<{ data: MessageAnswer }>> {
    const changed = await command;
    return dataAnswer(changed, await this.reader.message(organizationId, changed, message));
  }
}

/** With a visitor token the same routes answer less, in separate shapes. */
const isVisitor = (caller: Principal): caller is VisitorPrincipal => caller.visitorId !== null;
