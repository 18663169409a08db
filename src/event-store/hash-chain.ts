import { hash as hashOf } from 'node:crypto';
import type { NewEvent, StreamName } from './event-store.js';

/** The "previous hash" of a stream's first event. */
export const CHAIN_START = '0'.repeat(64);

const SUFFIX = /^(.*),"hash":"([0-9a-f]{64})"\}$/s;

/**
 * SHA-256 over the previous hash and the event's stored form. The two free texts are preceded by their lengths, so that bytes cannot move
 * from one text to the other unnoticed. The position is left out: it differs between logs, but the history does not.
 */
function link(
  previous: string,
  stream: StreamName,
  revision: number,
  event: Pick<NewEvent, 'id' | 'type' | 'data'>,
  metadata: string,
): string {
  return hashOf(
    'sha256',
    `${previous}\n${stream}\n${revision}\n${event.id}\n${event.type}\n${event.data.length}\n${event.data}\n${metadata.length}\n${metadata}`,
    'hex',
  );
}

/**
 * Puts an event into its stored form. This happens once per decision, since a retry must send the same bytes.
 * @param metadata JSON text of all metadata except the hash
 */
export function chain(
  previous: string,
  stream: StreamName,
  revision: number,
  event: { readonly id: string; readonly type: string; readonly data: string },
  metadata: string,
): { stored: NewEvent; hash: string } {
  const hash = link(previous, stream, revision, event, metadata);
  const { id, type, data } = event;
  return { stored: { id, type, data, metadata: `${metadata.slice(0, -1)},"hash":"${hash}"}` }, hash };
}

/** The hash in an event's metadata if it follows from `previous` and the event's bytes; otherwise undefined. */
export function verifyLink(
  previous: string,
  event: NewEvent & { readonly stream: StreamName; readonly revision: number },
): string | undefined {
  const parts = SUFFIX.exec(event.metadata);
  if (parts === null) return undefined;
  const [, body, hash] = parts;
  return link(previous, event.stream, event.revision, event, `${body}}`) === hash ? hash : undefined;
}
