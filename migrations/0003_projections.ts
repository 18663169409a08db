import { type Kysely, sql } from 'kysely';

/**
 * The tables of the projections' runtime. The tables of the read models are not made here: the runtime makes them from the projections, per
 * generation (read.conversations_g7), and the views over the live generation in the schema of their version (read_v1).
 *
 * Checkpoints of all versions are in one table, and generations come from one sequence: builds with different versions run side by side,
 * and neither their tables nor their leases may collide.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create schema read`.execute(db);
  await sql`create sequence read.generations as integer`.execute(db);
  // The lease is in the checkpoint's row: each batch begins with a single update that moves the position, proves the epoch and renews the
  // lease. No index covers the columns that a batch changes, and the page has room, so that these updates stay within the page.
  await sql`
    create table read.checkpoints (
      generation integer primary key,
      group_name text not null,
      -- the number of the read models (READ_MODEL_VERSION) that the generation was made for
      version integer not null,
      -- the generation that the views show
      live boolean not null,
      -- hash of the DDL that made the tables: a build with other tables must not write these
      shape text not null,
      log_id text not null,
      -- '' before the first event. Positions have a fixed width and compare as bytes.
      position text collate "C" not null default '',
      -- events handled since the generation was made
      events bigint not null default 0,
      -- rises with every owner; what an earlier owner still wants to write is refused by it
      epoch integer not null default 0,
      owner text,
      lease_until timestamptz not null default '-infinity',
      -- when it last moved, or was found to have nothing to do
      progress_at timestamptz not null default now(),
      -- why the last owner gave up for good
      stopped text
    ) with (fillfactor = 20)`.execute(db);
  await sql`create unique index checkpoints_live on read.checkpoints (group_name, version) where live`.execute(db);
  // In keep, although a rebuild would find these streams again: an operator's list of failures must outlive the tables of the generation.
  await sql`
    create table keep.parked (
      group_name text not null,
      generation integer not null,
      stream text not null,
      -- the first event that could not be handled; the stream's later events wait in the log behind it
      revision integer not null,
      position text collate "C" not null,
      event_id uuid not null,
      type text not null,
      -- never the event's content, which may be personal
      error text not null,
      at timestamptz not null default now(),
      primary key (group_name, generation, stream)
    )`.execute(db);
}
