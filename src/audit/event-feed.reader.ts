import { type Kysely, sql } from 'kysely';
import { z } from 'zod';
import { batchDecoder } from '../event-decoding.js';
import { metadataOf } from '../event-store/aggregate.js';
import type { DecodeBatch } from '../event-store/decoding.js';
import { type Position, type StoredEvent, type StreamKind, streamName } from '../event-store/event-store.js';
import type { Database } from '../database/database.js';
import type { VisitorKeys } from '../security/visitor-keys.js';
import { eventAnswer, eventSchema } from '../read-models/history.js';
import type { ReadModels } from '../read-models/read-models.js';
import { type EventRow, eventsTable } from './events.table.js';

/** Events that one request looks at, at most: a type that is rare must not make it walk through a long history. */
const LOOKED_AT = 10_000;

/** As the API calls what a stream is about; an agent and a team are assignees both. */
const KINDS = {
  conversation: 'conversation',
  visitor: 'visitor',
  company: 'company',
  inbox: 'inbox',
  assignee: 'assignee',
  apikey: 'apiKey',
  cannedresponse: 'cannedResponse',
  view: 'view',
  organization: 'organization',
} as const satisfies Partial<Record<StreamKind, string>>;

export const feedEventSchema = eventSchema
  .extend({ stream: z.strictObject({ kind: z.enum(Object.values(KINDS)), id: z.string() }) })
  .meta({ id: 'FeedEvent' });
export type FeedEvent = z.infer<typeof feedEventSchema>;

export const feedPageSchema = z.strictObject({
  data: z.array(feedEventSchema),
  meta: z.strictObject({
    limit: z.number().int(),
    hasMore: z.boolean(),
    next: z.string().describe('Pass as after for what comes behind this page: how far was looked, also when nothing was found.'),
  }),
});
export type FeedPage = z.infer<typeof feedPageSchema>;

/** Reads an organization's events in the order in which they were stored. */
export class EventsFeed {
  readonly #decode: DecodeBatch;

  constructor(
    private readonly database: Kysely<Database>,
    private readonly readModels: ReadModels,
    keys: VisitorKeys,
  ) {
    this.#decode = batchDecoder(keys);
  }

  /**
   * The events after a position, which itself is left out, oldest first. None that is stored before the last one of a page is ever missing
   * from it or from those before.
   * @param types those that are wanted; all when absent
   */
  async page(
    organizationId: string,
    after: Position | 'start',
    { limit, types }: { readonly limit: number; readonly types?: readonly string[] | undefined },
  ): Promise<FeedPage> {
    const { rows, looked } = await this.#read(organizationId, after === 'start' ? '' : after, limit, types);
    const shown = rows.slice(0, limit);
    const hasMore = rows.length > limit || looked.full;
    const next = rows.length > limit ? shown.at(-1)?.position : looked.through;
    return { data: await this.#answers(shown), meta: { limit, hasMore, next: next ?? after } };
  }

  /** One row more than asked, and how far the look went. */
  async #read(
    organizationId: string,
    after: string,
    limit: number,
    types: readonly string[] | undefined,
  ): Promise<{ rows: readonly EventRow[]; looked: { readonly through: string | undefined; readonly full: boolean } }> {
    const events = this.readModels.view(eventsTable);
    if (types === undefined) {
      const { rows } = await sql<EventRow>`
        select * from ${events} where organization_id = ${organizationId} and position > ${after}
        order by position limit ${limit + 1}`.execute(this.database);
      return { rows, looked: { through: rows.at(-1)?.position, full: false } };
    }
    const { rows } = await sql<(EventRow | { [column in keyof EventRow]: null }) & { through: string | null; looked: number }>`
      with looked as materialized (
        select position, type from ${events} where organization_id = ${organizationId} and position > ${after}
        order by position limit ${LOOKED_AT}
      ), found as (
        select position from looked where type = any(${types}::text[]) order by position limit ${limit + 1}
      )
      select e.*, l.through, l.looked
      from (select max(position) as through, count(*)::integer as looked from looked) l
      left join (found join ${events} e on e.organization_id = ${organizationId} and e.position = found.position) on true
      order by e.position`.execute(this.database);
    const [first] = rows;
    return {
      rows: rows.filter((row): row is EventRow & { through: string | null; looked: number } => row.position !== null),
      looked: { through: first?.through ?? undefined, full: first?.looked === LOOKED_AT },
    };
  }

  async #answers(rows: readonly EventRow[]): Promise<FeedEvent[]> {
    const stored = rows.map((row) => ({ row, event: storedEvent(row) }));
    const { decoded } = await this.#decode(stored.map(({ event }) => event));
    const readable = new Map(decoded.map(({ event }) => [event.position, event]));
    return stored.map(({ row, event }) => {
      // What this build cannot read is told as it is stored, so that whoever follows misses nothing.
      const told = readable.get(event.position) ?? { ...event, metadata: metadataOf(event), data: parsed(event.data) };
      return { ...eventAnswer(told), stream: { kind: KINDS[row.kind as keyof typeof KINDS], id: row.stream_id } };
    });
  }
}

function storedEvent(row: EventRow): StoredEvent {
  const { position, revision, event_id: id, type, data, metadata } = row;
  return {
    stream: streamName(row.kind, row.organization_id, row.stream_id),
    revision,
    position: position as Position,
    id,
    type,
    data,
    metadata,
  };
}

function parsed(data: string): object {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null ? value : { value };
  } catch {
    return { text: data };
  }
}
