import { type Kysely, sql } from 'kysely';

/**
 * A generation belongs to the shape of its tables and no longer to a number in the sources. Builds that have such a number run on beside this
 * one: their rows keep it, and are found by it.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table read.checkpoints alter column version set default 0`.execute(db);
  await sql`drop index read.checkpoints_live`.execute(db);
  await sql`create unique index checkpoints_live on read.checkpoints (group_name, shape) where live and version = 0`.execute(db);
  await sql`create unique index checkpoints_live_by_version on read.checkpoints (group_name, version) where live and version <> 0`.execute(
    db,
  );
  // Names that never change, over the newest rows of all: for people with psql. Nothing of Threadlog reads them.
  await sql`create schema threadlog`.execute(db);
}
