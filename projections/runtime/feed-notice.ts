import { type Kysely, sql } from 'kysely';
import type { Database } from '../../src/database/database.js';
import { ignoreFailure } from '../../src/ignore-failure.js';

/** At most one NOTIFY in this time (ms): each takes a lock that all committing notifiers of the cluster share. */
const NOTIFY_MS = 10;

/**
 * Tells all API processes that a table has grown, after the batch's own transaction, where a NOTIFY would make commits wait for each other.
 * One that is lost costs the others one interval of their poll.
 */
export class FeedNotice {
  #pause: NodeJS.Timeout | undefined;
  #again = false;

  constructor(
    private readonly database: Kysely<Database>,
    private readonly channel: string,
  ) {}

  /** After a batch was committed. */
  wrote(): void {
    if (this.#pause === undefined) this.#tell();
    else this.#again = true;
  }

  stop(): void {
    clearTimeout(this.#pause);
  }

  #tell(): void {
    this.#again = false;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#again) this.#tell();
    }, NOTIFY_MS);
    void ignoreFailure(sql`select pg_notify(${this.channel}, '')`.execute(this.database), 'whoever listens also looks by itself');
  }
}
