import { type Kysely, type RawBuilder, sql } from 'kysely';
import pg from 'pg';
import type { Database } from '../../src/database/database.js';
import { type ReadTable, typeOfColumn } from '../../src/read-models/table.js';
import type { WithMoved } from './lease.js';
import type { ProjectionTarget, RowsToWrite } from './projection.js';

/**
 * Writes a batch's rows within a transaction.
 * @param copier takes the rows of new streams; absent where a batch may come twice
 */
export function targetOf(tx: Kysely<Database>, table: (name: string) => string, copier?: RowCopier): ProjectionTarget {
  return {
    session: tx,
    transaction: () => Promise.resolve(tx),
    table,
    async write(of, { made, changed }) {
      await copier?.copy(of, table(of.name), made);
      const rows = copier === undefined ? [...made, ...changed] : changed;
      if (rows.length > 0) await upsert(of, table(of.name), rows, sql`true`).execute(tx);
    },
  };
}

/** Gathers a batch's rows for one statement with the checkpoint, unless a projection asks for the transaction. */
export class GatheredRows implements ProjectionTarget {
  readonly #gathered: { readonly of: ReadTable; readonly rows: RowsToWrite<object> }[] = [];
  #within: Promise<ProjectionTarget> | undefined;

  /** @param begin opens the transaction and moves its checkpoint */
  constructor(
    readonly session: Kysely<Database>,
    readonly table: (name: string) => string,
    private readonly begin: () => Promise<Kysely<Database>>,
  ) {}

  /** The statements that are still to be run, at most one for each table. */
  get statements(): readonly WithMoved[] {
    return this.#gathered
      .map(({ of, rows: { made, changed } }) => ({ of, rows: [...made, ...changed] }))
      .filter(({ rows }) => rows.length > 0)
      .map(
        ({ of, rows }) =>
          (moved: RawBuilder<unknown>) =>
            upsert(of, this.table(of.name), rows, moved),
      );
  }

