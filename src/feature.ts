import type { Type } from '@nestjs/common';
import type { Aggregate, DomainEvent, Recorded } from './event-store/aggregate.js';
import type { AuditedResource } from './read-models/audited-resource.js';
import type { ReadTable } from './read-models/table.js';
import type { DataKey } from './security/sealing.js';

/** A kind of stream, with everything that followers of the log need. */
export interface FeatureStream {
  readonly aggregate: Aggregate<unknown, DomainEvent>;
  /** The name of the stream's subject in the organization's feed of events; absent for streams that clients do not see. */
  readonly toldAs?: string;
  /**
   * What happens when a read model cannot handle one of the stream's events. 'parks': the stream waits, and the others go on. 'stops': the
   * group stops, since rows of other streams would be wrong without this stream.
   */
  readonly unreadable: 'parks' | 'stops';
  /** Opens the personal fields of an event; absent when no event has any. With an undefined key, `[erased]` stands in their place. */
  readonly unseal?: (event: Recorded<DomainEvent>, key: DataKey | undefined) => Recorded<DomainEvent>;
}

/** The parts of a feature, registered in its folder as `x.feature.ts` and listed once, in features.ts. Everything else derives from it. */
export interface Feature {
  readonly streams: readonly FeatureStream[];
  /** The tables of the feature's read models. Each is written by one projection of the group that the table names. */
  readonly tables: readonly ReadTable[];
  /**
   * The kinds of resources whose past is told, each from its own stream: their routes for events, comparison and proof, and the same on the
   * command line, follow from it. Loaded only when asked, since most commands of the command line need no answers.
   */
  readonly histories?: () => Promise<readonly AuditedResource[]>;
  /** The Nest module with the feature's routes and handlers. Only the API and its workers load it; the command line starts without it. */
  readonly api: () => Promise<Type>;
}

/** Registers a kind of stream. */
export function streamOf<S, E extends DomainEvent>(
  aggregate: Aggregate<S, E>,
  told: {
    readonly toldAs?: string;
    readonly unreadable: FeatureStream['unreadable'];
    readonly unseal?: (event: Recorded<E>, key: DataKey | undefined) => Recorded<DomainEvent>;
  },
): FeatureStream {
  // The cast is safe, since the stream's events come from its own codec and so have its own types.
  return { ...told, aggregate } as unknown as FeatureStream;
}
