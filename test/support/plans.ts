import type pg from 'pg';

/** A node of a plan, as EXPLAIN (FORMAT JSON) tells it. */
export interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Actual Rows'?: number;
  readonly 'Rows Removed by Filter'?: number;
  readonly 'Shared Hit Blocks'?: number;
  readonly 'Shared Read Blocks'?: number;
  readonly Plans?: readonly Plan[];
}

/** A statement, as Kysely logs it. */
export interface Statement {
  readonly sql: string;
  readonly parameters: readonly unknown[];
}

/** A plan and all nodes below it. */
export const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)];

/** Pages of 8 kB that a plan looked at. */
export const buffers = (plan: Plan): number => (plan['Shared Hit Blocks'] ?? 0) + (plan['Shared Read Blocks'] ?? 0);

/** The plan of a statement. @param how 'run': with what it looked at; 'foreseen': without running it */
export async function planOf(client: pg.ClientBase, { sql, parameters }: Statement, how: 'run' | 'foreseen'): Promise<Plan> {
  const options = how === 'run' ? 'analyze, buffers, format json' : 'format json';
  const { rows } = await client.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(`explain (${options}) ${sql}`, [...parameters]);
  const [row] = rows;
  if (row === undefined) throw new Error('EXPLAIN answered nothing');
  return row['QUERY PLAN'][0].Plan;
}
