import type { Type } from '@nestjs/common';
import type { Aggregate, DomainEvent, Recorded } from './event-store/aggregate.js';
import type { ReadTable } from './read-models/table.js';
import type { DataKey } from './security/sealing.js';

/** A kind of stream, and what everybody who follows the log must know of it. */
export interface FeatureStream {
  readonly aggregate: Aggregate<unknown, DomainEvent>;
  /** As the organization's feed of events calls what such a stream is about; absent for streams that clients are told nothing of. */
  readonly toldAs?: string;
  /**
   * What happens when a read model cannot handle one of its events. 'parks': the stream waits, and others flow. 'stops': the group stops,
   * since the rows of others would be shown wrong without this stream.
   */
  readonly unreadable: 'parks' | 'stops';
  /** Opens the personal fields of an event; absent where no event has any. An undefined key leaves `[erased]` in their place. */
  readonly unseal?: (event: Recorded<DomainEvent>, key: DataKey | undefined) => Recorded<DomainEvent>;
}

/** What a feature brings: registered in its folder as `x.feature.ts`, and listed once, in features.ts. Everything else derives from it. */
export interface Feature {
  readonly streams: readonly FeatureStream[];
  /** Of its read models; one projection of the group that each names writes it. */
  readonly tables: readonly ReadTable[];
  /** The Nest module with its routes and handlers. Only the API and its workers load it: the command line starts without. */
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
  // Its events come from its own codec, so that they are of its own types.
  return { ...told, aggregate } as unknown as FeatureStream;
}
