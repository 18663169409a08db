import type { Recorded } from '../event-store/aggregate.js';
import { type DataKey, ERASED, type Sealed } from '../security/sealing.js';
import type { Visitor, VisitorChanges, VisitorEvent, VisitorFields } from './visitor.js';

const OPEN = ['userId', 'plan', 'companyId'] as const;
const PERSONAL = ['name', 'email', 'phone', 'avatarUrl'] as const;
const ATTRIBUTE = 'visitor.attribute';
const attributeContext = (name: string) => `${ATTRIBUTE} ${name}`;

/** A visitor's fields in plain text, as callers send them and readers see them. */
export interface PlainVisitor {
  readonly userId?: string | null;
  readonly name?: string | null;
  readonly email?: string | null;
  readonly phone?: string | null;
  readonly avatarUrl?: string | null;
  readonly plan?: string | null;
  readonly companyId?: string | null;
  readonly attributes?: Readonly<Record<string, unknown>>;
}

export function sealVisitor(key: DataKey, plain: PlainVisitor): VisitorChanges {
  const { attributes } = plain;
  const sealed: Record<string, unknown> = {};
  // Field by field, so that no field that a caller adds can reach the log unsealed.
  for (const field of OPEN) if (plain[field] !== undefined) sealed[field] = plain[field];
  for (const field of PERSONAL) {
    const value = plain[field];
    if (value !== undefined) sealed[field] = value === null ? null : key.seal(`visitor.${field}`, value);
  }
  if (attributes !== undefined)
    sealed['attributes'] = Object.fromEntries(
      Object.entries(attributes).map(([name, value]) => [
        key.seal(ATTRIBUTE, name),
        value === null ? null : key.seal(attributeContext(name), value),
      ]),
    );
  return sealed as VisitorChanges;
}

function unsealAttributes(key: DataKey, attributes: Readonly<Record<string, Sealed>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => {
      const unsealed = String(key.unseal(ATTRIBUTE, name as Sealed));
      return [unsealed, key.unseal(attributeContext(unsealed), value)];
    }),
  );
}

function unsealFields(key: DataKey | undefined, fields: VisitorFields): VisitorFields<unknown> {
  const unsealed: Record<string, unknown> = { ...fields };
  for (const field of PERSONAL) {
    const value = fields[field];
    if (value !== undefined && value !== null) unsealed[field] = key === undefined ? ERASED : key.unseal(`visitor.${field}`, value);
  }
  return unsealed;
}

/** The state with its personal values unsealed; without the key they are ERASED and the attributes are gone. */
export function unsealVisitor(visitor: Visitor, key: DataKey | undefined): Visitor<unknown> {
  return {
    ...visitor,
    ...unsealFields(key, visitor),
    attributes: key === undefined ? {} : unsealAttributes(key, visitor.attributes),
  } as Visitor<unknown>;
}

/** One personal field, for readers that need no more. Null when the visitor has none, or its key is destroyed. */
export function unsealOneField(visitor: Visitor, field: (typeof PERSONAL)[number], key: DataKey | undefined): unknown {
  const sealed = visitor[field];
  return sealed === null || key === undefined ? null : key.unseal(`visitor.${field}`, sealed);
}

/** One attribute, as unsealOneField(). */
export function unsealOneAttributeOf({ attributes }: Visitor, name: string, key: DataKey | undefined): unknown {
  const sealed = key === undefined ? undefined : attributes[key.seal(ATTRIBUTE, name)];
  return key === undefined || sealed === undefined ? null : key.unseal(attributeContext(name), sealed);
}

export function unsealVisitorEvent(event: Recorded<VisitorEvent>, key: DataKey | undefined): Recorded<VisitorEvent<unknown>> {
  switch (event.type) {
    case 'VisitorCreated': {
      const { attributes, ...fields } = event.data;
      return {
        ...event,
        data: {
          ...unsealFields(key, fields),
          ...(attributes === undefined || key === undefined ? {} : { attributes: unsealAttributes(key, attributes) }),
        },
      };
    }
    case 'VisitorChanged': {
      const { attributes, ...fields } = event.data;
      return {
        ...event,
        data: {
          ...unsealFields(key, fields),
          ...(attributes === undefined || key === undefined
            ? {}
            : {
                attributes: {
                  set: unsealAttributes(key, attributes.set),
                  removed: attributes.removed.map((name) => String(key.unseal(ATTRIBUTE, name as Sealed))),
                },
              }),
        },
      };
    }
    case 'VisitorArchived':
    case 'VisitorTokensRevoked':
      return event;
  }
}
