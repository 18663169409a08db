import { type Kysely, type RawBuilder, sql, type SqlBool } from 'kysely';
import type { QueryParameter } from '../http/answers.js';
import type { Database } from '../database/database.js';
import { type FieldError, ThreadlogError } from '../errors.js';
import { type Cursors, PAGING_PARAMETERS, type PageMeta, pageOfRows, readPaging, TOTAL_LIMIT } from './paging.js';
import type { ReadModels } from './read-models.js';
import type { ReadTable } from './table.js';

export interface FoldPage<A> {
  readonly data: A[];
  readonly meta: PageMeta;
}

/** A list's query as it came in the address: texts, or lists of texts for repeated parameters. */
export type ListQuery = Readonly<Record<string, unknown>>;

const SORTS = { createdAt: 'created_at', name: 'sort_name', title: 'sort_name', url: 'sort_name' } as const;
type Sort = keyof typeof SORTS;
const ORDERS = ['asc', 'desc'] as const;
const ARCHIVED = ['true', 'false'] as const;
const PARAMETERS = {
  ...PAGING_PARAMETERS,
  order: { type: 'string', enum: ORDERS, description: 'When absent: newest first, names from A.' },
  archived: { type: 'string', enum: ARCHIVED, default: 'false', description: 'true lists the archived ones and nothing else.' },
} as const;

/** A list of a resource whose table is a foldTable. It is declared beside the table, as `x.list.ts`. */
export interface FoldList<R, A> {
  readonly name: string;
  /** The table, named `t` in SQL. */
  readonly table: ReadTable;
  /** SQL of the joins to the table. */
  readonly join?: (readModels: ReadModels) => RawBuilder<unknown>;
  readonly select: RawBuilder<unknown>;
  readonly answer: (row: R) => A;
  /** A condition that every row of the list meets. */
  readonly always?: RawBuilder<SqlBool>;
  readonly filters?: Readonly<Record<string, (value: string) => RawBuilder<SqlBool>>>;
  /** By filter: what is wrong with a value that no row can have. */
  readonly faults?: Readonly<Record<string, (value: string) => string | undefined>>;
  /** The field that names a resource; `name` when absent. */
  readonly named?: 'title' | 'url';
}

/** What every row of such a list has. */
export interface FoldListRow {
  readonly id: string;
  readonly revision: number;
  readonly created_at: number;
  readonly sort_name: string;
}

/** The columns that answers are made from. */
export const wholeFold = sql`t.id, t.revision, t.created_at, t.sort_name, t.state`;

/**
 * Pages of the lists of people and settings. All lists take `page`, `limit`, `cursor`, `total=none`, `archived=true|false` (default false;
 * a revoked API key is archived), `sort=createdAt|name` (default createdAt; `title` for canned responses, `url` for webhooks) and `order=asc|desc` (default:
 * newest first, names from A). Names are compared in lower case, in the Unicode order of letters. An unknown parameter is an error.
 */
export class FoldLists {
  constructor(
    private readonly database: Kysely<Database>,
    private readonly readModels: ReadModels,
    private readonly cursors: Cursors,
  ) {}

