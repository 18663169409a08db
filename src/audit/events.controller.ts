import { Controller, Get, Inject, Query, Req, Res } from '@nestjs/common';
import { ArrayMaxSize, ArrayMinSize, IsArray, IsIn, Matches } from 'class-validator';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { FEED_TYPES } from '../event-decoding.js';
import type { Position } from '../event-store/event-store.js';
import { Answers } from '../platform/answers.js';
import { Roles } from '../platform/auth.guard.js';
import { principalOf } from '../platform/callers.js';
import { Described } from '../platform/request-schema.js';
import { Becomes, IfGiven, Limit, limited } from '../platform/validation.js';
import { ReadModel } from '../read-models/read-your-writes.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { EventsFeed, type FeedPage, feedPageSchema } from './events-feed.js';

/** Events in one page of the feed. */
const MOST = 1_000;
const USUAL = 100;

class FeedQueryDto {
  /** Exclusive: `meta.next` of the page before, or the X-Position of any answer. */
  @IfGiven()
  @Matches(/^(start|\d{19}(-\d{19})?)$/, { message: 'after must be start, or a position as answers give it' })
  after?: string;
  @IfGiven() @Limit(MOST) limit?: string;
  /** Repeated, or in one with commas between. */
  @Described({ type: 'array', items: { type: 'string', enum: [...FEED_TYPES] }, minItems: 1, maxItems: FEED_TYPES.length })
  @Becomes((value) => (typeof value === 'string' ? value.split(',') : value))
  @IfGiven()
  @IsArray()
  @ArrayMinSize(1)
  @ArrayMaxSize(FEED_TYPES.length)
  @IsIn(FEED_TYPES, { each: true })
  types?: string[];

  get position(): Position | 'start' {
    return (this.after ?? 'start') as Position | 'start';
  }
  get size(): number {
    return limited(this.limit, USUAL, MOST);
  }
}

/** All that happened in an organization, for auditors and for programs that follow it. */
@Controller('events')
export class EventsController {
  constructor(
    @Inject(EventsFeed) private readonly feed: EventsFeed,
    @Inject(ReadModel) private readonly readModel: ReadModel,
  ) {}

  @Get()
  @Roles('admin', 'auditor')
  @Answers("Reads the organization's events in the order in which they were stored.", { 200: feedPageSchema })
  async read(
    @Query() query: FeedQueryDto,
    @Req() request: FastifyRequest,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FeedPage> {
    await this.readModel.reached(request, CORE_GROUP, { parked: true });
    const page = await this.feed.page(principalOf(request).organizationId, query.position, { limit: query.size, types: query.types });
    if (page.meta.next !== 'start') void reply.header('x-position', page.meta.next);
    return page;
  }
}
