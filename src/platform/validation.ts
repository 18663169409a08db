import type { ArgumentMetadata, PipeTransform } from '@nestjs/common';
import {
  getMetadataStorage,
  IsArray,
  IsObject,
  Matches,
  registerDecorator,
  ValidateIf,
  ValidateNested,
  validateSync,
  type ValidationError,
  type ValidationOptions,
} from 'class-validator';
import { isEmailAddress } from './email-address.js';
import { type FieldError, ThreadlogError } from './errors.js';
import { Described, type JsonSchema, NOT_BESIDE } from './request-schema.js';
import { saysNothing, typedText } from './unseen-characters.js';

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
    if (errors.length > 0) throw new ThreadlogError('validation_failed', undefined, { errors: fieldErrors(errors) });
    return instance;
  }
}

const NATIVE = new Set<unknown>([String, Boolean, Number, Array, Object, Buffer, Date]);
const VALIDATION = {
  whitelist: true,
  forbidNonWhitelisted: true,
  forbidUnknownValues: true,
  validationError: { target: false, value: false },
} as const;

/** What is made of a property's value before it is checked, by the prototype of the class that declares it. */
const BECOMES = new WeakMap<object, Map<string, (value: unknown) => unknown>>();

/** Makes something of a property's value before it is checked. What it cannot make anything of, it hands on for the checks to refuse. */
export const Becomes =
  (make: (value: unknown) => unknown): PropertyDecorator =>
  (target, property) => {
    const made = BECOMES.get(target);
    if (made === undefined) BECOMES.set(target, new Map([[String(property), make]]));
    else made.set(String(property), make);
  };

/** The other checks hold for what is given at all: null, unlike with `IsOptional`, is given. */
export const IfGiven = (): PropertyDecorator => (target, property) =>
  ValidateIf((given: object) => (given as Record<string | symbol, unknown>)[property] !== undefined)(target, property);

const isRecord = (value: unknown): value is object => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Refuses a property beside which another is given. Stands with the checks of the value itself, and adds to what they say of it. */
export const IsNotBeside =
  (other: string): PropertyDecorator =>
  (target, property) =>
    registerDecorator({
      name: NOT_BESIDE,
      target: target.constructor,
      propertyName: String(property),
      constraints: [other],
      validator: {
        validate: (_value, given) => (given?.object as Record<string, unknown> | undefined)?.[other] === undefined,
        defaultMessage: () => `${String(property)} must not be given beside ${other}`,
      },
    });

/** An object of a class, with what that class declares. */
export const IsNested =
  (type: new () => object): PropertyDecorator =>
  (target, property) => {
    Becomes((value) => (isRecord(value) ? instanceOf(type, value) : value))(target, property);
    Described((of) => of(type))(target, property);
    IsObject()(target, property);
    ValidateNested()(target, property);
  };

/** A list of objects of a class. */
export const IsNestedList =
  (type: new () => object): PropertyDecorator =>
  (target, property) => {
    const entry = (value: unknown) => (isRecord(value) ? instanceOf(type, value) : value);
    Becomes((value) => (Array.isArray(value) ? value.map(entry) : value))(target, property);
    Described((of) => ({ type: 'array', items: of(type) }))(target, property);
    IsArray()(target, property);
    IsObject({ each: true })(target, property);
    ValidateNested({ each: true })(target, property);
  };

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
    for (const [name, make] of BECOMES.get(prototype) ?? []) if (name in fields) instance[name as keyof T] = make(instance[name]) as never;
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

/** class-validator begins with the field's name, which stands beside the message already. */
function said(message: string): string {
  if (/^property .* should not exist$/s.test(message)) return 'is not known here';
  return message.replace(/^(each value in )?\w+ /, '$1');
}

function fieldErrors(errors: readonly ValidationError[], path = ''): FieldError[] {
  return errors.flatMap((error) => {
    const field = path === '' ? error.property : `${path}.${error.property}`;
    const own = Object.values(error.constraints ?? {}).map((message) => ({
      field,
      message: said(message),
    }));
    return [...own, ...fieldErrors(error.children ?? [], field)];
  });
}

/** @param schema what the check says in JSON Schema, from which the API's document is generated */
function rule(
  name: string,
  check: (value: unknown) => boolean,
  message: string,
  schema: JsonSchema,
  options?: ValidationOptions,
): PropertyDecorator {
  return (target, property) =>
    registerDecorator({
      name,
      target: target.constructor,
      propertyName: String(property),
      constraints: [schema],
      ...(options === undefined ? {} : { options }),
      validator: {
        validate: check,
        defaultMessage: ({ property: field = '' } = { property: '', value: undefined, constraints: [], targetName: '', object: {} }) =>
          `${field} ${message}`,
      },
    });
}

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
  rule(
    'isVisibleText',
    (value) => textFault(value, max) === undefined,
    `must be a text of 1 to ${max} visible characters`,
    { type: 'string', minLength: 1, maxLength: max },
    options,
  );

