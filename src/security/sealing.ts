import { createCipheriv, createDecipheriv, createSecretKey, hash, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

/** A personal value in the log: base64 of nonce, ciphertext and tag. */
export type Sealed = string & { readonly __sealed: unique symbol };

/** Replaces a sealed text whose key is destroyed: a constant, so that a scrubbed row equals a rebuilt one. */
export const ERASED = '[erased]';

const NONCE = 12;
const TAG = 16;

/**
 * The random key of one visitor. Sealing is deterministic (AES-256-GCM whose nonce is a keyed hash of context and text, as in RFC 8452's
 * idea of a synthetic IV): the same value in the same context gives the same bytes, so that decisions compare and merge sealed values
 * without reading them. A context is a field's name; for texts that may repeat it includes their message's id.
 */
export class DataKey {
  // A key object, since node:crypto would build a new one from bytes at each use.
  private readonly cipherKey: KeyObject;
  private readonly nonceKey: string;

  constructor(key: Buffer) {
    if (key.length !== 32) throw new Error('a data key has 32 bytes');
    const derived = Buffer.from(hkdfSync('sha256', key, '', 'threadlog sealing v1', 64));
    this.cipherKey = createSecretKey(derived.subarray(0, 32));
    this.nonceKey = derived.toString('base64', 32);
  }

  seal(context: string, value: unknown): Sealed {
    const text = JSON.stringify(value);
    // A keyed prefix hash, cut to 96 of 256 bits: nobody can predict it without the key, or extend it without the bits that are cut off. It
    // costs a quarter of an HMAC object.
    const nonce = hash('sha256', `${this.nonceKey}\0${context}\0${text}`, 'buffer').subarray(0, NONCE);
    const cipher = createCipheriv('aes-256-gcm', this.cipherKey, nonce);
    cipher.setAAD(Buffer.from(context));
    return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64') as Sealed;
  }

  /** @throws Error when the bytes were changed or belong to another context */
  unseal(context: string, sealed: Sealed): unknown {
    const bytes = Buffer.from(sealed, 'base64');
    const decipher = createDecipheriv('aes-256-gcm', this.cipherKey, bytes.subarray(0, NONCE), { authTagLength: TAG });
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG));
    return JSON.parse(decipher.update(bytes.subarray(NONCE, bytes.length - TAG), undefined, 'utf8') + decipher.final('utf8'));
  }
}

/** Wraps data keys and secrets with the operator's MASTER_KEY; `name` binds a wrapped value to its place. */
export class MasterKey {
  constructor(private readonly key: Buffer) {
    if (key.length !== 32) throw new Error('MASTER_KEY has 32 bytes');
  }

  /** A derived key for another purpose. */
  derive(purpose: string): Buffer {
    return Buffer.from(hkdfSync('sha256', this.key, '', `threadlog ${purpose}`, 32));
  }

  wrap(name: string, secret: Buffer): Buffer {
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv('aes-256-gcm', this.key, nonce);
    cipher.setAAD(Buffer.from(name));
    return Buffer.concat([nonce, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
  }

  /** @throws Error when the value was wrapped with another key */
  unwrap(name: string, wrapped: Buffer): Buffer {
    const decipher = createDecipheriv('aes-256-gcm', this.key, wrapped.subarray(0, NONCE), { authTagLength: TAG });
    decipher.setAAD(Buffer.from(name));
    decipher.setAuthTag(wrapped.subarray(wrapped.length - TAG));
    return Buffer.concat([decipher.update(wrapped.subarray(NONCE, wrapped.length - TAG)), decipher.final()]);
  }
}
