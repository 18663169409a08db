import type { ArgumentMetadata, PipeTransform } from '@nestjs/common';
import {
  getMetadataStorage,
  registerDecorator,
  ValidateIf,
  ValidateNested,
  validateSync,
  type ValidationError,
  type ValidationOptions,
} from 'class-validator';
import { isEmailAddress } from '../texts/email-address.js';
import { type FieldError, ThreadlogError } from '../errors.js';
import { fieldPath } from '../texts/field-path.js';
import { Described, type JsonSchema, NOT_BESIDE } from './request-schema.js';
import { saysNothing, typedText } from '../texts/unseen-characters.js';

/**
 * Bodies and queries: only declared fields, no conversion of types, every wrong field named at once. In the place of Nest's
 * ValidationPipe, which does the same in three times the time: it waits for validators that none of ours are, and walks each body twice
 * more for names that parseStrictJson has refused already.
 */
export class DtoPipe implements PipeTransform {
  transform(given: unknown, { type, metatype }: ArgumentMetadata): unknown {
    if (type === 'custom' || metatype === undefined || NATIVE.has(metatype)) return given;
    // A request without a body lacks what its DTO asks for, by name.
    const value = given === undefined ? {} : given;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new ThreadlogError('validation_failed', undefined, { errors: [{ field: '', message: 'must be an object' }] });
    const instance = instanceOf(metatype as new () => object, value);
    const errors = validateSync(instance, VALIDATION);
    if (errors.length > 0)
      throw new ThreadlogError('validation_failed', undefined, { errors: fieldErrors(errors, instance).slice(0, MAX_NAMED) });
    return instance;
  }
}

const NATIVE = new Set<unknown>([String, Boolean, Number, Array, Object, Buffer, Date]);
const VALIDATION = {
  whitelist: true,
  forbidNonWhitelisted: true,
  forbidUnknownValues: true,
  validationError: { target: false, value: true },
} as const;
/** Faults that are told one by one: a body has room for many thousands. */
const MAX_NAMED = 100;

/** What is made of a property's value before it is checked, by the prototype of the class that declares it. */
const BECOMES = new WeakMap<object, Map<string, (value: unknown) => unknown>>();

/**
 * Makes something of a property's value before it is checked. What it cannot make anything of, it hands on for the checks to refuse. Of
 * several on one property each gets what the one below it made.
 */
export const Becomes =
  (make: (value: unknown) => unknown): PropertyDecorator =>
  (target, property) => {
    const made = BECOMES.get(target) ?? new Map<string, (value: unknown) => unknown>();
    const below = made.get(String(property));
    made.set(String(property), below === undefined ? make : (value) => make(below(value)));
    BECOMES.set(target, made);
  };

/** The other checks hold for what is given at all: null, unlike with `IsOptional`, is given. */
export const IfGiven = (): PropertyDecorator => (target, property) =>
  ValidateIf((given: object) => (given as Record<string | symbol, unknown>)[property] !== undefined)(target, property);

/** A field that may be left out, and that null leaves out too. */
export const NullIsAbsent = (): PropertyDecorator => (target, property) => {
  Becomes((value) => value ?? undefined)(target, property);
  ValidateIf((given: object) => ((given as Record<string | symbol, unknown>)[property] ?? undefined) !== undefined)(target, property);
};

/** Several such fields that a class inherits. */
export const NullsAreAbsent =
  (...properties: readonly string[]): ClassDecorator =>
  (type) => {
    for (const property of properties) NullIsAbsent()(type.prototype as object, property);
  };

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Refuses a property beside which another is given. Stands above the checks of the value itself. */
export const IsNotBeside =
  (other: string): PropertyDecorator =>
  (target, property) =>
    registerDecorator({
      name: NOT_BESIDE,
      target: target.constructor,
      propertyName: String(property),
      constraints: [other],
      options: telling(() => `must be absent beside ${other}`),
      validator: {
        validate: (_value, given) => (given?.object as Record<string, unknown> | undefined)?.[other] === undefined,
        defaultMessage: () => REFUSED,
      },
    });

