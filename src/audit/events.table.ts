import { type Position, type StoredEvent, type StreamKind, streamName } from '../event-store/event-store.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';

/**
 * An event as the log holds it, personal fields sealed: the feed of one organization, which no log can provide by itself. It has no gaps,
 * since it is written in feed order, even when this build cannot read the event.
 */
export interface EventRow {
  organization_id: string;
  position: string;
  kind: StreamKind;
  /** The id of the conversation, visitor or other resource that the stream belongs to. */
  stream_id: string;
  revision: number;
  event_id: string;
  type: string;
  /** JSON, byte for byte. */
  data: string;
  metadata: string;
}

export const eventsTable = readTable<EventRow>({
  name: 'events',
  group: CORE_GROUP,
  version: 1,
  columns: {
    organization_id: 'text collate "C" not null',
    position: 'text collate "C" not null',
    kind: 'text not null',
    stream_id: 'text collate "C" not null',
    revision: 'integer not null',
    event_id: 'uuid not null',
    type: 'text not null',
    data: 'text not null',
    metadata: 'text not null',
  },
  key: ['organization_id', 'position'],
  guard: 'none',
  indexes: {},
});

/** On which the writer of the table says that it has grown. */
export const FEED_CHANNEL = 'threadlog_feed';

/** The event of a row, as the log gave it. */
export function storedEvent(row: EventRow): StoredEvent {
  const { organization_id, kind, stream_id, revision, position, event_id: id, type, data, metadata } = row;
  return { stream: streamName(kind, organization_id, stream_id), revision, position: position as Position, id, type, data, metadata };
}
