import { z } from 'zod';
import type { Aggregate } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';

/** A company is not a person, so none of its fields is sealed. */
export type CompanyAttribute = string | number | boolean;

export type CompanyEvent =
  | {
      readonly type: 'CompanyCreated';
      readonly data: { readonly name: string; readonly attributes: Readonly<Record<string, CompanyAttribute>> };
    }
  | {
      readonly type: 'CompanyChanged';
      /** Only the fields to change. */
      readonly data: {
        readonly name?: string;
        readonly attributes?: { readonly set: Readonly<Record<string, CompanyAttribute>>; readonly removed: readonly string[] };
      };
    }
  | { readonly type: 'CompanyArchived'; readonly data: Record<string, never> }
  | { readonly type: 'CompanyUnarchived'; readonly data: Record<string, never> };

export interface Company {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly name: string;
  readonly attributes: Readonly<Record<string, CompanyAttribute>>;
  readonly createdAt: string;
  readonly updatedAt: string;
}

const attributes = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

export const companyAggregate: Aggregate<Company, CompanyEvent> = {
  kind: 'company',
  codec: schemaCodec<CompanyEvent>({
    CompanyCreated: [z.object({ name: z.string(), attributes })],
    CompanyChanged: [
      z.object({ name: z.string().optional(), attributes: z.object({ set: attributes, removed: z.array(z.string()) }).optional() }),
    ],
    CompanyArchived: [z.object({})],
    CompanyUnarchived: [z.object({})],
  }),
  initial: { exists: false, archived: false, name: '', attributes: {}, createdAt: '', updatedAt: '' },
  evolve: (before, event) => {
    const at = event.metadata.occurredAt;
    switch (event.type) {
      case 'CompanyCreated':
        return { ...before, ...event.data, exists: true, createdAt: at, updatedAt: at };
      case 'CompanyChanged': {
        const { attributes: changes, ...fields } = event.data;
        const merged: Record<string, CompanyAttribute> = { ...before.attributes, ...changes?.set };
        for (const name of changes?.removed ?? []) delete merged[name];
        return { ...before, ...fields, attributes: merged, updatedAt: at };
      }
      case 'CompanyArchived':
        return { ...before, archived: true, updatedAt: at };
      case 'CompanyUnarchived':
        return { ...before, archived: false, updatedAt: at };
    }
  },
};

export const MAX_COMPANY_ATTRIBUTES = 100;

/** The fields that a caller asks to set; attributes are merged, `null` removes an attribute. */
export interface CompanyChanges {
  readonly name?: string;
  readonly attributes?: Readonly<Record<string, CompanyAttribute | null>>;
}

export type CompanyDecision = (c: Company) => readonly CompanyEvent[];

/** Returns no event when the id is taken: callers that need a new company must check. */
export function createCompany(given: CompanyChanges & { readonly name: string }): CompanyDecision {
  return (c) => {
    if (c.exists) return [];
    const set = Object.entries(given.attributes ?? {}).filter((entry): entry is [string, CompanyAttribute] => entry[1] !== null);
    return [{ type: 'CompanyCreated', data: { name: given.name, attributes: Object.fromEntries(set) } }];
  };
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived, limit_exceeded */
export function changeCompany(changes: CompanyChanges): CompanyDecision {
  return (c) => {
    if (!c.exists) throw new ThreadlogError('not_found');
    if (c.archived) throw new ThreadlogError('resource_archived');
    const set: Record<string, CompanyAttribute> = {};
    const removed: string[] = [];
    for (const [name, value] of Object.entries(changes.attributes ?? {})) {
      // Own names only: `toString` is not an attribute unless somebody set it.
      const had = Object.hasOwn(c.attributes, name);
      if (value === null) {
        if (had) removed.push(name);
      } else if (!had || c.attributes[name] !== value) set[name] = value;
    }
    if (new Set([...Object.keys(c.attributes), ...Object.keys(set)]).size - removed.length > MAX_COMPANY_ATTRIBUTES)
      throw new ThreadlogError('limit_exceeded', `a company has at most ${MAX_COMPANY_ATTRIBUTES} attributes`);
    const renamed = changes.name !== undefined && changes.name !== c.name;
    const merges = Object.keys(set).length > 0 || removed.length > 0;
    if (!renamed && !merges) return [];
    return [
      { type: 'CompanyChanged', data: { ...(renamed ? { name: changes.name } : {}), ...(merges ? { attributes: { set, removed } } : {}) } },
    ];
  };
}

export function archiveCompany(): CompanyDecision {
  return (c) => {
    if (!c.exists) throw new ThreadlogError('not_found');
    return c.archived ? [] : [{ type: 'CompanyArchived', data: {} }];
  };
}

/** @throws ThreadlogError not_found */
export function unarchiveCompany(): CompanyDecision {
  return (c) => {
    if (!c.exists) throw new ThreadlogError('not_found');
    return c.archived ? [{ type: 'CompanyUnarchived', data: {} }] : [];
  };
}