export const IsEmailAddress = (options?: ValidationOptions) =>
  rule(
    'isEmailAddress',
    isEmailAddress,
    'must be an e-mail address without characters that cannot be seen',
    { type: 'string', format: 'email' },
    options,
  );

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
    IsTypedText(max, options)(target, property);
    rule(
      'isTag',
      (value) => value !== '.' && value !== '..',
      'must not be . or .., which no address can name',
      { not: { enum: ['.', '..'] } },
      options,
    )(target, property);
  };

// Joiners stand within emoji and within words of some scripts; the other format characters hide or turn round what a name ends with.
const NOT_IN_FILE_NAMES = /[\p{Cc}/\\]|(?![\u200c\u200d])\p{Cf}/u;

/** A file's name as it may be shown and saved: visible, on one line, in no other folder. */
export const IsFileName = (max: number, options?: ValidationOptions) =>
  rule(
    'isFileName',
    (value) => textFault(value, max) === undefined && !NOT_IN_FILE_NAMES.test(value as string),
    `must be a name of 1 to ${max} characters without / and \\, line breaks and characters that cannot be seen`,
    { type: 'string', minLength: 1, maxLength: max, pattern: String.raw`^[^/\\]+$` },
    options,
  );

const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
/** A media type without parameters, such as application/pdf. */
export const IsMediaType = (options?: ValidationOptions) =>
  rule(
    'isMediaType',
    (value) => typeof value === 'string' && MEDIA_TYPE.test(value),
    'must be a media type, such as application/pdf',
    { type: 'string', pattern: MEDIA_TYPE.source },
    options,
  );

/** A typed text of at most `max` characters that is one word: no white space but at its ends, where it is dropped. */
export const IsShortcut =
  (max: number): PropertyDecorator =>
  (target, property) => {
    Becomes(typed)(target, property);
    rule(
      'isShortcut',
      (value) => textFault(value, max) === undefined && !/\s/u.test(value as string),
      `must be a text of 1 to ${max} visible characters without white space`,
      { type: 'string', minLength: 1, maxLength: max, pattern: String.raw`^\s*\S+\s*$` },
    )(target, property);
  };

/** An id that a caller chooses or names: kept exactly as given. `.` and `..` are none, since clients resolve them in an address. */
export const RESOURCE_ID = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$/;
export const RESOURCE_ID_RULE = 'must be 1 to 128 of A-Z a-z 0-9 . _ : @ -, and not . or ..';
export const IsResourceId = (options?: ValidationOptions) =>
  rule(
    'isResourceId',
    (value) => typeof value === 'string' && RESOURCE_ID.test(value),
    RESOURCE_ID_RULE,
    { type: 'string', pattern: RESOURCE_ID.source },
    options,
  );

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
export const IsInstant = (options?: ValidationOptions) =>
  rule(
    'isInstant',
    (value) => parseInstant(value) !== undefined,
    'must be an instant with a zone, such as 2026-01-16T09:00:00Z',
    { type: 'string', format: 'date-time' },
    options,
  );

/** An http(s) address without credentials, written out whole. */
export function isHttpUrl(value: unknown): boolean {
  if (typeof value !== 'string' || value.length > 2_000 || !/^https?:\/\/[^\s/?#\\@]+([/?#]\S*)?$/.test(value)) return false;
  return URL.canParse(value);
}
export const IsHttpUrl = (options?: ValidationOptions) =>
  rule(
    'isHttpUrl',
    isHttpUrl,
    'must be an http or https address',
    { type: 'string', format: 'uri', pattern: '^https?://', maxLength: 2_000 },
    options,
  );

export type AttributeValue = string | number | boolean;
/** A flat map of up to `max` names to texts, numbers and booleans; `null` removes where that is allowed. */
export const IsAttributes = (max: number, options?: ValidationOptions) =>
  rule(
    'isAttributes',
    (value) => areAttributes(value, max),
    `must be an object of up to ${max} names (1 to 64 characters) with texts, numbers, booleans or null`,
    {
      type: 'object',
      maxProperties: max,
      propertyNames: { minLength: 1, maxLength: 64 },
      additionalProperties: { type: ['string', 'number', 'boolean', 'null'], maxLength: 1_000 },
    },
    options,
  );

/** False for what JSON.parse had to round, or could not hold at all. */
const isKeptExactly = (value: number) => Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));

function areAttributes(value: unknown, max: number): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const entries = Object.entries(value);
  return (
    entries.length <= max &&
    entries.every(
      ([name, entry]) =>
        textFault(name, 64) === undefined &&
        (entry === null ||
          typeof entry === 'boolean' ||
          (typeof entry === 'number' && isKeptExactly(entry)) ||
          (typeof entry === 'string' && characters(entry) <= 1_000 && !entry.includes('\0'))),
    )
  );
}

/** A list's `limit` in an address: a whole number from 1 to `max`, as text. */
export const Limit =
  (max: number): PropertyDecorator =>
  (target, property) => {
    const pattern = new RegExp(`^[1-9]\\d{0,${String(max).length - 1}}$`);
    Matches(pattern, { message: `limit must be a whole number from 1 to ${max}` })(target, property);
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
