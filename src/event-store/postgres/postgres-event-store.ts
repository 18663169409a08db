import pg from 'pg';
import { pause } from '../../pause.js';
import { assertAppendable, LIMITS, StoreUnavailable } from '../event-store.js';
import type { Append, Appended, EventStore, Expected, FeedBatch, NewEvent, Position, StoredEvent, StreamName } from '../event-store.js';
import { AppendBatcher } from './append-batcher.js';
import { LogSignal } from './log-signal.js';
import { OrderedAppends } from './ordered-appends.js';
import { BEFORE_ALL, positionOf } from './position.js';
import { isConnectionLost, messageOf } from './postgres-errors.js';
import { SharedTail, type TailRead, type TailReader } from './shared-tail.js';
import { ignoreFailure } from '../../ignore-failure.js';

const READ_BATCH = 500;
/** Number of events that one query reads for all feeds at the log's end. */
const TAIL_BATCH = 1_000;
const CONNECT_TIMEOUT_MS = 5_000;
const QUERY_TIMEOUT_MS = 5_000;
/** A batch of appends that has no answer after this time (ms) is given up with its connection, and settled on a new one. */
const APPEND_TIMEOUT_MS = 2_500;
const SIGNAL_TIMEOUT_MS = 2_000;
const FEED_RETRY_MS = { first: 50, most: 1_000 } as const;
const MAX_REVISION = 2 ** 31 - 1;
// Every query of this adapter can follow an index. A plan made while the table was empty must not scan and sort it once it is full.
const PLANS = '-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off -c jit=off';

/**
 * Most bytes of a batch. A batch with large events ends early, so that it needs no more memory than this, however many events were asked
 * for. The database knows the lengths without reading the texts.
 */
const BATCH_BYTES = 8_000_000;

type Row = [position: string, stream: string, revision: number, id: string, type: string, data: string, metadata: string, bytes: string];
const FORWARDS = batchOf('stream = $1 and revision >= $2 and revision <= $3 order by revision limit $4', 'revision');
const BACKWARDS = batchOf('stream = $1 and revision >= $2 and revision <= $3 order by revision desc limit $4', 'revision desc');
const FEED = batchOf('position > $1 order by position limit $2', 'position');
const HEAD = 'select max(position) from log.events';

/** How to reach the log, and how to warn operators. */
export interface PostgresEventStoreOptions {
  readonly url: string;
  /** Most connections for reads and feeds. Appends have two more, and the signal has one. */
  readonly poolSize?: number;
  readonly applicationName?: string;
  /** Gets a sentence for each setting that endangers the log, and for a feed that cannot go on for now. */
  readonly onWarning?: (warning: string) => void;
}

/**
 * Opens the log in the database that migrateToLatest() prepared.
 * @throws StoreUnavailable when the server cannot be reached
 * @throws Error when the server is too old, not UTF-8 or not migrated
 */
export async function openPostgresEventStore(options: PostgresEventStoreOptions): Promise<EventStore> {
  const { url, poolSize = 4, applicationName = 'threadlog', onWarning = () => undefined } = options;
  const client = await connect(url, applicationName);
  try {
    const { rows } = await client.query<{ version: number; encoding: string; fsync: string; full_page_writes: string; migrated: boolean }>(`
      select current_setting('server_version_num')::int as version, current_setting('server_encoding') as encoding,
        current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
        to_regclass('log.identity') is not null as migrated`);
    const server = rows[0];
    if (server === undefined) throw new Error('the server did not return its settings');
    if (server.version < 150_000) throw new Error('the Postgres log needs PostgreSQL 15 or newer');
    if (server.encoding !== 'UTF8') throw new Error(`the Postgres log needs a database in UTF8, not ${server.encoding}`);
    if (!server.migrated) throw new Error('the database has no log yet: run the migrations first');
    for (const setting of ['fsync', 'full_page_writes'] as const) {
      if (server[setting] !== 'on')
        onWarning(`PostgreSQL runs with ${setting} = ${server[setting]}: a crash can lose or damage acknowledged events`);
    }
    const identity = await client.query<{ id: string }>('select id from log.identity');
    const id = identity.rows[0]?.id;
    if (id === undefined) throw new Error('the log has no identity: its row in log.identity is missing');
    return new PostgresEventStore({ url, poolSize, applicationName, onWarning, id, version: server.version });
  } finally {
    await client.end();
  }
}

