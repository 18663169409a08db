import type { StoredEvent, StreamName } from './event-store.js';
import { type HeadKey, logHead, type LogFold, type LogHead, LOG_START, nextFold } from './log-head.js';

/** A head that the log itself holds, at a revision of the stream of heads. */
export interface SignedInLog {
  readonly revision: number;
  /** Undefined when the event is no head. */
  readonly head: LogHead | undefined;
}

/** An event in the log. */
export interface EventPlace {
  readonly stream: StreamName;
  readonly revision: number;
  readonly position: string;
}

export const placeOf = ({ stream, revision, position }: StoredEvent): EventPlace => ({ stream, revision, position });

/** Where a log first differs from what was signed: after one event, at the latest at another. */
export interface WrongPlace {
  /** The last event that is right, with all before it; null when none is. */
  readonly after: EventPlace | null;
  /** The first event with which the log is wrong; null when that is its end. */
  readonly upTo: EventPlace | null;
  /** The two events between which the log has lost others, where its positions had no gap when the head was signed. */
  readonly missing: { readonly after: EventPlace | null; readonly before: EventPlace | null } | null;
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
  readonly #places = new Map<LogHead, WrongPlace>();
  #last: EventPlace | null = null;
  /** The last event that a right head covers. */
  #proved: EventPlace | null = null;
  /** The first position that is not the number of its event. */
  #gap: { readonly number: number; readonly after: EventPlace | null; readonly before: EventPlace } | undefined;
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
    const { count } = this.fold;
    const here = placeOf(event);
    if (this.#gap === undefined && Number(event.position) !== count) this.#gap = { number: count, after: this.#last, before: here };
    this.#last = here;
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

  /**
   * Where the log first differs from what a head was signed over, as exactly as the heads can tell: between the last right head and the
   * first wrong one. Undefined when the head is right, or was not signed.
   */
  placeOf(head: LogHead): WrongPlace | undefined {
    if (this.#outcomes.has(head)) return this.#places.get(head);
    if (!this.key.signed(head)) return undefined;
    const missing = this.#missing(head) ?? (this.#isGapless(head) ? { after: this.#last, before: null } : null);
    return { after: this.#proved, upTo: null, missing };
  }

  #missing(head: LogHead): WrongPlace['missing'] {
    if (this.#gap === undefined || this.#gap.number > head.count || !this.#isGapless(head)) return null;
    return { after: this.#gap.after, before: this.#gap.before };
  }

  /** Whether the head itself proves that the positions of its events were 1, 2, 3 and so on. In a copy of the log they are others. */
  #isGapless = (head: LogHead): boolean => head.log === this.logId && Number(head.position) === head.count;

  #hold(): void {
    for (let head = this.#ahead.at(-1); head !== undefined && head.count <= this.fold.count; head = this.#ahead.at(-1)) {
      this.#ahead.pop();
      const why =
        this.#unsigned(head) ??
        (head.fold === this.fold.fold
          ? undefined
          : `the first ${head.count} events are not those that it was signed over: events were changed, removed or put in, with the hashes computed anew${this.#elsewhere(head)}`);
      this.#outcomes.set(head, why);
      if (why === undefined) this.#proved = this.#last;
      else if (this.key.signed(head)) this.#places.set(head, { after: this.#proved, upTo: this.#last, missing: this.#missing(head) });
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
