import { createReadStream } from 'node:fs';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { CommandFailed } from './command.js';

/** A longer line is skipped instead of held in memory: a file may be larger than the memory. */
export const MAX_LINE_BYTES = 16 * 1024 * 1024;

export interface Line {
  /** From 1, as in editors. */
  readonly number: number;
  /** Undefined for an unreadable line; `fault` says why. */
  readonly text: string | undefined;
  readonly fault?: string;
}

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const GZIP = [0x1f, 0x8b] as const;

/**
 * The lines of a file, ended by LF or CRLF; `-` is standard input. Unpacks gzip, recognized by content. Skips empty lines but counts them.
 * @throws CommandFailed when the file cannot be read to its end
 */
export async function* readLines(path: string, signal: AbortSignal): AsyncGenerator<Line, void, undefined> {
  const utf8 = new TextDecoder('utf-8', { fatal: true });
  let number = 0;
  let parts: Buffer[] = [];
  let bytes = 0;
  const take = (): Line | undefined => {
    number++;
    const tooLong = bytes > MAX_LINE_BYTES;
    const whole = tooLong ? undefined : withoutReturn(parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts));
    parts = [];
    bytes = 0;
    if (whole === undefined) return { number, text: undefined, fault: `longer than ${MAX_LINE_BYTES} bytes` };
    try {
      // The decoder drops a byte order mark at the beginning of the file.
      const text = utf8.decode(whole);
      return text.trim() === '' ? undefined : { number, text };
    } catch {
      return { number, text: undefined, fault: 'not valid UTF-8' };
    }
  };
  try {
    for await (const chunk of unpacked(path, signal)) {
      let from = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
        parts.push(chunk.subarray(from, end));
        bytes += end - from;
        from = end + 1;
        const line = take();
        if (line !== undefined) yield line;
      }
      bytes += chunk.length - from;
      if (bytes > MAX_LINE_BYTES) parts = [];
      else if (from < chunk.length) parts.push(chunk.subarray(from));
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new CommandFailed(
      `${path === '-' ? 'standard input' : path} cannot be read${number === 0 ? '' : ` after line ${number}`}: ${faultOf(error)}`,
      {
        cause: error,
      },
    );
  }
  if (bytes > 0) {
    const line = take();
    if (line !== undefined) yield line;
  }
}

/** An editor may have ended the lines with CRLF. No JSON document ends in that character. */
const withoutReturn = (line: Buffer) => (line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line);

async function* unpacked(path: string, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  const source: Readable = path === '-' ? process.stdin : createReadStream(path, { highWaterMark: 256 * 1024 });
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const ended = () => source.destroy(new Error('interrupted'));
  signal.addEventListener('abort', ended, { once: true });
  try {
    let start = Buffer.alloc(0);
    let done = false;
    // A pipe may deliver its first bytes one at a time.
    while (start.length < GZIP.length && !done) {
      const next = await chunks.next();
      if (next.done === true) done = true;
      else start = Buffer.concat([start, next.value]);
    }
    let packed = 0;
    const rest = (async function* () {
      packed += start.length;
      if (start.length > 0) yield start;
      while (!done) {
        const next = await chunks.next();
        if (next.done === true) return;
        packed += next.value.length;
        yield next.value;
      }
    })();
    if (start[0] !== GZIP[0] || start[1] !== GZIP[1]) {
      yield* rest;
      return;
    }
    const gunzip = createGunzip({ chunkSize: 256 * 1024 });
    // An error of the source reaches the reader through gunzip, which pipeline destroys with that error.
    pipeline(rest, gunzip, () => undefined);
    yield* gunzip as AsyncIterable<Buffer>;
    // gunzip reads a member that follows another. At zeros it stops, and would silently drop the rest of the file.
    if (gunzip.bytesWritten < packed) throw new Error('something follows the gzip data');
  } finally {
    signal.removeEventListener('abort', ended);
    source.destroy();
  }
}

function faultOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'there is no such file';
  if (code === 'EISDIR') return 'it is a folder';
  if (code === 'EACCES') return 'it may not be read';
  if (code === 'Z_BUF_ERROR') return 'the gzip data is cut off';
  if (code?.startsWith('Z_') === true) return 'the gzip data is damaged';
  return error.message;
}
