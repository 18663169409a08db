import { createHash } from 'node:crypto';
import { ddlOf, type ReadTable } from './table.js';

/** The group of projections that lists, people, settings and the feed of events are read from. */
export const CORE_GROUP = 'core';

/** A group of projections as this build has it. Its checkpoint, its tables and its views are found by the name and the shape together. */
export interface ReadGroup {
  readonly name: string;
  readonly tables: readonly ReadTable[];
  /** A hash of the statements, versions and guards of its tables, in hex. A build with another shape has tables of its own beside these. */
  readonly shape: string;
  /** Of the views that queries go through: they show the live generation of this shape. */
  readonly schema: string;
}

/** As much of a shape as people are shown, and as names of schemas hold. */
export const shortShape = (shape: string) => shape.slice(0, 10);

export function readGroup(name: string, tables: readonly ReadTable[]): ReadGroup {
  // In the order of their names: in what order they are registered says nothing of their rows.
  const inOrder = tables.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const said = inOrder.map((table) => [table.name, table.version, table.guard, ddlOf(table, table.name)]);
  const shape = createHash('sha256').update(JSON.stringify(said)).digest('hex');
  return { name, tables, shape, schema: `read_${name}_${shortShape(shape)}` };
}

/** @throws Error when two tables have one name */
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
