import { SetMetadata } from '@nestjs/common';
import { z } from 'zod';
import { type ErrorCode, ERRORS } from '../errors.js';

const ANSWERS = 'threadlog:answers';

/** A body that is no JSON. */
export interface OtherBody {
  readonly contentType: string;
}
/** The schema of a body; null: there is none. */
export type AnswerBody = z.ZodType | OtherBody | null;

/** A parameter of an address that no DTO declares. */
export interface QueryParameter {
  readonly name: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly description?: string;
}

/** What a route says of its answers: the API's document is generated from it, and every answer in the tests is held against it. */
export interface Declared {
  /** One short sentence. */
  readonly summary: string;
  /** One to three sentences: what it does beyond the summary, and which events it appends. Who may call is added from the roles. */
  readonly description: string;
  /** By status, those of success; 503 too where it has another body than an error's. */
  readonly answers: Readonly<Record<number, AnswerBody>>;
  /** The same for the holder of a visitor token, where it is told less. */
  readonly visitor: Readonly<Record<number, z.ZodType>>;
  /** Errors beside those that every route of its kind may answer (openapi.ts). */
  readonly errors: readonly ErrorCode[];
  readonly query: readonly QueryParameter[];
}

/** Declares what a route answers. A route that declares nothing stops the program at start. */
export const Answers = (
  summary: string,
  description: string,
  answers: Declared['answers'],
  { errors = [], query = [], visitor = {} }: Partial<Pick<Declared, 'errors' | 'query' | 'visitor'>> = {},
) => SetMetadata(ANSWERS, { summary, description, answers, visitor, errors, query } satisfies Declared);

const ABOUT = 'threadlog:about';

/** Says in a sentence what the routes of a controller are about. Of several controllers below one first step of their paths, one says it. */
export const About = (sentence: string): ClassDecorator => SetMetadata(ABOUT, sentence);

/** What a controller says of its routes; undefined when it says nothing. */
export const aboutOf = (controller: object) => Reflect.getMetadata(ABOUT, controller) as string | undefined;

/** What a handler declares of its answers; undefined when it declares nothing. */
export const declaredAnswers = (handler: object) => Reflect.getMetadata(ANSWERS, handler) as Declared | undefined;

/** One resource. */
export const dataOf = (schema: z.ZodType) => z.strictObject({ data: schema });

/** One resource that was made, and what of the request was left undone. */
export const dataAndWarningsOf = (schema: z.ZodType) =>
  z.strictObject({
    data: schema,
    warnings: z
      .array(warningSchema)
      .min(1)
      .optional()
      .describe('What was asked for and left as it was; absent when there is nothing to say.'),
  });

/** A field of the request that was left as it was, and the code of the error that it would have been elsewhere. */
const warningSchema = z
  .strictObject({
    field: z.string().describe('Its path, such as visitor.email.'),
    code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]),
  })
  .meta({ id: 'Warning' });

/** A part of a history: the newest, or from where it was asked for. */
export const partOf = (schema: z.ZodType) =>
  z.strictObject({ data: z.array(schema), meta: z.strictObject({ limit: z.number().int(), hasMore: z.boolean() }) });

/** A page of a list. */
export const pageOf = (schema: z.ZodType) => z.strictObject({ data: z.array(schema), meta: pageMetaSchema });

/** What a list says of itself, beside its data. */
export const pageMetaSchema = z
  .strictObject({
    page: z.number().int(),
    limit: z.number().int(),
    total: z.number().int().optional().describe('Exact up to 10,000, a floor past it; absent with total=none.'),
    totalIsExact: z.boolean().optional(),
    hasMore: z.boolean(),
    nextCursor: z.string().nullable().describe('Pass as cursor for the rows after the last one: stable under inserts.'),
  })
  .meta({ id: 'PageMeta' });
