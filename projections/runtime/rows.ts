import { type Kysely, type RawBuilder, sql } from 'kysely';
import pg from 'pg';
import type { Database } from '../../src/platform/database.js';
import type { WithMoved } from './lease.js';
import type { ProjectionTarget, StreamRow } from './projection.js';

/**
 * Where a batch is written within a transaction.
 * @param copier takes the rows of new streams; absent where a batch may come twice
 */
export function targetOf(tx: Kysely<Database>, table: (name: string) => string, copier?: RowCopier): ProjectionTarget {
  return {
    session: tx,
    transaction: () => Promise.resolve(tx),
    table,
    async write(name, { made, changed }) {
      await copier?.copy(table(name), made);
      const rows = copier === undefined ? [...made, ...changed] : changed;
      if (rows.length > 0) await upsert(table(name), rows, sql`true`).execute(tx);
    },
  };
}

type Rows = Parameters<ProjectionTarget['write']>[1];

/** Where a batch is gathered that becomes one statement with its checkpoint, unless a projection asks for the transaction. */
export class GatheredRows implements ProjectionTarget {
  readonly #gathered: { readonly name: string; readonly rows: Rows }[] = [];
  #within: Promise<ProjectionTarget> | undefined;

  /** @param begin the transaction, its checkpoint moved */
  constructor(
    readonly session: Kysely<Database>,
    readonly table: (name: string) => string,
    private readonly begin: () => Promise<Kysely<Database>>,
  ) {}

  /** What is still to be written, at most once for each table. */
  get statements(): readonly WithMoved[] {
    return this.#gathered
      .map(({ name, rows: { made, changed } }) => ({ name, rows: [...made, ...changed] }))
      .filter(({ rows }) => rows.length > 0)
      .map(
        ({ name, rows }) =>
          (moved: RawBuilder<unknown>) =>
            upsert(this.table(name), rows, moved),
      );
  }

  readonly transaction = async (): Promise<Kysely<Database>> => (await (this.#within ??= this.#begin())).session;

  readonly write: ProjectionTarget['write'] = async (name, rows) => {
    if (this.#within === undefined) this.#gathered.push({ name, rows });
    else await (await this.#within).write(name, rows);
  };

  async #begin(): Promise<ProjectionTarget> {
    const target = targetOf(await this.begin(), this.table);
    for (const { name, rows } of this.#gathered.splice(0)) await target.write(name, rows);
    return target;
  }
}

/** One statement for new rows and newer revisions of those that are there. */
function upsert(tableName: string, rows: readonly StreamRow[], condition: RawBuilder<unknown>): RawBuilder<unknown> {
  const table = sql.raw(tableName);
  const changing = Object.keys(rows[0] ?? {}).filter((column) => column !== 'organization_id' && column !== 'id');
  const updates = sql.join(changing.map((column) => sql`${sql.ref(column)} = excluded.${sql.ref(column)}`));
  return sql`
    insert into ${table} select * from json_populate_recordset(null::${table}, ${JSON.stringify(rows)}::json) where ${condition}
    on conflict (organization_id, id) do update set ${updates} where ${table}.revision < excluded.revision`;
}

/** Rows of these streams that a table of a projection has, in one round trip. @param columns of `t` */
export async function readRows<R>(
  { session, table }: Pick<ProjectionTarget, 'session' | 'table'>,
  name: string,
  streams: readonly { readonly organizationId: string; readonly id: string }[],
  columns: RawBuilder<unknown>,
): Promise<R[]> {
  if (streams.length === 0) return [];
  const organizations = streams.map(({ organizationId }) => organizationId);
  const ids = streams.map(({ id }) => id);
  const { rows } = await sql<R>`
    select ${columns} from unnest(${organizations}::text[], ${ids}::text[]) as wanted(organization_id, id)
    join ${sql.raw(table(name))} t using (organization_id, id)`.execute(session);
  return rows;
}

/** How a column's values are told to COPY. */
type Form = 'scalar' | 'json' | 'array';

/**
 * Copies new rows through a session: several times cheaper than inserts, but a key that is there already is an error.
 */
export class RowCopier {
  readonly #columns = new Map<string, ReadonlyMap<string, Form>>();

  /** @param client the session of the transaction that the rows belong to, with nothing else under way */
  constructor(private readonly client: () => pg.ClientBase) {}

  async copy(table: string, rows: readonly StreamRow[]): Promise<void> {
    const [first] = rows;
    if (first === undefined) return;
    const columns = await this.#columnsOf(table);
    const written = Object.keys(first).map((name) => {
      const form = columns.get(name);
      if (form === undefined) throw new Error(`the table ${table} has no column ${name}`);
      return [name, form] as const;
    });
    const lines = rows.map((row) =>
      written.map(([name, form]) => copyText((row as unknown as Record<string, unknown>)[name], form)).join('\t'),
    );
    await copyIn(
      this.client(),
      `copy ${table} (${written.map(([name]) => pg.escapeIdentifier(name)).join(', ')}) from stdin`,
      Buffer.from(`${lines.join('\n')}\n`),
    );
  }

  async #columnsOf(table: string): Promise<ReadonlyMap<string, Form>> {
    const known = this.#columns.get(table);
    if (known !== undefined) return known;
    const { rows } = await this.client().query<{ name: string; type: string; is_array: boolean }>(
      `select a.attname as name, t.typname as type, t.typcategory = 'A' as is_array
       from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped`,
      [table],
    );
    const columns = new Map(
      rows.map(({ name, type, is_array }) => [name, is_array ? 'array' : type === 'json' || type === 'jsonb' ? 'json' : 'scalar'] as const),
    );
    this.#columns.set(table, columns);
    return columns;
  }
}

/** A value in COPY's text format: the same that json_populate_recordset would have made of it. */
function copyText(value: unknown, form: Form): string {
  if (value === null || value === undefined) return '\\N';
  switch (form) {
    case 'json':
      return escaped(JSON.stringify(value));
    case 'array':
      if (!Array.isArray(value)) throw new Error('an array column takes arrays');
      return escaped(`{${value.map(arrayElement).join(',')}}`);
    case 'scalar':
      return escaped(plainText(value));
  }
}

function arrayElement(value: unknown): string {
  return value === null ? 'NULL' : `"${plainText(value).replace(/["\\]/g, '\\$&')}"`;
}

function plainText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new Error('a column that is neither json nor an array takes texts, numbers and booleans');
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(text: string): string {
  // It would become another text without a word.
  if (!text.isWellFormed()) throw new Error('PostgreSQL holds no lone surrogates');
  return text.replace(/[\\\n\r\t]/g, (character) => ESCAPES[character] ?? character);
}

/** What pg tells a query of the server's readiness to take rows, and what it lets it answer; its types leave both out. */
interface CopyingQuery extends pg.Submittable {
  handleCopyInResponse(connection: { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }): void;
}
const Query = pg.Query as unknown as new (text: string, values: undefined, callback: (error: Error | null) => void) => CopyingQuery;

function copyIn(client: pg.ClientBase, text: string, rows: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const query = new Query(text, undefined, (error) => (error === null || error === undefined ? resolve() : reject(error)));
    query.handleCopyInResponse = (connection) => {
      connection.sendCopyFromChunk(rows);
      connection.endCopyFrom();
    };
    client.query(query);
  });
}
