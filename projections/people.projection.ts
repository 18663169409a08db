import type { StreamKind } from '../src/event-store/event-store.js';
import { type FoldRow, type FoldTable, isFoldTable } from '../src/read-models/fold-table.js';
import { unsealed } from '../src/event-decoding.js';
import { READ_TABLES } from '../src/features.js';
import type { FoldingProjection, ProjectedEvent, ProjectionTarget } from './runtime/projection.js';
import { readRows } from './runtime/rows.js';

/**
 * Writes one row per visitor, company, inbox, agent, team, API key, canned response, saved view and organization. The row holds the whole
 * fold of its stream, made by the write side's own functions (`foldTable`), so that there is one mapping to keep right and not two.
 */
export class PeopleProjection implements FoldingProjection {
  readonly name = 'people';
  readonly tables: readonly FoldTable[] = READ_TABLES.filter(isFoldTable);
  readonly kinds: readonly StreamKind[] = this.tables.map(({ fold }) => fold.kind);

  async apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void> {
    const touched = new Map<StreamKind, Map<string, Touched>>();
    for (const one of events) {
      const { kind, organizationId, streamId, event } = one;
      let streams = touched.get(kind);
      if (streams === undefined) touched.set(kind, (streams = new Map<string, Touched>()));
      const stream = streams.get(event.stream);
      if (stream === undefined) streams.set(event.stream, { organizationId, id: streamId, events: [one] });
      else stream.events.push(one);
    }
    for (const table of this.tables) {
      const streams = touched.get(table.fold.kind);
      if (streams !== undefined) await write(table as FoldTable<FoldRow<unknown>>, streams, target);
    }
  }
}

interface Touched {
  readonly organizationId: string;
  readonly id: string;
  readonly events: ProjectedEvent[];
}

const keyOf = (organizationId: string, id: string) => `${organizationId}.${id}`;

/** Reads all existing rows in one query, and writes all rows of the table in one statement. */
async function write(table: FoldTable<FoldRow<unknown>>, streams: ReadonlyMap<string, Touched>, target: ProjectionTarget): Promise<void> {
  const { initial, evolve, rowOf } = table.fold;
  const older = [...streams.values()]
    .filter(({ events: [first] }) => first?.event.revision !== 0)
    .map(({ organizationId, id }) => ({ organization_id: organizationId, id }));
  const known = new Map<string, Pick<FoldRow<unknown>, 'revision' | 'state'>>();
  for (const row of await readRows(target, table, older, ['organization_id', 'id', 'revision', 'state']))
    known.set(keyOf(row.organization_id, row.id), row);
  const made: FoldRow<unknown>[] = [];
  const changed: FoldRow<unknown>[] = [];
  for (const { organizationId, id, events } of streams.values()) {
    const row = known.get(keyOf(organizationId, id));
    const before = row?.revision ?? -1;
    let revision = before;
    let state = row?.state ?? initial;
    for (const one of events) {
      const { event, skipped } = one;
      // Delivered again: the row already includes the event.
      if (event.revision <= revision) continue;
      if (event.revision !== revision + 1) throw new Error(`revision ${event.revision} of a stream follows ${revision}`);
      if (!skipped) state = evolve(state, unsealed(one));
      revision = event.revision;
    }
    if (revision > before) (row === undefined ? made : changed).push(rowOf(organizationId, id, revision, state));
  }
  await target.write(table, { made, changed });
}
