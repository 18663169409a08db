import { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';

/** In what form a route can answer beside JSON. */
export const STREAM_TYPES = { csv: 'text/csv', ndjson: 'application/x-ndjson' } as const;
export type StreamFormat = keyof typeof STREAM_TYPES;

/**
 * A long body that is sent as it is made. The maker is asked for more only when the client has taken what came before, and is ended when
 * the client goes away. A fault in the middle cuts the connection, since the status has been sent.
 */
export class Streamed {
  constructor(
    readonly format: StreamFormat,
    /** What a browser saves it as. */
    readonly fileName: string,
    /** Pieces of the body; each ends with a line. */
    readonly pieces: AsyncIterable<string>,
  ) {}

  /** @throws what the maker throws before its first piece, which is still answered as an error */
  async send(reply: FastifyReply): Promise<void> {
    const pieces = this.pieces[Symbol.asyncIterator]();
    // Fastify reads a stream to its end to answer HEAD.
    if (reply.request.method === 'HEAD') await pieces.return?.();
    const first = await pieces.next();
    void reply.header('content-type', `${STREAM_TYPES[this.format]}; charset=utf-8`);
    void reply.header('content-disposition', `attachment; filename="${this.fileName}.${this.format}"`);
    void reply.send(Readable.from(continued(first, pieces), { objectMode: false, highWaterMark: 64 * 1024 }));
  }
}

/** No generator, which would not end the maker when the client goes away before the second piece. */
function continued(first: IteratorResult<string>, pieces: AsyncIterator<string>): AsyncIterable<string> {
  let made: IteratorResult<string> | undefined = first;
  const next = (): Promise<IteratorResult<string>> => {
    const ready = made;
    made = undefined;
    return ready === undefined ? pieces.next() : Promise.resolve(ready);
  };
  const end = async (): Promise<IteratorResult<string>> => (await pieces.return?.()) ?? { done: true, value: undefined };
  return { [Symbol.asyncIterator]: () => ({ next, return: end }) };
}

/** Rows in batches, each of which is a piece of the body. */
export type Batches<R> = AsyncIterable<readonly R[]> | Iterable<readonly R[]>;

/** Rows as NDJSON. */
export async function* ndjson(batches: Batches<object>): AsyncGenerator<string> {
  for await (const rows of batches) if (rows.length > 0) yield rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

type Cell = string | number | boolean | null | undefined;

/**
 * Rows as CSV (RFC 4180) with a line of names first. Values of several are joined by `; `.
 * @param columns the names of the fields, in order
 */
export async function* csv<R extends object>(columns: readonly (keyof R & string)[], batches: Batches<R>): AsyncGenerator<string> {
  // Sent with the first batch: what refuses the question is thrown as it is read, and is answered as an error only before the first piece.
  let head = `${columns.join(',')}\r\n`;
  for await (const rows of batches) {
    const lines = rows.map((row) => `${columns.map((column) => csvCell(row[column] as Cell | readonly Cell[])).join(',')}\r\n`);
    if (lines.length === 0) continue;
    yield head + lines.join('');
    head = '';
  }
  if (head !== '') yield head;
}

/**
 * A text that begins like a formula would be run by a spreadsheet (CWE-1236); a quote in front makes it a text. So does what follows a `;`,
 * at which spreadsheets of many countries split a line, such as the second of several tags.
 */
function csvCell(value: Cell | readonly Cell[]): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const text = typeof value === 'string' ? value : value.join('; ');
  const safe = text.replaceAll(/(^|; *)(?=[=+\-@\t\r\n])/g, "$1'");
  return /[",\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}