/** The other checks hold for what is given, and where `other` is not: one of the two must be there. */
export const IfGivenOrWithout =
  (other: string): PropertyDecorator =>
  (target, property) => {
    ValidateIf((given: object) => {
      const beside = given as Record<string | symbol, unknown>;
      return beside[property] !== undefined || beside[other] === undefined;
    })(target, property);
    MISSING.set(target, (MISSING.get(target) ?? new Map<string, string>()).set(String(property), `must be there, or ${other}`));
  };

/** What is said of a property that is missing, where there is more to say than that, by the prototype of its class. */
const MISSING = new WeakMap<object, Map<string, string>>();

/** An object of a class, with what that class declares. */
export const IsNested =
  (type: new () => object): PropertyDecorator =>
  (target, property) => {
    Becomes((value) => (isRecord(value) ? instanceOf(type, value) : value))(target, property);
    Described((of) => of(type))(target, property);
    ValidateNested()(target, property);
    IsRecord()(target, property);
  };

/** Stands with ValidateNested, which takes a list for an object. */
export const IsRecord = (message = 'must be an object') =>
  rule('isRecord', (value) => (isRecord(value) ? undefined : message), { type: 'object' });

interface ListSize {
  /** 0 when absent. */
  readonly min?: number;
  readonly max: number;
}

/** A list of objects of a class. */
export const IsNestedList =
  (type: new () => object, size: ListSize): PropertyDecorator =>
  (target, property) => {
    const entry = (value: unknown) => (isRecord(value) ? instanceOf(type, value) : value);
    Becomes((value) => (Array.isArray(value) ? value.map(entry) : value))(target, property);
    Described((of) => ({ ...listSchema(size), items: of(type) }))(target, property);
    ValidateNested({ each: true })(target, property);
    rule(
      'isNestedList',
      (value) =>
        listFault(value, size) ??
        some((value as unknown[]).flatMap((one, index) => (isRecord(one) ? [] : [{ path: [index], message: 'must be an object' }]))),
      {},
    )(target, property);
  };

/** A list; what its entries are is said by checks with `each` below it. @param unique refuses an entry that is there twice */
export const IsList = (size: ListSize & { readonly unique?: boolean }) =>
  rule('isList', (value) => listFault(value, size) ?? (size.unique === true ? some(repeated(value as unknown[])) : undefined), {
    ...listSchema(size),
    ...(size.unique === true ? { uniqueItems: true } : {}),
  });

const listSchema = ({ min = 0, max }: ListSize) => ({ type: 'array', ...(min === 0 ? {} : { minItems: min }), maxItems: max });

function listFault(value: unknown, { min = 0, max }: ListSize): string | undefined {
  if (!Array.isArray(value)) return 'must be a list';
  if (value.length < min) return min === 1 ? 'must not be empty' : `must have at least ${min} entries`;
  return value.length > max ? `must have at most ${max} entries` : undefined;
}

function repeated(values: readonly unknown[]): Fault[] {
  const seen = new Map<unknown, number>();
  return values.flatMap((value, index) => {
    const first = seen.get(value);
    if (first === undefined) seen.set(value, index);
    return first === undefined ? [] : [{ path: [index], message: `is the same as [${first}]` }];
  });
}

const some = (faults: readonly Fault[]) => (faults.length === 0 ? undefined : faults);

/**
 * The given fields as an instance of the class that declares them, which is what class-validator checks. Names such as __proto__ never
 * come here: parseStrictJson and the reader of addresses refuse them.
 */
export function instanceOf<T extends object>(type: new () => T, fields: object): T {
  const instance = Object.assign(new type(), fields) as T & Record<string, unknown>;
  for (
    let prototype: object = type.prototype as object;
    prototype !== Object.prototype;
    prototype = Object.getPrototypeOf(prototype) as object
  )
    for (const [name, make] of BECOMES.get(prototype) ?? []) {
      if (!(name in fields)) continue;
      const made = make(instance[name]);
      if (made === undefined) delete (instance as Record<string, unknown>)[name];
      else instance[name as keyof T] = made as never;
    }
  return instance;
}

/**
 * What a class declares is gathered anew from all classes at each validation, though it cannot change once the program runs. Remembered
 * by class, that is a tenth of the time of a small body.
 */
