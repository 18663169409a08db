import type { z } from 'zod';
import { type Codec, type DomainEvent, UnknownEvent } from './aggregate.js';

/**
 * Makes a codec from one schema per type and stored version, oldest first; the last version is written. A new version is added beside the
 * old versions, with an upcast from its predecessor. An old schema is never edited, since its events are kept for ever.
 */
export function schemaCodec<E extends DomainEvent>(
  schemas: { readonly [T in E['type']]: readonly z.ZodType[] },
  sealed: Codec<E>['sealed'] = {},
  upcasts: { readonly [T in E['type']]?: readonly ((data: unknown) => unknown)[] } = {},
): Codec<E> {
  const known = new Map<string, { versions: readonly z.ZodType[]; upcasts: readonly ((data: unknown) => unknown)[] }>();
  for (const type of Object.keys(schemas) as E['type'][]) {
    const steps = upcasts[type] ?? [];
    if (steps.length !== schemas[type].length - 1) throw new Error(`${type}: one upcast from each version to the next is needed`);
    known.set(type, { versions: schemas[type], upcasts: steps });
  }
  return {
    versions: Object.fromEntries([...known].map(([type, { versions }]) => [type, versions.length])) as Codec<E>['versions'],
    sealed,
    decode(type, schemaVersion, data) {
      const entry = known.get(type);
      const schema = entry?.versions[schemaVersion - 1];
      if (entry === undefined || schema === undefined) throw new UnknownEvent(`this build does not know ${type} version ${schemaVersion}`);
      const parsed = schema.safeParse(data);
      if (!parsed.success)
        throw new UnknownEvent(`${type} version ${schemaVersion}: ${parsed.error.issues[0]?.message ?? 'another shape'}`);
      const current = entry.upcasts.slice(schemaVersion - 1).reduce((older, upcast) => upcast(older), parsed.data);
      return { type, data: current } as E;
    },
  };
}
