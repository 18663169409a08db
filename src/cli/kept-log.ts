import { parseStreamName, type StoredEvent } from '../event-store/event-store.js';
import { type EventPlace, placeOf, type WrongPlace } from '../event-store/head-verification.js';
import { HeadKey, logHead, type LogHead, LOG_START, nextFold } from '../event-store/log-head.js';
import { LogVerification } from '../event-store/log-verification.js';
import type { MasterKey } from '../security/sealing.js';
import { CommandFailed } from './command.js';
import { exportEnd, exportEvent, type ExportHeader, headerOf, jsonOf } from './log-export.js';
import { type Line, readLines } from './ndjson-lines.js';

/** What was kept elsewhere: heads, or a whole export. */
export type Kept = { readonly heads: readonly LogHead[] } | { readonly export: KeptExport };

/** A log that differs from what was kept. */
export interface Difference {
  readonly why: string;
  readonly place: WrongPlace & {
    /** The event of the export that the log has no more; null where heads are all that was kept. */
    readonly expected: (EventPlace & { readonly eventId: string }) | null;
  };
}

/**
 * Reads a file that somebody kept: a head, an answer of `verify --json`, lines of either, or an export. `-` is standard input.
 * @throws CommandFailed
 */
export async function readKept(path: string, masterKey: MasterKey, signal: AbortSignal): Promise<Kept> {
  const name = path === '-' ? 'standard input' : path;
  const lines = readLines(path, signal);
  const first = await lines.next();
  const header = first.done === true ? undefined : headerOf(first.value.text ?? '');
  if (header !== undefined) return { export: new KeptExport(name, header, lines, new HeadKey(masterKey)) };
  const texts = first.done === true ? [] : [first.value.text ?? ''];
  for await (const { text = '' } of lines) texts.push(text);
  // One document may be written over several lines.
  const whole = jsonOf(texts.join('\n'));
  const documents = whole === undefined ? texts.map(jsonOf) : [whole];
  if (documents.length === 0 || documents.includes(undefined))
    throw new CommandFailed(`the head in ${name} cannot be read: it is not JSON`);
  return {
    heads: documents.map((document) => {
      const inside: unknown = typeof document === 'object' && document !== null && 'head' in document ? document.head : document;
      const read = logHead.safeParse(inside);
      if (!read.success)
        throw new CommandFailed(`${name} holds no head: it is what verify printed, {count, fold, log, position, signature}`);
      return read.data;
    }),
  };
}

/** Compares a log with an export of it, event by event, in memory that does not grow with them. */
export class KeptExport {
  /** The number of events in the export so far. */
  events = 0;
  #difference: Difference | undefined;
  #fold = LOG_START;
  /** The head of an export stands for the hashes of its events, and these stand for the events. */
  readonly #chains = new LogVerification();
  #last: EventPlace | null = null;
  #ended = false;
  readonly #organizationId: string | null;

  constructor(
    private readonly name: string,
    { organizationId }: ExportHeader,
    private readonly lines: AsyncGenerator<Line, void, undefined>,
    private readonly key: HeadKey,
  ) {
    this.#organizationId = organizationId;
  }

  /** Takes the next event of the log. @throws CommandFailed for a file that is no whole export */
  async take(event: StoredEvent): Promise<void> {
    if (this.#difference !== undefined || this.#ended) return;
    if (this.#organizationId !== null && parseStreamName(event.stream)?.organizationId !== this.#organizationId) return;
    const expected = await this.#next();
    if (expected === undefined) return;
    if (isSame(expected, event)) {
      this.#last = placeOf(event);
      return;
    }
    const changed = expected.stream === event.stream && expected.revision === event.revision;
    this.#found(
      expected,
      event,
      changed ? 'it was changed, with its hash computed anew or not' : 'it was removed or moved, or another event was put in before it',
    );
  }

  /**
   * The first difference, once all events of the log were taken; undefined when the log begins with exactly the events of the export.
   * @throws CommandFailed for a file that is no whole export, or was changed itself
   */
  async end(): Promise<Difference | undefined> {
    for (let expected = await this.#next(); expected !== undefined; expected = await this.#next())
      if (this.#difference === undefined) this.#found(expected, null, 'the log ends before it: its tail was cut, or streams were removed');
    return this.#difference;
  }

  #found({ stream, revision, id, position }: StoredEvent, found: StoredEvent | null, why: string): void {
    const expected = { ...placeOf({ stream, revision, position } as StoredEvent), eventId: id };
    const place = { after: this.#last, upTo: found === null ? null : placeOf(found), missing: null, expected };
    this.#difference = { why: `${stream} revision ${revision} is not as it was when it was exported: ${why}`, place };
  }

  /** The next event of the export; undefined after the last one, when the export was proved. */
  async #next(): Promise<StoredEvent | undefined> {
    if (this.#ended) return undefined;
    for await (const { text = '', number } of { [Symbol.asyncIterator]: () => ({ next: () => this.lines.next() }) }) {
      if (text.startsWith('{"keep":') || text.startsWith('{"kept":')) continue;
      const line = jsonOf(text);
      const event = exportEvent.safeParse(line);
      if (event.success) {
        const exported = event.data as unknown as StoredEvent;
        this.#fold = nextFold(this.#fold, exported);
        this.#chains.take(exported);
        this.events++;
        return exported;
      }
      const end = exportEnd.safeParse(line);
      if (!end.success) throw new CommandFailed(`${this.name}, line ${number}: neither an event nor the end of an export`);
      this.#ended = true;
      const { head } = end.data;
      if (this.#chains.bad.length > 0 || !this.key.signed(head) || head.count !== this.#fold.count || head.fold !== this.#fold.fold)
        throw new CommandFailed(`${this.name} is not as it was exported with this MASTER_KEY, so that it proves nothing`);
      return undefined;
    }
    throw new CommandFailed(`${this.name} was cut off: the last line of an export is missing`);
  }
}

const isSame = (a: StoredEvent, b: StoredEvent): boolean =>
  a.stream === b.stream &&
  a.revision === b.revision &&
  a.id === b.id &&
  a.type === b.type &&
  a.data === b.data &&
  a.metadata === b.metadata;