function rememberDeclarations(): void {
  const storage = getMetadataStorage();
  const gather = storage.getTargetValidationMetadatas.bind(storage);
  const known = new WeakMap<object, ReturnType<typeof gather>>();
  storage.getTargetValidationMetadatas = (target, schema, always, strictGroups, groups) => {
    if (groups !== undefined && groups.length > 0) return gather(target, schema, always, strictGroups, groups);
    let declared = known.get(target);
    if (declared === undefined) known.set(target, (declared = gather(target, schema, always, strictGroups, groups)));
    return declared;
  };
  // By name without a prototype: in a plain object every class would declare what all objects have, such as hasOwnProperty.
  const group = storage.groupByPropertyName.bind(storage);
  const grouped = new WeakMap<object, ReturnType<typeof group>>();
  storage.groupByPropertyName = (declarations) => {
    let names = grouped.get(declarations);
    if (names === undefined)
      grouped.set(declarations, (names = Object.assign(Object.create(null) as typeof names & object, group(declarations))));
    return names;
  };
}
rememberDeclarations();

/** One thing that is wrong, and where within the value. */
export interface Fault {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}
/** What is wrong with a value: one thing with the value itself, or several within it. */
type Faults = string | readonly Fault[] | undefined;

/** What a check says of a value that it refuses, handed through class-validator as the check's context. */
interface Telling {
  readonly tell: (value: unknown) => Faults;
}
/** Without a message class-validator hands no context through. */
const REFUSED = 'is refused';
const telling = (tell: Telling['tell'], options: ValidationOptions = {}): ValidationOptions => ({ ...options, context: { tell } });

/** Objects and lists that were made of a text: what is wrong in them is wrong with the text. */
const MADE_OF_TEXT = new WeakSet<object>();
/** What stands for a text in a request. */
export function madeOfText<T extends object>(instance: T): T {
  MADE_OF_TEXT.add(instance);
  return instance;
}

/**
 * One entry for each field that is wrong, or several for what is wrong within it. Of the checks that refuse a value the topmost speaks: it
 * says what the value is, and those below it would speak of something else than what was sent.
 */
function fieldErrors(errors: readonly ValidationError[], of: unknown, below = ''): FieldError[] {
  return errors.flatMap(({ property, value, constraints = {}, contexts, children = [] }): FieldError[] => {
    const field = fieldPath([Array.isArray(of) ? Number(property) : property], below);
    if (constraints['whitelistValidation'] !== undefined) return [{ field, message: 'is not known here' }];
    const check = Object.keys(constraints).findLast((name) => name !== 'nestedValidation');
    if (check === undefined) {
      const within = fieldErrors(children, value, field);
      return isOfText(value) ? within.slice(0, 1).map(({ message }) => ({ field, message })) : within;
    }
    if (value === undefined) return [{ field, message: whenMissing(of, property) ?? 'is missing' }];
    if (value === null) return [{ field, message: 'must not be null' }];
    const told = (contexts?.[check] as Telling | undefined)?.tell(value) ?? REFUSED;
    if (typeof told === 'string') return [{ field, message: told }];
    const faults = told.map(({ path, message }) => ({ field: fieldPath(path, field), message }));
    return isOfText(value) ? faults.slice(0, 1).map(({ message }) => ({ field, message })) : faults;
  });
}

const isOfText = (value: unknown) => typeof value === 'object' && value !== null && MADE_OF_TEXT.has(value);

function whenMissing(of: unknown, property: string): string | undefined {
  for (let prototype: unknown = of; typeof prototype === 'object' && prototype !== null; prototype = Object.getPrototypeOf(prototype)) {
    const said = MISSING.get(prototype)?.get(property);
    if (said !== undefined) return said;
  }
  return undefined;
}

/**
 * A check of our own.
 * @param tell what is wrong with a value; undefined for a good one
 * @param schema what the check says in JSON Schema, from which the API's document is generated
 * @param options `each`: the check holds for every entry of a list
 */
