import type { LiveConnection } from './live-connection.js';
import type { LiveEvent } from './live-event.answer.js';
import type { Audience, LiveFrame } from './live-frame.js';

/** A socket that gets the events of its organization. */
export interface LiveMember {
  readonly audience: Audience;
  readonly connection: LiveConnection;
  /** Whether the event is for this socket: its own where it is a visitor's, asked for, and not told yet. */
  wants(event: LiveEvent): boolean;
}

/** Connections that one broadcast reaches before other work of the process may get its turn. */
const SENT_AT_ONCE = 500;

/**
 * Sends an event to its receivers: one frame for each audience, and broadcasts for each carrier.
 * @param receivers those of the moment at which the event was added to what those who join later find
 * @param breathe awaited between two broadcasts
 */
export async function sendToAll(receivers: readonly LiveMember[], event: LiveEvent, breathe: () => Promise<void>): Promise<void> {
  const groups = new Map<Audience, LiveConnection[]>();
  for (const { audience, connection } of receivers) {
    const group = groups.get(audience);
    if (group === undefined) groups.set(audience, [connection]);
    else group.push(connection);
  }
  let isFirst = true;
  for (const [audience, connections] of groups) {
    const frame = event.frame(audience);
    if (frame === undefined) continue;
    for (let first = 0; first < connections.length; first += SENT_AT_ONCE) {
      if (!isFirst) await breathe();
      isFirst = false;
      broadcast(connections.length <= SENT_AT_ONCE ? connections : connections.slice(first, first + SENT_AT_ONCE), frame);
    }
  }
}

/** Sends a frame over whatever carries each connection. */
export function broadcast(connections: readonly LiveConnection[], frame: LiveFrame): void {
  const carriers = new Set(connections.map(({ carrier }) => carrier));
  for (const carrier of carriers)
    carrier.broadcast(carriers.size === 1 ? connections : connections.filter((one) => one.carrier === carrier), frame);
}
