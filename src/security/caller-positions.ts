import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hash, type KeyObject, randomBytes } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { LRUCache } from 'lru-cache';
import type { Principal } from './api-key-lookup.js';

/** The form of either log's positions. A position of the other log is never reached. */
export const POSITION_FORM = String.raw`\d{19}(-\d{19})?`;
/** As above; a live frame's position may have a number after it, for its place among the frames of one event. */
const POSITION = /^(?<first>\d{19})(-(?<second>\d{19}))?(\.(?<frame>[1-9]))?$/;
/** One or two blocks in base64url. */
const SEALED = /^[A-Za-z0-9_-]{22}([A-Za-z0-9_-]{21})?$/;

const CIPHER = 'aes-256-cbc';
const BLOCK = 16;
/** Every position has a first block of its own, so there is nothing for another vector to tell apart. */
const NO_VECTOR = Buffer.alloc(BLOCK);
/** In the first block: 8 bytes of the position, 1 of the frame, 3 that are 0, 4 of salt. In the second: 8 bytes, and 8 that are 0. */
const FRAME_AT = 8;
const ZEROS_AT = 9;
const SALT_AT = 12;
const MOST_FRAME = 9;
const LARGEST = 2n ** 63n;
const DIGITS = 19;

/** Who sends or is sent a position. */
type Caller = Pick<Principal, 'organizationId' | 'visitorId'>;

/**
 * Positions of the log as callers send and are sent them. The holder of a key gets them as they are. A visitor gets them sealed under a key
 * of its own: from the difference of two positions it could count what happens in conversations that are not its own, and in other
 * organizations.
 */
export class CallerPositions {
  readonly #keys = new LRUCache<string, KeyObject>({ max: 10_000 });

  /** @param key for this purpose only */
  constructor(private readonly key: Buffer) {}

  /** The position of what the caller is told. The same position gives the same text. */
  told(caller: Caller, position: string): string {
    return this.#shown(caller, position, 0);
  }

  /**
   * The position of a moment, which may be that of an event of which the caller is not told. A visitor that is told the same moment twice
   * gets two texts: from their equality it would learn that nothing happened in between.
   * @param sameAs moments with the same text here have the same text there: an answer that is repeated keeps its position
   */
  moment(caller: Caller, position: string, sameAs?: string): string {
    const salt = sameAs === undefined ? randomBytes(4) : hash('sha256', sameAs, 'buffer');
    return this.#shown(caller, position, salt.readUInt32BE());
  }

  /** The log's position for a text of the caller's; undefined when it is none that a caller like this was told. */
  read(caller: Caller, text: string): string | undefined {
    if (caller.visitorId !== null) return this.#open(caller, text);
    return POSITION.test(text) ? text : undefined;
  }

  /** Whatever route a visitor may call, its X-Position is sealed on the way out. */
  install(server: FastifyInstance): void {
    server.addHook('onSend', ({ principal, keyedCommandId }, reply, payload, done) => {
      if (principal !== undefined && principal.visitorId !== null) {
        const position = reply.getHeader('x-position');
        if (position !== undefined) void reply.header('x-position', this.moment(principal, String(position), keyedCommandId));
      }
      done(null, payload);
    });
  }

  #shown(caller: Caller, position: string, salt: number): string {
    if (caller.visitorId === null || position === 'start') return position;
    const { first, second, frame } = POSITION.exec(position)?.groups ?? {};
    if (first === undefined) throw new Error('no position of a log was to be shown');
    const bytes = Buffer.alloc(second === undefined ? BLOCK : 2 * BLOCK);
    bytes.writeBigUInt64BE(BigInt(first));
    bytes[FRAME_AT] = Number(frame ?? 0);
    bytes.writeUInt32BE(salt, SALT_AT);
    if (second !== undefined) bytes.writeBigUInt64BE(BigInt(second), BLOCK);
    const cipher = createCipheriv(CIPHER, this.#keyOf(caller), NO_VECTOR).setAutoPadding(false);
    return Buffer.concat([cipher.update(bytes), cipher.final()]).toString('base64url');
  }

  #open(caller: Caller, text: string): string | undefined {
    if (!SEALED.test(text)) return undefined;
    const sealed = Buffer.from(text, 'base64url');
    // The last character has bits that say nothing: no second spelling is taken.
    if (sealed.toString('base64url') !== text) return undefined;
    const decipher = createDecipheriv(CIPHER, this.#keyOf(caller), NO_VECTOR).setAutoPadding(false);
    const bytes = Buffer.concat([decipher.update(sealed), decipher.final()]);
    const parts = [bytes.readBigUInt64BE(), ...(bytes.length === BLOCK ? [] : [bytes.readBigUInt64BE(BLOCK)])];
    const frame = bytes[FRAME_AT] ?? 0;
    const zeros = [bytes.subarray(ZEROS_AT, SALT_AT), bytes.subarray(BLOCK + 8)];
    // Under another visitor's key the block opens to noise.
    if (zeros.some((some) => some.some((byte) => byte !== 0)) || frame > MOST_FRAME || parts.some((part) => part >= LARGEST))
      return undefined;
    const position = parts.map((part) => String(part).padStart(DIGITS, '0')).join('-');
    return frame === 0 ? position : `${position}.${frame}`;
  }

  #keyOf({ organizationId, visitorId }: Caller): KeyObject {
    const name = JSON.stringify([organizationId, visitorId]);
    let key = this.#keys.get(name);
    if (key === undefined) this.#keys.set(name, (key = createSecretKey(createHmac('sha256', this.key).update(name).digest())));
    return key;
  }
}
