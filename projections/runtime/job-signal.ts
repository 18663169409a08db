import pg from 'pg';
import { ignoreFailure } from '../../src/ignore-failure.js';

const CHANNEL = 'threadlog_jobs';
/** At most one NOTIFY in this time (ms): each takes a lock that all committing notifiers of the cluster share. */
const NOTIFY_MS = 50;
/** How soon a connection that broke is made again (ms). Whoever waits for jobs looks for them twice a second meanwhile. */
const RECONNECT_MS = 1_000;

/**
 * Tells those who do jobs, in this process and in the others, that jobs were added: here at once, elsewhere by a NOTIFY that is no part of the
 * transaction that adds them, where it would make commits wait for each other. A NOTIFY that is lost costs as long as they wait by themselves.
 */
export class JobSignal {
  readonly #url: string;
  readonly #wake: () => void;
  #client: pg.Client | undefined;
  #opening: Promise<void> | undefined;
  #reopen: NodeJS.Timeout | undefined;
  #pause: NodeJS.Timeout | undefined;
  #again = false;
  #closed = false;

  /** @param wake called when there may be jobs; also when the connection is there, since what was told before was told to nobody */
  constructor(url: string, wake: () => void) {
    this.#url = url;
    this.#wake = wake;
    this.#opening = this.#open();
  }

  /** After a transaction of this process that added jobs. */
  added(): void {
    this.#wake();
    if (this.#pause === undefined) this.#tell();
    else this.#again = true;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#pause);
    clearTimeout(this.#reopen);
    await this.#opening;
    await ignoreFailure(this.#client?.end(), 'the connection is given up either way');
  }

  #tell(): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#again = false;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#again) this.#tell();
    }, NOTIFY_MS);
    client.query(`notify ${CHANNEL}`).catch(() => this.#drop(client));
  }

  async #open(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#url,
      application_name: 'threadlog-jobs',
      connectionTimeoutMillis: 5_000,
      query_timeout: 2_000,
      keepAlive: true,
    });
    client.on('error', () => this.#drop(client));
    client.on('end', () => this.#drop(client));
    client.on('notification', ({ processId }) => {
      // This process was woken as it added them.
      if (!('processID' in client) || processId !== client.processID) this.#wake();
    });
    this.#client = client;
    try {
      await client.connect();
      await client.query(`listen ${CHANNEL}`);
      this.#wake();
    } catch {
      this.#drop(client);
    }
  }

  #drop(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    void ignoreFailure(client.end(), 'the connection is given up either way');
    if (this.#closed) return;
    this.#reopen = setTimeout(() => {
      this.#opening = this.#open();
    }, RECONNECT_MS);
  }
}
