import { getMetadataStorage } from 'class-validator';
import type { ZodType } from 'zod';

export type JsonSchema = Readonly<Record<string, unknown>>;
/** Refers to the schema of a class, or to one that answers have under a name. */
export type SchemaOf = (type: (new () => object) | ZodType) => JsonSchema;
type Description = JsonSchema | ((of: SchemaOf) => JsonSchema);

const DESCRIBED = new WeakMap<object, Map<string, Description>>();

/** The JSON Schema of a property, where its checks do not determine it; words alone (`description`, `default`) stand beside what the checks say. */
export const Described =
  (description: Description): PropertyDecorator =>
  (target, property) => {
    const described = DESCRIBED.get(target);
    if (described === undefined) DESCRIBED.set(target, new Map([[String(property), description]]));
    else described.set(String(property), description);
  };

const EXAMPLES = new WeakMap<object, Readonly<Record<string, object>>>();

/** Example bodies of a route, each under a few words that describe its purpose. The simplest comes first. */
export const Examples =
  (examples: Readonly<Record<string, object>>): ClassDecorator =>
  (type) =>
    void EXAMPLES.set(type, examples);

/** The examples of the DTO itself, without those of a class that it extends. */
export const examplesOf = (type: new () => object): Readonly<Record<string, object>> => EXAMPLES.get(type) ?? {};

function descriptionOf(type: new () => object, property: string): Description | undefined {
  for (let prototype: unknown = type.prototype; typeof prototype === 'object' && prototype !== null;) {
    const found = DESCRIBED.get(prototype)?.get(property);
    if (found !== undefined) return found;
    prototype = Object.getPrototypeOf(prototype);
  }
  return undefined;
}

/** Whether a description leaves it to the checks what a property takes. */
const isWords = (described: Description | undefined): boolean =>
  described === undefined ||
  (typeof described === 'object' && Object.keys(described).every((name) => name === 'description' || name === 'default'));

/** The name of the check in validation.ts that two properties are not both present. */
export const NOT_BESIDE = 'isNotBeside';

interface Property {
  schema: Record<string, unknown>;
  items: Record<string, unknown>;
  conditions: ((object: object, value: unknown) => boolean)[];
}

/**
 * The schema of a DTO, from its declared checks. Schema and checks refuse the same requests, except where JSON Schema cannot express a
 * check (that a text is visible, that a day is in the calendar).
 * @param of returns the reference to the schema of a nested class or answer
 * @throws Error for a check without a schema
 */
export function requestSchema(
  type: new () => object,
  of: SchemaOf,
): JsonSchema & { readonly properties: Readonly<Record<string, JsonSchema>> } {
  const properties = new Map<string, Property>();
  const exclusions: JsonSchema[] = [];
  for (const check of getMetadataStorage().getTargetValidationMetadatas(type, '', false, false)) {
    const name = check.propertyName;
    let property = properties.get(name);
    if (property === undefined) properties.set(name, (property = { schema: {}, items: {}, conditions: [] }));
    const described = descriptionOf(type, name);
    if (check.type === 'conditionalValidation') property.conditions.push(check.constraints[0] as Property['conditions'][number]);
    else if (check.name === NOT_BESIDE) exclusions.push({ not: { required: [name, check.constraints[0] as string] } });
    else if (isWords(described))
      Object.assign(check.each ? property.items : property.schema, schemaOfCheck(type, name, check.name, check.constraints));
  }
  const names = [...properties.keys()];
  const required: string[] = [];
  // Sets of properties of which at least one must be present, each as JSON.
  const alternatives = new Set<string>();
  const schemas: Record<string, JsonSchema> = {};
  for (const [name, { schema, items, conditions }] of properties) {
    const described = descriptionOf(type, name);
    const whole = {
      ...(typeof described === 'function' ? described(of) : described),
      ...schema,
      ...(Object.keys(items).length === 0 ? {} : { type: 'array', items }),
    };
    // Whether a value is checked may depend on other properties.
    const isChecked = (value: unknown, beside: readonly string[]) => {
      const object = Object.fromEntries(names.map((one) => [one, one === name ? value : beside.includes(one) ? {} : undefined]));
      return conditions.every((condition) => condition(object, value));
    };
    if (isChecked(undefined, [])) {
      const others = names.filter((one) => one !== name && !isChecked(undefined, [one]));
      if (others.length === 0) required.push(name);
      else alternatives.add(JSON.stringify([name, ...others].sort()));
    }
    schemas[name] = conditions.length > 0 && !isChecked(null, []) ? nullable(whole) : whole;
  }
  const choices = [
    ...[...alternatives].map((set) => ({ anyOf: (JSON.parse(set) as string[]).map((one) => ({ required: [one] })) })),
    ...exclusions,
  ];
  return {
    type: 'object',
    properties: schemas,
    ...(required.length === 0 ? {} : { required }),
    ...(choices.length === 0 ? {} : { allOf: choices }),
    additionalProperties: false,
  };
}

/** Our own rules carry their schema. */
function schemaOfCheck(
  type: new () => object,
  property: string,
  name: string | undefined,
  constraints: readonly unknown[] | undefined,
): JsonSchema {
  const own = constraints?.[0];
  if (typeof own === 'object' && own !== null) return own as JsonSchema;
  throw new Error(`${type.name}.${property}: say with @Described what ${name ?? 'is nested there'} takes`);
}

function nullable(schema: JsonSchema): JsonSchema {
  const { type } = schema;
  if (Object.keys(schema).length === 0) return schema;
  if (typeof type === 'string' && !('enum' in schema) && !('const' in schema)) return { ...schema, type: [type, 'null'] };
  return { anyOf: [schema, { type: 'null' }] };
}