export function rule(name: string, tell: Telling['tell'], schema: JsonSchema, options: ValidationOptions = {}): PropertyDecorator {
  const inEach = (value: unknown): Faults =>
    Array.isArray(value)
      ? value.flatMap((one: unknown, index) => {
          const told = one === null ? 'must not be null' : (tell(one) ?? []);
          return typeof told === 'string'
            ? [{ path: [index], message: told }]
            : told.map(({ path, message }) => ({ path: [index, ...path], message }));
        })
      : tell(value);
  return (target, property) =>
    registerDecorator({
      name,
      target: target.constructor,
      propertyName: String(property),
      constraints: [schema],
      options: telling(options.each === true ? inEach : tell, options),
      validator: { validate: (value) => tell(value) === undefined, defaultMessage: () => REFUSED },
    });
}

/** One of some texts. @param hint said after them */
export const IsOneOf = (values: readonly string[], options: ValidationOptions & { readonly hint?: string } = {}) => {
  const { hint, ...rest } = options;
  const message = `must be ${values.length === 1 ? '' : 'one of '}${values.join(', ')}${hint === undefined ? '' : `; ${hint}`}`;
  return rule('isOneOf', (value) => (values.includes(value as string) ? undefined : message), { enum: values }, rest);
};

/** A whole number within bounds, both included. */
export const IsWhole = (min: number, max: number) =>
  rule(
    'isWhole',
    (value) => {
      if (typeof value !== 'number') return `must be a number, not ${kindOf(value)}`;
      return Number.isInteger(value) && value >= min && value <= max ? undefined : `must be a whole number from ${min} to ${max}`;
    },
    { type: 'integer', minimum: min, maximum: max },
  );

export const IsTrueOrFalse = () =>
  rule('isTrueOrFalse', (value) => (typeof value === 'boolean' ? undefined : `must be true or false, not ${kindOf(value)}`), {
    type: 'boolean',
  });

function kindOf(value: unknown): string {
  if (typeof value === 'string') return 'a text';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : typeof value === 'boolean' ? 'true or false' : 'a number';
}

/** A text of a pattern, such as a number in an address. @param message without the field's name */
export const IsMatching = (pattern: RegExp, message: string) =>
  rule('isMatching', (value) => (typeof value === 'string' && pattern.test(value) ? undefined : message), {
    type: 'string',
    pattern: pattern.source,
  });

/** Code points, which is nearer to what people count than UTF-16 units are. */
function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Length in characters as people count them (code points), with the bytes bounded too. */
export function textFault(value: unknown, max: number): string | undefined {
  if (typeof value !== 'string') return 'must be a text';
  if (saysNothing(value)) return 'must not be empty';
  if (value.length > max * 2 || characters(value) > max) return `must have at most ${max} characters`;
  if (value.includes('\0') || !value.isWellFormed()) return 'must be valid text without U+0000';
  return undefined;
}

/** A visible text of at most `max` characters. */
export const IsVisibleText = (max: number, options?: ValidationOptions) =>
  rule('isVisibleText', (value) => textFault(value, max), { type: 'string', minLength: 1, maxLength: max }, options);

const MAX_EMAIL = 320;
export function emailFault(value: unknown): string | undefined {
  if (typeof value === 'string' && value.length > MAX_EMAIL) return `must have at most ${MAX_EMAIL} characters`;
  return isEmailAddress(value) ? undefined : 'must be an e-mail address without characters that cannot be seen';
}
export const IsEmailAddress = () => rule('isEmailAddress', emailFault, { type: 'string', format: 'email', maxLength: MAX_EMAIL });

const typed = (value: unknown): unknown => (typeof value === 'string' ? typedText(value) : Array.isArray(value) ? value.map(typed) : value);

/** A text that people type to find a thing again, such as a name: checked and stored in its typed form (typedText). */
export const IsTypedText =
  (max: number, options?: ValidationOptions): PropertyDecorator =>
  (target, property) => {
    Becomes(typed)(target, property);
    IsVisibleText(max, options)(target, property);
  };

/** A new tag. `.` and `..` are none: clients resolve them in an address, so that no request could remove them. */
export const IsTag =
  (max: number, options?: ValidationOptions): PropertyDecorator =>
  (target, property) => {
    Becomes(typed)(target, property);
    rule(
      'isTag',
      (value) => (value === '.' || value === '..' ? 'must not be . or .., which no address can name' : textFault(value, max)),
      { type: 'string', minLength: 1, maxLength: max, not: { enum: ['.', '..'] } },
      options,
    )(target, property);
  };

