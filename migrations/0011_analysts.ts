import { type Kysely, sql } from 'kysely';

/**
 * Database roles of analysts, one for each organization. The views of the schema `analytics` show a role its organization and nothing else:
 * they run with the rights of their owner, and ask the function for the organization of whoever asks.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table keep.analyst_roles (
      role name primary key,
      organization_id text collate "C" not null unique
    )`.execute(db);
  await sql`create schema if not exists analytics`.execute(db);
  // session_user and not current_user, which within the function is the owner. Nobody but a superuser can change it.
  await sql`
    create function analytics.organization_id() returns text language sql stable security definer set search_path = '' as
    $$ select r.organization_id from keep.analyst_roles r where r.role = session_user $$`.execute(db);
  await sql`comment on schema analytics is 'Facts and numbers for analysts, without contents of conversations and without personal data'`.execute(
    db,
  );
}
