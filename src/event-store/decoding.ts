import type { DomainEvent, Recorded } from './aggregate.js';
import type { StoredEvent, StreamKind } from './event-store.js';

/** An event as readers of the feed see it: decoded once, personal fields opened (or ERASED), `kind` and `streamId` from its stream. */
export interface ProjectedEvent {
  readonly kind: StreamKind;
  readonly organizationId: string;
  readonly streamId: string;
  readonly event: Recorded<DomainEvent>;
  /** An operator has skipped the event. It counts in its stream's revisions and changes nothing else. Its data and metadata are empty. */
  readonly skipped?: true;
}

/** Turns stored events into projected ones, in as few round trips as possible. Events that this build cannot read come back as failed. */
export type DecodeBatch = (events: readonly StoredEvent[]) => Promise<{
  readonly decoded: readonly ProjectedEvent[];
  readonly failed: readonly { readonly event: StoredEvent; readonly error: Error }[];
}>;
