import { createHash, randomUUID } from 'node:crypto';

/** Source of new ids, injected so that tests can predict them. */
export interface Ids {
  /** A lower-case random UUID. */
  next(): string;
}
export const IDS = Symbol('Ids');
export const randomIds: Ids = { next: randomUUID };

// RFC 9562, appendix: Threadlog's own namespace, drawn once at random.
const NAMESPACE = Buffer.from('5a1c8f2e6b7d4c0e9f3a2d6e8b1c4f70', 'hex');

/** UUIDv5 (RFC 9562 §5.5) over the parts: the same parts give the same id in every process, and the boundaries of the parts count. */
export function derivedId(...parts: readonly string[]): string {
  const hash = createHash('sha1').update(NAMESPACE).update(JSON.stringify(parts)).digest();
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x50;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}
