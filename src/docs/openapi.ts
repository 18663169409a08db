import type { Type } from '@nestjs/common';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import { Reflector } from '@nestjs/core';
import { z } from 'zod';
import { STREAM_TYPES } from '../http/streamed.js';
import { type AnswerBody, type Declared, aboutOf, declaredAnswers } from '../http/answers.js';
import { declaredRoles } from '../security/auth.guard.js';
import { SESSION_COOKIE } from '../security/console-sessions.js';
import { type ErrorCode, ERRORS } from '../errors.js';
import { problemSchema } from '../http/problem.js';
import { examplesOf, type JsonSchema, requestSchema, type SchemaOf } from '../http/request-schema.js';
import type { CallerRole } from '../security/roles.js';
import { API_PREFIX, type Route, routesOf } from '../http/routes.js';

/** The version of this API and of package.json. */
export const VERSION = '0.1.0';

/** An OpenAPI 3.1 document, as far as our own code reads it. */
export interface OpenApiDocument extends JsonSchema {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>;
    readonly responses: Readonly<Record<string, Answer>>;
    readonly parameters: Readonly<Record<string, Parameter>>;
  } & JsonSchema;
}
export interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly parameters: readonly (Parameter | Reference)[];
  readonly requestBody?: { readonly required: boolean; readonly content: Readonly<Record<string, BodyContent>> };
  readonly responses: Readonly<Record<string, Answer | Reference>>;
  readonly 'x-roles': readonly CallerRole[] | 'public';
}
export interface BodyContent {
  readonly schema: JsonSchema;
  readonly examples: Readonly<Record<string, { readonly value: object }>>;
}
export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required?: boolean;
  readonly description?: string;
  readonly schema: JsonSchema;
}
export interface Answer {
  readonly description: string;
  readonly headers?: JsonSchema;
  readonly content?: Readonly<Record<string, AnswerContent>>;
}
export interface AnswerContent {
  readonly schema: JsonSchema;
  /** What the holder of a visitor token is answered instead (visitor-document.ts). */
  readonly 'x-visitor-schema'?: JsonSchema;
}
export interface Reference {
  readonly $ref: string;
}

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8';

const text = { type: 'string' } as const;
const parameter = (name: string, description: string, schema: JsonSchema = text): Parameter => ({
  name,
  in: 'header',
  description,
  schema,
});

const HEADER_PARAMETERS = {
  IdempotencyKey: parameter('Idempotency-Key', 'A retry with the same key gets the first answer and writes nothing. Kept 24 hours.', {
    type: 'string',
    pattern: '^[\\x21-\\x7e]{1,255}$',
  }),
  IfMatch: parameter('If-Match', 'The expected revision, as in ETag: "5". Any other revision is 412.'),
  MinPosition: parameter('X-Min-Position', 'Waits until the answer includes the write with this X-Position.'),
  ActingAgent: parameter('X-Agent-Id', 'The agent that an unbound admin key acts for.'),
  RequestId: parameter('X-Request-Id', 'Returned in the answer, and recorded in logs and events.'),
} as const satisfies Record<string, Parameter>;

const header = (description: string, schema: JsonSchema = text) => ({ description, schema });
const HEADERS = {
  'X-Request-Id': header("The request's id."),
  ETag: header('The revision in quotation marks.'),
  'X-Position': header('The position in the log, for X-Min-Position; with a visitor token sealed for its visitor.'),
  Location: header('Path of the created resource.'),
  'X-RateLimit-Limit': header('Requests a minute.', { type: 'integer' }),
  'X-RateLimit-Remaining': header('Requests that are left.', { type: 'integer' }),
  'X-RateLimit-Reset': header('When the minute ends, in seconds since 1970.', { type: 'integer' }),
  'Retry-After': header('Seconds to wait.', { type: 'integer' }),
} as const;
type Header = keyof typeof HEADERS;
const RATE_LIMIT = ['X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset'] as const;

/** The codes that one response of the document may have. */
const codeOf = (codes: readonly ErrorCode[]) => ({
  type: 'object',
  properties: { code: { type: 'string', enum: codes } },
  required: ['code'],
});

const headersOf = (names: readonly Header[]) => Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));

/**
 * The API as an OpenAPI 3.1 document: paths, roles and statuses come from the routes, requests from the checks of the DTOs, answers from
 * the schemas that the routes declare, and errors from the one table.
 * @throws Error when a route declares no answers, or a DTO has a check without a schema
 */
