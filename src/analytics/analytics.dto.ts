import { type Status, STATUSES } from '../conversations/conversation.js';
import { ConversationFilterDto } from '../conversations/list-query.dto.js';
import { Described } from '../http/request-schema.js';
import { STREAM_TYPES, type StreamFormat } from '../http/streamed.js';
import { IfGiven, instantFault, IsInstant, IsOneOf, IsVisibleText, Limit, limited, parseInstant, rule } from '../http/validation.js';
import { timeZoneNamed } from '../inboxes/time-zone.js';
import { PAGING_PARAMETERS } from '../read-models/paging.js';
import type { Opened } from './behind.reader.js';
import { type Dimension, DIMENSIONS } from './metrics.js';
import { type Bound, type Interval, INTERVALS, type Range } from './question.js';

const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** An instant with a zone, or a day, which begins at midnight in the time zone of the question. */
const IsBound = () =>
  rule(
    'isBound',
    (value) => {
      const day = typeof value === 'string' && DAY.test(value);
      if (day ? parseInstant(`${value}T00:00:00Z`) !== undefined : instantFault(value) === undefined) return undefined;
      return `${instantFault(value) ?? 'must be an instant'}, or a day, such as 2026-01-16`;
    },
    {
      anyOf: [
        { type: 'string', format: 'date-time' },
        { type: 'string', format: 'date' },
      ],
    },
  );

const IsTimeZone = () =>
  rule('isTimeZone', (value) => (timeZoneNamed(value) === undefined ? 'must be an IANA time zone, such as Europe/Berlin' : undefined), {
    type: 'string',
    default: 'UTC',
  });

/** The range and filters of every analysis. */
export class RangeDto extends ConversationFilterDto {
  @Described({ description: 'Included. A day begins at midnight in `timezone`. Everything when absent.' })
  @IfGiven()
  @IsBound()
  from?: string;
  @Described({ description: 'Excluded. Now when absent.' })
  @IfGiven()
  @IsBound()
  to?: string;
  @IfGiven() @IsTimeZone() timezone?: string;

  range(): Range {
    return { from: bound(this.from), to: bound(this.to), timezone: timeZoneNamed(this.timezone) ?? 'UTC' };
  }
}

/** What is asked of a metric. */
export class MetricQueryDto extends RangeDto {
  @Described({ default: 'calendar', description: "For durations: all time, or only the inbox's working hours." })
  @IfGiven()
  @IsOneOf(['calendar', 'working'])
  hours?: 'calendar' | 'working';
  @IfGiven() @IsOneOf(DIMENSIONS) by?: Dimension;
  @IfGiven() @IsOneOf(INTERVALS) interval?: Interval;
  @Described({ default: 'json', description: 'CSV and NDJSON are streamed; their lines are the entries of `data`.' })
  @IfGiven()
  @IsOneOf(['json', ...Object.keys(STREAM_TYPES)])
  format?: 'json' | StreamFormat;
}

const MOST = 500;
const USUAL = 100;

/** The number that is opened, and the page. */
export class BehindQueryDto extends MetricQueryDto {
  @Described({ description: 'The `key` of a row of the breakdown `by`. All rows when absent, but for `noKey`.' })
  @IfGiven()
  @IsVisibleText(128)
  key?: string;
  // No value of `key` could stand for it, since a tag may be any text.
  @Described({ description: '`true` for the row of the breakdown `by` whose `key` is null. Not beside `key`.' })
  @IfGiven()
  @IsOneOf(['true', 'false'])
  noKey?: 'true' | 'false';
  @Described({ description: 'The `start` of a row of the series by `interval`. The whole range when absent.' })
  @IfGiven()
  @IsInstant()
  start?: string;
  @Described({ description: 'The `status` of a row of time_in_status.' })
  @IfGiven()
  @IsOneOf(STATUSES)
  inStatus?: Status;
  @IfGiven() @Limit(MOST) limit?: string;
  @Described(PAGING_PARAMETERS.cursor) @IfGiven() @IsVisibleText(1_000) cursor?: string;

  opened(): Opened {
    return {
      key: this.noKey === 'true' ? null : this.key,
      start: this.start === undefined ? undefined : parseInstant(this.start),
      inStatus: this.inStatus,
    };
  }
  size(): number {
    return limited(this.limit, USUAL, MOST);
  }
}

const bound = (text: string | undefined): Bound | undefined => (text === undefined || DAY.test(text) ? text : parseInstant(text));
