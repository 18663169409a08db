import { type Kysely, sql } from 'kysely';

/**
 * A generation now belongs to the shape of its tables, and no longer to a version number in the sources. Builds that still use such a
 * number can run beside this build: their rows keep the number and are found by it.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table read.checkpoints alter column version set default 0`.execute(db);
  await sql`drop index read.checkpoints_live`.execute(db);
  await sql`create unique index checkpoints_live on read.checkpoints (group_name, shape) where live and version = 0`.execute(db);
  await sql`create unique index checkpoints_live_by_version on read.checkpoints (group_name, version) where live and version <> 0`.execute(
    db,
  );
  // Views for people with psql, with names that never change, over the newest rows. Threadlog itself does not read them.
  await sql`create schema threadlog`.execute(db);
}
