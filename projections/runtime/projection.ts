import type { Kysely } from 'kysely';
import type { DecodeBatch, ProjectedEvent } from '../../src/event-store/decoding.js';
import { parseStreamName, type StoredEvent, type StreamKind } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { readGroup, type ReadGroup } from '../../src/read-models/groups.js';
import type { ReadTable } from '../../src/read-models/table.js';

export type { DecodeBatch, ProjectedEvent };

/** Rows of one table in one batch, none with a key that another of them has. */
export interface RowsToWrite<R extends object> {
  /** New ones: no earlier batch wrote a row with such a key. */
  readonly made: readonly R[];
  readonly changed: readonly R[];
}

/** Where one batch is written. */
export interface ProjectionTarget {
  /** What the projection reads its rows by: they are as the batch before left them. */
  readonly session: Kysely<Database>;
  /**
   * For statements of a projection's own: the batch's transaction, which has moved the checkpoint already. A batch that no projection asks
   * for it is one statement, at a third of the cost.
   */
  readonly transaction: () => Promise<Kysely<Database>>;
  /** The name of a table of this projection in the generation that is being written, schema included: table('conversations'). */
  readonly table: (name: string) => string;
  /**
   * Writes rows into a table of this projection, now or with the batch's checkpoint, and at most once in a batch for each table. The table's
   * guard decides between a row and the one that is there.
   */
  readonly write: <R extends object>(table: ReadTable<R>, rows: RowsToWrite<R>) => Promise<void>;
}

/** A group of these projections, with the shape that their tables give it. */
export const groupOf = (name: string, projections: readonly Projection[]): ReadGroup =>
  readGroup(
    name,
    projections.flatMap(({ tables }) => tables),
  );

/** Writes rows and nothing else; may be rebuilt at any time. Given the same events in other batch sizes it leaves the same rows. */
interface Writing {
  /** Unique among all projections. */
  readonly name: string;
  /** The streams whose events it wants. */
  readonly kinds: readonly StreamKind[];
  /** Its tables: nobody else writes them. */
  readonly tables: readonly ReadTable[];
}

/** Folds decoded events. A stream with an event that cannot be handled is parked, and the projection goes on without it. */
export interface FoldingProjection extends Writing {
  /**
   * Writes a batch: events of its kinds in log order. It reads its own rows and gives its target new ones, once for each table, and must do
   * no other I/O.
   */
  apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void>;
  /** Called when the process may have missed writes of another (takeover, rebuild): memory of rows must go. */
  forget?(): void;
}

/** Records every event as it is stored, also of parked streams, and those that cannot be decoded or were passed over. */
export interface RecordingProjection extends Writing {
  /** As apply(), before any of the batch is applied. What fails here ends the batch: nothing is ever left out. */
  record(events: readonly StoredEvent[], target: ProjectionTarget): Promise<void>;
}

export type Projection = FoldingProjection | RecordingProjection;

/** Decodes for these projections what one of them folds; events that are only recorded need no codec. */
export function decodeFor(projections: readonly Projection[], decode: DecodeBatch): DecodeBatch {
  const folded = new Set<string>(projections.flatMap((one) => ('apply' in one ? one.kinds : [])));
  if (projections.every(({ kinds }) => kinds.every((kind) => folded.has(kind)))) return decode;
  return (events) => decode(events.filter(({ stream }) => folded.has(parseStreamName(stream)?.kind ?? '')));
}
