import type { DataKey } from '../security/sealing.js';
import type { DomainEvent, Recorded } from './aggregate.js';
import type { StoredEvent, StreamKind } from './event-store.js';

/** An event as followers of the feed see it: decoded once, `kind` and `streamId` from its stream. */
export interface ProjectedEvent {
  readonly kind: StreamKind;
  readonly organizationId: string;
  readonly streamId: string;
  /** The event with its personal fields sealed; unsealed() in event-decoding.ts opens them. */
  readonly event: Recorded<DomainEvent>;
  /** Opens the personal fields. Absent when the event has none, when its key is destroyed, and for followers that must not open them. */
  readonly key?: DataKey | undefined;
  /** An operator has skipped the event. It counts in its stream's revisions and changes nothing else. Its data and metadata are empty. */
  readonly skipped?: true;
}

/** Turns stored events into projected ones, in as few round trips as possible. Events that this build cannot read come back as failed. */
export type DecodeBatch = (events: readonly StoredEvent[]) => Promise<{
  readonly decoded: readonly ProjectedEvent[];
  readonly failed: readonly Failed[];
}>;

/** An event that this build cannot read. */
export interface Failed {
  readonly event: StoredEvent;
  readonly error: Error;
}
