import { Kysely, Migrator, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { migrations } from '../../migrations/migrations.js';

const TABLE = 'threadlog_migrations';
const LOCK_TABLE = 'threadlog_migrations_lock';
const LOCK = '7305806211930122';

/** A newer build has migrated the database. An older build could misread the data. */
export class UnknownMigrations extends Error {
  override readonly name = 'UnknownMigrations';
  constructor(readonly migrations: readonly string[]) {
    super(
      `the database holds migrations that this build does not know: ${migrations.join(', ')}. Start the build that made them, or a newer one.`,
    );
  }
}

/**
 * Brings the database to this build's schema. It only goes forward, and several processes may call it at once: one migrates, the others
 * wait and find nothing left to do. Each call applies all missing migrations in one transaction, or none.
 * @throws UnknownMigrations
 */
export async function migrateToLatest(url: string): Promise<void> {
  // A single connection, since the migrations must run in the session that holds the lock.
  const pool = new pg.Pool({ connectionString: url, max: 1, connectionTimeoutMillis: 10_000, application_name: 'threadlog-migrate' });
  // A lost connection fails the query that used it; without a listener the idle client's error would end the process as well.
  pool.on('error', () => undefined);
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) });
  try {
    await db.connection().execute(async (connection) => {
      await sql`select pg_advisory_lock(${sql.lit(LOCK)}::bigint)`.execute(connection);
      await refuseUnknown(connection);
      const migrator = new Migrator({
        db: connection,
        provider: { getMigrations: () => Promise.resolve({ ...migrations }) },
        migrationTableSchema: 'public',
        migrationTableName: TABLE,
        migrationLockTableName: LOCK_TABLE,
      });
      const { error, results } = await migrator.migrateToLatest();
      if (error !== undefined) {
        const failed = results?.find((result) => result.status === 'Error')?.migrationName;
        throw new Error(`the migration ${failed ?? 'of the database'} failed: ${error instanceof Error ? error.message : 'unknown'}`, {
          cause: error,
        });
      }
    });
  } finally {
    // Ends the session, which releases the lock.
    await db.destroy();
  }
}

async function refuseUnknown(db: Kysely<unknown>): Promise<void> {
  const table = await sql<{ found: boolean }>`select to_regclass(${`public.${TABLE}`}) is not null as found`.execute(db);
  if (table.rows[0]?.found !== true) return;
  const ran = await sql<{ name: string }>`select name from ${sql.table(`public.${TABLE}`)} order by name`.execute(db);
  const unknown = ran.rows.map((row) => row.name).filter((name) => !(name in migrations));
  if (unknown.length > 0) throw new UnknownMigrations(unknown);
}
