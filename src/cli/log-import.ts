import { sql } from 'kysely';
import { migrations } from '../../migrations/migrations.js';
import type { Backend } from '../backend.js';
import { type Append, type Appended, LIMITS, type NewEvent, type StoredEvent } from '../event-store/event-store.js';
import { eventsUntil } from '../event-store/events-until.js';
import { type LogFold, LOG_START, nextFold } from '../event-store/log-head.js';
import { ChainCheck } from '../event-store/log-verification.js';
import { KeptRows, KeptRowsDiffer, type KeptRow } from '../database/keep-tables.js';
import { CommandFailed } from './command.js';
import { exportEnd, exportEvent, type ExportEvent, type ExportHeader, ExportKey, exportRow, exportSeal, jsonOf } from './log-export.js';
import type { Line } from './ndjson-lines.js';
import { ignoreFailure } from '../ignore-failure.js';

/** Bytes of stored texts in one write; meanwhile the next block is read and verified. */
const BLOCK_BYTES = 2 * 1024 * 1024;
/** How long an append may take (ms) before its outcome counts as unknown. */
const APPEND_MS = 30_000;
const ROWS = 1_000;
/** Upper estimate of an event's size without its texts. */
const EVENT_BYTES = 200;

/** The progress of the import of an export. */
export interface ImportedLog {
  /** Events that this run wrote. */
  events: number;
  /** Events that an earlier run wrote. */
  present: number;
  kept: Readonly<Record<string, number>>;
}

export interface ImportLogParts extends Pick<Backend, 'store' | 'database' | 'masterKey'> {
  /** Retries temporary failures for as long as the caller has patience. */
  readonly patiently: <T>(work: () => Promise<T>) => Promise<T>;
}

/**
 * Turns an empty instance into a copy of the exported one: the rows of keep in one transaction, then the events in the order of the file,
 * with their ids and bytes. Before it writes an event, it proves that the event follows from the one before it in its stream.
 *
 * The log itself distinguishes an interrupted run from a log with a history of its own: its events have to equal the first events of the
 * file, one by one. So the same import continues or finds everything there, and any other log is refused before a byte is written.
 */
