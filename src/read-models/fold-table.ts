import type { DomainEvent, Recorded } from '../event-store/aggregate.js';
import type { StreamKind } from '../event-store/event-store.js';
import type { ReadTable } from './table.js';

/** The fields that every fold with such a table has. Times are ISO 8601. */
interface Dated {
  readonly createdAt: string;
  readonly updatedAt: string;
}

/**
 * A row that holds the whole fold of one stream in `state`. Values that joins, filters and sorts need have their own columns as well. Times
 * are ms since 1970.
 */
export interface FoldRow<S> {
  organization_id: string;
  id: string;
  revision: number;
  /** The value by which lists sort names: lower case, '' without a name. */
  sort_name: string;
  archived: boolean;
  created_at: number;
  updated_at: number;
  state: S;
}

/** A table with a row per stream of one kind, and how each row is made from its stream. */
export interface FoldTable<R extends object = object> extends ReadTable<R> {
  readonly fold: {
    readonly kind: StreamKind;
    readonly initial: unknown;
    evolve(this: void, state: unknown, event: Recorded<DomainEvent>): unknown;
    rowOf(this: void, organizationId: string, id: string, revision: number, state: unknown): FoldRow<unknown>;
  };
}

export const isFoldTable = (table: ReadTable): table is FoldTable => 'fold' in table;

const COLUMNS = {
  organization_id: 'text collate "C" not null',
  id: 'text collate "C" not null',
  revision: 'integer not null',
  // Names sort as people expect, whatever the database's locale: Äpfel before Zoë.
  sort_name: 'text collate "und-x-icu" not null',
  archived: 'boolean not null',
  created_at: 'bigint not null',
  updated_at: 'bigint not null',
  // `json` and not `jsonb`: it is copied without parsing, and keeps attributes in their given order.
  state: 'json not null',
} as const satisfies Record<keyof FoldRow<unknown>, string>;

const ORDERS = ['created_at', 'sort_name'] as const;

/** The columns that a row has beside those of every FoldRow. */
type Own<R> = Omit<R, keyof FoldRow<unknown>>;

/**
 * Declares the table of a resource with lists: a row per stream that holds the whole fold, so that a field needs a column only when lists
 * filter by it.
 * @param declaration.values the row's own columns, and whether it is archived
 * @param declaration.filters columns that the lists filter by; each is indexed with every order
 * @param declaration.lookups unique keys that callers look rows up by, without sorting
 */
export function foldTable<S extends Dated, R extends FoldRow<S> & { readonly name: string | null }>(declaration: {
  readonly name: string;
  readonly group: string;
  readonly version: number;
  readonly aggregate: { readonly kind: StreamKind; readonly initial: S; readonly evolve: (state: S, event: never) => S };
  readonly columns: Readonly<Record<keyof Own<R> & string, string>>;
  readonly values: (state: S) => Own<R> & { readonly name: string | null; readonly archived: boolean };
  readonly filters?: readonly (keyof Own<R> & string)[];
  readonly lookups?: readonly (keyof Own<R> & string)[];
}): FoldTable<R> {
  const { name, group, version, aggregate, values, filters = [], lookups = [] } = declaration;
  return {
    name,
    group,
    version,
    columns: { ...COLUMNS, ...declaration.columns },
    key: ['organization_id', 'id'],
    guard: 'revision',
    // Archived rows are indexed apart, since no list mixes them with the others.
    indexes: Object.fromEntries([
      ...ORDERS.map((order) => [order, `(organization_id, archived, ${order}, id)`]),
      ...filters.flatMap((filter) =>
        ORDERS.map((order) => [`${filter}_${order}`, `(organization_id, ${filter}, archived, ${order}, id) where ${filter} is not null`]),
      ),
      ...lookups.map((lookup) => [lookup, `(organization_id, ${lookup}) where ${lookup} is not null`]),
    ]),
    fold: {
      kind: aggregate.kind,
      initial: aggregate.initial,
      evolve: aggregate.evolve as FoldTable['fold']['evolve'],
      rowOf(organizationId, id, revision, state) {
        const { createdAt, updatedAt } = state as S;
        const own = values(state as S);
        return {
          organization_id: organizationId,
          id,
          revision,
          sort_name: sortName(own.name),
          created_at: Date.parse(createdAt),
          updated_at: Date.parse(updatedAt),
          state,
          ...own,
        };
      },
    },
  };
}

/** Cuts a name to a length that fits into an index entry in any script. It cuts whole characters, so that no surrogate pair is halved. */
function sortName(name: string | null): string {
  return Array.from((name ?? '').normalize('NFC').toLowerCase())
    .slice(0, 200)
    .join('');
}
