import { createHmac, hash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import type { MasterKey } from '../security/sealing.js';
import type { Aggregate } from './aggregate.js';
import type { Position, StoredEvent } from './event-store.js';
import { schemaCodec } from './schema-codec.js';

/**
 * The whole log in one hash: the hashes of all events, in feed order, each folded onto the fold before it. Two logs with the same count and
 * fold hold the same events in the same order; the positions of the events may differ.
 */
export interface LogFold {
  /** Number of folded events: those at or before `position`. */
  readonly count: number;
  /** SHA-256, in hex. */
  readonly fold: string;
  readonly position: Position | 'start';
}

export const LOG_START: LogFold = { count: 0, fold: '0'.repeat(64), position: 'start' };

/** The place of the hash in an event's metadata, which ends with `"hash":"<64 hex>"}`. */
const HASH = { from: -66, to: -2 } as const;

/**
 * Folds the next event of the feed, in about a microsecond. It folds any text in the hash's place, so that an event that no build can read
 * counts like all others; left out, it could be removed unnoticed.
 */
export function nextFold(before: LogFold, event: Pick<StoredEvent, 'metadata' | 'position'>): LogFold {
  return {
    count: before.count + 1,
    fold: hash('sha256', before.fold + event.metadata.slice(HASH.from, HASH.to), 'hex'),
    position: event.position,
  };
}

const hex = z.string().regex(/^[0-9a-f]{64}$/);

/** A head, as the log, a file or an answer holds it. */
export const logHead = z.object({
  count: z.number().int().min(0),
  fold: hex,
  /** EventStore.log.id of the log that `position` belongs to; a copy of the log has another id. */
  log: z.string().min(1),
  position: z.string().min(1),
  signature: hex,
});
export type LogHead = z.infer<typeof logHead>;

/**
 * Signs heads with a key derived from MASTER_KEY (HMAC-SHA-256).
 *
 * A signature proves to a holder of MASTER_KEY that a holder of MASTER_KEY made the head. Somebody who can only write to the log's database
 * cannot make a head for a changed log. The signature proves nothing to anybody without the key, and nothing against its holder. When the
 * log is cut or restored, the heads inside it go with it; only a head that was kept elsewhere can prove that this did not happen.
 */
export class HeadKey {
  private readonly key: Buffer;

  constructor(masterKey: MasterKey) {
    this.key = masterKey.derive('log head');
  }

  /** @param log EventStore.log.id */
  sign(at: LogFold, log: string): LogHead {
    const head = { count: at.count, fold: at.fold, log, position: at.position };
    return { ...head, signature: this.mac(head).toString('hex') };
  }

  /** True when a holder of the same MASTER_KEY signed the whole head. */
  signed(head: LogHead): boolean {
    return timingSafeEqual(this.mac(head), Buffer.from(head.signature, 'hex'));
  }

  private mac({ count, fold, log, position }: Omit<LogHead, 'signature'>): Buffer {
    return createHmac('sha256', this.key)
      .update(JSON.stringify([count, fold, log, position]))
      .digest();
  }
}

/*
 * The stream of heads. It belongs to no tenant, and its events are part of the log like all others.
 */
export const HEAD_STREAM = { organizationId: 'log', id: 'log' } as const;

/** `position` is that of the last event that the head covers. The head itself comes later, possibly with other events in between. */
export type HeadEvent = { readonly type: 'HeadSigned'; readonly data: LogHead };

export interface Heads {
  readonly last: LogHead | null;
}

export const headAggregate: Aggregate<Heads, HeadEvent> = {
  kind: 'head',
  codec: schemaCodec<HeadEvent>({ HeadSigned: [logHead] }),
  initial: { last: null },
  evolve: (_, event) => ({ last: event.data }),
};

/** The events that a signed head covers have changed. */
export class HistoryChanged extends Error {
  override readonly name = 'HistoryChanged';
}

/**
 * Each head covers more events than the head before. A head that comes late, because another process was quicker, adds nothing.
 * @throws HistoryChanged when the other process signed another fold over as many events
 */
export function addHead(head: LogHead): (heads: Heads) => readonly HeadEvent[] {
  return ({ last }) => {
    if (last === null || last.count < head.count) return [{ type: 'HeadSigned', data: head }];
    if (last.count === head.count && last.fold !== head.fold)
      throw new HistoryChanged(`the first ${head.count} events of the log are not those that its head was signed over`);
    return [];
  };
}