export function openApiDocument(controllers: readonly Type[]): OpenApiDocument {
  const schemas = new Schemas();
  const responses: Record<string, Answer> = {};
  const paths: Record<string, Record<string, Operation>> = {};
  const problem = schemas.ofAnswer(problemSchema);
  const refused = (status: number, codes: readonly ErrorCode[]): Reference => {
    // Routes that refuse the same errors share a response.
    const name = `${status}.${codes.join('.')}`;
    responses[name] ??= {
      description: codes.map((code) => `\`${code}\`: ${ERRORS[code].title}`).join('. '),
      headers: headersOf([
        'X-Request-Id',
        ...(status === 429 ? RATE_LIMIT : []),
        ...(status === 429 || status === 503 ? ['Retry-After' as const] : []),
      ]),
      content: { 'application/problem+json': { schema: { allOf: [problem, codeOf(codes)] } } },
    };
    return { $ref: `#/components/responses/${name}` };
  };
  const routes = routesOf(controllers);
  for (const route of routes) {
    const declared = declaredAnswers(route.handler);
    if (declared === undefined) throw new Error(`${route.method} ${route.path} declares no answers`);
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route, declared, schemas, refused);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Threadlog',
      version: VERSION,
      description:
        'Conversations between visitors and a support team, stored as an append-only stream of events. docs/api.md describes the rules for all routes. /api/visitor-docs.json is the part for visitor tokens.',
    },
    jsonSchemaDialect: 'https://json-schema.org/draft/2020-12/schema',
    servers: [{ url: '/' }],
    security: SECURED,
    tags: tagsOf(routes),
    paths,
    components: {
      schemas: schemas.all(),
      responses: Object.fromEntries(Object.entries(responses).sort(([a], [b]) => (a < b ? -1 : 1))),
      parameters: HEADER_PARAMETERS,
      headers: HEADERS,
      securitySchemes: {
        apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
        bearer: { type: 'http', scheme: 'bearer', description: 'The same keys.' },
        session: {
          type: 'apiKey',
          in: 'cookie',
          name: SESSION_COOKIE,
          description:
            'For pages of this host, which begin it with POST /console/session. What writes also needs the header X-Threadlog-Console.',
        },
      },
    },
  };
}

/** The tag of a path: its first step. */
const tagOf = (path: string) => path.replace(`${API_PREFIX}/`, '').split('/')[path.startsWith(API_PREFIX) ? 0 : 1] ?? '';

/** The first steps of the paths, in their order. @throws Error for a step that no controller describes */
function tagsOf(routes: readonly Route[]): { name: string; description: string }[] {
  return [...new Set(routes.map(({ path }) => tagOf(path)))].map((name) => {
    const description = routes.flatMap(({ path, controller }) => (tagOf(path) === name ? (aboutOf(controller) ?? []) : []))[0];
    if (description === undefined) throw new Error(`no controller of ${name} says what its routes are about (@About)`);
    return { name, description };
  });
}

const SECURED = [{ apiKey: [] }, { bearer: [] }, { session: [] }];

