import type { Ids } from '../ids.js';
import type { Aggregate, DomainEvent, Metadata, Recorded } from '../event-store/aggregate.js';
import type { NewEvent, StreamName } from '../event-store/event-store.js';
import { chain } from '../event-store/hash-chain.js';
import type { CommandContext } from './command-context.js';

/** What a decision answers: events, which may say when they happened (ms) where that is not now, as imported history does. */
export type Decided<E extends DomainEvent> = E & { readonly at?: number };

/** A recorded event whose position the log has not told yet. */
type Unplaced<E extends DomainEvent> = Omit<Recorded<E>, 'position'>;

/** A decision's events as they are sent, and as they will be read. */
export interface Encoded<E extends DomainEvent> {
  readonly stored: readonly NewEvent[];
  readonly recorded: readonly Unplaced<E>[];
  /** Of the last event. */
  readonly hash: string;
}

/**
 * @param before the stream's last event, or what stands for it in a stream that does not exist
 * @param now when events happened that do not say so themselves (ms)
 */
export function encode<S, E extends DomainEvent>(
  aggregate: Aggregate<S, E>,
  stream: StreamName,
  before: { readonly revision: number; readonly hash: string; readonly occurredAt: string },
  command: CommandContext,
  events: readonly Decided<E>[],
  now: number,
  ids: Ids,
): Encoded<E> {
  let happened = before.occurredAt === '' ? -Infinity : Date.parse(before.occurredAt);
  let occurredAt = '';
  const stored: NewEvent[] = [];
  const recorded: Unplaced<E>[] = [];
  let hash = before.hash;
  let revision = before.revision;
  let metadata: Omit<Metadata, 'hash'> | undefined;
  let body = '';
  for (const { at = now, ...rest } of events) {
    const event = rest as unknown as E;
    revision++;
    if (occurredAt === '' || at > happened) {
      happened = Math.max(happened, at);
      occurredAt = new Date(happened).toISOString();
    }
    const type: E['type'] = event.type;
    const schemaVersion: number = aggregate.codec.versions[type];
    // The events of a command differ in little but this, and its text costs as much as its hash.
    if (metadata?.occurredAt !== occurredAt || metadata.schemaVersion !== schemaVersion) {
      metadata = {
        organizationId: command.organizationId,
        actor: command.actor,
        occurredAt,
        commandId: command.commandId,
        requestHash: command.requestHash,
        correlationId: command.correlationId,
        causationId: command.causationId ?? command.commandId,
        causationDepth: command.causationDepth ?? 0,
        schemaVersion,
        ...(command.keyId === undefined ? {} : { keyId: command.keyId }),
        ...(command.imported === undefined ? {} : { imported: true as const }),
      };
      body = JSON.stringify(metadata);
    }
    const id = ids.next();
    const next = chain(hash, stream, revision, { id, type, data: JSON.stringify(event.data) }, body);
    hash = next.hash;
    stored.push(next.stored);
    // New names stand before a spread: V8 puts those that follow one in by a slow path, at a microsecond each.
    recorded.push({ id, stream, revision, metadata: { hash, ...metadata }, ...event } as Unplaced<E>);
  }
  return { stored, recorded, hash };
}
