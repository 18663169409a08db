import { type Kysely, sql } from 'kysely';

/** Columns for an operator's pause and for the stage of a rebuild, and the table of skipped events. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table read.checkpoints
      -- set by an operator: the group's worker keeps the lease and handles nothing
      add column paused boolean not null default false,
      -- of a generation that is being made; null otherwise
      add column phase text check (phase in ('filling', 'indexing', 'catching up'))`.execute(db);
  // In keep, since a rebuild must skip the same events as the rows that it replaces.
  await sql`
    create table keep.skipped (
      group_name text not null,
      stream text not null,
      revision integer not null,
      event_id uuid not null,
      type text not null,
      -- why it could not be handled
      error text not null,
      at timestamptz not null default now(),
      primary key (group_name, stream, revision)
    )`.execute(db);
}
