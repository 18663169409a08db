import { SetMetadata } from '@nestjs/common';
import { z } from 'zod';
import type { ErrorCode } from '../errors.js';
import { errorCodeSchema } from './problem.js';
import type { JsonSchema } from './request-schema.js';
import type { StreamFormat } from './streamed.js';

const ANSWERS = 'threadlog:answers';

/** A body that is not JSON. */
export interface OtherBody {
  readonly contentType: string;
}
/** The schema of a body; null means no body. */
export type AnswerBody = z.ZodType | OtherBody | null;

/** A query parameter that no DTO declares. */
export interface QueryParameter {
  readonly name: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly description?: string;
}

/** What a route declares about its answers: the OpenAPI document is generated from it, and the tests check every answer against it. */
export interface Declared {
  /** One short sentence. */
  readonly summary: string;
  /** One to three sentences: what it does beyond the summary, and which events it appends. Who may call is added from the roles. */
  readonly description: string;
  /** The answers on success, by status; also 503 where its body is not an error's. */
  readonly answers: Readonly<Record<number, AnswerBody>>;
  /** The same for a visitor token, where the answer holds less. */
  readonly visitor: Readonly<Record<number, z.ZodType>>;
  /** Errors in addition to those that every route of its kind may answer (openapi.ts). */
  readonly errors: readonly ErrorCode[];
  readonly query: readonly QueryParameter[];
  /** What a parameter of the path takes, where it is no id. */
  readonly path: Readonly<Record<string, JsonSchema>>;
  /** The forms in which the body of 200 can be had beside JSON. */
  readonly formats: readonly StreamFormat[];
  /** What clients call the operation, after the first step of its path; the name of the handler where it is absent. */
  readonly name: string | undefined;
}

/** Declares a route's answers. A route without this declaration stops the program at start. */
export const Answers = (
  summary: string,
  description: string,
  answers: Declared['answers'],
  {
    errors = [],
    query = [],
    path = {},
    visitor = {},
    formats = [],
    name,
  }: Partial<Pick<Declared, 'errors' | 'query' | 'path' | 'visitor' | 'formats' | 'name'>> = {},
) => SetMetadata(ANSWERS, { summary, description, answers, visitor, errors, query, path, formats, name } satisfies Declared);

const ABOUT = 'threadlog:about';

/** Describes the routes of a controller in a sentence. When several controllers share a first path step, only one of them declares it. */
export const About = (sentence: string): ClassDecorator => SetMetadata(ABOUT, sentence);

/** The description of a controller's routes; undefined when it has none. */
export const aboutOf = (controller: object) => Reflect.getMetadata(ABOUT, controller) as string | undefined;

/** The declared answers of a handler; undefined when it declares none. */
export const declaredAnswers = (handler: object) => Reflect.getMetadata(ANSWERS, handler) as Declared | undefined;

/** One resource. */
export const dataOf = (schema: z.ZodType) => z.strictObject({ data: schema });

/** One created resource, with the parts of the request that were not applied. */
export const dataAndWarningsOf = (schema: z.ZodType) =>
  z.strictObject({
    data: schema,
    warnings: z.array(warningSchema).min(1).optional().describe('Parts of the request that were not applied; absent when there are none.'),
  });

/** A field of the request that was not applied, with the error code that other routes would answer. */
const warningSchema = z
  .strictObject({
    field: z.string().describe('Its path, such as visitor.email.'),
    code: errorCodeSchema,
  })
  .meta({ id: 'Warning' });

/** A part of a history: the newest entries, or those from the requested place on. */
export const partOf = (schema: z.ZodType) =>
  z.strictObject({ data: z.array(schema), meta: z.strictObject({ limit: z.number().int(), hasMore: z.boolean() }) });

/** A page of a list. */
export const pageOf = (schema: z.ZodType) => z.strictObject({ data: z.array(schema), meta: pageMetaSchema });

/** What a list says about itself, beside its data. */
export const pageMetaSchema = z
  .strictObject({
    page: z.number().int(),
    limit: z.number().int(),
    total: z.number().int().optional().describe('Exact up to 10,000, a lower bound above it; absent with total=none.'),
    totalIsExact: z.boolean().optional(),
    hasMore: z.boolean(),
    nextCursor: z.string().nullable().describe('Pass as cursor for the rows after the last one: stable under inserts.'),
  })
  .meta({ id: 'PageMeta' });
