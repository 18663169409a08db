import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql } from 'kysely';
import { z } from 'zod';
import { ThreadlogError } from '../errors.js';
import { unsealingDecoder } from '../event-decoding.js';
import { TOLD_STREAMS } from '../features.js';
import { metadataOf } from '../event-store/aggregate.js';
import { EVENT_STORE, type EventStore, type Position } from '../event-store/event-store.js';
import { DATABASE, type Database } from '../database/database.js';
import { VisitorKeys } from '../security/visitor-keys.js';
import { eventAnswer, eventSchema } from '../read-models/history.js';
import { ReadModels } from '../read-models/read-models.js';
import { type EventRow, eventsTable, storedEvent } from './events.table.js';

/** The most events that one request examines: a rare type must not make it walk through a long history. */
const LOOKED_AT = 10_000;

export const feedEventSchema = eventSchema
  .extend({ stream: z.strictObject({ kind: z.enum([...TOLD_STREAMS.values()]), id: z.string() }) })
  .meta({ id: 'FeedEvent' });
export type FeedEvent = z.infer<typeof feedEventSchema>;

export const feedPageSchema = z.strictObject({
  data: z.array(feedEventSchema),
  meta: z.strictObject({
    limit: z.number().int(),
    hasMore: z.boolean(),
    next: z.string().describe('Pass as after for the next page: the position that the search reached, even when it found nothing.'),
  }),
});
export type FeedPage = z.infer<typeof feedPageSchema>;

/** Reads an organization's events in the order in which they were stored. */
@Injectable()
export class EventsFeed {
  readonly #decode: ReturnType<typeof unsealingDecoder>;

  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(VisitorKeys) keys: VisitorKeys,
    @Inject(EVENT_STORE) private readonly store: EventStore,
  ) {
    this.#decode = unsealingDecoder(keys);
  }

  /**
   * The events after a position (excluded), oldest first. No event before the last one of a page is ever missing from that page or from the
   * pages before it.
   * @param types the wanted types; all by default
   * @param until the last position to look at; the end of the feed by default
   * @throws ThreadlogError validation_failed for a position beyond the end of the log
   */
  async page(
    organizationId: string,
    after: Position | 'start',
    { limit, types, until }: { readonly limit: number; readonly types?: readonly string[] | undefined; readonly until?: Position },
  ): Promise<FeedPage> {
    const { rows, looked } = await this.#read(organizationId, after === 'start' ? '' : after, limit, types, until);
    if (rows.length === 0 && looked.through === undefined) await this.#assertReached(after);
    const shown = rows.slice(0, limit);
    const hasMore = rows.length > limit || looked.full;
    const next = rows.length > limit ? shown.at(-1)?.position : looked.through;
    return { data: await this.#answers(shown), meta: { limit, hasMore, next: next ?? after } };
  }

  /** The position of the organization's last event in the feed. */
  async head(organizationId: string): Promise<Position | 'start'> {
    const { rows } = await sql<{ position: Position }>`
      select position from ${this.readModels.view(eventsTable)} where organization_id = ${organizationId}
      order by position desc limit 1`.execute(this.database);
    return rows[0]?.position ?? 'start';
  }

  /**
   * Whoever goes on from a position that the log has not reached, such as a position of another log or of a time before a restore, would
   * silently miss the events up to it.
   */
  async #assertReached(after: Position | 'start'): Promise<void> {
    if (after === 'start') return;
    const head = await this.store.head();
    if (head !== 'start' && after <= head) return;
    const message = `is beyond the end of the log, which is ${head === 'start' ? 'empty' : `at ${head}`}`;
    throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: 'after', message }] });
  }

  /** Up to one row more than requested, and the position that the search reached. */
  async #read(
    organizationId: string,
    after: string,
    limit: number,
    types: readonly string[] | undefined,
    until: Position | undefined,
  ): Promise<{ rows: readonly EventRow[]; looked: { readonly through: string | undefined; readonly full: boolean } }> {
    const events = this.readModels.view(eventsTable);
    const range = sql`organization_id = ${organizationId} and position > ${after}${until === undefined ? sql`` : sql` and position <= ${until}`}`;
    if (types === undefined) {
      const { rows } = await sql<EventRow>`
        select * from ${events} where ${range} order by position limit ${limit + 1}`.execute(this.database);
      return { rows, looked: { through: rows.at(-1)?.position, full: false } };
    }
    const { rows } = await sql<(EventRow | { [column in keyof EventRow]: null }) & { through: string | null; looked: number }>`
      with looked as materialized (
        select position, type from ${events} where ${range} order by position limit ${LOOKED_AT}
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
    const readable = new Map(decoded.map((event) => [event.position, event]));
    return stored.map(({ row, event }) => {
      // An event that this build cannot read is answered as stored, so that followers miss nothing.
      const told = readable.get(event.position) ?? { ...event, metadata: metadataOf(event), data: parsed(event.data) };
      return { ...eventAnswer(told), stream: { kind: TOLD_STREAMS.get(row.kind) ?? row.kind, id: row.stream_id } };
    });
  }
}

function parsed(data: string): object {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null ? value : { value };
  } catch {
    return { text: data };
  }
}
