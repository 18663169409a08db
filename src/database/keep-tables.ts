import { type Kysely, sql, type SqlBool, type RawBuilder } from 'kysely';
import { streamName, type StreamName } from '../event-store/event-store.js';
import type { Database } from './database.js';
import { ignoreFailure } from '../ignore-failure.js';

/** A row in the form of PostgreSQL's to_jsonb: bytes in hex, times to the microsecond. */
export type KeptRow = Readonly<Record<string, unknown>>;

/** A row of a table in the schema keep, on its way to another installation. */
export interface Kept {
  readonly table: string;
  readonly row: KeptRow;
}

/** How a table of the schema keep moves along with the log. */
interface Carried {
  /** Columns of the primary key. */
  readonly key: readonly string[];
  /** Selects the rows of one organization. */
  readonly of: (organizationId: string) => RawBuilder<SqlBool>;
  /** Selects the rows to move; all when absent. */
  readonly where?: RawBuilder<SqlBool>;
  /** The stream that a row belongs to. The row is left out when the stream begins after the last event that moves. */
  readonly stream?: (row: KeptRow) => StreamName;
  /** The table's rows expire, so that a row may be missing at a second look. */
  readonly passing?: true;
}

const ofOrganization = (organizationId: string) => sql<SqlBool>`organization_id = ${organizationId}`;

/**
 * Every table of the schema keep: how it moves along with the log to another installation, or why it stays. Add every new table here; a
 * test finds missing ones. The tables are written in this order.
 */
export const KEEP_TABLES: Readonly<Record<string, Carried | { readonly staysBecause: string }>> = {
  // Holds the key of the claims' names; without it a known e-mail address would make a second visitor.
  organization_secrets: { key: ['organization_id', 'name'], of: ofOrganization },
  visitor_keys: { key: ['organization_id', 'key_id'], of: ofOrganization },
  api_keys: {
    key: ['organization_id', 'id'],
    of: ofOrganization,
    stream: ({ organization_id, id }) => streamName('apikey', String(organization_id), String(id)),
  },
  idempotency: {
    key: ['command_id'],
    // Rows that name their stream, or that hold an API key. The other rows do not show their organization.
    of: (organizationId) => sql<SqlBool>`
      coalesce(
        split_part(substr(answer ->> 'stream', strpos(answer ->> 'stream', '-') + 1), '.', 1) = ${organizationId},
        answer ->> 'id' in (select id from keep.api_keys where organization_id = ${organizationId}),
        false)`,
    where: sql<SqlBool>`created_at > now() - interval '24 hours'`,
    passing: true,
  },
  skipped: {
    key: ['group_name', 'stream', 'revision'],
    of: (organizationId) => sql<SqlBool>`split_part(substr(stream, strpos(stream, '-') + 1), '.', 1) = ${organizationId}`,
    stream: ({ stream }) => String(stream) as StreamName,
  },
  webhook_secrets: {
    key: ['organization_id', 'webhook_id', 'id'],
    of: ofOrganization,
    stream: ({ organization_id, webhook_id }) => streamName('webhook', String(organization_id), String(webhook_id)),
  },
  webhook_deliveries: { staysBecause: 'the installation that made the deliveries sends them; imported events cause none' },
  webhook_health: { staysBecause: 'it tells how the deliveries of one installation went' },
  reactors: {
    staysBecause: 'their positions belong to the log that they follow; after an import reactors begin at its end or at its start',
  },
  jobs: { staysBecause: 'the installation that has the jobs does them; jobs of timers are made again from the events' },
  live_tickets: { staysBecause: 'they are valid for half a minute, and only where they were asked for' },
  console_sessions: { staysBecause: 'they pass within a day, and hold only where people signed in' },
  rule_evaluations: { staysBecause: 'their positions belong to the log in which the rules acted; a back-test asks the rules again' },
  analyst_roles: { staysBecause: 'roles belong to one database server' },
  rule_back_tests: { staysBecause: 'they looked at the log of this installation' },
  parked: { staysBecause: 'its rows belong to generations of read models, which every installation makes for itself' },
};

const carried = Object.entries(KEEP_TABLES).flatMap(([table, how]) => ('key' in how ? [{ table, ...how }] : []));

const PAGE = 1_000;

/**
 * Reads the rows that move along with the log, in one snapshot.
 * @param options.includes whether a stream begins at or before the last event that moves
 */
