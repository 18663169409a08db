import { createHash } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { Database } from '../database/database.js';
import type { MasterKey } from '../security/sealing.js';
import { lockAnalytics } from './analyst.views.js';

/** How long one question of an analyst may take, and how many may be asked at once. */
const STATEMENT_TIMEOUT = '5min';
const CONNECTIONS = 10;

/** PostgreSQL refuses what only a role with CREATEROLE may do. */
export class MayNotMakeRoles extends Error {
  override readonly name = 'MayNotMakeRoles';
}

export interface AnalystRole {
  readonly role: string;
  readonly password: string;
  /** True when the database leaves every role make temporary tables, and belongs to somebody else who would have to change that. */
  readonly makesTemporary: boolean;
}

/**
 * Makes the database role of an organization's analysts, or brings it up to date. It may read the views of the schema `analytics`, which
 * show it this organization, and no other relation; docs/analytics.md says what PostgreSQL lets every role do besides. The password follows from the operator's key, so nothing has to be kept, and the same
 * question gets the same answer.
 * @throws MayNotMakeRoles
 */
export async function makeAnalystRole(database: Kysely<Database>, masterKey: MasterKey, organizationId: string): Promise<AnalystRole> {
  const { rows: where } = await sql<{ name: string }>`select current_database() as name`.execute(database);
  // Roles belong to the whole server, so another database on it must have others.
  const id = createHash('sha256')
    .update(`${where[0]?.name ?? ''}\0${organizationId}`)
    .digest('hex')
    .slice(0, 16);
  const role = `threadlog_analyst_${id}`;
  const password = masterKey.derive(`analyst ${role}`).toString('base64url');
  const name = sql.id(role);
  let makesTemporary = false;
  try {
    await database.transaction().execute(async (tx) => {
      await lockAnalytics(tx);
      const { rows } = await sql`select from pg_roles where rolname = ${role}`.execute(tx);
      const verb = rows.length === 0 ? sql`create` : sql`alter`;
      await sql`${verb} role ${name} login nocreatedb nocreaterole inherit connection limit ${sql.lit(CONNECTIONS)} password ${sql.lit(password)}`.execute(
        tx,
      );
      // A role may change its own settings, for this database also more strongly than those that follow.
      await sql`alter role ${name} reset all`.execute(tx);
      await sql`alter role ${name} in database ${sql.id(where[0]?.name ?? '')} reset all`.execute(tx);
      await sql`alter role ${name} set default_transaction_read_only = on`.execute(tx);
      await sql`alter role ${name} set statement_timeout = ${sql.lit(STATEMENT_TIMEOUT)}`.execute(tx);
      await sql`alter role ${name} set search_path = analytics`.execute(tx);
      await keepTemporary(tx);
      const { rows: may } = await sql<{ temporary: boolean }>`
        select has_database_privilege(${role}, current_database(), 'temporary') as temporary`.execute(tx);
      makesTemporary = may[0]?.temporary ?? false;
      await sql`grant usage on schema analytics to ${name}`.execute(tx);
      await sql`grant select on all tables in schema analytics to ${name}`.execute(tx);
      await tx
        .insertInto('keep.analyst_roles')
        .values({ role, organization_id: organizationId })
        .onConflict((row) => row.column('organization_id').doUpdateSet({ role }))
        .execute();
    });
  } catch (error) {
    if ((error as { code?: unknown }).code === '42501')
      throw new MayNotMakeRoles('the role of the database connection may not make roles', { cause: error });
    throw error;
  }
  return { role, password, makesTemporary };
}

/**
 * Takes from PUBLIC, and so from analysts, the right to temporary tables, which fill the disk, and to temporary functions. No one role can be
 * refused what all have. The database's owner, as who Threadlog runs, keeps it. Where another owns the database, only the owner may do this.
 */
async function keepTemporary(tx: Kysely<Database>): Promise<void> {
  const { rows } = await sql<{ name: string }>`
    select datname as name from pg_database
    where datname = current_database() and pg_has_role(current_user, datdba, 'usage')`.execute(tx);
  for (const { name } of rows) await sql`revoke temporary on database ${sql.id(name)} from public`.execute(tx);
}
