import type { StreamKind } from '../event-store/event-store.js';
import { CORE_GROUP } from '../read-models/groups.js';
import { readTable } from '../read-models/table.js';

/**
 * An event as the log holds it, personal fields sealed: the feed of one organization, which no log can give by itself. It never has a hole, since
 * it is written in the feed's order and whether or not this build can read the event.
 */
export interface EventRow {
  organization_id: string;
  position: string;
  kind: StreamKind;
  /** The id of the conversation, visitor or whatever else the stream is about. */
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
