import { Controller, Get, Inject, Query, Req } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { TOLD_TYPES } from '../features.js';
import type { Position } from '../event-store/event-store.js';
import { ThreadlogError } from '../errors.js';
import { Answered } from '../http/answered.js';
import { OrganizationId } from '../http/parameters.js';
import { About, Answers } from '../http/answers.js';
import { ndjson, Streamed } from '../http/streamed.js';
import { Described } from '../http/request-schema.js';
import { Roles } from '../security/auth.guard.js';
import { POSITION_FORM } from '../security/caller-positions.js';
import { Becomes, IfGiven, IsList, IsMatching, IsOneOf, Limit, limited, madeOfText } from '../http/validation.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { FeedExports } from './event-feed.exports.js';
import { EventsFeed, type FeedPage, feedPageSchema } from './event-feed.reader.js';

/** Events in one page of the feed. */
const MOST = 1_000;
const USUAL = 100;
const POSITION = new RegExp(`^(start|${POSITION_FORM})$`);

class FeedQueryDto {
  @Described({
    type: 'string',
    pattern: POSITION.source,
    default: 'start',
    description: 'Exclusive: `meta.next` of the previous page, the X-Position of any answer, or `start` for the beginning of the log.',
  })
  @IfGiven()
  @IsMatching(POSITION, 'must be start, or a position from an earlier answer')
  after?: string;
  @IfGiven() @Limit(MOST) limit?: string;
  /** Repeated, or one value with commas. */
  @Becomes((value) => (typeof value === 'string' ? madeOfText(value.split(',')) : value))
  @IfGiven()
  @IsList({ min: 1, max: TOLD_TYPES.length })
  @IsOneOf(TOLD_TYPES, { each: true })
  types?: string[];
  /** `ndjson` streams all events up to where the feed ends now, one a line, and `{meta: {events, next}}` as the last line; without `limit`. */
  @IfGiven() @IsOneOf(['json', 'ndjson']) format?: 'json' | 'ndjson';

  get position(): Position | 'start' {
    return (this.after ?? 'start') as Position | 'start';
  }
  get size(): number {
    return limited(this.limit, USUAL, MOST);
  }
}

/** Everything that happened in an organization, for auditors and for programs that follow it. */
@Controller('events')
@About('Everything that happened in the organization, in order.')
export class EventsController {
  constructor(
    @Inject(EventsFeed) private readonly feed: EventsFeed,
    @Inject(FeedExports) private readonly exports: FeedExports,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  @Get()
  @Roles('admin', 'auditor')
  @Answers(
    "Reads the organization's events in the order in which they were stored.",
    'For auditors, and for programs that follow all changes: ask again after `meta.next`, and no event is missed or repeated. `types` selects event types. Personal fields are in plain text, and `[erased]` once the visitor was erased.',
    { 200: feedPageSchema },
    { formats: ['ndjson'] },
  )
  async read(
    @Query() query: FeedQueryDto,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<Answered<FeedPage> | Streamed> {
    if (query.format === 'ndjson' && query.limit !== undefined)
      throw new ThreadlogError('validation_failed', undefined, {
        errors: [{ field: 'limit', message: 'must be absent beside format=ndjson, which has no pages' }],
      });
    await this.readYourWrites.reached(request, CORE_GROUP, { parked: true });
    if (query.format === 'ndjson') {
      const cut = () => request.raw.destroy();
      return new Streamed('ndjson', 'events', ndjson(this.exports.rows(organizationId, query.position, query.types, cut)));
    }
    const page = await this.feed.page(organizationId, query.position, { limit: query.size, types: query.types });
    return new Answered(page, page.meta.next === 'start' ? {} : { position: page.meta.next });
  }
}