function operation(
  route: Route,
  { summary, description, answers, visitor, errors, query, path: steps, formats, name: called }: Declared,
  schemas: Schemas,
  refused: (status: number, codes: readonly ErrorCode[]) => Reference,
): Operation {
  const { method, path, handler } = route;
  const roles = declaredRoles(new Reflector(), handler) ?? [];
  const isOpen = roles === 'public';
  const { body, query: queryType } = requestTypesOf(route);
  const writes = method !== 'GET';
  const headers: (keyof typeof HEADER_PARAMETERS)[] = isOpen
    ? []
    : [
        ...(writes ? ([...(method === 'POST' ? (['IdempotencyKey'] as const) : []), 'IfMatch'] as const) : (['MinPosition'] as const)),
        'ActingAgent',
      ];
  const tag = tagOf(path);
  const codes = new Set<ErrorCode>([...(isOpen ? [] : alwaysPossible(route)), ...errors]);
  const byStatus = new Map<number, ErrorCode[]>();
  // In the order of the table, so that routes with the same errors describe them the same way.
  for (const code of Object.keys(ERRORS) as ErrorCode[])
    if (codes.has(code)) byStatus.set(ERRORS[code].status, [...(byStatus.get(ERRORS[code].status) ?? []), code]);
  return {
    operationId: `${tag}.${called ?? handler.name}`,
    summary,
    description: `${description} ${isOpen ? 'Needs no key.' : `Roles: ${roles.join(', ')}.`}`,
    tags: [tag],
    ...(isOpen ? { security: [] } : {}),
    'x-roles': roles,
    parameters: [
      ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']): Parameter => ({
        name,
        in: 'path',
        required: true,
        schema: steps[name] ?? text,
      })),
      ...query.map((one): Parameter => ({ in: 'query', ...one })),
      ...(queryType === undefined ? [] : queryParameters(queryType, schemas)),
      ...[...headers, 'RequestId' as const].map((name) => ({ $ref: `#/components/parameters/${name}` })),
    ],
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: schemas.ofRequest(body), examples: named(body) } } } }),
    responses: Object.fromEntries([
      ...Object.entries(answers).map(
        ([status, answer]) =>
          [status, success(answer, visitor[Number(status)], Number(status), isOpen, schemas, status === '200' ? formats : [])] as const,
      ),
      ...[...byStatus].map(([status, those]) => [String(status), refused(status, those)] as const),
    ]),
  };
}

const named = (body: new () => object) => Object.fromEntries(Object.entries(examplesOf(body)).map(([name, value]) => [name, { value }]));

/** @param visitor the answer for a visitor token. It stands beside the other and not as a second shape, which every client with a key would have to tell apart. */
function success(
  answer: AnswerBody,
  visitor: z.ZodType | undefined,
  status: number,
  isOpen: boolean,
  schemas: Schemas,
  formats: Declared['formats'],
): Answer {
  const isOfOne = answer instanceof z.ZodObject && !('meta' in answer.shape);
  const headers: Header[] = [
    'X-Request-Id',
    ...(isOpen ? [] : [...RATE_LIMIT, ...(isOfOne || answer === null ? (['ETag', 'X-Position'] as const) : [])]),
    ...(status === 201 ? (['Location'] as const) : []),
    ...(status === 503 ? (['Retry-After'] as const) : []),
  ];
  const described = { description: DESCRIPTIONS[status] ?? 'Done.', headers: headersOf(headers) };
  if (answer === null) return described;
  if (!(answer instanceof z.ZodType)) return { ...described, content: { [answer.contentType]: { schema: text } } };
  const json = {
    schema: schemas.ofAnswer(answer),
    ...(visitor === undefined ? {} : { 'x-visitor-schema': schemas.ofAnswer(visitor) }),
  };
  const streams = Object.fromEntries(formats.map((format) => [STREAM_TYPES[format], { schema: text }]));
  return { ...described, content: { 'application/json': json, ...streams } };
}

const DESCRIPTIONS: Readonly<Record<number, string>> = {
  200: 'The answer.',
  201: 'Made.',
  202: 'Taken on.',
  204: 'Done; there is no body.',
  503: 'Not now.',
};

/** The errors that every route of its kind shares, in the order in which a request is checked. */
function alwaysPossible({ method, path }: Route): readonly ErrorCode[] {
  const codes: ErrorCode[] = [
    'headers_too_large',
    'validation_failed',
    'malformed_request',
    'unauthenticated',
    'rate_limited',
    'forbidden',
    'unknown_agent',
    'resource_archived',
    'internal_error',
    'store_unavailable',
  ];
  if (path.includes('{')) codes.push('not_found');
  if (method === 'GET') return [...codes, 'read_model_behind', 'stream_parked'];
  codes.push('malformed_json', 'payload_too_large', 'unsupported_media_type', 'revision_mismatch', 'concurrent_changes', 'outcome_unknown');
  if (method === 'POST') codes.push('idempotency_key_in_flight', 'idempotency_key_reused');
  return codes;
}

/** The DTOs of a handler's body and query; undefined where it has none. */
export function requestTypesOf({ controller, handler }: Route): { body?: new () => object; query?: new () => object } {
  const taken = (Reflect.getMetadata('__routeArguments__', controller, handler.name) ?? {}) as Record<string, { index: number }>;
  const types = Reflect.getMetadata('design:paramtypes', controller.prototype as object, handler.name) as (new () => object)[];
  const typeOf = (kind: RouteParamtypes) => {
    const found = Object.entries(taken).find(([key]) => key.startsWith(`${kind}:`))?.[1];
    const type = found === undefined ? undefined : types[found.index];
    return type === undefined || (type as unknown) === Object ? undefined : type;
  };
  const [body, query] = [typeOf(RouteParamtypes.BODY), typeOf(RouteParamtypes.QUERY)];
  return { ...(body === undefined ? {} : { body }), ...(query === undefined ? {} : { query }) };
}

