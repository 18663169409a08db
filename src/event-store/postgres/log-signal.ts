import type pg from 'pg';
import { ignoreFailure } from '../../ignore-failure.js';

const CHANNEL = 'threadlog_log';
/** At most one NOTIFY is sent in this time, since each takes a lock that all committing notifiers of the cluster share. */
const NOTIFY_MS = 10;
/** Interval of the poll, which replaces a lost notification and detects a dead connection. */
const POLL_MS = 100;
const RECONNECT_MS = 500;

/**
 * Tells the feeds of this process that the log grew: at once after this process's appends, by NOTIFY after appends of other processes, and
 * by a poll when a notification is lost. One connection serves all feeds. The NOTIFY is never part of an append's transaction, where it
 * would make commits wait for each other.
 */
export class LogSignal {
  readonly #connect: () => Promise<pg.Client>;
  #client: pg.Client | undefined;
  readonly #waiting = new Set<() => void>();
  #version = 0;
  #head = '';
  #notify: NodeJS.Timeout | undefined;
  #again = false;
  #poll: NodeJS.Timeout | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #looking = false;
  #retryAt = 0;
  #closed = false;

  constructor(connect: () => Promise<pg.Client>) {
    this.#connect = connect;
  }

  /** Changes with every wake. Read it before reading the log, and pass it to `changed`, so that no growth in between is missed. */
  get version(): number {
    return this.#version;
  }

  /** To be called after an acknowledged append of this process. */
  appended(): void {
    this.#wake();
    if (this.#notify !== undefined) {
      this.#again = true;
      return;
    }
    void this.#tell();
    this.#notify = setInterval(() => {
      if (this.#again) {
        this.#again = false;
        void this.#tell();
      } else {
        clearInterval(this.#notify);
        this.#notify = undefined;
      }
    }, NOTIFY_MS);
  }

  /** Resolves when the log may have grown since `version` was read, or when the signal aborts. */
  async changed(version: number, signal: AbortSignal): Promise<void> {
    if (version !== this.#version || signal.aborted || this.#closed) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
      if (this.#poll !== undefined) return;
      this.#poll = setInterval(() => this.#look(), POLL_MS);
      this.#look();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#notify);
    clearInterval(this.#poll);
    this.#wake();
    await this.#turn;
    await ignoreFailure(this.#client?.end(), 'the connection is given up either way');
  }

  #wake(): void {
    this.#version += 1;
    for (const resolve of this.#waiting) resolve();
  }

  async #tell(): Promise<void> {
    // A lost NOTIFY costs other processes one poll interval.
    await this.#use((client) => client.query(`notify ${CHANNEL}`));
  }

  #look(): void {
    if (this.#waiting.size === 0) {
      clearInterval(this.#poll);
      this.#poll = undefined;
      return;
    }
    if (this.#looking) {
      // The connection is slow or dead, so the feeds are woken to read for themselves.
      this.#wake();
      return;
    }
    this.#looking = true;
    void this.#compareHead();
  }

  async #compareHead(): Promise<void> {
    const found = await this.#use((client) => client.query<{ head: string | null }>('select max(position)::text as head from log.events'));
    const head = found?.rows[0]?.head ?? '';
    if (found === undefined || head !== this.#head) this.#wake();
    this.#head = head;
    this.#looking = false;
  }

  /** Runs one query at a time. Undefined without a connection or after a failure, since reconnecting is all there is to do then. */
  async #use<T>(query: (client: pg.Client) => Promise<T>): Promise<T | undefined> {
    const result = this.#turn.then(async () => {
      if (this.#closed) return undefined;
      if (this.#client === undefined) await this.#open();
      const client = this.#client;
      if (client === undefined) return undefined;
      try {
        return await query(client);
      } catch {
        this.#drop(client);
        return undefined;
      }
    });
    this.#turn = result;
    return await result;
  }

  async #open(): Promise<void> {
    if (Date.now() < this.#retryAt) return;
    let client: pg.Client | undefined;
    try {
      client = await this.#connect();
      this.#listen(client);
      await client.query(`listen ${CHANNEL}`);
      this.#client = client;
      // Appends before LISTEN took effect were announced to nobody.
      this.#wake();
    } catch {
      this.#retryAt = Date.now() + RECONNECT_MS;
      void ignoreFailure(client?.end(), 'the connection is given up either way');
    }
  }

  #listen(client: pg.Client): void {
    client.on('error', () => this.#drop(client));
    client.on('end', () => this.#drop(client));
    client.on('notification', (notification) => {
      // This process's own append has already woken it.
      if (notification.processId !== ownProcessId(client)) this.#wake();
    });
  }

  #drop(client: pg.Client): void {
    if (this.#client === client) this.#client = undefined;
    void ignoreFailure(client.end(), 'the connection is given up either way');
  }
}

function ownProcessId(client: pg.Client): number | undefined {
  return 'processID' in client && typeof client.processID === 'number' ? client.processID : undefined;
}
