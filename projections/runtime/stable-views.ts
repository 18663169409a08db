import { type Kysely, sql } from 'kysely';
import type { Database } from '../../src/database/database.js';

/** The schema of the views for people. The views' names never change, and Threadlog itself reads none of them. */
const SCHEMA = 'threadlog';

/** A view that somebody else made on one of ours, and that was dropped with ours. */
export interface ViewGone {
  readonly view: string;
  readonly because: string;
}

/**
 * Points the views in the schema `threadlog` at the newest live and filled generation of a group, of any shape. A view keeps its columns in
 * their order, and new columns follow them, so that views on it stay valid. Only when a column is gone or has another type, the view is
 * made anew and the views that read it are dropped.
 * @returns the dropped views
 */
export async function pointStableViews(tx: Kysely<Database>, group: string): Promise<ViewGone[]> {
  const newest = await tx
    .selectFrom('read.checkpoints')
    .select('generation')
    .where('group_name', '=', group)
    .where('live', '=', true)
    .where('phase', 'is', null)
    .orderBy('generation', 'desc')
    .limit(1)
    .executeTakeFirst();
  if (newest === undefined) return [];
  const { rows: tables } = await sql<{ name: string; shown: boolean }>`
    select t.tablename as name, coalesce(v.definition ~ ('\\mread\\.' || t.tablename || '\\M'), false) as shown
    from pg_tables t left join pg_views v on v.schemaname = ${SCHEMA} and v.viewname = regexp_replace(t.tablename, '_g[0-9]+$', '')
    where t.schemaname = 'read' and t.tablename ~ ${`_g${newest.generation}$`}`.execute(tx);
  const gone: ViewGone[] = [];
  for (const { name, shown } of tables) if (!shown) gone.push(...(await point(tx, name)));
  return gone;
}

async function point(tx: Kysely<Database>, table: string): Promise<ViewGone[]> {
  const name = table.replace(/_g\d+$/, '');
  const view = sql.id(SCHEMA, name);
  const before = await columnsOf(tx, SCHEMA, name);
  const now = await columnsOf(tx, 'read', table);
  const changed = before.find(({ column, type }) => !now.some((one) => one.column === column && one.type === type));
  const gone =
    changed === undefined
      ? []
      : (await dependentViews(tx, SCHEMA, name)).map((other) => ({
          view: other,
          because: `${SCHEMA}.${name} has no column ${changed.column} of type ${changed.type} any more`,
        }));
  if (changed !== undefined) await sql`drop view ${view} cascade`.execute(tx);
  const kept = changed === undefined ? before : [];
  const added = now.filter(({ column }) => !kept.some((one) => one.column === column));
  const columns = sql.join([...kept, ...added].map(({ column }) => sql.id(column)));
  await sql`create or replace view ${view} as select ${columns} from ${sql.id('read', table)}`.execute(tx);
  return gone;
}

/** A relation's columns in order, with types as `create or replace view` compares them; none when the relation does not exist. */
async function columnsOf(tx: Kysely<Database>, schema: string, name: string): Promise<{ column: string; type: string }[]> {
  const { rows } = await sql<{ column: string; type: string }>`
    select a.attname as column, format_type(a.atttypid, a.atttypmod) || case when a.attcollation = 0 then '' else ' collate ' || a.attcollation end as type
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = ${schema} and c.relname = ${name} and a.attnum > 0 and not a.attisdropped order by a.attnum`.execute(tx);
  return rows;
}

/** The names, schemas included, of all views that depend on a relation, directly or through others. */
export async function dependentViews(tx: Kysely<Database>, schema: string, name: string): Promise<string[]> {
  const { rows } = await sql<{ view: string }>`
    with recursive dependent(oid) as (
      select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = ${schema} and c.relname = ${name}
      union
      select r.ev_class from dependent
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = dependent.oid and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
    )
    select n.nspname || '.' || c.relname as view from dependent join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
    where not (n.nspname = ${schema} and c.relname = ${name}) order by 1`.execute(tx);
  return rows.map(({ view }) => view);
}
