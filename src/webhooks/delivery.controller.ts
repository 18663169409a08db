import { Body, Controller, Get, HttpCode, Inject, Param, Post, Query } from '@nestjs/common';
import type { CommandContext } from '../commands/command-context.js';
import { Answers, dataOf } from '../http/answers.js';
import { InContext, OrganizationId } from '../http/parameters.js';
import { Described, Examples } from '../http/request-schema.js';
import { ResourceIdPipe } from '../http/resource-id.pipe.js';
import {
  Becomes,
  IfGiven,
  IfGivenOrWithout,
  IsInstant,
  IsList,
  IsMatching,
  IsNotBeside,
  IsOneOf,
  IsResourceId,
  IsTrueOrFalse,
  Limit,
  limited,
  madeOfText,
  NullIsAbsent,
} from '../http/validation.js';
import { PUBLIC_EVENTS } from '../conversations/public-event.js';
import { POSITION_FORM } from '../security/caller-positions.js';
import { ResourceReader } from '../read-models/resource-reader.js';
import { Roles } from '../security/auth.guard.js';
import {
  DELIVERY_STATUSES,
  type DeliveriesPage,
  deliveriesPageSchema,
  type DeliveryAnswer,
  deliverySchema,
  type DeliveryStatus,
  type DeliveryWithAttemptsAnswer,
  deliveryWithAttemptsAnswer,
  deliveryWithAttemptsSchema,
  replaySchema,
} from './delivery.answer.js';
import { DeliveryReader } from './delivery.reader.js';
import { DeliveryWriter } from './delivery.writer.js';
import { ANY_EVENT, DELIVERED_EVENTS } from './webhook-event.js';
import { webhookAggregate } from './webhook.js';

const MOST = 100;
const USUAL = 25;

const listed = (value: unknown) => (typeof value === 'string' ? madeOfText(value.split(',')) : value);

class DeliveriesQueryDto {
  /** Repeated, or one value with commas. */
  @Becomes(listed)
  @IfGiven()
  @IsList({ min: 1, max: DELIVERY_STATUSES.length })
  @IsOneOf(DELIVERY_STATUSES, { each: true })
  status?: DeliveryStatus[];
  /** Repeated, or one value with commas. */
  @Becomes(listed) @IfGiven() @IsList({ min: 1, max: DELIVERED_EVENTS.length }) @IsOneOf(DELIVERED_EVENTS, { each: true }) event?: string[];
  @IfGiven() @IsResourceId() conversationId?: string;
  /** When the delivery was made, both included. */
  @IfGiven() @IsInstant() from?: string;
  @IfGiven() @IsInstant() to?: string;
  @Described({ type: 'string', description: 'nextCursor of the page before, with the same filters.' })
  @IfGiven()
  @IsMatching(/^[\w.-]{1,200}$/, 'is not a cursor of this list and filter')
  cursor?: string;
  @IfGiven() @Limit(MOST) limit?: string;
}

const POSITION = new RegExp(`^(start|${POSITION_FORM}(\\.\\d)?)$`);
const REPLAYED: readonly string[] = [...PUBLIC_EVENTS, ANY_EVENT];

@Examples({
  'what was missed since an instant': { from: '2026-01-16T09:00:00Z' },
  'how much that is': { from: '2026-01-16T09:00:00Z', dryRun: true },
})
class ReplayDto {
  @Described({ type: 'string', pattern: POSITION.source, description: 'Exclusive: the position of a delivery or of any answer, or start.' })
  @IfGivenOrWithout('from')
  @IsMatching(POSITION, 'must be start, or a position from an earlier answer')
  after?: string;
  /** When the events happened; both included. */
  @IfGivenOrWithout('after') @IsNotBeside('after') @IsInstant() from?: string;
  /** By default, now. */
  @NullIsAbsent() @IsInstant() to?: string;
  /** Only these of the events that the webhook asks for. */
  @NullIsAbsent() @IsList({ min: 1, max: REPLAYED.length, unique: true }) @IsOneOf(REPLAYED, { each: true }) events?: string[];
  /** Only counts. */
  @NullIsAbsent() @IsTrueOrFalse() dryRun?: boolean;
}

/** What an endpoint was sent, with every attempt. */
@Controller('webhooks')
export class DeliveryController {
  constructor(
    @Inject(ResourceReader) private readonly resources: ResourceReader,
    @Inject(DeliveryReader) private readonly reader: DeliveryReader,
    @Inject(DeliveryWriter) private readonly writer: DeliveryWriter,
  ) {}

