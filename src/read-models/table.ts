/**
 * Which of two rows with the same key is the newer one. `revision`: a row per stream, the greater revision wins. `position`: a row that events
 * of several revisions write, such as a fact per episode; the greater position wins. `none`: a row per event or message; the first one stays.
 */
export type Guard = 'revision' | 'position' | 'none';

/** A table of a read model, declared once in its feature. All that makes, writes and reads it derives from this. */
export interface ReadTable<R extends object = object> {
  /** Unique among all tables. */
  readonly name: string;
  /** The group of projections that fills it: tables of one group have one checkpoint and are rebuilt together. */
  readonly group: string;
  /** Raised when rows change their meaning without a change of the columns: the group is then filled anew. */
  readonly version: number;
  /** SQL of each column of the row, its type first: `text collate "C" not null`. */
  readonly columns: Readonly<Record<string, string>>;
  /** The primary key. Its first column is the organization. */
  readonly key: readonly string[];
  readonly guard: Guard;
  /** SQL of each index after the table's name, by a name that is unique in the table: `(organization_id, updated_at, id)`. */
  readonly indexes: Readonly<Record<string, string>>;
  /** Storage parameters of the table: `fillfactor = 80`. */
  readonly storage?: string;
  /** Never there: it ties the declaration to the type of its rows, by which queries know every column. */
  readonly row?: R;
}

/** What is known of a table at compile time: each field of the row has a column, and the guard is one of them. */
export type TableOf<R extends object> = Omit<ReadTable<R>, 'columns' | 'key' | 'guard' | 'row'> & {
  readonly columns: Readonly<Record<keyof R & string, string>>;
  readonly key: readonly (keyof R & string)[];
  readonly guard: 'none' | Extract<keyof R, 'revision' | 'position'>;
};

export function readTable<R extends object>(declaration: TableOf<R>): ReadTable<R> {
  return declaration;
}

/**
 * The statements that make a table. The first makes it with its primary key, the others its indexes, which a rebuild makes when the rows are there.
 * @param name with its schema
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
