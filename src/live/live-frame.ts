/** The first byte of a WebSocket's frame that is a whole text. */
const WHOLE_TEXT = 0x81;

/** What a client is sent: one text, made once for all who get it. */
export class LiveFrame {
  /** The JSON in UTF-8 as a server's frame of a WebSocket (RFC 6455 §5.2). */
  readonly framed: Buffer;

  /**
   * @param content.position the frame's own position in the log; absent for what is not stored, such as presence
   * @param content.data absent on `ready`
   */
  constructor(readonly content: { readonly type: string; readonly data?: object; readonly position?: string }) {
    this.framed = frameOfText(JSON.stringify(content));
  }

  /** How many bytes a socket is sent. */
  get size(): number {
    return this.framed.length;
  }
}

function frameOfText(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const header = length < 126 ? 2 : length < 65_536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(header + length);
  frame[0] = WHOLE_TEXT;
  if (header === 2) frame[1] = length;
  else if (header === 4) {
    frame[1] = 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  frame.write(text, header);
  return frame;
}

/**
 * Who a frame is made for. All sockets of an audience get the same bytes: the team with contents, analysts without them, visitors what they
 * may see of their own conversations.
 */
export type Audience = 'team' | 'analysts' | 'visitors';