  readonly transaction = async (): Promise<Kysely<Database>> => (await (this.#within ??= this.#begin())).session;

  readonly write: ProjectionTarget['write'] = async (of, rows) => {
    if (this.#within === undefined) this.#gathered.push({ of, rows });
    else await (await this.#within).write(of, rows);
  };

  async #begin(): Promise<ProjectionTarget> {
    const target = targetOf(await this.begin(), this.table);
    for (const { of: table, rows } of this.#gathered.splice(0)) await target.write(table, rows);
    return target;
  }
}

/** One statement that inserts new rows, and replaces rows that are older by the table's guard. */
function upsert(of: ReadTable, tableName: string, rows: readonly object[], condition: RawBuilder<unknown>): RawBuilder<unknown> {
  const table = sql.raw(tableName);
  const insert = sql`
    insert into ${table} select * from json_populate_recordset(null::${table}, ${JSON.stringify(rows)}::json) where ${condition}
    on conflict (${sql.raw(of.key.join(', '))})`;
  if (of.guard === 'none') return sql`${insert} do nothing`;
  const changing = Object.keys(of.columns).filter((column) => !of.key.includes(column));
  const updates = sql.raw(changing.map((column) => `${column} = excluded.${column}`).join(', '));
  const guard = sql.raw(of.guard);
  return sql`${insert} do update set ${updates} where ${table}.${guard} < excluded.${guard}`;
}

/**
 * Reads the rows of a table that have these keys, in one round trip. Missing rows are left out.
 * @param keys the columns of the table's key
 * @param columns the columns to read; all when absent
 */
export async function readRows<R extends object, C extends keyof R & string = keyof R & string>(
  { session, table }: Pick<ProjectionTarget, 'session' | 'table'>,
  of: ReadTable<R>,
  keys: readonly Partial<R>[],
  columns?: readonly C[],
): Promise<Pick<R, C>[]> {
  if (keys.length === 0) return [];
  const wanted = of.key.map((column) => sql`${keys.map((key) => key[column as keyof R])}::${sql.raw(typeOfColumn(of, column))}[]`);
  const key = sql.raw(of.key.join(', '));
  const read = sql.raw(columns === undefined ? 't.*' : columns.map((column) => `t.${column}`).join(', '));
  const { rows } = await sql<Pick<R, C>>`
    select ${read} from unnest(${sql.join(wanted)}) as wanted(${key})
    join ${sql.raw(table(of.name))} t using (${key})`.execute(session);
  return rows;
}

/** How COPY's text format writes a column's values. */
type Form = 'scalar' | 'json' | 'array';

/**
 * Copies new rows through a session: several times cheaper than inserts, but an existing key is an error.
 */
export class RowCopier {
  /** @param client the session of the transaction that the rows belong to, with nothing else under way */
  constructor(private readonly client: () => pg.ClientBase) {}

  /** @param name the table's name in the new generation, schema included */
  async copy(of: ReadTable, name: string, rows: readonly object[]): Promise<void> {
    if (rows.length === 0) return;
    const columns = Object.keys(of.columns).map((column) => [column, formOf(typeOfColumn(of, column))] as const);
    await copyIn(this.client(), `copy ${name} (${columns.map(([column]) => column).join(', ')}) from stdin`, chunksOf(rows, columns));
  }
}

/** Length of a chunk of rows, in characters. Memory of this size is used again; for texts of megabytes the system gives fresh pages each time. */
const CHUNK = 60_000;

/** The rows in COPY's text format, in chunks that end with a row. @throws Error before the first chunk is sent */
function chunksOf(rows: readonly object[], columns: readonly (readonly [string, Form])[]): Buffer[] {
  const chunks: Buffer[] = [];
  let text = '';
  const cut = () => {
    // Otherwise a lone surrogate would change silently.
    if (!text.isWellFormed()) throw new Error('PostgreSQL holds no lone surrogates');
    chunks.push(Buffer.from(text));
    text = '';
  };
  for (const row of rows) {
    let separator = '';
    for (const [column, form] of columns) {
      text += separator + copyText((row as Record<string, unknown>)[column], form);
      separator = '\t';
    }
    text += '\n';
    if (text.length > CHUNK) cut();
  }
  if (text !== '') cut();
  return chunks;
}

function formOf(type: string): Form {
  if (type.endsWith('[]')) return 'array';
  return type === 'json' || type === 'jsonb' ? 'json' : 'scalar';
}

/** A value in COPY's text format. It stores the same value as json_populate_recordset would. */
function copyText(value: unknown, form: Form): string {
  if (value === null || value === undefined) return '\\N';
  switch (form) {
    case 'json':
      return escaped(JSON.stringify(value));
    case 'array':
      if (!Array.isArray(value)) throw new Error('an array column takes only arrays');
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
  throw new Error('a column that is neither json nor an array takes only texts, numbers and booleans');
}

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(text: string): string {
  // Few texts have any of these, and looking for one character after the other is several times faster than a pattern.
  return text.includes('\\') || text.includes('\n') || text.includes('\t') || text.includes('\r')
    ? text.replace(/[\\\n\r\t]/g, (character) => ESCAPES[character] ?? character)
    : text;
}

/** How pg tells a query that the server is ready for rows, and how the query answers. The types of pg lack both. */
interface CopyingQuery extends pg.Submittable {
  handleCopyInResponse(connection: { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }): void;
}
const Query = pg.Query as unknown as new (text: string, values: undefined, callback: (error: Error | null) => void) => CopyingQuery;

function copyIn(client: pg.ClientBase, text: string, chunks: readonly Buffer[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const query = new Query(text, undefined, (error) => (error === null || error === undefined ? resolve() : reject(error)));
    query.handleCopyInResponse = (connection) => {
      for (const chunk of chunks) connection.sendCopyFromChunk(chunk);
      connection.endCopyFrom();
    };
    client.query(query);
  });
}
