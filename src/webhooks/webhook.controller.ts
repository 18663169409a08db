import {
  Body,
  Controller,
  createParamDecorator,
  Delete,
  type ExecutionContext,
  Get,
  HttpCode,
  Inject,
  Param,
  Post,
  Put,
  Query,
  Req,
} from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import type { FastifyRequest } from 'fastify';
import type { CommandContext } from '../commands/command-context.js';
import type { Actor } from '../event-store/aggregate.js';
import { type Answered, dataAnswer, emptyAnswer } from '../http/answered.js';
import { About, Answers, dataOf, pageOf } from '../http/answers.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { actorOf } from '../http/request-context.js';
import { Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import {
  IfGiven,
  IsList,
  IsNested,
  IsOneOf,
  IsResourceId,
  IsTrueOrFalse,
  IsTypedText,
  IsWhole,
  NullIsAbsent,
  rule,
} from '../http/validation.js';
import { parametersOf } from '../read-models/fold-list.js';
import type { PageMeta } from '../read-models/paging.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { Roles } from '../security/auth.guard.js';
import { type WebhookAnswer, webhookAnswer, webhookSchema, webhookWithSecretSchema } from './webhook.answer.js';
import { ChangeWebhook, CreateWebhook, DeleteWebhook, EnableWebhook, RotateWebhookSecret } from './webhook.commands.js';
import { WEBHOOK_EVENTS } from './webhook-event.js';
import { type Webhook, webhookAggregate, type WebhookEvent, type WebhookFilters } from './webhook.js';
import { webhookList } from './webhook.list.js';
import type { WebhookChanged } from './webhook.writer.js';

const MAX_URL = 2_048;
const MAX_TAG = 100;
const MAX_OVERLAP_HOURS = 168;
const USUAL_OVERLAP_HOURS = 24;

const urlFault = (value: unknown): string | undefined => {
  if (typeof value !== 'string') return 'must be a text';
  if (value.length > MAX_URL) return `must have at most ${MAX_URL} characters`;
  return URL.canParse(value) && /^https?:\/\/[^\s/\\]+\S*$/i.test(value)
    ? undefined
    : 'must be an https address, without user and password';
};
/** Whether it may be reached is asked when it is saved, and again at every connection. */
const IsWebhookUrl = () =>
  rule('isWebhookUrl', urlFault, { type: 'string', format: 'uri', pattern: '^[Hh][Tt][Tt][Pp][Ss]?://', maxLength: MAX_URL });

class WebhookFiltersDto {
  @NullIsAbsent() @IsResourceId() inboxId?: string;
  @NullIsAbsent() @IsResourceId() teamId?: string;
  @NullIsAbsent() @IsTypedText(MAX_TAG) tag?: string;
}

@Examples({
  'some events': {
    url: 'https://your-server.com/webhook',
    events: ['conversation.created', 'conversation.assigned', 'conversation.resolved', 'message.received'],
  },
  'everything of one inbox': { url: 'https://your-server.com/webhook', events: ['*'], filters: { inboxId: 'inbox-sales' } },
})
class CreateWebhookDto {
  @IsWebhookUrl() url!: string;
  /** Names of events; `*` stands for every event of a conversation. */
  @IsList({ min: 1, max: WEBHOOK_EVENTS.length, unique: true }) @IsOneOf(WEBHOOK_EVENTS, { each: true }) events!: string[];
  /** All given ones must hold for the conversation as it is after the event. */
  @NullIsAbsent() @IsNested(WebhookFiltersDto) filters?: WebhookFiltersDto;
  /** Leaves out the events that the webhook's owner caused: the agent or key that makes this request. False by default. */
  @NullIsAbsent() @IsTrueOrFalse() ignoreOwnWrites?: boolean;
}

@Examples({ 'another address': { url: 'https://your-server.com/threadlog' }, 'turned off': { enabled: false } })
class ChangeWebhookDto {
  @IfGiven() @IsWebhookUrl() url?: string;
  /** Replaced as a whole. */
  @IfGiven() @IsList({ min: 1, max: WEBHOOK_EVENTS.length, unique: true }) @IsOneOf(WEBHOOK_EVENTS, { each: true }) events?: string[];
  /** Replaced as a whole; `{}` lets everything through. */
  @IfGiven() @IsNested(WebhookFiltersDto) filters?: WebhookFiltersDto;
  @IfGiven() @IsTrueOrFalse() ignoreOwnWrites?: boolean;
  /** false gives up what has not been delivered. */
  @IfGiven() @IsTrueOrFalse() enabled?: boolean;
}

@Examples({ 'as usual': {}, 'at once': { overlapHours: 0 } })
class RotateSecretDto {
  /** How long the earlier secrets sign too. */
  @NullIsAbsent() @IsWhole(0, MAX_OVERLAP_HOURS) overlapHours?: number;
}

/** The agent or key that calls, which owns the webhooks that it makes. */
const Owner = createParamDecorator((_: undefined, host: ExecutionContext): Actor => {
  const { type, id } = actorOf(host.switchToHttp().getRequest<FastifyRequest>());
  return { type, id };
});

const STREAM: ResourceStream<Webhook, WebhookEvent> = { aggregate: webhookAggregate };

/**
 * Webhooks: addresses that are told what happens. DELETE destroys the secrets, so a deleted webhook does not come back; GET still answers
 * it, with `archived: true`.
 */
@Controller('webhooks')
@About('Addresses that are told of events, each with its deliveries.')
export class WebhookController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin')
  @Answers(
    'Makes a webhook; the only answer that holds its secret, beside those of rotate-secret.',
    'Appends `WebhookCreated`; events from then on are delivered, signed by the Standard Webhooks specification. A retry with the same `Idempotency-Key` answers the secret again for 24 hours. An address that leads into a private network is refused, unless `WEBHOOK_ALLOWED_NETWORKS` has it.',
    { 201: dataOf(webhookWithSecretSchema) },
    { errors: ['limit_exceeded'] },
  )
  async create(
    @Body() { url, events, filters = {}, ignoreOwnWrites = false }: CreateWebhookDto,
    @InContext() context: CommandContext,
    @Owner() owner: Actor,
  ): Promise<Answered<{ data: WebhookAnswer & { secret: string } }>> {
    const made = await this.commands.execute(
      new CreateWebhook(context, { url, events, filters: filtersOf(filters), ignoreOwnWrites }, owner),
    );
    const data = { ...webhookAnswer(made.id, made.state, made.revision), secret: made.secret };
    return dataAnswer(made, data, { location: `/api/support/webhooks/${made.id}` });
  }

  @Get()
  @Roles('admin', 'auditor')
  @Answers(
    'Lists webhooks.',
    'Pages and sorts webhooks, without their secrets; `archived=true` lists the deleted ones instead.',
    {
      200: pageOf(webhookSchema),
    },
    { query: parametersOf(webhookList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: WebhookAnswer[]; meta: PageMeta }> {
    return this.reader.list(webhookList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'auditor')
  @Answers('Reads a webhook.', 'Reads the event stream itself, and so is never behind a write. Never answers the secret.', {
    200: dataOf(webhookSchema),
  })
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: WebhookAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, webhookAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin')
  @Answers(
    'Changes the named fields of a webhook.',
    'Appends `WebhookChanged` with the fields that differ, and `WebhookDisabled` or `WebhookEnabled`. What waits for delivery goes to the new address; disabling gives it up.',
    { 200: dataOf(webhookSchema) },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { url, events, filters, ignoreOwnWrites, enabled }: ChangeWebhookDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: WebhookAnswer }>> {
    const changes = {
      ...(url === undefined ? {} : { url }),
      ...(events === undefined ? {} : { events }),
      ...(filters === undefined ? {} : { filters: filtersOf(filters) }),
      ...(ignoreOwnWrites === undefined ? {} : { ignoreOwnWrites }),
      ...(enabled === undefined ? {} : { enabled }),
    };
    return answered(await this.commands.execute(new ChangeWebhook(context, id, changes)));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers('Deletes a webhook.', 'Destroys its secrets and appends `WebhookDeleted`. What waits for delivery is given up.', { 204: null })
  async delete(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new DeleteWebhook(context, id)));
  }

  @Post(':id/enable')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Enables a webhook again.',
    'Appends `WebhookEnabled`; one that is enabled is answered as it is. What happened meanwhile is sent by `replay`.',
    { 200: dataOf(webhookSchema) },
  )
  async enable(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<{ data: WebhookAnswer }>> {
    return answered(await this.commands.execute(new EnableWebhook(context, id)));
  }

  @Post(':id/rotate-secret')
  @HttpCode(200)
  @Roles('admin')
  @Answers(
    'Makes a new secret; this answer alone holds it.',
    'Appends `WebhookSecretRotated`. For `overlapHours` (24 by default) deliveries carry a signature by the new secret and by the earlier ones.',
    { 200: dataOf(webhookWithSecretSchema) },
  )
  async rotate(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { overlapHours = USUAL_OVERLAP_HOURS }: RotateSecretDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: WebhookAnswer & { secret: string } }>> {
    const rotated = await this.commands.execute(new RotateWebhookSecret(context, id, overlapHours));
    return dataAnswer(rotated, { ...webhookAnswer(id, rotated.state, rotated.revision), secret: rotated.secret });
  }
}

/** Without names that are absent, so that equal filters are equal as JSON. */
const filtersOf = ({ inboxId, teamId, tag }: WebhookFiltersDto): WebhookFilters => ({
  ...(inboxId === undefined ? {} : { inboxId }),
  ...(teamId === undefined ? {} : { teamId }),
  ...(tag === undefined ? {} : { tag }),
});

const answered = (changed: WebhookChanged) => dataAnswer(changed, webhookAnswer(changed.id, changed.state, changed.revision));
