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
 * Bodies and queries: only declared fields, no conversion of types, every wrong field named at once. Replaces Nest's ValidationPipe, which
 * does the same in three times the time: it waits for asynchronous validators, which we do not have, and walks each body twice more for
 * names that parseStrictJson has refused already.
 */
export class DtoPipe implements PipeTransform {
  transform(given: unknown, { type, metatype }: ArgumentMetadata): unknown {
    if (type === 'custom' || metatype === undefined || NATIVE.has(metatype)) return given;
    // Without a body, every field that the DTO requires is reported as missing.
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
/** The most faults that an error lists: a body has room for many thousands. */
export const MAX_NAMED = 100;

/** How a property's value is converted before its checks, by the prototype of the declaring class. */
const BECOMES = new WeakMap<object, Map<string, (value: unknown) => unknown>>();

/**
 * Converts a property's value before it is checked. A value that cannot be converted is passed on, and the checks refuse it. With several
 * conversions on one property, each gets the result of the one below it.
 */
export const Becomes =
  (make: (value: unknown) => unknown): PropertyDecorator =>
  (target, property) => {
    const made = BECOMES.get(target) ?? new Map<string, (value: unknown) => unknown>();
    const below = made.get(String(property));
    made.set(String(property), below === undefined ? make : (value) => make(below(value)));
    BECOMES.set(target, made);
  };

/** The other checks apply whenever the property is present; unlike with `IsOptional`, null counts as present. */
export const IfGiven = (): PropertyDecorator => (target, property) =>
  ValidateIf((given: object) => (given as Record<string | symbol, unknown>)[property] !== undefined)(target, property);

/** An optional field, for which null counts as absent. */
export const NullIsAbsent = (): PropertyDecorator => (target, property) => {
  Becomes((value) => value ?? undefined)(target, property);
  ValidateIf((given: object) => ((given as Record<string | symbol, unknown>)[property] ?? undefined) !== undefined)(target, property);
};

/** Several such fields, inherited by a class. */
export const NullsAreAbsent =
  (...properties: readonly string[]): ClassDecorator =>
  (type) => {
    for (const property of properties) NullIsAbsent()(type.prototype as object, property);
  };

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Refuses a property when another one is present. Stands above the checks of the value itself. */
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

/** The other checks apply when the property is present or `other` is absent: one of the two is required. */
export const IfGivenOrWithout =
  (other: string): PropertyDecorator =>
  (target, property) => {
    ValidateIf((given: object) => {
      const beside = given as Record<string | symbol, unknown>;
      return beside[property] !== undefined || beside[other] === undefined;
    })(target, property);
    MISSING.set(target, (MISSING.get(target) ?? new Map<string, string>()).set(String(property), `must be there, or ${other}`));
  };

/** The message for a missing property, where "is missing" is not enough, by the prototype of its class. */
const MISSING = new WeakMap<object, Map<string, string>>();

/** An object of a class, checked as that class declares. */
export const IsNested =
  (type: new () => object): PropertyDecorator =>
  (target, property) => {
    Becomes((value) => (isRecord(value) ? instanceOf(type, value) : value))(target, property);
    Described((of) => of(type))(target, property);
    ValidateNested()(target, property);
    IsRecord()(target, property);
  };

/** Needed beside ValidateNested, which accepts a list as an object. */
export const IsRecord = (message = 'must be an object') =>
  rule('isRecord', (value) => (isRecord(value) ? undefined : message), { type: 'object' });

interface ListSize {
  /** 0 by default. */
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

/** A list; checks with `each` below it apply to its entries. @param unique refuses duplicate entries */
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
 * The given fields as an instance of their class, as class-validator needs it. Names such as __proto__ never get here: parseStrictJson and
 * the query string parser refuse them.
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
 * class-validator collects the declarations of a class again at each validation, though they cannot change while the program runs. Caching
 * them by class saves a tenth of the time of a small body.
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
  // Without a prototype: in a plain object every class would seem to declare inherited names, such as hasOwnProperty.
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

/** A fault, with its path within the value. */
export interface Fault {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}
/** The faults of a value: one message about the value itself, or several faults within it. */
type Faults = string | readonly Fault[] | undefined;

/** A check's message about a refused value, passed through class-validator as the check's context. */
interface Telling {
  readonly tell: (value: unknown) => Faults;
}
/** class-validator passes no context on without a message. */
const REFUSED = 'is refused';
const telling = (tell: Telling['tell'], options: ValidationOptions = {}): ValidationOptions => ({ ...options, context: { tell } });

/** Objects and lists that were parsed from a text: their faults are reported for the text. */
const MADE_OF_TEXT = new WeakSet<object>();
/** Marks an object that a request sends as a text. */
export function madeOfText<T extends object>(instance: T): T {
  MADE_OF_TEXT.add(instance);
  return instance;
}

/**
 * One entry for each wrong field, or several for faults within it. When several checks refuse a value, the topmost one gives the message:
 * it states the value's type, and the checks below it would describe something that was not sent.
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
 * @param tell the faults of a value; undefined for a valid value
 * @param schema the check as JSON Schema, from which the OpenAPI document is generated
 * @param options `each`: the check applies to every entry of a list
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

/** One of several texts. @param hint follows them in the message */
export const IsOneOf = (values: readonly string[], options: ValidationOptions & { readonly hint?: string } = {}) => {
  const { hint, ...rest } = options;
  const message = `must be ${values.length === 1 ? '' : 'one of '}${values.join(', ')}${hint === undefined ? '' : `; ${hint}`}`;
  return rule('isOneOf', (value) => (values.includes(value as string) ? undefined : message), { type: 'string', enum: values }, rest);
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

/**
 * A text that matches a pattern, such as a number in a query string.
 * @param message without the field's name
 * @param schema what the text stands for, where it is no text for a client
 */
export const IsMatching = (pattern: RegExp, message: string, schema: JsonSchema = { type: 'string', pattern: pattern.source }) =>
  rule('isMatching', (value) => (typeof value === 'string' && pattern.test(value) ? undefined : message), schema);

/** Counts code points, which come closer to what people count than UTF-16 units. */
function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Length in characters as people count them (code points); the bytes are limited too. */
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

/** A text that people type to find something again, such as a name: checked and stored in its typed form (typedText). */
export const IsTypedText =
  (max: number, options?: ValidationOptions): PropertyDecorator =>
  (target, property) => {
    Becomes(typed)(target, property);
    IsVisibleText(max, options)(target, property);
  };

/** A new tag. Refuses `.` and `..`: clients resolve them in a path, so that no request could remove them. */
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

// Joiners belong in emoji and in words of some scripts; other format characters hide or reverse the end of a name.
const NOT_IN_FILE_NAMES = /[\p{Cc}/\\]|(?![\u200c\u200d])\p{Cf}/u;

/** A file's name that is safe to show and save: visible, on one line, without a folder. */
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
/** A media type, optionally with parameters: application/pdf, audio/webm;codecs=opus. */
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

/** A typed text of at most `max` characters without white space, except at its ends, where it is dropped. */
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
 * An id that a caller chooses or names, kept exactly as given. Refuses `.` and `..`, since clients resolve them in a path, and `none`,
 * which lists use for unassigned conversations.
 */
const RESOURCE_ID = /^(?!(?:\.{1,2}|none)$)[A-Za-z0-9._:@-]{1,128}$/;
export const resourceIdFault = (value: unknown): string | undefined =>
  typeof value === 'string' && RESOURCE_ID.test(value) ? undefined : 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ -, and not ., .. or none';
export const IsResourceId = (options?: ValidationOptions) =>
  rule('isResourceId', resourceIdFault, { type: 'string', pattern: RESOURCE_ID.source }, options);

// RFC 3339 with a zone.
const INSTANT = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.\d{1,9})?(?:Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;

// PostgreSQL has no year 0.
const FIRST_INSTANT = Date.parse('0001-01-01T00:00:00.000Z');
const LAST_INSTANT = Date.parse('9999-12-31T23:59:59.999Z');

/** Milliseconds of an RFC 3339 instant with a zone; undefined for anything else, such as 30 February. */
export function parseInstant(text: unknown): number | undefined {
  if (typeof text !== 'string') return undefined;
  const match = INSTANT.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  const days = new Date(Date.UTC(year, month, 0)).getUTCDate();
  if (month < 1 || month > 12 || day < 1 || day > days || hour > 23 || minute > 59 || second > 59) return undefined;
  const at = Date.parse(text);
  // An offset may move it beyond the years that an instant is answered with.
  return at >= FIRST_INSTANT && at <= LAST_INSTANT ? at : undefined;
}
export function instantFault(value: unknown): string | undefined {
  if (parseInstant(value) !== undefined) return undefined;
  if (typeof value === 'string' && value.startsWith('0000-')) return 'must be in the year 0001 or later';
  const message = 'must be an instant with a zone, such as 2026-01-16T09:00:00Z';
  // Query string parsers turn a + into a space.
  return typeof value === 'string' && parseInstant(value.replace(' ', '+')) !== undefined ? `${message}; ${PLUS_HINT}` : message;
}
export const PLUS_HINT = 'a + in an address must be written %2B';
/** @param or another accepted value */
export const IsInstant = ({ or }: { readonly or?: string } = {}) =>
  rule(
    'isInstant',
    (value) => {
      const fault = value === or ? undefined : instantFault(value);
      return fault === undefined || or === undefined ? fault : `${fault}, or ${or}`;
    },
    or === undefined ? { type: 'string', format: 'date-time' } : { anyOf: [{ type: 'string', format: 'date-time' }, { const: or }] },
  );

/** Characters of a URL: signed URLs of file stores have some thousand. */
const MAX_URL = 8_192;
/** An absolute http(s) URL without credentials. */
const HTTP_URL = /^https?:\/\/[^\s/?#\\@]+([/?#]\S*)?$/i;
export function urlFault(value: unknown): string | undefined {
  if (typeof value !== 'string') return 'must be a text';
  if (value.length > MAX_URL) return `must have at most ${MAX_URL} characters`;
  return HTTP_URL.test(value) && URL.canParse(value) ? undefined : 'must be an http or https address, without user and password';
}
export const IsHttpUrl = () =>
  rule('isHttpUrl', urlFault, { type: 'string', format: 'uri', pattern: '^[Hh][Tt][Tt][Pp][Ss]?://', maxLength: MAX_URL });

export type AttributeValue = string | number | boolean;
/** A flat map of up to `max` names to texts, numbers and booleans; `null` removes an entry where that is allowed. */
export const IsAttributes = (max: number) =>
  rule('isAttributes', (value) => some(attributeFaults(value, max)), {
    type: 'object',
    maxProperties: max,
    propertyNames: { minLength: 1, maxLength: MAX_ATTRIBUTE_NAME },
    additionalProperties: { type: ['string', 'number', 'boolean', 'null'], maxLength: MAX_ATTRIBUTE },
  });

const MAX_ATTRIBUTE_NAME = 64;
export const MAX_ATTRIBUTE = 1_000;

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
    // The sender has already rounded a larger whole number, or a reader will.
    return Number.isInteger(value) && !Number.isSafeInteger(value)
      ? `must lie between -${Number.MAX_SAFE_INTEGER} and ${Number.MAX_SAFE_INTEGER}; send a text to keep more digits`
      : undefined;
  if (typeof value !== 'string') return 'must be a text, a number, true, false or null';
  if (characters(value) > MAX_ATTRIBUTE) return `must have at most ${MAX_ATTRIBUTE} characters`;
  return value.includes('\0') ? 'must be text without U+0000' : undefined;
}

/** A list's `limit` in a query string: a whole number from 1 to `max`, as text. */
export const Limit =
  (max: number): PropertyDecorator =>
  (target, property) => {
    const pattern = new RegExp(`^[1-9]\\d{0,${String(max).length - 1}}$`);
    IsMatching(pattern, `must be a whole number from 1 to ${max}`, { type: 'integer', minimum: 1, maximum: max })(target, property);
  };

/** A limit as a number. @throws ThreadlogError validation_failed */
export function limited(limit: string | undefined, fallback: number, max: number): number {
  const size = limit === undefined ? fallback : Number(limit);
  if (size > max)
    throw new ThreadlogError('validation_failed', undefined, {
      errors: [{ field: 'limit', message: `must be a whole number from 1 to ${max}` }],
    });
  return size;
}
