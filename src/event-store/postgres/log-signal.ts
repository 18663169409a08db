import type pg from 'pg';
import { ignoreFailure } from '../../ignore-failure.js';

const CHANNEL = 'threadlog_log';
/** At most one NOTIFY in this time: each takes a lock that all committing notifiers of the cluster share. */
const NOTIFY_MS = 10;
/** The fallback when a notification is lost, and the heartbeat that finds a dead connection. */
const POLL_MS = 100;
const RECONNECT_MS = 500;

/**
 * Tells the feeds of this process that the log grew: at once after appends of this process, by NOTIFY after those of others, and by a
 * poll when a notification is lost. One connection serves all feeds. The NOTIFY is never part of an append's transaction, where it would
 * make commits wait for each other.
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

  /** Changes with every wake. Read it before reading the log, and hand it to `changed`, so that nothing falls in between. */
  get version(): number {
    return this.#version;
  }

  /** After an acknowledged append of this process. */
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
      // The connection is slow to answer or dead: the feeds look for themselves.
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

  /** One query at a time; undefined when there is no connection or it failed, since reconnecting is the whole answer to that. */
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
      // What was appended before LISTEN took hold was announced to nobody.
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
      // This process was woken by its own append already.
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
