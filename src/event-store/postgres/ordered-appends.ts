import type pg from 'pg';
import { pause } from '../../pause.js';
import { OutcomeUnknown, StoreUnavailable } from '../event-store.js';
import type { Append, Appended } from '../event-store.js';
import { answersOf, APPEND, type Appending, BACKOFF_MS, bytesOf, parametersOf, refusal } from './append-batcher.js';
import { isConnectionLost, isRolledBack, isTransient, messageOf } from './postgres-errors.js';
import { ignoreFailure } from '../../ignore-failure.js';

/** Limits the size of a transaction, and so how long it holds the log's lock. A larger append is sent alone. */
const BATCH_BYTES = 256 * 1024;

/**
 * Appends that keep their order, on their own connection. As many as fit go into one call of log.append_many, which numbers them in the
 * given order; the next call waits for its answer. The batcher cannot do this, since its two lanes keep no order between streams.
 */
export class OrderedAppends {
  readonly #connect: () => Promise<pg.Client>;
  readonly #appended: () => void;
  #client: pg.Client | undefined;
  /** The last call. Concurrent calls run one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #closing = new AbortController();

  /** The parameters are those of AppendBatcher. */
  constructor(connect: () => Promise<pg.Client>, appended: () => void) {
    this.#connect = connect;
    this.#appended = appended;
  }

  append(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]> {
    const mine = this.#last.then(() => this.#all(appends, AbortSignal.any([deadline, this.#closing.signal])));
    this.#last = ignoreFailure(mine, 'the caller gets the error, and the next call only waits for the end');
    return mine;
  }

  /** Waits for the call under way, and ends the connection. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#last;
    await ignoreFailure(this.#client?.end(), 'the connection is given up either way');
  }

  async #all(appends: readonly Append[], end: AbortSignal): Promise<readonly Appended[]> {
    const answers: Appended[] = [];
    for (const batch of batchesOf(appends)) answers.push(...(await this.#send(batch, end)));
    return answers;
  }

  /** Sends the same bytes until there is an answer: the function distinguishes appends that are already written from conflicts. */
  async #send(batch: readonly Appending[], end: AbortSignal): Promise<readonly Appended[]> {
    let maybeWritten = false;
    let why = 'the deadline passed';
    for (let failures = 0; !end.aborted; failures++) {
      if (failures > 0) await pause(Math.min(BACKOFF_MS.first * 2 ** (failures - 1), BACKOFF_MS.most), end);
      let client: pg.Client;
      try {
        client = this.#client ??= await this.#open();
      } catch (error) {
        why = messageOf(error);
        continue;
      }
      try {
        const { rows } = await unlessAborted(client.query<[string]>({ ...APPEND, values: parametersOf(batch) }), end);
        const answers = answersOf(batch, rows[0]?.[0] ?? '');
        if (answers.some(({ outcome }) => outcome === 'appended')) this.#appended();
        return answers;
      } catch (error) {
        const rolledBack = isRolledBack(error);
        if (!rolledBack || isConnectionLost(error)) this.#drop(client);
        if (rolledBack && !isTransient(error)) throw refusal(error, maybeWritten);
        maybeWritten ||= !rolledBack;
        why = messageOf(error);
      }
    }
    throw maybeWritten ? new OutcomeUnknown(why) : new StoreUnavailable(why);
  }

  async #open(): Promise<pg.Client> {
    const client = await this.#connect();
    const drop = () => {
      if (this.#client === client) this.#client = undefined;
    };
    client.on('error', drop);
    client.on('end', drop);
    return client;
  }

  #drop(client: pg.Client): void {
    if (this.#client === client) this.#client = undefined;
    void ignoreFailure(client.end(), 'the connection is given up either way');
  }
}

/** Cuts appends into batches in which each stream occurs once, as a call of log.append_many needs them. */
function* batchesOf(appends: readonly Append[]): Generator<readonly Appending[]> {
  let batch: Appending[] = [];
  let bytes = 0;
  const streams = new Set<string>();
  for (const { stream, expected, events } of appends) {
    const more = bytesOf(stream, events);
    if (batch.length > 0 && (bytes + more > BATCH_BYTES || streams.has(stream))) {
      yield batch;
      batch = [];
      bytes = 0;
      streams.clear();
    }
    batch.push({ stream, first: expected === 'none' ? 0 : expected + 1, events });
    bytes += more;
    streams.add(stream);
  }
  if (batch.length > 0) yield batch;
}

/** Fails as soon as the signal aborts. It is then unknown whether the work was done. */
async function unlessAborted<T>(work: Promise<T>, end: AbortSignal): Promise<T> {
  let aborted = () => undefined as void;
  const late = new Promise<never>((_, reject) => {
    aborted = () => reject(new Error('the deadline passed before the answer'));
    end.addEventListener('abort', aborted);
    if (end.aborted) aborted();
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    end.removeEventListener('abort', aborted);
    void ignoreFailure(work, 'the caller already knows that the deadline passed, or has the failure');
  }
}