export async function* readKept(
  database: Kysely<Database>,
  options: { readonly organizationId?: string; readonly includes: (stream: StreamName) => Promise<boolean> },
): AsyncGenerator<readonly Kept[], void, undefined> {
  const { organizationId, includes } = options;
  const tx = await database.startTransaction().setIsolationLevel('repeatable read').setAccessMode('read only').execute();
  try {
    for (const { table, key, of, where, stream } of carried) {
      const conditions = [where ?? sql<SqlBool>`true`, organizationId === undefined ? sql<SqlBool>`true` : of(organizationId)];
      await sql`
        declare kept no scroll cursor for select to_jsonb(t) as row from keep.${sql.table(table)} t
        where ${sql.join(conditions, sql` and `)} order by ${sql.join(key.map((column) => sql.ref(column)))}`.execute(tx);
      for (;;) {
        const { rows } = await sql<{ row: KeptRow }>`fetch ${sql.lit(PAGE)} from kept`.execute(tx);
        const there = stream === undefined ? rows : await only(rows, ({ row }) => includes(stream(row)));
        if (there.length > 0) yield there.map(({ row }) => ({ table, row }));
        if (rows.length < PAGE) break;
      }
      await sql`close kept`.execute(tx);
    }
  } finally {
    await end(tx);
  }
}

type Transaction = Awaited<ReturnType<ReturnType<Kysely<Database>['startTransaction']>['execute']>>;

async function end(tx: Transaction): Promise<void> {
  if (tx.isCommitted || tx.isRolledBack) return;
  await ignoreFailure(tx.rollback().execute(), 'the rollback fails when the session is gone, and then nothing is left to roll back');
}

async function only<T>(all: readonly T[], keep: (one: T) => Promise<boolean>): Promise<T[]> {
  const kept = await Promise.all(all.map(keep));
  return all.filter((_, i) => kept[i] === true);
}

/** The given rows cannot be written, or differ from the existing rows; the message says how. */
export class KeptRowsDiffer extends Error {
  override readonly name = 'KeptRowsDiffer';
}

/** Writes the rows that move along with a log, in one transaction or not at all. */
export class KeptRows {
  readonly counts: Record<string, number> = {};
  private readonly columns = new Map<string, ReadonlySet<string>>();

  private constructor(
    private readonly tx: Transaction,
    private readonly mayWrite: boolean,
  ) {}

  /** @param mayWrite false: all rows must already exist */
  static async begin(database: Kysely<Database>, mayWrite: boolean): Promise<KeptRows> {
    return new KeptRows(await database.startTransaction().execute(), mayWrite);
  }

  /**
   * @param rows rows of one table
   * @throws KeptRowsDiffer
   */
  async take(table: string, rows: readonly KeptRow[]): Promise<void> {
    const { tx } = this;
    const how = carried.find((one) => one.table === table);
    if (how === undefined) throw new KeptRowsDiffer(`this build does not know the table keep.${table}`);
    const columns = Object.keys(rows[0] ?? {});
    const unknown = columns.find((column) => !this.columns.get(table)?.has(column));
    if (unknown !== undefined && !(await this.columnsOf(table)).has(unknown))
      throw new KeptRowsDiffer(`keep.${table} has no column ${unknown} in this build`);
    const target = sql.table(`keep.${table}`);
    const given = sql`jsonb_populate_recordset(null::${target}, ${JSON.stringify(rows)}::jsonb)`;
    const names = sql.join(columns.map((column) => sql.ref(column)));
    if (this.mayWrite) await sql`insert into ${target} (${names}) select ${names} from ${given} on conflict do nothing`.execute(tx);
    this.counts[table] = (this.counts[table] ?? 0) + rows.length;
    if (how.passing === true) return;
    const same = sql.join(
      columns.map((column) => sql`k.${sql.ref(column)} is not distinct from g.${sql.ref(column)}`),
      sql` and `,
    );
    const { rows: found } = await sql<{ same: number }>`
      select count(*)::int as same from ${given} g join ${target} k using (${sql.join(how.key.map((column) => sql.ref(column)))})
      where ${same}`.execute(tx);
    if (found[0]?.same !== rows.length) throw new KeptRowsDiffer(`keep.${table} holds other rows than these`);
  }

  /**
   * Commits, if the tables hold no other rows.
   * @throws KeptRowsDiffer
   */
  async commit(): Promise<void> {
    for (const { table, passing } of carried) {
      if (passing === true) continue;
      const { rows } = await sql<{ all: number }>`select count(*)::int as all from keep.${sql.table(table)}`.execute(this.tx);
      if (rows[0]?.all !== (this.counts[table] ?? 0)) throw new KeptRowsDiffer(`keep.${table} holds more rows than these`);
    }
    await this.tx.commit().execute();
  }

  /** Undoes all uncommitted writes. */
  async rollback(): Promise<void> {
    await end(this.tx);
  }

  private async columnsOf(table: string): Promise<ReadonlySet<string>> {
    const { rows } = await sql<{ name: string }>`
      select column_name as name from information_schema.columns where table_schema = 'keep' and table_name = ${table}`.execute(this.tx);
    const names = new Set(rows.map(({ name }) => name));
    this.columns.set(table, names);
    return names;
  }
}