  @Get(':id/deliveries')
  @Roles('admin', 'auditor')
  @Answers(
    'Lists the deliveries of a webhook, the newest first.',
    'Each is one event for this webhook. Deliveries are kept for 30 days once they were delivered or given up.',
    { 200: deliveriesPageSchema },
  )
  async deliveries(
    @Param('id', ResourceIdPipe) id: string,
    @Query() query: DeliveriesQueryDto,
    @OrganizationId() organizationId: string,
  ): Promise<DeliveriesPage> {
    await this.resources.one({ aggregate: webhookAggregate }, organizationId, id);
    const { status, event, conversationId, from, to, cursor, limit } = query;
    const filter = {
      ...(status === undefined ? {} : { status }),
      ...(event === undefined ? {} : { event }),
      ...(conversationId === undefined ? {} : { conversationId }),
      ...(from === undefined ? {} : { from: Date.parse(from) }),
      ...(to === undefined ? {} : { to: Date.parse(to) }),
    };
    return this.reader.page(organizationId, id, filter, { limit: limited(limit, USUAL, MOST), cursor });
  }

  @Get(':id/deliveries/:deliveryId')
  @Roles('admin', 'auditor')
  @Answers(
    'Reads a delivery with its attempts.',
    'Answers the latest 50 attempts, each with the first 4 KB of the answer, which can be read until the visitor is erased.',
    {
      200: dataOf(deliveryWithAttemptsSchema),
    },
  )
  async delivery(
    @Param('id', ResourceIdPipe) id: string,
    @Param('deliveryId', ResourceIdPipe) deliveryId: string,
    @OrganizationId() organizationId: string,
  ): Promise<{ data: DeliveryWithAttemptsAnswer }> {
    const row = await this.reader.one(organizationId, id, deliveryId);
    return { data: deliveryWithAttemptsAnswer(row, await this.reader.attempts(organizationId, row)) };
  }

  @Post(':id/deliveries/:deliveryId/resend')
  @HttpCode(202)
  @Roles('admin')
  @Answers(
    'Sends a delivery again, now.',
    'With the same `webhook-id`: a delivery that waits behind another one overtakes it, and one that is being sent is sent once more afterwards. Attempts begin again with the first pause. Appends nothing.',
    { 202: dataOf(deliverySchema) },
    { errors: ['webhook_disabled'] },
  )
  async resend(
    @Param('id', ResourceIdPipe) id: string,
    @Param('deliveryId', ResourceIdPipe) deliveryId: string,
    @InContext() context: CommandContext,
  ): Promise<{ data: DeliveryAnswer }> {
    return { data: await this.writer.resend(context, id, deliveryId) };
  }

  @Post(':id/ping')
  @HttpCode(202)
  @Roles('admin')
  @Answers(
    'Sends a test.',
    'Delivers `webhook.ping`, to a disabled webhook too; the answered delivery tells how it went. Appends nothing.',
    {
      202: dataOf(deliverySchema),
    },
  )
  async ping(@Param('id', ResourceIdPipe) id: string, @InContext() context: CommandContext): Promise<{ data: DeliveryAnswer }> {
    return { data: await this.writer.ping(context, id) };
  }

  @Post(':id/replay')
  @HttpCode(202)
  @Roles('admin')
  @Answers(
    'Delivers past events again.',
    'Answers how many deliveries are made, in the order of the log, each with an id of its own; at most 50,000 events are looked at, ten replays of an organization may wait or run, and none begins while 100,000 deliveries wait for the webhook. They follow what waits already, by the filters and events that the webhook has now, and imported events are not told. Appends nothing.',
    { 202: dataOf(replaySchema) },
    { errors: ['webhook_disabled', 'limit_exceeded', 'read_model_behind'] },
  )
  async replay(
    @Param('id', ResourceIdPipe) id: string,
    @Body() { after, from, to, events, dryRun = false }: ReplayDto,
    @InContext() context: CommandContext,
  ): Promise<{ data: { count: number } }> {
    const instant = (text: string) => new Date(text).toISOString();
    const replayed = {
      after: after === undefined || after === 'start' ? '' : after,
      ...(from === undefined ? {} : { from: instant(from) }),
      ...(to === undefined ? {} : { to: instant(to) }),
      ...(events === undefined ? {} : { events }),
    };
    return { data: await this.writer.replay(context, id, replayed, dryRun) };
  }
}
