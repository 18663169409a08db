import pg from 'pg';
import { ignoreFailure } from '../ignore-failure.js';

/** How soon a connection that broke is made again (ms). */
const RECONNECT_MS = 500;
/** How often the server is asked for a sign of life (ms). A connection on which the last question is still open is given up. */
const ALIVE_MS = 3_000;

/** What a process hears on a channel. */
export interface Listener {
  /**
   * @param payload the text that was sent along; empty when there was none
   * @param own this process has told it itself
   * @param session the process id of the PostgreSQL session that told it, which nobody can choose
   */
  heard(payload: string, own: boolean, session: number): void;
  /** Called when the connection is there, also again: what was told meanwhile was told to nobody. */
  connected?(): void;
}

export interface NotificationsOptions {
  readonly url: string;
  /** The connection's application_name. */
  readonly name: string;
  /** By the channels' names, which are plain identifiers. */
  readonly channels: Readonly<Record<string, Listener>>;
  /** Instead of ALIVE_MS. */
  readonly aliveMs?: number;
}

/**
 * Listens to channels of PostgreSQL, and tells other processes, on one connection of its own. What is told while a connection is broken is
 * lost, so whoever listens looks for itself now and then. This process hears what it tells, too.
 */
export class Notifications {
  readonly #options: NotificationsOptions;
  #client: pg.Client | undefined;
  /** The process id of the client's session, once it is known. */
  #session: number | undefined;
  #alive: NodeJS.Timeout | undefined;
  #opening: Promise<void>;
  #reopen: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: NotificationsOptions) {
    this.#options = options;
    this.#opening = this.#open();
  }

  /** @param payload at most 7,999 bytes of UTF-8 */
  tell(channel: string, payload: string): void {
    const client = this.#client;
    client?.query('select pg_notify($1, $2)', [channel, payload]).catch(() => this.#drop(client));
  }

  /**
   * As tell(), for a text that names the session which tells it. Before the session's number is known, nothing is told.
   * @param payloadOf is given the number by which listeners know the session
   */
  tellAs(channel: string, payloadOf: (session: number) => string): void {
    if (this.#session !== undefined) this.tell(channel, payloadOf(this.#session));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#alive);
    clearTimeout(this.#reopen);
    await this.#opening;
    await ignoreFailure(this.#client?.end(), 'the connection is given up either way');
  }

  async #open(): Promise<void> {
    const { url, name, channels } = this.#options;
    const client = new pg.Client({
      connectionString: url,
      application_name: name,
      connectionTimeoutMillis: 5_000,
      query_timeout: 2_000,
      keepAlive: true,
    });
    client.on('error', () => this.#drop(client));
    client.on('end', () => this.#drop(client));
    client.on('notification', ({ channel, payload, processId }) =>
      channels[channel]?.heard(payload ?? '', this.#client === client && processId === this.#session, processId),
    );
    this.#client = client;
    try {
      await client.connect();
      // Asked, since a pooler between tells clients a number of its own.
      const { rows } = await client.query<{ session: number }>('select pg_backend_pid() as session');
      if (this.#client === client) this.#session = rows[0]?.session;
      for (const channel of Object.keys(channels)) await client.query(`listen ${channel}`);
      if (this.#client !== client || this.#closed) return;
      this.#watch(client);
      for (const listener of Object.values(channels)) listener.connected?.();
    } catch {
      this.#drop(client);
    }
  }

  /** Where a network silently drops packets, nothing else tells that the connection is gone, since a listener sends nothing by itself. */
  #watch(client: pg.Client): void {
    let isAsked = false;
    this.#alive = setInterval(() => {
      if (isAsked) return this.#drop(client);
      isAsked = true;
      client.query('select').then(
        () => (isAsked = false),
        () => this.#drop(client),
      );
    }, this.#options.aliveMs ?? ALIVE_MS).unref();
  }

  #drop(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#session = undefined;
    clearInterval(this.#alive);
    void ignoreFailure(client.end(), 'the connection is given up either way');
    if (this.#closed) return;
    this.#reopen = setTimeout(() => {
      this.#opening = this.#open();
    }, RECONNECT_MS);
  }
}