  /** @throws ThreadlogError validation_failed */
  async page<R extends FoldListRow, A>(list: FoldList<R, A>, organizationId: string, query: ListQuery): Promise<FoldPage<A>> {
    const { sort, order, archived, filters } = readQuery(query, list);
    const scope = JSON.stringify([list.name, organizationId, sort, order, archived, filters]);
    const paging = readPaging(query, this.cursors, scope);
    const conditions = [
      sql<SqlBool>`t.organization_id = ${organizationId}`,
      // A literal and not a parameter, so that the planner sees that archived rows are rare and the others common.
      sql<SqlBool>`t.archived = ${sql.lit(archived)}`,
      ...(list.always === undefined ? [] : [list.always]),
      ...filters.flatMap(([name, value]) => list.filters?.[name]?.(value) ?? []),
    ];
    const from = sql`${this.readModels.view(list.table)} t ${list.join?.(this.readModels) ?? sql``}`;
    const where = sql.join(conditions, sql` and `);
    const column = SORTS[sort];
    const direction = sql.raw(order);
    const after =
      paging.after === undefined
        ? sql``
        : sql` and (${sql.ref(`t.${column}`)}, t.id) ${sql.raw(order === 'asc' ? '>' : '<')} (${sql.join(paging.after)})`;
    const offset = paging.after === undefined ? (paging.page - 1) * paging.limit : 0;
    // One row more than asked for shows whether there are more. The total is a separate query, not a window over all rows.
    const [page, counted] = await Promise.all([
      sql<R>`
        select ${list.select} from ${from} where ${where}${after}
        order by ${sql.ref(`t.${column}`)} ${direction}, t.id ${direction} limit ${paging.limit + 1} offset ${offset}`.execute(
        this.database,
      ),
      paging.withTotal
        ? sql<{
            n: number;
          }>`select count(*)::integer as n from (select 1 from ${from} where ${where} limit ${TOTAL_LIMIT + 1}) as counted`.execute(
            this.database,
          )
        : undefined,
    ]);
    const { shown, meta } = pageOfRows(paging, page.rows, counted?.rows[0]?.n, (last) => this.cursors.sign(scope, [last[column], last.id]));
    return { data: shown.map((row) => list.answer(row)), meta };
  }
}

/** The query parameters of a list, for the API's document. */
export const parametersOf = ({
  filters = {},
  named = 'name',
}: {
  readonly filters?: object;
  readonly named?: string;
}): QueryParameter[] => [
  ...Object.keys(filters).map((name) => ({ name, schema: { type: 'string' } })),
  { name: 'sort', schema: { type: 'string', enum: ['createdAt', named], default: 'createdAt' } },
  ...Object.entries(PARAMETERS).map(([name, schema]) => ({ name, schema })),
];

interface Asked {
  readonly sort: Sort;
  readonly order: 'asc' | 'desc';
  readonly archived: boolean;
  /** Sorted by name, so that a cursor does not depend on the order of the parameters. */
  readonly filters: readonly (readonly [string, string])[];
}

function readQuery(
  query: ListQuery,
  {
    filters: given = {},
    faults = {},
    named = 'name',
  }: Pick<FoldList<never, unknown>, 'filters' | 'faults'> & { readonly named?: 'name' | 'title' | 'url' },
): Asked {
  const filterNames = Object.keys(given);
  const errors: FieldError[] = [];
  const known = [...Object.keys(PARAMETERS), 'sort', ...filterNames];
  for (const [field, value] of Object.entries(query))
    if (!known.includes(field)) errors.push({ field, message: `is not one of ${known.join(', ')}` });
    else if (typeof value !== 'string') errors.push({ field, message: 'must be given once' });
    // No text in PostgreSQL can hold U+0000, so no row has such a value.
    else if (value.includes('\0')) errors.push({ field, message: 'must be text without U+0000' });
    else {
      const message = faults[field]?.(value);
      if (message !== undefined) errors.push({ field, message });
    }
  const choice = <T extends string>(field: string, choices: readonly T[], fallback: T): T => {
    const value = query[field];
    if (value === undefined || typeof value !== 'string') return fallback;
    const chosen = choices.find((one) => one === value);
    if (chosen === undefined) errors.push({ field, message: `must be one of ${choices.join(', ')}` });
    return chosen ?? fallback;
  };
  const sort = choice<Sort>('sort', ['createdAt', named], 'createdAt');
  const order = choice('order', ORDERS, sort === 'createdAt' ? 'desc' : 'asc');
  const archived = choice('archived', ARCHIVED, 'false') === 'true';
  if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors });
  const filters = filterNames.flatMap((name) => (typeof query[name] === 'string' ? [[name, query[name]] as const] : []));
  return { sort, order, archived, filters };
}