async function connect(url: string, applicationName: string, setUp = '', queryTimeoutMs = QUERY_TIMEOUT_MS): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    application_name: applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: queryTimeoutMs,
    keepAlive: true,
  });
  // A lost connection also fails the query under way, and is handled there.
  client.on('error', () => undefined);
  try {
    await client.connect();
    if (setUp !== '') await client.query(setUp);
    return client;
  } catch (error) {
    void ignoreFailure(client.end(), 'the connection is given up either way');
    throw new StoreUnavailable(`PostgreSQL cannot be reached: ${messageOf(error)}`, { cause: error });
  }
}

/** Sets what a session for appends needs, whatever the defaults of the server or the role are. */
function appendSession(version: number): string {
  return [
    // An acknowledged event survives a crash. remote_apply promises more than `on`, so it stays.
    `select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') not in ('on', 'remote_apply')`,
    // The function must see the appends that were committed while it waited for the lock.
    `set default_transaction_isolation = 'read committed'`,
    `set default_transaction_read_only = off`,
    `set statement_timeout = '4s'`,
    // A client that vanishes between its Execute and its Sync holds the lock until the server ends its transaction.
    version >= 170_000
      ? `set transaction_timeout = '5s'`
      : `set tcp_keepalives_idle = 2; set tcp_keepalives_interval = 1; set tcp_keepalives_count = 3`,
    `set jit = off`,
  ].join('; ');
}

