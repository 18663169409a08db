import { Controller, Get, Inject, Param, Query, Req } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type FieldError, ThreadlogError } from '../errors.js';
import { About, Answers } from '../http/answers.js';
import { Caller, OrganizationId } from '../http/parameters.js';
import { type Batches, csv, ndjson, Streamed, type StreamFormat } from '../http/streamed.js';
import { CORE_GROUP, INSIGHT_GROUP } from '../read-models/groups.js';
import { ReadYourWrites } from '../read-models/read-your-writes.js';
import type { Principal } from '../security/api-key-lookup.js';
import { Roles } from '../security/auth.guard.js';
import {
  behindSchema,
  type EventBehind,
  type MetricAnswer,
  metricRowSchema,
  type MetricRow,
  metricSchema,
  type SixNumbers,
  sixNumbersSchema,
  type ToldAnswer,
  toldSchema,
} from './analytics.answer.js';
import { BehindQueryDto, MetricQueryDto, RangeDto } from './analytics.dto.js';
import { AnalyticsReader, type Told } from './analytics.reader.js';
import { BehindReader, type Opened } from './behind.reader.js';
import { DEFINITIONS_VERSION, type Metric, METRIC_NAMES, metricNamed, METRICS } from './metrics.js';
import { filtersOf, type Question } from './question.js';

/** Numbers, computed from facts that never change. */
@Controller('analytics')
@About('Numbers about the work, computed from the events. Every number can be opened down to the events behind it.')
export class AnalyticsController {
  constructor(
    @Inject(AnalyticsReader) private readonly reader: AnalyticsReader,
    @Inject(BehindReader) private readonly behind: BehindReader,
    @Inject(ReadYourWrites) private readonly readYourWrites: ReadYourWrites,
  ) {}

  @Get('conversations')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Answers the six numbers of the dashboard.',
    'Open conversations are counted now and `resolvedToday` for the day that it is in `timezone`; the others over the range. Filters by inbox, team, assignee, priority and tag select events as they were, and all other filters conversations as they are now.',
    { 200: z.strictObject({ data: sixNumbersSchema, meta: toldSchema }) },
    { errors: ['limit_exceeded'] },
  )
  async sixNumbers(
    @Query() query: RangeDto,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: SixNumbers; meta: ToldAnswer }> {
    const filter = query.filter();
    await this.#reached(request, filter);
    const range = query.range();
    const { data, told } = await this.reader.sixNumbers(organizationId, range, filter);
    return { data, meta: toldAnswer(told, range.timezone) };
  }

  @Get('metrics')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Lists every metric with its definition.',
    'The definitions hold for the API, the views of the schema `analytics` and the docs.',
    {
      200: z.strictObject({ data: z.array(metricSchema), meta: z.strictObject({ definitions: toldSchema.shape.definitions }) }),
    },
  )
  metrics(): { data: MetricAnswer[]; meta: Pick<ToldAnswer, 'definitions'> } {
    return { data: METRICS.map(metricAnswer), meta: { definitions: DEFINITIONS_VERSION } };
  }

  @Get('metrics/:metric')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Answers a metric, whole, by interval, and broken down.',
    'Rows come by start and key. A series without `by` has a row for each interval; a row of a breakdown exists where something was counted. Filters by inbox, team, assignee, priority and tag select events as they were, and all other filters conversations as they are now.',
    { 200: z.strictObject({ data: z.array(metricRowSchema), meta: toldSchema }) },
    { errors: ['limit_exceeded'], formats: ['csv', 'ndjson'], path: { metric: { type: 'string', enum: METRIC_NAMES } } },
  )
  async metric(
    @Param('metric') name: string,
    @Query() query: MetricQueryDto,
    @OrganizationId() organizationId: string,
    @Req() request: FastifyRequest,
  ): Promise<{ data: MetricRow[]; meta: ToldAnswer } | Streamed> {
    const question = questionOf(organizationId, name, query);
    await this.#reached(request, question.filter);
    const { data, told } = await this.reader.rows(question);
    const { format = 'json' } = query;
    if (format === 'json') return { data, meta: toldAnswer(told, question.range.timezone) };
    return streamed(format, name, METRIC_COLUMNS, [data]);
  }

  @Get('metrics/:metric/conversations')
  @Roles('admin', 'agent', 'auditor', 'analyst')
  @Answers(
    'Opens a number: the conversations and the events behind it, newest first.',
    'Takes the same parameters as the number, and `key` or `noKey`, `start` and `inStatus` for one row of it. `meta.count` equals the number; of `backlog` the event is the one since which the conversation waits as it does.',
    {
      200: z.strictObject({
        data: z.array(behindSchema),
        meta: toldSchema.extend({
          count: z.number().int().describe('The number that was opened.'),
          conversations: z.number().int().describe('The different conversations behind it.'),
          limit: z.number().int(),
          hasMore: z.boolean(),
          nextCursor: z.string().nullable(),
        }),
      }),
    },
    { errors: ['limit_exceeded'], formats: ['csv', 'ndjson'], path: { metric: { type: 'string', enum: METRIC_NAMES } } },
  )
  async conversations(
    @Param('metric') name: string,
    @Query() query: BehindQueryDto,
    @Caller() { organizationId, role }: Principal,
    @Req() request: FastifyRequest,
  ): Promise<object> {
    const question = questionOf(organizationId, name, query);
    const opened = openedOf(question, query);
    await this.#reached(request, question.filter);
    const { format = 'json', cursor } = query;
    if (format !== 'json')
      return streamed(
        format,
        `${name}-conversations`,
        BEHIND_COLUMNS,
        this.behind.stream(question, opened, () => request.raw.destroy()),
      );
    await this.readYourWrites.reached(request, CORE_GROUP);
    const limit = query.size();
    const page = await this.behind.page(question, opened, { limit, cursor }, role === 'analyst');
    const { data, count, conversations, hasMore, nextCursor, ...told } = page;
    return { data, meta: { ...toldAnswer(told, question.range.timezone), count, conversations, limit, hasMore, nextCursor } };
  }

  /** Filters that select conversations as they are now also read the list. */
  async #reached(request: FastifyRequest, filter: Question['filter']): Promise<void> {
    await this.readYourWrites.reached(request, INSIGHT_GROUP);
    if (filtersOf(filter).conversations !== undefined) await this.readYourWrites.reached(request, CORE_GROUP);
  }
}

