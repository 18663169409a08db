import type { Kysely } from 'kysely';
import type { DecodeBatch, ProjectedEvent } from '../../src/event-store/decoding.js';
import { parseStreamName, type StoredEvent, type StreamKind } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/database/database.js';
import { readGroup, type ReadGroup } from '../../src/read-models/groups.js';
import type { ReadTable } from '../../src/read-models/table.js';

export type { DecodeBatch, ProjectedEvent };

/** Rows of one table in one batch. No two have the same key. */
export interface RowsToWrite<R extends object> {
  /** New rows: no earlier batch wrote a row with the same key. */
  readonly made: readonly R[];
  readonly changed: readonly R[];
}

/** Takes the rows of one batch. */
export interface ProjectionTarget {
  /** The session for reading the projection's rows, as the previous batch left them. */
  readonly session: Kysely<Database>;
  /**
   * The batch's transaction, for a projection's own statements. It has already moved the checkpoint. When no projection asks for it, the
   * batch is one statement and costs a third.
   */
  readonly transaction: () => Promise<Kysely<Database>>;
  /** The name, schema included, of this projection's table in the generation that is being written: table('conversations'). */
  readonly table: (name: string) => string;
  /**
   * Writes rows into a table of this projection, at once or with the batch's checkpoint. It may be called once for each table in a batch.
   * The table's guard decides whether a row replaces the existing one.
   */
  readonly write: <R extends object>(table: ReadTable<R>, rows: RowsToWrite<R>) => Promise<void>;
}

/** The group of these projections. Their tables determine its shape. */
export const groupOf = (name: string, projections: readonly Projection[]): ReadGroup =>
  readGroup(
    name,
    projections.flatMap(({ tables }) => tables),
  );

/** Writes rows and nothing else, and may be rebuilt at any time. The same events in batches of other sizes must lead to the same rows. */
interface Writing {
  /** Unique among all projections. */
  readonly name: string;
  /** The kinds of streams whose events the projection handles. */
  readonly kinds: readonly StreamKind[];
  /** The projection's tables. No other projection writes them. */
  readonly tables: readonly ReadTable[];
}

/** Folds decoded events. If an event cannot be handled, its stream is parked, and the projection goes on without the stream. */
export interface FoldingProjection extends Writing {
  /**
   * Writes a batch of events of the projection's kinds, in log order. It reads its own rows and writes to the target, once for each table.
   * It must do no other I/O.
   */
  apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void>;
  /** Drops all remembered rows. Called when another process may have written (takeover, rebuild). */
  forget?(): void;
}

/** Records every event as it is stored, including events of parked streams, skipped events and events that cannot be decoded. */
export interface RecordingProjection extends Writing {
  /** As apply(), called before any event of the batch is applied. A failure ends the batch: no event is ever left out. */
  record(events: readonly StoredEvent[], target: ProjectionTarget): Promise<void>;
}

export type Projection = FoldingProjection | RecordingProjection;

/** Decodes the events that any of these projections folds. Events that are only recorded need no codec. */
export function decodeFor(projections: readonly Projection[], decode: DecodeBatch): DecodeBatch {
  const folded = new Set<string>(projections.flatMap((one) => ('apply' in one ? one.kinds : [])));
  if (projections.every(({ kinds }) => kinds.every((kind) => folded.has(kind)))) return decode;
  return (events) => decode(events.filter(({ stream }) => folded.has(parseStreamName(stream)?.kind ?? '')));
}
