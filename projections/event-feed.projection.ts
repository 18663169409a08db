import { type EventRow, eventsTable } from '../src/audit/events.table.js';
import { TOLD_STREAMS } from '../src/features.js';
import { parseStreamName, type StoredEvent } from '../src/event-store/event-store.js';
import type { ProjectionTarget, RecordingProjection } from './runtime/projection.js';

/** Writes one row per event, as it is stored, for `GET /events`. */
export class EventFeedProjection implements RecordingProjection {
  readonly name = 'event-feed';
  readonly kinds = [...TOLD_STREAMS.keys()];
  readonly tables = [eventsTable];

  async record(events: readonly StoredEvent[], target: ProjectionTarget): Promise<void> {
    const made: EventRow[] = [];
    for (const { stream, position, revision, id, type, data, metadata } of events) {
      const name = parseStreamName(stream);
      if (name === undefined || !TOLD_STREAMS.has(name.kind)) continue;
      const { organizationId: organization_id, kind, id: stream_id } = name;
      made.push({ organization_id, position, kind, stream_id, revision, event_id: id, type, data, metadata });
    }
    await target.write(eventsTable, { made, changed: [] });
  }
}
