import { createHmac, hash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import type { MasterKey } from '../security/sealing.js';
import type { Aggregate } from './aggregate.js';
import type { Position, StoredEvent } from './event-store.js';
import { schemaCodec } from './schema-codec.js';

/**
 * The whole log in one number: the hashes of all its events, in feed order, each folded onto what came before. Two logs with the same count
 * and fold hold the same events in the same order; where they stand in it (`position`) may differ.
 */
export interface LogFold {
  /** Events that were folded: those at or before `position`. */
  readonly count: number;
  /** SHA-256, in hex. */
  readonly fold: string;
  readonly position: Position | 'start';
}

export const LOG_START: LogFold = { count: 0, fold: '0'.repeat(64), position: 'start' };

/** Where an event's hash stands: its metadata ends with `"hash":"<64 hex>"}`. */
const HASH = { from: -66, to: -2 } as const;

/**
 * Folds the next event of the feed, in about a microsecond. Whatever stands at the hash's place is folded: an event that no build can read
 * is a part of the log like any other, and leaving it out would let it be taken away.
 */
export function nextFold(before: LogFold, event: Pick<StoredEvent, 'metadata' | 'position'>): LogFold {
  return {
    count: before.count + 1,
    fold: hash('sha256', before.fold + event.metadata.slice(HASH.from, HASH.to), 'hex'),
    position: event.position,
  };
}

const hex = z.string().regex(/^[0-9a-f]{64}$/);

/** A head as it stands in the log, in a file or in an answer. */
export const logHead = z.object({
  count: z.number().int().min(0),
  fold: hex,
  /** EventStore.log.id of the log that `position` speaks of; a copy of it has another. */
  log: z.string().min(1),
  position: z.string().min(1),
  signature: hex,
});
export type LogHead = z.infer<typeof logHead>;

/**
 * Signs heads with a key of MASTER_KEY's own (HMAC-SHA-256).
 *
 * What a signature proves, and to whom: whoever holds MASTER_KEY can tell that the head was made by a holder of it, so nobody who can write
 * to the log's database alone can make a head for a log that he changed. It proves nothing to anybody without the key, and nothing against
 * its holder. A head inside the log goes with the log when that is cut or restored; the proof that this did not happen is a head that was
 * kept elsewhere.
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

  /** True when a holder of the same MASTER_KEY signed all of it. */
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
 * The stream of heads. It belongs to no tenant, and its own events are a part of the log like all others.
 */
export const HEAD_STREAM = { organizationId: 'log', id: 'log' } as const;

/** `position` is that of the last event which the head covers; the head itself stands behind it, and not always right behind. */
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

/** The log's beginning is not what it was when a head was signed over it. */
export class HistoryChanged extends Error {
  override readonly name = 'HistoryChanged';
}

/**
 * Heads only ever cover more than the one before. A head that is late, because another process was quicker, adds nothing.
 * @throws HistoryChanged when the other process signed something else over as many events
 */
export function addHead(head: LogHead): (heads: Heads) => readonly HeadEvent[] {
  return ({ last }) => {
    if (last === null || last.count < head.count) return [{ type: 'HeadSigned', data: head }];
    if (last.count === head.count && last.fold !== head.fold)
      throw new HistoryChanged(`the first ${head.count} events of the log are not those that its head was signed over`);
    return [];
  };
}