const METRIC_COLUMNS = ['start', 'key', 'name', 'status', 'count', 'sum', 'mean', 'median', 'p90'] as const satisfies (keyof MetricRow)[];
const BEHIND_COLUMNS = [
  'conversationId',
  'revision',
  'at',
  'inboxId',
  'channel',
  'priority',
  'agentId',
  'teamId',
  'tags',
  'status',
  'value',
] as const satisfies (keyof EventBehind)[];

const streamed = <R extends object>(
  format: StreamFormat,
  name: string,
  columns: readonly (keyof R & string)[],
  batches: Batches<R>,
): Streamed => new Streamed(format, name, format === 'csv' ? csv(columns, batches) : ndjson(batches));

/** Which row of an answer is opened. @throws ThreadlogError validation_failed */
function openedOf({ metric, by, interval }: Question, query: BehindQueryDto): Opened {
  const opened = query.opened();
  const errors: FieldError[] = [];
  if (opened.key !== undefined && by === undefined) errors.push({ field: opened.key === null ? 'noKey' : 'key', message: 'needs by' });
  if (opened.key === null && query.key !== undefined) errors.push({ field: 'noKey', message: 'cannot be beside key' });
  if (opened.start !== undefined && interval === undefined) errors.push({ field: 'start', message: 'needs interval' });
  if (opened.inStatus !== undefined && metric.behind.status === undefined)
    errors.push({ field: 'inStatus', message: `is of no use for ${metric.name}, which tells no statuses apart` });
  if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
  return opened;
}

/** @throws ThreadlogError not_found, validation_failed */
function questionOf(organizationId: string, name: string, query: MetricQueryDto): Question {
  const metric = metricNamed(name);
  if (metric === undefined) throw new ThreadlogError('not_found');
  const { hours = 'calendar', by, interval } = query;
  const errors: FieldError[] = [];
  if (by !== undefined && !metric.dimensions.includes(by))
    errors.push({ field: 'by', message: `must be one of ${metric.dimensions.join(', ')} for ${name}` });
  if (hours === 'working' && metric.behind.working === undefined)
    errors.push({ field: 'hours', message: `must be calendar, or absent, for ${name}, which is not measured in time` });
  if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
  return { organizationId, metric, range: query.range(), hours, by, interval, filter: query.filter() };
}

const instant = (at: number | undefined) => (at === undefined ? null : new Date(at).toISOString());

const toldAnswer = ({ instants: { from, to }, asOf }: Told, timezone: string): ToldAnswer => ({
  definitions: DEFINITIONS_VERSION,
  from: instant(from),
  to: instant(to),
  timezone,
  asOf,
});

const metricAnswer = ({ name, unit, definition, belongsTo, dimensions, behind }: (typeof METRICS)[number]): MetricAnswer => ({
  name,
  unit,
  definition,
  belongsTo,
  dimensions: [...dimensions],
  hours: (behind as Metric['behind']).working === undefined ? [] : ['calendar', 'working'],
});
