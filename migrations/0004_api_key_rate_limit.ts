import { type Kysely, sql } from 'kysely';

/** Requests a minute that a key may make; null where the server's own limit holds. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table keep.api_keys add column rate_limit_per_minute integer`.execute(db);
}
