import type { Ids } from '../ids.js';
import type { Aggregate, DomainEvent, Metadata, Recorded } from '../event-store/aggregate.js';
import type { NewEvent, StreamName } from '../event-store/event-store.js';
import { chain } from '../event-store/hash-chain.js';
import type { CommandContext } from './command-context.js';

/** An event from a decision. `at` is when it happened (ms), if not now, as for imported history. */
export type Decided<E extends DomainEvent> = E & { readonly at?: number };

/** A recorded event whose position is not known yet. */
type Unplaced<E extends DomainEvent> = Omit<Recorded<E>, 'position'>;

/** A decision's events, as they are sent and as they will be read. */
export interface Encoded<E extends DomainEvent> {
  readonly stored: readonly NewEvent[];
  readonly recorded: readonly Unplaced<E>[];
  /** Hash of the last event. */
  readonly hash: string;
}

/**
 * @param before the stream's last event, or its substitute for a stream that does not exist
 * @param now the time of events without `at` (ms)
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
    // The metadata is made again only when it differs between a command's events, since its text costs as much as its hash.
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
    // New names stand before the spread: V8 adds names that follow a spread by a slow path, at a microsecond each.
    recorded.push({ id, stream, revision, metadata: { hash, ...metadata }, ...event } as Unplaced<E>);
  }
  return { stored, recorded, hash };
}
