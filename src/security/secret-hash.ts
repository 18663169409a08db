import { createHash } from 'node:crypto';

/**
 * What is stored of a secret that a caller shows, such as a key, a ticket or a session's token. The secret is random and long, so that its
 * plain hash tells nothing of it.
 */
export const secretHash = (secret: string): Buffer => createHash('sha256').update(secret).digest();
