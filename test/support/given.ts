import { type Aggregate, decode, type DomainEvent, type Recorded } from '../../src/event-store/aggregate.js';
import type { Position, StoredEvent } from '../../src/event-store/event-store.js';
import { streamName } from '../../src/event-store/event-store.js';
import { type ErrorCode, ThreadlogError } from '../../src/errors.js';

/** The instant of the n-th event of a history. */
export const instant = (revision: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, revision)).toISOString();

/**
 * given(aggregate, …events).when(decision).thenEvents(…events). Every event makes the trip through its stored JSON and the codec first, and
 * `thenEvents` asks the decision again on its own result and expects nothing.
 */
export function given<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, ...history: readonly E[]) {
  const fold = (events: readonly E[]) =>
    events.map((event, revision) => stored(aggregate, event, revision)).reduce(aggregate.evolve, aggregate.initial);
  const state = fold(history);
  return {
    state,
    when(decision: (state: S) => readonly E[]) {
      return {
        thenEvents(...expected: readonly E[]) {
          const events = decision(state);
          expect(events).toEqual(expected);
          const after = fold([...history, ...events]);
          expect(decision(after)).toEqual([]);
          return after;
        },
        /** The decision has nothing to add. */
        thenNothing() {
          expect(decision(state)).toEqual([]);
        },
        /** Answers the error, for what it says beside its code. */
        thenRefused(code: ErrorCode): ThreadlogError {
          let refused: unknown;
          try {
            decision(state);
          } catch (error) {
            refused = error;
          }
          expect(refused).toBeInstanceOf(ThreadlogError);
          const error = refused as ThreadlogError;
          expect(error.code).toBe(code);
          return error;
        },
      };
    },
  };
}

function stored<S, E extends DomainEvent>(aggregate: Aggregate<S, E>, event: E, revision: number): Recorded<E> {
  const type: E['type'] = event.type;
  const bytes: StoredEvent = {
    id: '00000000-0000-4000-8000-000000000000',
    type,
    stream: streamName(aggregate.kind, 'acme', 'x'),
    revision,
    position: String(revision) as Position,
    data: JSON.stringify(event.data),
    metadata: JSON.stringify({ occurredAt: instant(revision), schemaVersion: aggregate.codec.versions[type] }),
  };
  return decode(aggregate.codec, bytes);
}