class PostgresEventStore implements EventStore {
  readonly log: { readonly adapter: 'postgres'; readonly id: string };
  readonly #pool: pg.Pool;
  readonly #signal: LogSignal;
  readonly #batcher: AppendBatcher;
  readonly #ordered: OrderedAppends;
  readonly #warn: (warning: string) => void;
  readonly #closing = new AbortController();
  readonly #tail = new SharedTail(
    (after) => this.#readAfter(after, TAIL_BATCH),
    () => this.#signal.version,
  );

  constructor(options: Required<PostgresEventStoreOptions> & { id: string; version: number }) {
    const { url, poolSize, applicationName, onWarning, id, version } = options;
    this.log = { adapter: 'postgres', id };
    this.#warn = onWarning;
    this.#signal = new LogSignal(() => connect(url, `${applicationName}:signal`, 'set enable_seqscan = off', SIGNAL_TIMEOUT_MS));
    const connectToAppend = () => connect(url, `${applicationName}:append`, appendSession(version), APPEND_TIMEOUT_MS);
    const appended = () => this.#signal.appended();
    this.#batcher = new AppendBatcher(connectToAppend, appended);
    this.#ordered = new OrderedAppends(connectToAppend, appended);
    this.#pool = new pg.Pool({
      connectionString: url,
      application_name: `${applicationName}:read`,
      max: poolSize,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      statement_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
      options: PLANS,
    });
    // The pool replaces an idle connection that breaks. Without a listener its error would end the process.
    this.#pool.on('error', () => undefined);
  }

  async append(stream: StreamName, expected: Expected, events: readonly NewEvent[], deadline: AbortSignal): Promise<Appended> {
    assertAppendable(stream, expected, events);
    return await this.#batcher.append(stream, expected, events, deadline);
  }

  async appendInOrder(appends: readonly Append[], deadline: AbortSignal): Promise<readonly Appended[]> {
    for (const { stream, expected, events } of appends) assertAppendable(stream, expected, events);
    return await this.#ordered.append(appends, deadline);
  }

  async *read(
    stream: StreamName,
    options: { from?: number; to?: number; backwards?: boolean; limit?: number } = {},
  ): AsyncGenerator<readonly StoredEvent[]> {
    const { backwards = false, limit = Infinity } = options;
    let from = Math.max(options.from ?? 0, 0);
    let to = Math.min(options.to ?? MAX_REVISION, MAX_REVISION);
    let left = limit;
    // Such a stream cannot exist, since no append can make it.
    if (!isText(stream)) return;
    while (from <= to && left > 0) {
      const size = Math.min(READ_BATCH, left);
      const rows = await this.#query(backwards ? { name: 'backwards', text: BACKWARDS } : { name: 'forwards', text: FORWARDS }, [
        stream,
        from,
        to,
        size,
      ]);
      const last = rows.at(-1);
      if (last === undefined) return;
      yield rows.map(eventOf);
      if (isLastBatch(rows, size)) return;
      left -= rows.length;
      if (backwards) to = last[2] - 1;
      else from = last[2] + 1;
    }
  }

  async head(): Promise<Position | 'start'> {
    const rows = await this.#query<[string | null]>({ name: 'head', text: HEAD }, []);
    const position = rows[0]?.[0];
    return position ? positionOf(position) : 'start';
  }

  async *feed(after: Position | 'start', options: { maxEvents: number; signal: AbortSignal }): AsyncGenerator<FeedBatch> {
    const signal = AbortSignal.any([options.signal, this.#closing.signal]);
    let through = after === 'start' ? BEFORE_ALL : after;
    let saidCaughtUp = false;
    let failures = 0;
    let reader: TailReader | undefined;
    try {
      while (!signal.aborted) {
        const version = this.#signal.version;
        let read: TailRead | undefined;
        try {
          if (reader !== undefined) {
            read = await unlessAborted(this.#tail.next(reader, version, options.maxEvents), signal);
            if (read === undefined) {
              this.#tail.leave(reader);
              reader = undefined;
              continue;
            }
          } else read = await unlessAborted(this.#readAfter(through, options.maxEvents), signal);
          failures = 0;
        } catch (error) {
          if (failures === 5) this.#warn(`a feed of the log cannot read on: ${messageOf(error)}`);
          await pause(Math.min(FEED_RETRY_MS.first * 2 ** failures, FEED_RETRY_MS.most), signal);
          failures += 1;
          continue;
        }
        if (read === undefined) return;
        const { events, all: caughtUp } = read;
        through = events.at(-1)?.position ?? through;
        if (caughtUp) reader ??= this.#tail.join(through);
        if (events.length > 0 || (caughtUp && !saidCaughtUp)) {
          saidCaughtUp = caughtUp;
          yield { events, through, caughtUp };
        } else if (caughtUp) await this.#signal.changed(version, signal);
      }
    } finally {
      if (reader !== undefined) this.#tail.leave(reader);
    }
  }

  async #readAfter(after: Position, most: number): Promise<TailRead> {
    const rows = await this.#query({ name: 'feed', text: FEED }, [after, most]);
    return { events: rows.map(eventOf), all: isLastBatch(rows, most) };
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await Promise.all([this.#batcher.close(), this.#ordered.close()]);
    await Promise.all([this.#signal.close(), this.#pool.end()]);
  }

  /** @throws StoreUnavailable */
  async #query<R extends unknown[] = Row>(statement: { name: string; text: string }, values: unknown[]): Promise<R[]> {
    if (this.#closing.signal.aborted) throw new StoreUnavailable('the store is closed');
    const ask = async () => (await this.#pool.query<R>({ ...statement, values, rowMode: 'array' })).rows;
    try {
      return await ask().catch((error: unknown) => {
        // The pool may have handed out a connection that broke while it was idle.
        if (isConnectionLost(error) && !this.#closing.signal.aborted) return ask();
        throw error;
      });
    } catch (error) {
      throw new StoreUnavailable(`the log cannot be read: ${messageOf(error)}`, { cause: error });
    }
  }
}

/** Postgres cannot hold U+0000, U+001E separates the parameters of an append, and a lone surrogate would become another name. */
function isText(stream: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return stream.isWellFormed() && !/[\u0000-\u001f]/.test(stream);
}

function batchOf(rows: string, order: string): string {
  return `
    select position, stream, revision, id, type, data, metadata, bytes from (
      select *, octet_length(data) + octet_length(metadata) as size,
        sum(octet_length(data) + octet_length(metadata)) over (order by ${order} rows unbounded preceding) as bytes
      from (select * from log.events where ${rows}) found
    ) summed where bytes <= ${BATCH_BYTES} or bytes = size`;
}

/** False when there may be more events: the batch is full, or so large that the next event may not have fitted in. */
function isLastBatch(rows: readonly Row[], size: number): boolean {
  return rows.length < size && Number(rows.at(-1)?.[7] ?? 0) <= BATCH_BYTES - LIMITS.bytes;
}

function eventOf(row: Row): StoredEvent {
  const [position, stream, revision, id, type, data, metadata] = row;
  return { position: positionOf(position), stream: stream as StreamName, revision, id, type, data, metadata };
}

/** Undefined as soon as the signal aborts; the query ends by itself and its connection goes back to the pool. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return await new Promise<T | undefined>((resolve, reject) => {
    const aborted = () => resolve(undefined);
    signal.addEventListener('abort', aborted);
    work
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', aborted))
      .catch(reject);
  });
}
