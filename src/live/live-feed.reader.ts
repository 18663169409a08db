import { Inject, Injectable } from '@nestjs/common';
import { type Kysely, sql, type SqlBool } from 'kysely';
import { eventsTable, type EventRow, storedEvent } from '../audit/events.table.js';
import { conversationsTable } from '../conversations/conversation.table.js';
import { DATABASE, type Database } from '../database/database.js';
import type { Position, StoredEvent } from '../event-store/event-store.js';
import { ReadModels } from '../read-models/read-models.js';
import type { LiveCursor } from './live-cursor.js';

/** The most events of an organization that one read examines, of which most may be none that anybody is told of. */
const LOOKED_AT = 2_000;
/** The most events in a part, and the bytes after which no further event is taken into it. */
const MOST_EVENTS = 200;
const MOST_BYTES = 1_000_000;

/** Events of visitors and agents after which their sockets may have to end. */
const ENDING = ['VisitorTokensRevoked', 'VisitorArchived', 'AssigneeArchived'];

/** The next events of an organization that matter to sockets. */
export interface LivePart {
  readonly organizationId: string;
  /** In the order of the log, without gaps from where the read began up to `through`. */
  readonly events: readonly StoredEvent[];
  readonly through: Position;
  /** There may be more after `through` already. */
  readonly more: boolean;
}

/** Narrows what is read of a past that one socket asked for. */
export interface LiveNarrowing {
  readonly conversationIds?: ReadonlySet<string> | undefined;
  readonly visitorId?: string | undefined;
}

interface FoundRow extends EventRow {
  through: string;
  looked: number;
  wanted: number;
}

/**
 * Reads the table of events that every organization's feed has, in parts of bounded size. The table is written in the order of the log, and
 * a new generation replaces it only when it holds as much, so that going on from a position misses nothing.
 */
@Injectable()
export class LiveFeed {
  constructor(
    @Inject(DATABASE) private readonly database: Kysely<Database>,
    @Inject(ReadModels) private readonly readModels: ReadModels,
  ) {}

  /** The next part of each of these organizations that has anything new. An organization is named once. */
  async next(
    from: readonly { readonly organizationId: string; readonly cursor: LiveCursor }[],
    { conversationIds, visitorId }: LiveNarrowing = {},
  ): Promise<LivePart[]> {
    const events = this.readModels.view(eventsTable);
    const of = [
      sql<SqlBool>`(e.kind = 'conversation' or e.type = any(${ENDING}::text[]))`,
      ...(conversationIds === undefined ? [] : [sql<SqlBool>`e.stream_id = any(${[...conversationIds]}::text[])`]),
      ...(visitorId === undefined
        ? []
        : [
            sql<SqlBool>`exists (
              select from ${this.readModels.view(conversationsTable)} c
              where c.organization_id = e.organization_id and c.id = e.stream_id and c.visitor_id = ${visitorId})`,
          ]),
    ];
    const { rows } = await sql<FoundRow | ({ [column in keyof EventRow]: null } & Pick<FoundRow, 'through' | 'looked' | 'wanted'>)>`
      select f.organization_id, l.through, l.looked, l.wanted, e.position, e.kind, e.stream_id, e.revision, e.event_id, e.type, e.data, e.metadata
      from unnest(
        ${from.map(({ organizationId }) => organizationId)}::text[], ${from.map(({ cursor }) => lowerBound(cursor))}::text[]
      ) f(organization_id, lower)
      cross join lateral (
        with looked as materialized (
          select position, stream_id, kind, type, octet_length(data) as size
          from ${events} where organization_id = f.organization_id collate "C" and position >= f.lower collate "C"
          order by position limit ${LOOKED_AT}
        ), wanted as materialized (
          select position, row_number() over (order by position) as nr, sum(size) over (order by position) - size as before
          from (select f.organization_id collate "C" as organization_id, looked.* from looked) e
          where ${sql.join(of, sql` and `)}
        )
        select (select max(position) from looked) as through, (select count(*)::integer from looked) as looked,
          (select count(*)::integer from wanted) as wanted,
          array(select position from wanted where nr <= ${MOST_EVENTS} and before < ${MOST_BYTES} order by position) as found
      ) l
      left join ${events} e on e.organization_id = f.organization_id collate "C" and e.position = any(l.found)
      where l.looked > 0
      order by f.organization_id, e.position`.execute(this.database);
    const parts: LivePart[] = [];
    for (let first = 0; first < rows.length;) {
      const head = rows[first];
      if (head === undefined) break;
      const until = rows.findIndex((row, i) => i > first && row.organization_id !== head.organization_id);
      const own = rows.slice(first, until < 0 ? rows.length : until);
      first += own.length;
      const found = own.filter((row): row is FoundRow => row.position !== null);
      const whole = found.length === head.wanted;
      const through = (whole ? head.through : (found.at(-1)?.position ?? head.through)) as Position;
      parts.push({
        organizationId: String(head.organization_id),
        events: found.map(storedEvent),
        through,
        more: !whole || head.looked === LOOKED_AT,
      });
    }
    return parts;
  }

  /** A position before the last events of an organization, at most so many and of at most so many bytes; 'start' when these are all. */
  async before(organizationId: string, last: { readonly events: number; readonly bytes: number }): Promise<Position | 'start'> {
    const { rows } = await sql<{ position: string }>`
      select position from (
        select position, sum(size) over (order by position desc) as bytes, row_number() over (order by position desc) as nr
        from (
          select position, octet_length(data) as size from ${this.readModels.view(eventsTable)}
          where organization_id = ${organizationId} order by position desc limit ${last.events + 1}
        ) newest
      ) counted
      where nr > ${last.events} or bytes > ${last.bytes} order by position desc limit 1`.execute(this.database);
    return (rows[0]?.position ?? 'start') as Position | 'start';
  }
}

/**
 * Positions have a fixed width, so a position and a dot stands after that position and before the next one.
 * @returns the least text that a position still to be told of may have
 */
function lowerBound({ position, told }: LiveCursor): string {
  if (position === 'start') return '';
  return told === Infinity ? `${position}.` : position;
}
