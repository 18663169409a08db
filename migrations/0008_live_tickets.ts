import { type Kysely, sql } from 'kysely';

/** Tickets for sockets. The log does not hold them, since they pass within half a minute. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table keep.live_tickets (
      organization_id text not null,
      id uuid not null,
      -- of the whole ticket, which is stored nowhere
      hash bytea not null unique,
      -- whoever asked for it: an API key, or a visitor by a token
      key_id text,
      acting_for text,
      visitor_id text,
      token_generation integer,
      token_expires_at timestamptz,
      expires_at timestamptz not null,
      used_at timestamptz,
      primary key (organization_id, id)
    )`.execute(db);
  await sql`create index live_tickets_expires_at on keep.live_tickets (expires_at)`.execute(db);
}
