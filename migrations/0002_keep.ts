import { type Kysely, sql } from 'kysely';

/** The tables that cannot be derived from the log: keys, secrets, and answers of keyed requests. Back them up after the log. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create schema keep`.execute(db);
  await sql`
    create table keep.visitor_keys (
      organization_id text not null,
      key_id uuid not null,
      visitor_id text not null,
      -- null once the visitor was erased: the row stays, so that no new key is made under the old id
      wrapped bytea,
      created_at timestamptz not null default now(),
      primary key (organization_id, key_id)
    )`.execute(db);
  await sql`
    create table keep.organization_secrets (
      organization_id text not null,
      name text not null,
      wrapped bytea not null,
      created_at timestamptz not null default now(),
      primary key (organization_id, name)
    )`.execute(db);
  await sql`
    create table keep.api_keys (
      organization_id text not null,
      id text not null,
      hash bytea not null unique,
      role text not null,
      name text not null,
      agent_id text,
      expires_at timestamptz,
      revoked_at timestamptz,
      created_at timestamptz not null default now(),
      primary key (organization_id, id)
    )`.execute(db);
  await sql`
    create table keep.idempotency (
      command_id uuid primary key,
      request_hash text not null,
      answer jsonb not null,
      created_at timestamptz not null default now()
    )`.execute(db);
  await sql`create index idempotency_created_at on keep.idempotency (created_at)`.execute(db);
}