// Joiners stand within emoji and within words of some scripts; the other format characters hide or turn round what a name ends with.
const NOT_IN_FILE_NAMES = /[\p{Cc}/\\]|(?![\u200c\u200d])\p{Cf}/u;

/** A file's name as it may be shown and saved: visible, on one line, in no other folder. */
export const IsFileName = (max: number, options?: ValidationOptions) =>
  rule(
    'isFileName',
    (value) =>
      textFault(value, max) ??
      (NOT_IN_FILE_NAMES.test(value as string)
        ? 'must be a name without / and \\, line breaks and characters that cannot be seen'
        : undefined),
    { type: 'string', minLength: 1, maxLength: max, pattern: String.raw`^[^/\\]+$` },
    options,
  );

// RFC 9110: type/subtype, then parameters whose values are tokens or quoted.
const TOKEN = "[A-Za-z0-9!#$%&'*+.^_`|~-]+";
const RESTRICTED = '[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}';
const MEDIA_TYPE = new RegExp(
  String.raw`^${RESTRICTED}/${RESTRICTED}(?:[ \t]*;[ \t]*${TOKEN}=(?:${TOKEN}|"(?:[\t !#-\[\]-~]|\\[\t -~])*"))*$`,
);
const MAX_MEDIA_TYPE = 255;
/** A media type, which may carry parameters: application/pdf, audio/webm;codecs=opus. */
export const IsMediaType = () =>
  rule(
    'isMediaType',
    (value) => {
      if (typeof value !== 'string') return 'must be a text';
      if (value.length > MAX_MEDIA_TYPE) return `must have at most ${MAX_MEDIA_TYPE} characters`;
      return MEDIA_TYPE.test(value) ? undefined : 'must be a media type, such as application/pdf or audio/webm;codecs=opus';
    },
    { type: 'string', pattern: MEDIA_TYPE.source, maxLength: MAX_MEDIA_TYPE },
  );

/** A typed text of at most `max` characters that is one word: no white space but at its ends, where it is dropped. */
export const IsShortcut =
  (max: number): PropertyDecorator =>
  (target, property) => {
    Becomes(typed)(target, property);
    rule('isShortcut', (value) => textFault(value, max) ?? (/\s/u.test(value as string) ? 'must have no white space' : undefined), {
      type: 'string',
      minLength: 1,
      maxLength: max,
      pattern: String.raw`^\s*\S+\s*$`,
    })(target, property);
  };

/**
 * An id that a caller chooses or names: kept exactly as given. `.` and `..` are none, since clients resolve them in an address, nor is
 * `none`, by which a list is asked for what is assigned to nobody.
 */
const RESOURCE_ID = /^(?!(?:\.{1,2}|none)$)[A-Za-z0-9._:@-]{1,128}$/;
export const resourceIdFault = (value: unknown): string | undefined =>
  typeof value === 'string' && RESOURCE_ID.test(value) ? undefined : 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ -, and not ., .. or none';
export const IsResourceId = (options?: ValidationOptions) =>
  rule('isResourceId', resourceIdFault, { type: 'string', pattern: RESOURCE_ID.source }, options);

