import { z } from 'zod';
import type { Aggregate, Recorded } from '../event-store/aggregate.js';
import { schemaCodec } from '../event-store/schema-codec.js';
import { ThreadlogError } from '../errors.js';
import type { Sealed } from '../security/sealing.js';

/** `V` is a personal value: sealed in the log and in decisions, unsealed for readers (visitor.sealing.ts). */
export interface VisitorFields<V = Sealed> {
  readonly userId?: string | null;
  readonly name?: V | null;
  readonly email?: V | null;
  readonly phone?: V | null;
  readonly avatarUrl?: V | null;
  readonly plan?: string | null;
  readonly companyId?: string | null;
}

export type VisitorEvent<V = Sealed> =
  | { readonly type: 'VisitorCreated'; readonly data: VisitorFields<V> & { readonly attributes?: Readonly<Record<string, V>> } }
  | {
      readonly type: 'VisitorChanged';
      /** Only the fields to change; `null` clears a field. */
      readonly data: VisitorFields<V> & {
        readonly attributes?: { readonly set: Readonly<Record<string, V>>; readonly removed: readonly string[] };
      };
    }
  | { readonly type: 'VisitorArchived'; readonly data: Record<string, never> }
  /** Ends every token that was made before; new tokens carry `generation`. */
  | { readonly type: 'VisitorTokensRevoked'; readonly data: { readonly generation: number } };

export interface Visitor<V = Sealed> {
  readonly exists: boolean;
  readonly archived: boolean;
  readonly userId: string | null;
  readonly name: V | null;
  readonly email: V | null;
  readonly phone: V | null;
  readonly avatarUrl: V | null;
  readonly plan: string | null;
  readonly companyId: string | null;
  readonly attributes: Readonly<Record<string, V>>;
  /** How often the visitor's tokens were revoked; only tokens with this number are valid. */
  readonly tokenGeneration: number;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export const initialVisitor: Visitor<never> = {
  exists: false,
  archived: false,
  userId: null,
  name: null,
  email: null,
  phone: null,
  avatarUrl: null,
  plan: null,
  companyId: null,
  attributes: {},
  tokenGeneration: 0,
  createdAt: '',
  updatedAt: '',
};

export function evolveVisitor<V>(before: Visitor<V>, event: Recorded<VisitorEvent<V>>): Visitor<V> {
  const at = event.metadata.occurredAt;
  switch (event.type) {
    case 'VisitorCreated':
      return { ...before, ...event.data, attributes: event.data.attributes ?? {}, exists: true, createdAt: at, updatedAt: at };
    case 'VisitorChanged': {
      const { attributes: changes, ...fields } = event.data;
      const attributes: Record<string, V> = { ...before.attributes, ...changes?.set };
      for (const name of changes?.removed ?? []) delete attributes[name];
      return { ...before, ...fields, attributes, updatedAt: at };
    }
    case 'VisitorArchived':
      return { ...before, archived: true, updatedAt: at };
    case 'VisitorTokensRevoked':
      return { ...before, tokenGeneration: event.data.generation, updatedAt: at };
  }
}

const sealed = z.string().min(1);
const fields = {
  userId: z.string().nullable().optional(),
  name: sealed.nullable().optional(),
  email: sealed.nullable().optional(),
  phone: sealed.nullable().optional(),
  avatarUrl: sealed.nullable().optional(),
  plan: z.string().nullable().optional(),
  companyId: z.string().nullable().optional(),
};
const PERSONAL = ['name', 'email', 'phone', 'avatarUrl', 'attributes'] as const;

export const visitorAggregate: Aggregate<Visitor, VisitorEvent> = {
  kind: 'visitor',
  codec: schemaCodec<VisitorEvent>(
    {
      VisitorCreated: [z.object({ ...fields, attributes: z.record(z.string(), sealed).optional() })],
      VisitorChanged: [
        z.object({ ...fields, attributes: z.object({ set: z.record(z.string(), sealed), removed: z.array(z.string()) }).optional() }),
      ],
      VisitorArchived: [z.object({})],
      VisitorTokensRevoked: [z.object({ generation: z.number().int() })],
    },
    { VisitorCreated: PERSONAL, VisitorChanged: PERSONAL },
  ),
  initial: initialVisitor,
  evolve: evolveVisitor,
};

export const MAX_ATTRIBUTES = 100;

export type VisitorDecision = (v: Visitor) => readonly VisitorEvent[];

/** The fields that a caller asks to set: `null` clears a field; attributes are merged, `null` removes an attribute. */
export type VisitorChanges = VisitorFields & { readonly attributes?: Readonly<Record<string, Sealed | null>> };

export function createVisitor(given: VisitorChanges): VisitorDecision {
  return (v) => {
    if (v.exists) return [];
    const { attributes, ...values } = given;
    const data = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== undefined)) as VisitorFields;
    const set = Object.fromEntries(Object.entries(attributes ?? {}).filter((entry): entry is [string, Sealed] => entry[1] !== null));
    return [{ type: 'VisitorCreated', data: { ...data, ...(Object.keys(set).length === 0 ? {} : { attributes: set }) } }];
  };
}

/** Appends only the differences. @throws ThreadlogError not_found, resource_archived, limit_exceeded */
export function changeVisitor(changes: VisitorChanges): VisitorDecision {
  return (v) => {
    if (!v.exists) throw new ThreadlogError('not_found');
    if (v.archived) throw new ThreadlogError('resource_archived', 'the visitor is archived');
    const { attributes, ...values } = changes;
    const differing = Object.entries(values).filter(([field, value]) => value !== undefined && v[field as keyof VisitorFields] !== value);
    const set: Record<string, Sealed> = {};
    const removed: string[] = [];
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value === null) {
        if (v.attributes[name] !== undefined) removed.push(name);
      } else if (v.attributes[name] !== value) set[name] = value;
    }
    if (new Set([...Object.keys(v.attributes), ...Object.keys(set)]).size - removed.length > MAX_ATTRIBUTES)
      throw new ThreadlogError('limit_exceeded', `a visitor has at most ${MAX_ATTRIBUTES} attributes`);
    const merges = Object.keys(set).length > 0 || removed.length > 0;
    if (differing.length === 0 && !merges) return [];
    return [{ type: 'VisitorChanged', data: { ...Object.fromEntries(differing), ...(merges ? { attributes: { set, removed } } : {}) } }];
  };
}

/** For good: the keys are free for another visitor. @throws ThreadlogError not_found */
export function archiveVisitor(): VisitorDecision {
  return (v) => {
    if (!v.exists) throw new ThreadlogError('not_found');
    return v.archived ? [] : [{ type: 'VisitorArchived', data: {} }];
  };
}

/**
 * Ends the tokens of a generation. Does nothing for a generation that has ended, so that two concurrent revocations count as one.
 * @throws ThreadlogError not_found
 */
export function revokeTokens(generation: number): VisitorDecision {
  return (v) => {
    if (!v.exists) throw new ThreadlogError('not_found');
    return v.tokenGeneration === generation ? [{ type: 'VisitorTokensRevoked', data: { generation: generation + 1 } }] : [];
  };
}
