import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, type RawBuilder, sql } from 'kysely';
import { type EventRow, eventsTable } from '../audit/events.table.js';
import { conversationAggregate } from '../conversations/conversation.js';
import { parsePublicPosition } from '../conversations/public-event.js';
import { DATABASE, type Database } from '../database/database.js';
import { ThreadlogError } from '../errors.js';
import { decode } from '../event-store/aggregate.js';
import { EVENT_STORE, type EventStore, type Position, streamName } from '../event-store/event-store.js';
import { ReadModels } from '../read-models/read-models.js';
import type { NewDelivery } from './delivery.rows.js';
import { type ConversationHappening, Telling } from './webhook.telling.js';
import { ANY_EVENT } from './webhook-event.js';
import type { Webhook } from './webhook.js';

/** Which events a replay tells again. */
export interface Replayed {
  /** Positions: excluded, as publicPosition() or '' for the beginning, and included. */
  readonly after: string;
  readonly through: string;
  /** When the events happened: ISO instants with milliseconds, both included. */
  readonly from?: string;
  readonly to?: string;
  /** Only these among those that the endpoint asks for. */
  readonly events?: readonly string[];
}

/** Events of conversations that one replay may look at. */
const MOST_EVENTS = 50_000;
const PAGE = 500;
/** How far apart the clocks of the processes that write may be: events are in the log in the order of their times only up to this (ms). */
const CLOCKS_MS = 3_600_000;
/** After so many events in a row that happened later than wanted, the end is reached. */
const LATER_ENOUGH = 2_000;

/** A part of a replay. */
interface ReplayPage {
  readonly made: readonly NewDelivery[];
  /** The events that they tell. */
  readonly told: readonly ConversationHappening[];
  /** How many events were looked at. */
  readonly looked: number;
}

/** Finds what an endpoint would have been told of the past, in the feed of events. */
@Injectable()
export class Replays {
  private readonly telling: Telling;

  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
    @Inject(EVENT_STORE) store: EventStore,
  ) {
    this.telling = new Telling(store);
  }

  /** @throws ThreadlogError limit_exceeded when the range holds too many events */
  async count(organizationId: string, webhookId: string, webhook: Webhook, replayed: Replayed): Promise<number> {
    let count = 0;
    let looked = 0;
    for await (const part of this.deliveries(organizationId, webhookId, webhook, replayed, '')) {
      count += part.made.length;
      looked += part.looked;
      if (looked > MOST_EVENTS)
        throw new ThreadlogError(
          'limit_exceeded',
          `a replay covers at most ${MOST_EVENTS} events of conversations; narrow it by from and to`,
        );
    }
    return count;
  }

  /** The deliveries in the order of the log, with ids of this round. The same round has the same ids. */
  async *deliveries(
    organizationId: string,
    webhookId: string,
    webhook: Webhook,
    replayed: Replayed,
    round: string,
  ): AsyncGenerator<ReplayPage, void, undefined> {
    const { events, from, to, through } = replayed;
    const asked = events === undefined ? webhook : { ...webhook, events: narrowed(webhook.events, events) };
    // A position between the public events of one stored event leaves out only those up to it.
    const { position: first, told: toldOfFirst } = parsePublicPosition(replayed.after);
    const begin = from === undefined ? first : await this.before(organizationId, Date.parse(from) - CLOCKS_MS, through);
    const end = to === undefined ? Infinity : Date.parse(to) + CLOCKS_MS;
    let later = 0;
    for (let after = begin, including = from !== undefined || toldOfFirst !== Infinity; ; including = false) {
      const rows = await this.rows(organizationId, after, through, including);
      const made: NewDelivery[] = [];
      const told: ConversationHappening[] = [];
      for (const row of rows) {
        const event = decode(conversationAggregate.codec, {
          stream: streamName(row.kind, organizationId, row.stream_id),
          revision: row.revision,
          position: row.position as Position,
          id: row.event_id,
          type: row.type,
          data: row.data,
          metadata: row.metadata,
        });
        const { occurredAt } = event.metadata;
        later = Date.parse(occurredAt) > end ? later + 1 : 0;
        if ((from !== undefined && occurredAt < from) || (to !== undefined && occurredAt > to)) continue;
        const happening = { organizationId, conversationId: row.stream_id, event };
        const all = await this.telling.deliveries(webhookId, asked, happening, round);
        const left = including && row.position === first ? all.filter(({ index }) => index >= toldOfFirst) : all;
        made.push(...left);
        if (left.length > 0) told.push(happening);
      }
      yield { made, told, looked: rows.length };
      const last = rows.at(-1);
      if (last === undefined || rows.length < PAGE || later >= LATER_ENOUGH) return;
      after = last.position;
    }
  }

  /** A page of the conversations' events, imported ones left out: they are not told. */
  private async rows(organizationId: string, after: string, through: string, including: boolean): Promise<readonly EventRow[]> {
    const { rows } = await sql<EventRow>`
      select * from ${this.readModels.view(eventsTable)}
      where organization_id = ${organizationId} and position ${including ? sql`>=` : sql`>`} ${after} and position <= ${through}
        and ${TOLD} order by position limit ${PAGE}`.execute(this.database);
    return rows;
  }

  /**
   * A position before the first event that happened at an instant (ms) or later, found by halving the log: an event's time is in no index.
   * Events that are out of order by more than CLOCKS_MS may lead to a wrong half.
   */
  private async before(organizationId: string, instant: number, through: string): Promise<string> {
    let [low, high] = [0n, numberOf(through)];
    while (low < high) {
      const middle = (low + high) / 2n;
      const next = await this.beside(organizationId, sql`position >= ${padded(middle)} and position <= ${through}`, sql`asc`);
      if (next !== undefined && next.at < instant) {
        low = next.number + 1n;
        continue;
      }
      const previous = await this.beside(organizationId, sql`position < ${padded(middle)}`, sql`desc`);
      if (previous === undefined || previous.at < instant) return padded(middle);
      high = previous.number;
    }
    return padded(low);
  }

  /** The first event in a direction. */
  private async beside(
    organizationId: string,
    where: RawBuilder<unknown>,
    direction: RawBuilder<unknown>,
  ): Promise<{ readonly number: bigint; readonly at: number } | undefined> {
    const { rows } = await sql<Pick<EventRow, 'position' | 'metadata'>>`
      select position, metadata from ${this.readModels.view(eventsTable)}
      where organization_id = ${organizationId} and ${where} and ${TOLD} order by position ${direction} limit 1`.execute(this.database);
    const [row] = rows;
    return row === undefined
      ? undefined
      : { number: numberOf(row.position), at: Date.parse((JSON.parse(row.metadata) as { occurredAt: string }).occurredAt) };
  }
}

/** Events that a replay tells. Metadata is JSON that this program wrote, without spaces. */
const TOLD = sql`kind = ${conversationAggregate.kind} and metadata not like '%"imported":true%'`;

/** The first part of a position, which orders the log up to the events of one commit; in front of that part's events when it stands alone. */
const DIGITS = 19;
const numberOf = (position: string): bigint => BigInt(position.slice(0, DIGITS));
const padded = (number: bigint): string => String(number).padStart(DIGITS, '0');

const narrowed = (all: readonly string[], wanted: readonly string[]): readonly string[] =>
  all.includes(ANY_EVENT)
    ? wanted
    : wanted.filter((one) => one === ANY_EVENT || all.includes(one)).flatMap((one) => (one === ANY_EVENT ? all : [one]));
