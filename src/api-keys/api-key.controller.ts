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
import { type Role, ROLES } from '../security/roles.js';
import { IfGiven, IsInstant, IsOneOf, IsResourceId, IsTypedText, IsWhole, NullIsAbsent } from '../http/validation.js';
import type { PageMeta } from '../read-models/paging.js';
import { parametersOf } from '../read-models/fold-list.js';
import { ResourceReader, type ResourceStream } from '../read-models/resource-reader.js';
import { type ApiKeyAnswer, apiKeyAnswer, apiKeySchema, newApiKeySchema } from './api-key.answer.js';
import { CreateApiKey, ChangeApiKey, RevokeApiKey } from './api-key.commands.js';
import { type ApiKey, apiKeyAggregate, type ApiKeyEvent } from './api-key.js';
import { apiKeyList } from './api-key.list.js';

const MAX_RATE_LIMIT = 1_000_000;

@Examples({
  'for a program': { name: 'Website', role: 'agent', rateLimitPerMinute: 600 },
  'for an agent, until a day': { name: 'Ada, phone', role: 'agent', agentId: 'agent-ada', expiresAt: '2027-12-31T23:59:59Z' },
})
class CreateApiKeyDto {
  @IsTypedText(200) name!: string;
  @IsOneOf(ROLES) role!: Role;
  /** The agent that the key acts for. */
  @NullIsAbsent() @IsResourceId() agentId?: string;
  /** Without it, the key is valid until it is revoked. */
  @NullIsAbsent() @IsInstant() expiresAt?: string;
  /** Requests a minute; RATE_LIMIT_PER_MINUTE by default, 0 for no limit. */
  @NullIsAbsent() @IsWhole(0, MAX_RATE_LIMIT) rateLimitPerMinute?: number;
}

@Examples({ 'a new name': { name: 'Website, old' } })
class ChangeApiKeyDto {
  @IfGiven() @IsTypedText(200) name?: string;
  /** null restores RATE_LIMIT_PER_MINUTE. */
  @IsOptional() @IsWhole(0, MAX_RATE_LIMIT) rateLimitPerMinute?: number | null;
}

const STREAM: ResourceStream<ApiKey, ApiKeyEvent> = { aggregate: apiKeyAggregate };

/**
 * API keys. Only the answer of the POST that made a key holds the key itself. DELETE revokes the key at once; GET still answers it, with
 * `revokedAt`. What a key may do never changes: make another key instead.
 */
@Controller('api-keys')
@About('Keys for programs and agents, each with its role.')
export class ApiKeyController {
  constructor(
    @Inject(CommandBus) private readonly commands: CommandBus,
    @Inject(ResourceReader) private readonly reader: ResourceReader,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('admin')
  @Answers(
    'Makes an API key; the only answer that holds the key itself.',
    "Appends `ApiKeyCreated`. The key is stored as a hash, so no later answer can hold it; a retry with the same `Idempotency-Key` answers it again for 24 hours. A key bound to an agent writes in that agent's name.",
    { 201: dataOf(newApiKeySchema) },
    { errors: ['expiry_in_past'] },
  )
  async create(
    @Body() body: CreateApiKeyDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ApiKeyAnswer & { key: string } }>> {
    const { name, role, agentId, expiresAt, rateLimitPerMinute } = body;
    const input = {
      name,
      role,
      ...(agentId === undefined ? {} : { agentId }),
      ...(expiresAt === undefined ? {} : { expiresAt }),
      ...(rateLimitPerMinute === undefined ? {} : { rateLimitPerMinute }),
    };
    const made = await this.commands.execute(new CreateApiKey(context, input));
    const data = { ...apiKeyAnswer(made.id, made.state, made.revision), key: made.key };
    return dataAnswer(made, data, { location: `/api/support/api-keys/${made.id}` });
  }

  @Get()
  @Roles('admin', 'auditor')
  @Answers(
    'Lists API keys.',
    'Pages and sorts API keys, without their secrets; `archived=true` lists the revoked ones instead.',
    { 200: pageOf(apiKeySchema) },
    { query: parametersOf(apiKeyList) },
  )
  async list(
    @Query() query: Record<string, unknown>,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: ApiKeyAnswer[]; meta: PageMeta }> {
    return this.reader.list(apiKeyList, organizationId, query, request);
  }

  @Get(':id')
  @Roles('admin', 'auditor')
  @Answers('Reads an API key.', 'Answers name, role, prefix, limits and whether it was revoked, and never the secret.', {
    200: dataOf(apiKeySchema),
  })
  async get(@Param('id', ResourceIdPipe) id: string, @OrganizationId() organizationId: string): Promise<Answered<{ data: ApiKeyAnswer }>> {
    const found = await this.reader.one(STREAM, organizationId, id);
    return dataAnswer(found, apiKeyAnswer(id, found.state, found.revision));
  }

  @Put(':id')
  @Roles('admin')
  @Answers(
    'Changes the named fields of an API key.',
    'Appends `ApiKeyRenamed` or `ApiKeyRateLimitChanged`. What a key may do never changes: make another key instead.',
    { 200: dataOf(apiKeySchema) },
  )
  async change(
    @Param('id', ResourceIdPipe) id: string,
    @Body() body: ChangeApiKeyDto,
    @InContext() context: CommandContext,
  ): Promise<Answered<{ data: ApiKeyAnswer }>> {
    const changed = await this.commands.execute(new ChangeApiKey(context, id, body));
    return dataAnswer(changed, apiKeyAnswer(id, changed.state, changed.revision));
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('admin')
  @Answers(
    'Revokes an API key, at once.',
    'Appends `ApiKeyRevoked`. This process refuses the key at once and all others within a second. A revoked key cannot be brought back.',
    { 204: null },
  )
  async revoke(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<Answered<undefined>> {
    return emptyAnswer(await this.commands.execute(new RevokeApiKey(context, id)));
  }
}
