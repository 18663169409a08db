import { Controller, Get, Inject, Query, Req } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { About, Answers, pageOf } from '../http/answers.js';
import { Caller } from '../http/parameters.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../read-models/groups.js';
import type { PageMeta } from '../read-models/paging.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import type { Principal } from '../security/api-key-lookup.js';
import { Roles } from '../security/auth.guard.js';
import { type HitAnswer, hitSchema } from './search.answer.js';
import { SearchQueryDto } from './search.dto.js';
import { SearchReader } from './search.reader.js';

@Controller('search')
@About('Finds conversations by words: in messages, subjects, tags, attributes, and the names and e-mail addresses of visitors.')
export class SearchController {
  constructor(
    @Inject(SearchReader) private readonly reader: SearchReader,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  @Get()
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Finds conversations, the best match first.',
    'All words must meet in one message, which analysts do not search, or in the own fields of a conversation: `word*` is a beginning, and so is the last word without quotes; `"two words"` stand side by side; `-word` excludes. A name or an address comes first, then texts by rank among the newest 1,000 matches. All filters of the list combine with it.',
    { 200: pageOf(hitSchema) },
    { errors: ['limit_exceeded'] },
  )
  async find(
    @Query() query: SearchQueryDto,
    @Caller() { organizationId, role }: Principal,
    @Req() request: FastifyRequest,
  ): Promise<{ data: HitAnswer[]; meta: PageMeta }> {
    await this.readYourWrites.reached(request, INSIGHT_GROUP);
    await this.readYourWrites.reached(request, CORE_GROUP);
    return await this.reader.search({
      organizationId,
      q: query.q,
      filter: query.filter(),
      paging: query.paging(),
      withhold: role === 'analyst',
    });
  }
}
