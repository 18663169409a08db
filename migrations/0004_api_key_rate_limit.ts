import { type Kysely, sql } from 'kysely';

/** The number of requests a minute that a key may make; null when the server's limit applies. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table keep.api_keys add column rate_limit_per_minute integer`.execute(db);
}
