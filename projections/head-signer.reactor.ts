import type { EventStore, FeedBatch, Position } from '../src/event-store/event-store.js';
import {
  addHead,
  headAggregate,
  HEAD_STREAM,
  HeadKey,
  HistoryChanged,
  type LogFold,
  LOG_START,
  nextFold,
} from '../src/event-store/log-head.js';
import type { Transactor } from '../src/event-store/transact.js';
import { derivedId } from '../src/platform/ids.js';
import { pause } from '../src/platform/pause.js';
import type { MasterKey } from '../src/platform/sealing.js';
import { describeError } from './runtime/failures.js';
import type { LogFollower } from './runtime/batches.js';
import type { RuntimeLog } from './runtime/runtime-log.js';

/** Events from one signed head to the next. */
const EVERY = 10_000;
const CATCH_UP_EVENTS = 1_000;
const AGAIN_MS = { first: 200, longest: 10_000 } as const;

/**
 * Folds the log as the group that it follows reads it, and appends a signed head at every 10,000th event. It keeps no checkpoint: the last
 * head in the log is one, and after a start or a takeover only what came after it is read again. Reading each event a second time would
 * cost more than ten times the fold.
 *
 * Heads by two processes, or twice by one, leave one event: the fold is the same everywhere, and its command's id derives from the count.
 */
export class HeadSigner implements LogFollower {
  readonly #key: HeadKey;
  readonly #every: number;
  /** Undefined until the last head of the log was read. */
  #at: LogFold | undefined;
  /** Everything at or before it was folded. It is beyond the last folded event where the store holds events of others. */
  #folded: Position | 'start' = 'start';
  /** How far the group has read. */
  #read: Position | 'start' = 'start';
  /** The greatest head in the log, as far as is known. */
  #signed: { readonly count: number; readonly fold: string } = LOG_START;
  readonly #due: LogFold[] = [];
  #changed = false;
  #asked = false;
  #wake: () => void = () => undefined;

  constructor(
    private readonly options: {
      readonly store: EventStore;
      readonly transactor: Transactor;
      readonly masterKey: MasterKey;
      readonly log: RuntimeLog;
      /** Events from one head to the next; more than one, since a head is an event too. */
      readonly every?: number;
    },
  ) {
    this.#key = new HeadKey(options.masterKey);
    this.#every = options.every ?? EVERY;
  }

  /** Told of all that the group reads, in the turn in which it is read. */
  follow(after: Position | 'start', { events, through }: FeedBatch): void {
    this.#read = through;
    const gap = this.#at === undefined || isBefore(this.#folded, after);
    if (!gap) this.#fold(events, through);
    if (gap || this.#changed || this.#due.length > 0) this.#ask();
  }

  /** Signs what is due until the signal. Once the history has changed nothing is signed any more: that is for a person to look at. */
  async run(signal: AbortSignal): Promise<void> {
    const { log } = this.options;
    let againMs: number = AGAIN_MS.first;
    const end = () => this.#ask();
    signal.addEventListener('abort', end, { once: true });
    while (!signal.aborted) {
      try {
        await this.#asking();
        this.#asked = false;
        await this.#settle(signal);
        againMs = AGAIN_MS.first;
      } catch (error) {
        if (error instanceof HistoryChanged) {
          log.error({ error: error.message }, 'no more heads of the log are signed; threadlog verify tells more');
          break;
        }
        log.warn({ error: describeError(error), againInMs: againMs }, 'a head of the log could not be signed, trying again');
        await pause(againMs, signal);
        againMs = Math.min(againMs * 2, AGAIN_MS.longest);
        this.#asked = true;
      }
    }
    signal.removeEventListener('abort', end);
  }

  async #settle(signal: AbortSignal): Promise<void> {
    if (this.#read === 'start') return;
    if (this.#at === undefined) await this.#resume();
    if (isBefore(this.#folded, this.#read)) await this.#catchUp(signal);
    if (this.#changed)
      throw new HistoryChanged(`the first ${this.#signed.count} events of the log are not those that its head was signed over`);
    for (let head = this.#due[0]; head !== undefined && !signal.aborted; head = this.#due[0]) {
      await this.#sign(head);
      this.#due.shift();
    }
  }

  /**
   * From the last head, when it is this log's own: a copy of another log has that log's heads, and other positions. Without such a head, or
   * with one that another key signed, the log is folded from its beginning, and must come to the same.
   */
  async #resume(): Promise<void> {
    const { transactor, store } = this.options;
    const last = (await transactor.load(headAggregate, HEAD_STREAM.organizationId, HEAD_STREAM.id))?.state.last ?? null;
    if (last !== null) this.#signed = last;
    const own = last !== null && last.log === store.log.id && this.#key.signed(last);
    this.#folded = own ? (last.position as Position) : 'start';
    this.#at = own ? { count: last.count, fold: last.fold, position: this.#folded } : LOG_START;
  }

  /** Closes the gap between what was folded and what the group has read, until the group's next part follows without one. */
  async #catchUp(signal: AbortSignal): Promise<void> {
    const reading = new AbortController();
    const end = () => reading.abort();
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    try {
      for await (const { events, through } of this.options.store.feed(this.#folded, {
        maxEvents: CATCH_UP_EVENTS,
        signal: reading.signal,
      })) {
        this.#fold(events, through);
        if (this.#changed || !isBefore(this.#folded, this.#read)) break;
      }
    } finally {
      signal.removeEventListener('abort', end);
      reading.abort();
    }
  }

  /** Events may come again: from the log and from the group, after a lease was lost, or while the read models are made anew. */
  #fold(events: FeedBatch['events'], through: Position): void {
    let at = this.#at ?? LOG_START;
    for (const event of events) {
      if (!isBefore(at.position, event.position)) continue;
      at = nextFold(at, event);
      if (at.count === this.#signed.count) this.#changed ||= at.fold !== this.#signed.fold;
      else if (at.count > this.#signed.count && at.count % this.#every === 0) this.#due.push(at);
    }
    this.#at = at;
    if (isBefore(this.#folded, through)) this.#folded = through;
  }

  async #sign(at: LogFold): Promise<void> {
    const { transactor, store, log } = this.options;
    const commandId = derivedId('log-head', store.log.id, String(at.count));
    const head = this.#key.sign(at, store.log.id);
    const { outcome } = await transactor.transact(
      headAggregate,
      HEAD_STREAM.id,
      {
        organizationId: HEAD_STREAM.organizationId,
        actor: { type: 'system', id: 'head-signer' },
        commandId,
        requestHash: '',
        correlationId: commandId,
        causationDepth: 1,
      },
      addHead(head),
    );
    this.#signed = at;
    if (outcome === 'appended') log.info({ count: at.count, fold: at.fold, position: at.position }, 'head of the log signed');
  }

  #ask(): void {
    this.#asked = true;
    this.#wake();
  }

  /** Resolves at once when something was asked for since it was last looked. */
  async #asking(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.#asked) resolve();
    });
  }
}

function isBefore(a: Position | 'start', b: Position | 'start'): boolean {
  return (a === 'start' ? '' : a) < (b === 'start' ? '' : b);
}