// RFC 3339 with a zone.
const INSTANT = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.\d{1,9})?(?:Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;

/** Milliseconds of an RFC 3339 instant with a zone; undefined for anything else, such as 30 February. */
export function parseInstant(text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined;
  const match = INSTANT.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  const days = new Date(Date.UTC(year, month, 0)).getUTCDate();
  if (month < 1 || month > 12 || day < 1 || day > days || hour > 23 || minute > 59 || second > 59) return undefined;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : at;
}
export function instantFault(value: unknown): string | undefined {
  if (parseInstant(value) !== undefined) return undefined;
  const message = 'must be an instant with a zone, such as 2026-01-16T09:00:00Z';
  // An address's parser takes a + for a space.
  return typeof value === 'string' && parseInstant(value.replace(' ', '+')) !== undefined ? `${message}; ${PLUS_HINT}` : message;
}
export const PLUS_HINT = 'a + in an address must be written %2B';
/** @param or another value that is taken in its place */
export const IsInstant = ({ or }: { readonly or?: string } = {}) =>
  rule(
    'isInstant',
    (value) => {
      const fault = value === or ? undefined : instantFault(value);
      return fault === undefined || or === undefined ? fault : `${fault}, or ${or}`;
    },
    or === undefined ? { type: 'string', format: 'date-time' } : { anyOf: [{ type: 'string', format: 'date-time' }, { const: or }] },
  );

/** Characters of an address: those that a store has signed have some thousand. */
const MAX_URL = 8_192;
/** An http(s) address without credentials, written out whole. */
const HTTP_URL = /^https?:\/\/[^\s/?#\\@]+([/?#]\S*)?$/i;
export function urlFault(value: unknown): string | undefined {
  if (typeof value !== 'string') return 'must be a text';
  if (value.length > MAX_URL) return `must have at most ${MAX_URL} characters`;
  return HTTP_URL.test(value) && URL.canParse(value) ? undefined : 'must be an http or https address, without user and password';
}
export const IsHttpUrl = () =>
  rule('isHttpUrl', urlFault, { type: 'string', format: 'uri', pattern: '^[Hh][Tt][Tt][Pp][Ss]?://', maxLength: MAX_URL });

export type AttributeValue = string | number | boolean;
/** A flat map of up to `max` names to texts, numbers and booleans; `null` removes where that is allowed. */
export const IsAttributes = (max: number) =>
  rule('isAttributes', (value) => some(attributeFaults(value, max)), {
    type: 'object',
    maxProperties: max,
    propertyNames: { minLength: 1, maxLength: MAX_ATTRIBUTE_NAME },
    additionalProperties: { type: ['string', 'number', 'boolean', 'null'], maxLength: MAX_ATTRIBUTE },
  });

const MAX_ATTRIBUTE_NAME = 64;
const MAX_ATTRIBUTE = 1_000;

export function attributeFaults(value: unknown, max: number): Fault[] {
  if (!isRecord(value)) return [{ path: [], message: 'must be an object' }];
  const entries = Object.entries(value);
  if (entries.length > max) return [{ path: [], message: `must have at most ${max} names` }];
  return entries.flatMap(([name, entry]) => {
    const named = textFault(name, MAX_ATTRIBUTE_NAME);
    if (named !== undefined) return [{ path: name === '' ? [] : [name], message: `has a name that ${named}` }];
    const fault = attributeFault(entry);
    return fault === undefined ? [] : [{ path: [name], message: fault }];
  });
}

function attributeFault(value: unknown): string | undefined {
  if (value === null || typeof value === 'boolean') return undefined;
  if (typeof value === 'number')
    // A whole number beyond this was rounded by whoever sent it, or will be by whoever reads it.
    return Number.isInteger(value) && !Number.isSafeInteger(value)
      ? `must lie between -${Number.MAX_SAFE_INTEGER} and ${Number.MAX_SAFE_INTEGER}; send a text to keep more digits`
      : undefined;
  if (typeof value !== 'string') return 'must be a text, a number, true, false or null';
  if (characters(value) > MAX_ATTRIBUTE) return `must have at most ${MAX_ATTRIBUTE} characters`;
  return value.includes('\0') ? 'must be text without U+0000' : undefined;
}

/** A list's `limit` in an address: a whole number from 1 to `max`, as text. */
export const Limit =
  (max: number): PropertyDecorator =>
  (target, property) => {
    const pattern = new RegExp(`^[1-9]\\d{0,${String(max).length - 1}}$`);
    IsMatching(pattern, `must be a whole number from 1 to ${max}`)(target, property);
    Described({ type: 'integer', minimum: 1, maximum: max })(target, property);
  };

/** The number of such a limit. @throws ThreadlogError validation_failed */
export function limited(limit: string | undefined, fallback: number, max: number): number {
  const size = limit === undefined ? fallback : Number(limit);
  if (size > max)
    throw new ThreadlogError('validation_failed', undefined, {
      errors: [{ field: 'limit', message: `must be a whole number from 1 to ${max}` }],
    });
  return size;
}