function queryParameters(type: new () => object, schemas: Schemas): Parameter[] {
  const { properties, required = [] } = requestSchema(type, schemas.of);
  return Object.entries(properties).map(([name, schema]) => {
    // A missing query parameter cannot be null.
    const { type: types, ...rest } = schema;
    const said: JsonSchema = Array.isArray(types) ? { type: types.find((one) => one !== 'null') as unknown, ...rest } : withoutNull(schema);
    return {
      name,
      in: 'query',
      ...((required as readonly string[]).includes(name) ? { required: true } : {}),
      schema: said,
      ...(said['type'] === 'object' ? { style: 'deepObject', explode: true } : {}),
    } as Parameter;
  });
}

function withoutNull(schema: JsonSchema): JsonSchema {
  const choices = schema['anyOf'] as readonly JsonSchema[] | undefined;
  return choices?.length === 2 && choices[1]?.['type'] === 'null' ? (choices[0] as JsonSchema) : schema;
}

/** The schemas that have names in a document. */
export class Schemas {
  private readonly named = new Map<string, JsonSchema>();
  private readonly requests = new Map<new () => object, string>();

  /** @param target the dialect of the document */
  constructor(private readonly target: 'draft-2020-12' | 'draft-7' = 'draft-2020-12') {}

  all(): Record<string, JsonSchema> {
    return Object.fromEntries([...this.named].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The reference to what a request holds. */
  readonly of: SchemaOf = (type) => (type instanceof z.ZodType ? this.ofAnswer(type) : this.ofRequest(type));

  ofRequest(type: new () => object): JsonSchema {
    const name = this.requests.get(type) ?? type.name.replace(/Dto$/, '');
    if (!this.requests.has(type)) {
      if (this.named.has(name)) throw new Error(`two schemas have the name ${name}`);
      this.requests.set(type, name);
      this.named.set(name, {});
      this.named.set(name, requestSchema(type, this.of));
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  ofAnswer(schema: z.ZodType): JsonSchema {
    const { target } = this;
    const {
      $schema: _dialect,
      $defs = {},
      definitions = $defs,
      ...rest
    } = z.toJSONSchema(schema, { override: plainly, target }) as JsonSchema;
    for (const [name, definition] of Object.entries(definitions as Record<string, JsonSchema>)) {
      const { id: _name, ...said } = pointed(definition);
      const known = this.named.get(name);
      if (known === undefined) this.named.set(name, said);
      else if (JSON.stringify(known) !== JSON.stringify(said)) throw new Error(`two schemas have the name ${name}`);
    }
    return pointed(rest);
  }
}

/**
 * Adapts schemas for tools: every number in an answer is a safe integer, and a pair of texts is a list of two. What our code does not
 * write to is no readOnly of OpenAPI, which would leave it out of a client's requests.
 */
function plainly({ jsonSchema }: { jsonSchema: Record<string, unknown> }): void {
  const { prefixItems } = jsonSchema;
  if (Array.isArray(prefixItems) && new Set(prefixItems.map((one) => JSON.stringify(one))).size === 1) {
    delete jsonSchema['prefixItems'];
    Object.assign(jsonSchema, { items: prefixItems[0] as JsonSchema, minItems: prefixItems.length, maxItems: prefixItems.length });
  }
  delete jsonSchema['readOnly'];
  if (jsonSchema['minimum'] === Number.MIN_SAFE_INTEGER) delete jsonSchema['minimum'];
  if (jsonSchema['maximum'] === Number.MAX_SAFE_INTEGER) delete jsonSchema['maximum'];
}

/** References in the form that the document uses. */
function pointed(schema: JsonSchema): JsonSchema {
  return JSON.parse(JSON.stringify(schema), (key, value: unknown) =>
    key === '$ref' && typeof value === 'string' ? value.replace(/^#\/(\$defs|definitions)\//, '#/components/schemas/') : value,
  ) as JsonSchema;
}