export class LogImport {
  readonly done: ImportedLog = { events: 0, present: 0, kept: {} };
  private readonly key: ExportKey;
  private readonly chain: ChainCheck;
  private fold: LogFold = LOG_START;
  private block: { stream: ExportEvent['stream']; expected: Append['expected']; events: NewEvent[]; bytes: number }[] = [];
  private blockBytes = 0;
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly parts: ImportLogParts,
    private readonly header: ExportHeader,
    private readonly signal: AbortSignal,
  ) {
    this.key = new ExportKey(parts.masterKey);
    this.chain = new ChainCheck(parts.store);
  }

  /**
   * @param lines all lines of the file, including the header
   * @throws CommandFailed when the instance is not empty, the key is another one, or the export is damaged or cut off
   */
  async run(lines: AsyncIterable<Line>): Promise<void> {
    this.assertReadable();
    const { store } = this.parts;
    const head = await this.parts.patiently(() => store.head());
    await this.assertNoReadModelsOfAnotherLog();
    const reader = lines[Symbol.asyncIterator]();
    const there = eventsUntil(store, head, this.signal);
    try {
      await this.keys(reader, head === 'start');
      await this.events(reader, head === 'start' ? undefined : flat(there));
    } finally {
      await ignoreFailure(this.writing, 'where the import succeeds it was awaited before, and otherwise another error ends the import');
      await there.return();
      await reader.return?.();
    }
    this.signal.throwIfAborted();
  }

  private assertReadable(): void {
    const { header } = this;
    if (!(header.migration in migrations))
      throw new CommandFailed('the export was written by a newer build than this one: import it with that build');
    if (!this.key.isOf(header))
      throw new CommandFailed(
        'the export was written under another MASTER_KEY, which alone opens what is in it: set that one, or put its file master.key into DATA_DIR',
      );
  }

  /** Existing read models of another log would mix with this log's. */
  private async assertNoReadModelsOfAnotherLog(): Promise<void> {
    const { database, store } = this.parts;
    const { rows } = await sql<{ log_id: string }>`select log_id from read.checkpoints where log_id <> ${store.log.id} limit 1`.execute(
      database,
    );
    if (rows.length > 0) throw new CommandFailed('the read models in this database were made from another log: take a new database');
  }

  /** The rows of keep, before any event: the key of a sealed value must always be there. */
  private async keys(reader: AsyncIterator<Line>, empty: boolean): Promise<void> {
    const rows = await KeptRows.begin(this.parts.database, empty);
    try {
      let table = '';
      let page: KeptRow[] = [];
      const take = async () => {
        if (page.length > 0) await rows.take(table, page);
        page = [];
      };
      for (;;) {
        const { number, value, text } = await this.next(reader);
        if (number === 1) {
          this.key.cover(text);
          continue;
        }
        const row = exportRow.safeParse(value);
        if (row.success) {
          this.key.cover(text);
          if (row.data.keep !== table || page.length >= ROWS) await take();
          table = row.data.keep;
          page.push(row.data.row);
          continue;
        }
        const seal = exportSeal.safeParse(value);
        if (!seal.success) throw damaged(number, 'it is neither a row nor the seal over the rows');
        await take();
        if (seal.data.seal !== this.key.seal()) throw damaged(number, 'the rows before it are not those that were exported');
        break;
      }
      await rows.commit();
      this.done.kept = rows.counts;
    } catch (error) {
      if (error instanceof KeptRowsDiffer) throw notEmpty(error.message);
      throw error;
    } finally {
      await rows.rollback();
    }
  }

  /** @param there the events that the log holds already */
  private async events(reader: AsyncIterator<Line>, there: AsyncGenerator<StoredEvent, void, undefined> | undefined): Promise<void> {
    let known = there;
    for (;;) {
      const { number, value } = await this.next(reader);
      const read = exportEvent.safeParse(value);
      if (!read.success) {
        await this.end(number, value, reader);
        return;
      }
      const event = read.data as ExportEvent;
      const why = await this.chain.whyNot(event);
      if (why !== undefined) throw damaged(number, `${event.stream} revision ${event.revision}: ${why}`);
      this.fold = nextFold(this.fold, { metadata: event.metadata, position: event.position as StoredEvent['position'] });
      const own = known === undefined ? undefined : await known.next();
      if (own === undefined || own.done === true) {
        known = undefined;
        await this.take(event);
      } else if (isSame(own.value, event)) this.done.present++;
      else throw notEmpty(`the event at position ${own.value.position} is not the export's at line ${number}`);
    }
  }

  /** The last line, which nothing may follow. */
  private async end(number: number, value: unknown, reader: AsyncIterator<Line>): Promise<void> {
    const end = exportEnd.safeParse(value);
    if (!end.success) throw damaged(number, 'it is neither an event nor the end');
    const { events, head } = end.data;
    if (events !== this.fold.count || head.fold !== this.fold.fold || head.count !== this.fold.count || !this.key.signed(head))
      throw damaged(number, 'the events before it are not those that were exported');
    if ((await reader.next()).done !== true) throw damaged(number + 1, 'it comes after the end');
    this.write();
    await this.writing;
  }

  /** Consecutive events of one stream become one append. */
  private async take(event: ExportEvent): Promise<void> {
    const { stream, revision, id, type, data, metadata } = event;
    const bytes = EVENT_BYTES + Buffer.byteLength(data) + Buffer.byteLength(metadata);
    let append = this.block.at(-1);
    if (append?.stream !== stream || append.events.length >= LIMITS.events || append.bytes + bytes > LIMITS.bytes) {
      append = { stream, expected: revision === 0 ? 'none' : revision - 1, events: [], bytes: 0 };
      this.block.push(append);
    }
    append.events.push({ id, type, data, metadata });
    append.bytes += bytes;
    this.blockBytes += bytes;
    if (this.blockBytes < BLOCK_BYTES) return;
    await this.writing;
    this.signal.throwIfAborted();
    this.write();
  }

  /** Sends the blocks one after the other, since the log keeps the order in which it receives them. */
  private write(): void {
    const { block } = this;
    this.block = [];
    this.blockBytes = 0;
    const before = this.writing;
    this.writing = before.then(async () => {
      if (block.length === 0) return;
      // Reactors of an instance that was started before would treat imported events as news. They are installed again at the end.
      if (this.done.events === 0) await this.parts.patiently(() => this.parts.database.deleteFrom('keep.reactors').execute());
      const answers = await this.parts.patiently(() => this.parts.store.appendInOrder(block, AbortSignal.timeout(APPEND_MS)));
      if (answers.some(({ outcome }: Appended) => outcome === 'conflict'))
        throw new CommandFailed('somebody else writes to this log: end every server and worker, and begin again with an empty instance');
      for (const { events } of block) this.done.events += events.length;
    });
    void ignoreFailure(this.writing, 'its failure is met where it is awaited');
  }

  /** @throws CommandFailed when the file ends here, or the line is not JSON of the expected shape */
  private async next(reader: AsyncIterator<Line>): Promise<{ number: number; text: string; value: unknown }> {
    this.signal.throwIfAborted();
    const { value: line, done } = await reader.next();
    if (done === true || line === undefined) throw new CommandFailed(`${CUT}; import the whole export to go on`);
    const { number, text, fault } = line;
    if (text === undefined) throw damaged(number, fault ?? 'it cannot be read');
    const value = jsonOf(text);
    if (value === undefined) throw damaged(number, 'it is not JSON');
    return { number, text, value };
  }
}

const CUT = 'the export is cut off: it has no end';

/**
 * Checks that a file is complete before anything is written from it: it has its end line, and no line is missing.
 * @returns the number of events in the file
 * @throws CommandFailed
 */
export async function eventsInFile(lines: AsyncIterable<Line>): Promise<number> {
  let last: Line | undefined;
  let seal: { line: number; kept: Record<string, number> } | undefined;
  for await (const line of lines) {
    last = line;
    if (seal !== undefined || line.text?.startsWith('{"kept":') !== true) continue;
    const read = exportSeal.safeParse(jsonOf(line.text));
    if (read.success) seal = { line: line.number, kept: read.data.kept };
  }
  const end = exportEnd.safeParse(jsonOf(last?.text ?? ''));
  if (!end.success || last === undefined || seal === undefined) throw new CommandFailed(CUT);
  const rows = Object.values(seal.kept).reduce((sum, n) => sum + n, 0);
  if (seal.line !== rows + 2 || last.number !== seal.line + end.data.events + 1)
    throw new CommandFailed('the export is damaged: lines are missing from it');
  return end.data.events;
}

async function* flat(batches: AsyncIterable<readonly StoredEvent[]>): AsyncGenerator<StoredEvent, void, undefined> {
  for await (const events of batches) yield* events;
}

function isSame(stored: StoredEvent, { stream, revision, id, type, data, metadata }: ExportEvent): boolean {
  return (
    stored.id === id &&
    stored.stream === stream &&
    stored.revision === revision &&
    stored.type === type &&
    stored.data === data &&
    stored.metadata === metadata
  );
}

function damaged(line: number, why: string): CommandFailed {
  return new CommandFailed(`the export is damaged at line ${line}: ${why}`);
}

function notEmpty(why: string): CommandFailed {
  return new CommandFailed(`an export is imported into an empty instance, and this one is not: ${why}. Nothing was written`);
}
