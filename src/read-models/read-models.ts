import { type RawBuilder, sql } from 'kysely';
import { type ReadGroup, readGroups } from './groups.js';
import type { ReadTable } from './table.js';

/** The read models of this build, which queries read. */
export class ReadModels {
  readonly groups: readonly ReadGroup[];
  readonly #views = new Map<string, RawBuilder<never>>();

  /** @param tables the tables of all groups */
  constructor(tables: readonly ReadTable[]) {
    this.groups = readGroups(tables);
    for (const { schema, tables: own } of this.groups)
      for (const { name } of own) this.#views.set(name, sql<never>`${sql.table(`${schema}.${name}`)}`);
  }

  /** The shape of each group by its name. */
  get shapes(): ReadonlyMap<string, string> {
    return new Map(this.groups.map(({ name, shape }) => [name, shape]));
  }

  /**
   * The view over a table's live rows. `selectFrom(view(conversationsTable).as('c'))` knows every column; raw SQL can use it as it is.
   * @throws Error when no group has the table
   */
  view<R extends object>(table: ReadTable<R>): RawBuilder<R> {
    const view = this.#views.get(table.name);
    if (view === undefined) throw new Error(`the table ${table.name} is in no group`);
    return view;
  }
}
