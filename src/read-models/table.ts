/**
 * Decides which of two rows with the same key is newer. `revision`: a row per stream, the greater revision wins. `position`: a row that
 * several events write, such as a fact per episode; the greater position wins. `none`: a row per event or message; the first one stays.
 */
export type Guard = 'revision' | 'position' | 'none';

/** A table of a read model, declared once in its feature. All code that makes, writes and reads the table derives from this. */
export interface ReadTable<R extends object = object> {
  /** Unique among all tables. */
  readonly name: string;
  /** The projection group that fills the table. Tables of one group share a checkpoint and are rebuilt together. */
  readonly group: string;
  /** To be raised when rows change their meaning but not their columns. The group is then filled anew. */
  readonly version: number;
  /** SQL of each column, type first: `text collate "C" not null`. */
  readonly columns: Readonly<Record<string, string>>;
  /** The columns of the primary key. The first is the organization. */
  readonly key: readonly string[];
  readonly guard: Guard;
  /** SQL of each index after the table's name, by a name unique in the table: `(organization_id, updated_at, id)`. */
  readonly indexes: Readonly<Record<string, string>>;
  /** Storage parameters of the table: `fillfactor = 80`. */
  readonly storage?: string;
  /** Never set. It ties the declaration to the type of its rows, from which queries know every column. */
  readonly row?: R;
}

/** What the compiler checks of a table: each field of the row has a column, and the guard is a column. */
export type TableOf<R extends object> = Omit<ReadTable<R>, 'columns' | 'key' | 'guard' | 'row'> & {
  readonly columns: Readonly<Record<keyof R & string, string>>;
  readonly key: readonly (keyof R & string)[];
  readonly guard: 'none' | Extract<keyof R, 'revision' | 'position'>;
};

export function readTable<R extends object>(declaration: TableOf<R>): ReadTable<R> {
  return declaration;
}

/**
 * The statements that make a table: the first makes the table with its primary key, the others its indexes, in a rebuild after the rows.
 * @param name the table's name, schema included
 */
export function ddlOf({ columns, key, indexes, storage }: ReadTable, name: string): readonly string[] {
  const unqualified = name.slice(name.indexOf('.') + 1);
  const lines = [...Object.entries(columns).map(([column, sql]) => `${column} ${sql}`), `primary key (${key.join(', ')})`];
  return [
    `create table ${name} (${lines.join(', ')})${storage === undefined ? '' : ` with (${storage})`}`,
    ...Object.entries(indexes).map(([index, sql]) => `create index ${unqualified}_${index} on ${name} ${sql}`),
  ];
}

/** The SQL type of a column: `text`, `text[]`, `bigint`. @throws Error when the table has no such column */
export function typeOfColumn({ name, columns }: ReadTable, column: string): string {
  const type = /^[a-z0-9]+(\[\])?/.exec(columns[column] ?? '')?.[0];
  if (type === undefined) throw new Error(`the table ${name} has no column ${column}`);
  return type;
}
