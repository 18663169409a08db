import type { Kysely } from 'kysely';
import type { DomainEvent, Recorded } from '../../src/event-store/aggregate.js';
import type { StoredEvent, StreamKind } from '../../src/event-store/event-store.js';
import type { Database } from '../../src/platform/database.js';

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

/** A row that is the fold of one stream, with `organization_id` and `id` as its key; its other fields are columns, each row of a table the same. */
export interface StreamRow {
  readonly organization_id: string;
  readonly id: string;
  readonly revision: number;
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
   * Writes rows into a table of this projection, none of them twice, now or with the batch's checkpoint; an older revision never replaces a
   * newer one.
   * @param rows.made of streams whose first event is in this batch
   * @param rows.changed of all others
   */
  readonly write: (name: string, rows: { readonly made: readonly StreamRow[]; readonly changed: readonly StreamRow[] }) => Promise<void>;
}

/** Writes rows and nothing else; may be rebuilt at any time. */
export interface Projection {
  /** Unique among all projections. */
  readonly name: string;
  /** The streams whose events it wants. */
  readonly kinds: readonly StreamKind[];
  /**
   * Its tables: unqualified name → DDL statements under the qualified name. The first makes the table with its primary key, the others its
   * indexes, which a rebuild makes when the rows are there.
   */
  readonly tables: Readonly<Record<string, (table: string) => readonly string[]>>;
  /**
   * Writes a batch: events of its kinds in log order. It reads its own rows and gives its target new ones, once for each table, and must do
   * no other I/O. Given the same events in other batch sizes it must leave the same rows.
   */
  apply(events: readonly ProjectedEvent[], target: ProjectionTarget): Promise<void>;
  /** Called when the process may have missed writes of another (takeover, rebuild): memory of rows must go. */
  forget?(): void;
}
