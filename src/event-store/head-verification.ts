import type { StoredEvent } from './event-store.js';
import { type HeadKey, logHead, type LogFold, type LogHead, LOG_START, nextFold } from './log-head.js';

/** A head that the log itself holds, at a revision of the stream of heads. */
export interface SignedInLog {
  readonly revision: number;
  /** Undefined when the event is no head. */
  readonly head: LogHead | undefined;
}

/** Reads an event of the stream of heads, even one with wrong content. */
export function headIn(event: StoredEvent): SignedInLog {
  let data: unknown;
  try {
    data = JSON.parse(event.data);
  } catch {
    data = undefined;
  }
  const read = logHead.safeParse(data);
  return { revision: event.revision, head: event.type === 'HeadSigned' && read.success ? read.data : undefined };
}

/**
 * Compares heads with their log, given all of the log's events in feed order. The heads must be given beforehand, since a head comes after
 * the events that it covers, and remembering the fold at each event would take more memory than the log's streams.
 */
export class HeadVerification {
  /** The fold over all events so far. */
  fold: LogFold = LOG_START;
  readonly #outcomes = new Map<LogHead, string | undefined>();
  /** Heads that are not reached yet, the least count last. */
  readonly #ahead: LogHead[];

  constructor(
    private readonly key: HeadKey,
    private readonly logId: string,
    heads: readonly LogHead[],
  ) {
    this.#ahead = heads.toSorted((a, b) => b.count - a.count);
    this.#hold();
  }

  take(event: StoredEvent): void {
    this.fold = nextFold(this.fold, event);
    this.#hold();
  }

  /** What is wrong with a head, once all events were taken; undefined when the head was signed over the log's first events. */
  whyNot(head: LogHead): string | undefined {
    if (this.#outcomes.has(head)) return this.#outcomes.get(head);
    return (
      this.#unsigned(head) ??
      `it covers ${head.count} events, and the log has ${this.fold.count}: its tail was cut, or streams were removed${this.#elsewhere(head)}`
    );
  }

  #hold(): void {
    for (let head = this.#ahead.at(-1); head !== undefined && head.count <= this.fold.count; head = this.#ahead.at(-1)) {
      this.#ahead.pop();
      const why =
        this.#unsigned(head) ??
        (head.fold === this.fold.fold
          ? undefined
          : `the first ${head.count} events are not those that it was signed over: events were changed, removed or put in, with the hashes computed anew${this.#elsewhere(head)}`);
      this.#outcomes.set(head, why);
    }
  }

  #unsigned(head: LogHead): string | undefined {
    return this.key.signed(head) ? undefined : 'it was not signed with this MASTER_KEY';
  }

  /** A hint and not a fault, since a copy of a log has the same events under another identity. */
  #elsewhere(head: LogHead): string {
    return head.log === this.logId ? '' : `. It was signed over the log ${head.log}, and this one is ${this.logId}`;
  }
}
