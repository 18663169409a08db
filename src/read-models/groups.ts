import { createHash } from 'node:crypto';
import { ddlOf, type ReadTable } from './table.js';

/** The projection group that fills lists, people, settings and the feed of events. */
export const CORE_GROUP = 'core';

/** The projection group that fills search and analytics. */
export const INSIGHT_GROUP = 'insight';

/** A projection group of this build. Name and shape together identify its checkpoint, its tables and its views. */
export interface ReadGroup {
  readonly name: string;
  readonly tables: readonly ReadTable[];
  /** A hash of the statements, versions and guards of the group's tables, in hex. A build with another shape has its own tables. */
  readonly shape: string;
  /** The schema of the views that queries read. They show the live generation of this shape. */
  readonly schema: string;
}

/** The part of a shape that people see and that schema names contain. */
export const shortShape = (shape: string) => shape.slice(0, 10);

export function readGroup(name: string, tables: readonly ReadTable[]): ReadGroup {
  // Sorted by name, since the order of registration does not affect the rows.
  const inOrder = tables.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const said = inOrder.map((table) => [table.name, table.version, table.guard, ddlOf(table, table.name)]);
  const shape = createHash('sha256').update(JSON.stringify(said)).digest('hex');
  return { name, tables, shape, schema: `read_${name}_${shortShape(shape)}` };
}

/** @throws Error when two tables have the same name */
export function readGroups(tables: readonly ReadTable[]): ReadGroup[] {
  const names = tables.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two read models have a table named ${twice}`);
  return [...new Set(tables.map(({ group }) => group))].map((name) =>
    readGroup(
      name,
      tables.filter(({ group }) => group === name),
    ),
  );
}
