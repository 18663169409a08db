import type { LiveFrame } from './live-frame.js';

/** Why the server ends a connection: the close code of a WebSocket, and over socket.io `data.code` of the last frame. */
export const CLOSE_CODES = {
  1003: 'a message was not text',
  1007: 'a message was not JSON',
  1009: 'a message was too large',
  1011: 'an unexpected fault on our side',
  1012: 'the process ends; connect again and go on by since',
  1013: 'a store is away; connect again later and go on by since',
  4400: 'a message was not understood; the reason names the field',
  4401: 'no key, or one that is not valid or no longer valid',
  4403: 'the role may not send this message',
  4408: 'no auth message came in time',
  4429: 'too many messages, or too many failed authentications',
} as const;
export type CloseCode = keyof typeof CLOSE_CODES;

/** Bytes that wait for a reader; with more it is cut off. */
export const MOST_WAITING_BYTES = 1024 * 1024;

/** A client's connection, whatever carries it. */
export interface LiveConnection {
  readonly carrier: LiveCarrier;
  /** Bytes that have not been handed to the network yet. */
  readonly waiting: number;
  /** Sends a frame, or cuts the client off when it reads too slowly. */
  send(frame: LiveFrame): void;
  /** Resolves when what was sent has been handed to the network, or the connection is gone. */
  flushed(): Promise<void>;
  /** @param reason for people; says what the code leaves open */
  end(code: CloseCode, reason?: string): void;
}

/** Sends one frame to many connections of its own, at the cost of one where it can. */
export interface LiveCarrier {
  readonly transport: 'websocket' | 'socket.io';
  broadcast(connections: readonly LiveConnection[], frame: LiveFrame): void;
}
