import type { Kysely } from 'kysely';
import type { DomainEvent, Recorded } from '../../src/event-store/aggregate.js';
import type { StoredEvent, StreamKind } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/platform/database.js';
import { readGroup, type ReadGroup } from '../../src/read-models/groups.js';
import type { ReadTable } from '../../src/read-models/table.js';

/** An event as every projection of a group sees it: decoded once, personal fields opened (or ERASED), `kind` and `streamId` taken from its stream. */
export interface ProjectedEvent {
  readonly kind: StreamKind;
  readonly organizationId: string;
  readonly streamId: string;
  readonly event: Recorded<DomainEvent>;
  /** An operator passed over it: it counts in its stream's revisions and changes nothing else. Its data and metadata are empty. */
  readonly skipped?: true;
}

/** Turns stored events into projected ones, in as few round trips as it can. Events that this build cannot read come back as failed. */
export type DecodeBatch = (events: readonly StoredEvent[]) => Promise<{
  readonly decoded: readonly ProjectedEvent[];
  readonly failed: readonly { readonly event: StoredEvent; readonly error: Error }[];
}>;

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

/** Writes rows and nothing else; may be rebuilt at any time. */
export interface Projection {
  /** Unique among all projections. */
  readonly name: string;
  /** The streams whose events it wants. */
  readonly kinds: readonly StreamKind[];
  /** Its tables: nobody else writes them. */
  readonly tables: readonly ReadTable[];
  /**
   * Writes a batch: events of its kinds in log order. It reads its own rows and gives its target new ones, once for each table, and must do
   * no other I/O. Given the same events in other batch sizes it must leave the same rows.
   */
  apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void>;
  /** Called when the process may have missed writes of another (takeover, rebuild): memory of rows must go. */
  forget?(): void;
}
