import { MasterKey } from './sealing.js';

/**
 * Seals what processes tell each other of presence. PostgreSQL has no privilege for LISTEN and NOTIFY: whoever may connect, such as an analyst
 * of another organization, hears every channel and tells on it. So what is heard must not be readable, and what was not told by a holder of
 * MASTER_KEY must not open.
 *
 * The telling session's process id, which PostgreSQL names with each notification, is part of the seal. So what somebody has heard and tells
 * again, from a session of its own, does not open either.
 */
export class PresenceSeal {
  readonly #key: MasterKey;

  constructor(masterKey: MasterKey) {
    this.#key = new MasterKey(masterKey.derive('presence'));
  }

  /**
   * @param session the process id of the session that tells
   * @returns base64, a third longer than the text and 28 bytes
   */
  seal(text: string, session: number): string {
    return this.#key.wrap(String(session), Buffer.from(text)).toString('base64');
  }

  /** Undefined for what was not sealed with this key for this session. */
  open(sealed: string, session: number): string | undefined {
    try {
      return this.#key.unwrap(String(session), Buffer.from(sealed, 'base64')).toString();
    } catch {
      return undefined;
    }
  }
}

/** Bytes of a text whose seal fits into a notification, of which PostgreSQL takes 7,999 bytes: (5,900 + 28) * 4 / 3 = 7,904. */
export const SEALABLE_BYTES = 5_900;
