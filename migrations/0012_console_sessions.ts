import { type Kysely, sql } from 'kysely';

/** Sessions of the console, and the links with which one begins. The log does not hold them, since they pass within a day. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table keep.console_sessions (
      -- of the whole token, which is stored nowhere
      hash bytea primary key,
      -- a link is used up by the session that it begins
      kind text not null check (kind in ('session', 'link')),
      organization_id text not null,
      -- the API key whose rights the session has, for as long as the key is valid
      key_id text not null,
      expires_at timestamptz not null
    )`.execute(db);
  await sql`create index console_sessions_expires_at on keep.console_sessions (expires_at)`.execute(db);
}
