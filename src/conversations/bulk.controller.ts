import { Body, Controller, HttpCode, Inject, Post, Req } from '@nestjs/common';
import { CommandBus } from '@nestjs/cqrs';
import { z } from 'zod';
import type { FastifyRequest } from 'fastify';
import { Answered } from '../http/answered.js';
import { Answers } from '../http/answers.js';
import { Roles } from '../security/auth.guard.js';
import { principalOf } from '../security/callers.js';
import { commandContext } from '../http/request-context.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { type BulkAnswer, bulkItemSchema, type BulkMeta, bulkMeta, bulkMetaSchema } from './bulk.answer.js';
import { ChangeManyConversations } from './bulk.commands.js';
import { BulkDto } from './bulk.dto.js';

/** One action on up to 500 conversations. The request always answers 200; every item has a status of its own. */
@Controller('conversations/bulk')
export class BulkController {
  constructor(
    private readonly commands: CommandBus,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  @Post()
  @HttpCode(200)
  @Roles('admin', 'agent')
  @Answers(
    'Does one thing to up to 500 conversations, named or found by a filter; every item has its own result.',
    'Each conversation is changed by a command of its own and appends the same events as a single request; a refused item stops no other. The answer is always 200 and holds a status for every conversation. A retry with the same `Idempotency-Key` completes an interrupted request.',
    { 200: z.strictObject({ data: z.array(bulkItemSchema), meta: bulkMetaSchema }) },
    {
      errors: [
        'unknown_assignee',
        'unknown_team',
        'unknown_inbox',
        'unknown_canned_response',
        'limit_exceeded',
        'outcome_unknown',
        'read_model_behind',
        'stream_parked',
      ],
    },
  )
  async changeMany(@Body() body: BulkDto, @Req() request: FastifyRequest): Promise<Answered<{ data: BulkAnswer; meta: BulkMeta }>> {
    const selection = body.selection();
    if ('filter' in selection) await this.readYourWrites.reached(request, CORE_GROUP);
    const command = new ChangeManyConversations(commandContext(request), principalOf(request).keyName, selection, body.command());
    const { items, position } = await this.commands.execute(command);
    return new Answered({ data: [...items], meta: bulkMeta(items) }, position === null ? {} : { position });
  }
}
