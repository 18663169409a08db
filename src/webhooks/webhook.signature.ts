import { createHmac } from 'node:crypto';

/**
 * The headers of one attempt, as the Standard Webhooks specification has them: a signature by every given key, over exactly this body.
 * @param now ms
 */
export function signedHeaders(id: string, now: number, body: string, keys: readonly Buffer[]): Readonly<Record<string, string>> {
  const timestamp = String(Math.floor(now / 1_000));
  const signatures = keys.map((key) => `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`);
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures.join(' ') };
}
