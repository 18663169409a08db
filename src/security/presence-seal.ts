import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import type { MasterKey } from './sealing.js';

const NONCE = 12;
const TAG = 16;

/**
 * Seals what processes tell each other of presence. PostgreSQL has no privilege for LISTEN and NOTIFY: whoever may connect, such as an analyst
 * of another organization, hears every channel and tells on it. So what is heard must not be readable, and what was not told by a holder of
 * MASTER_KEY must not open.
 *
 * The telling session's process id, which PostgreSQL names with each notification, is part of the seal. So what somebody has heard and tells
 * again, from a session of its own, does not open either.
 */
export class PresenceSeal {
  readonly #key: KeyObject;

  constructor(masterKey: MasterKey) {
    this.#key = createSecretKey(masterKey.derive('presence'));
  }

  /**
   * @param session the process id of the session that tells
   * @returns base64, a third longer than the text and 28 bytes
   */
  seal(text: string, session: number): string {
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
    cipher.setAAD(Buffer.from(String(session)));
    return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64');
  }

  /** Undefined for what was not sealed with this key for this session. */
  open(sealed: string, session: number): string | undefined {
    const bytes = Buffer.from(sealed, 'base64');
    if (bytes.length < NONCE + TAG) return undefined;
    const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, NONCE), { authTagLength: TAG });
    decipher.setAAD(Buffer.from(String(session)));
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG));
    try {
      return decipher.update(bytes.subarray(NONCE, bytes.length - TAG), undefined, 'utf8') + decipher.final('utf8');
    } catch {
      return undefined;
    }
  }
}

/** Bytes of a text whose seal fits into a notification, of which PostgreSQL takes 7,999 bytes: (5,900 + 28) * 4 / 3 = 7,904. */
export const SEALABLE_BYTES = 5_900;
