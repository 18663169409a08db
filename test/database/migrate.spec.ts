import pg from 'pg';
import { migrateToLatest, UnknownMigrations } from '../../src/database/migrate.js';
import { migrations } from '../../migrations/migrations.js';
import { createDatabase } from '../support/database.js';
import type { TestDatabase } from '../support/database.js';

describe('migrateToLatest', () => {
  let database: TestDatabase;
  let client: pg.Client;

  beforeEach(async () => {
    database = await createDatabase();
    client = new pg.Client({ connectionString: database.url });
    await client.connect();
  });
  afterEach(async () => {
    await client.end();
    await database.drop();
  });

  const names = async () => {
    const { rows } = await client.query<{ name: string }>('select name from public.threadlog_migrations order by name');
    return rows.map((row) => row.name);
  };

  it('brings an empty database to the latest schema, also when several processes start at once', async () => {
    // The test's database is a clone of a migrated one.
    await client.query(`
      do $$ declare s text; begin
        for s in select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' loop
          execute format('drop schema %I cascade', s);
        end loop;
      end $$`);
    await client.query('create schema public');
    await Promise.all(Array.from({ length: 4 }, () => migrateToLatest(database.url)));
    expect(await names()).toEqual(Object.keys(migrations).sort());
    await expect(client.query('select id from log.identity')).resolves.toMatchObject({ rowCount: 1 });
    await migrateToLatest(database.url);
    expect(await names()).toEqual(Object.keys(migrations).sort());
  });

  it('refuses a database that a newer build has migrated, by name', async () => {
    await client.query(`insert into public.threadlog_migrations (name, timestamp) values ('9999_from_the_future', now()::text)`);
    await expect(migrateToLatest(database.url)).rejects.toThrow(UnknownMigrations);
    await expect(migrateToLatest(database.url)).rejects.toThrow(/9999_from_the_future/);
  });

  it('says which migration failed and leaves nothing of it behind', async () => {
    const last = Object.keys(migrations).sort().at(-1)!;
    await client.query('delete from public.threadlog_migrations where name = $1', [last]);
    // Its objects are there already, so running it again must fail, and must fail whole.
    await expect(migrateToLatest(database.url)).rejects.toThrow(last);
    expect(await names()).not.toContain(last);
  });
});
