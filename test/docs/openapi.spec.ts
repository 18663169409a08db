import { readFileSync } from 'node:fs';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { z } from 'zod';
import { AppModule } from '../../src/app.module.js';
import { STREAMS } from '../../src/features.js';
import { ThreadlogError } from '../../src/errors.js';
import { openApiDocument, requestTypesOf, VERSION } from '../../src/docs/openapi.js';
import { visitorDocument } from '../../src/docs/visitor-document.js';
import { requestSchema } from '../../src/http/request-schema.js';
import { routesOf } from '../../src/http/routes.js';
import { DtoPipe } from '../../src/http/validation.js';

/* The API's document: valid, committed, without gaps, and saying of requests what the checks say. */

const document = openApiDocument(AppModule.controllers);
const forVisitors = visitorDocument(document);
const routes = routesOf(AppModule.controllers);

test.each([
  ['the document', document],
  ['the document for visitor tokens', forVisitors],
])('%s is OpenAPI 3.1', async (_, one) => {
  const { valid, errors } = await new Validator().validate(JSON.parse(JSON.stringify(one)) as Record<string, unknown>);
  expect(errors ?? []).toEqual([]);
  expect(valid).toBe(true);
});

test('has the version of package.json', () => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  expect(VERSION).toBe(version);
});

test('has every route, each with a name of its own', () => {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId }]) => ({ operationId, route: `${method.toUpperCase()} ${path}` })),
  );
  expect(operations.map(({ route }) => route).sort()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).sort());
  expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(routes.length);
});

/** Every schema within one, with where it stands. */
function* within(node: unknown, path = '#'): Iterable<[string, Record<string, unknown>]> {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node)) yield [path, node as Record<string, unknown>];
  for (const [name, value] of Object.entries(node)) yield* within(value, `${path}/${name}`);
}

test('refuses properties that it does not name', () => {
  const open = [...within({ schemas: document.components.schemas, paths: document.paths })]
    .filter(([, node]) => node['type'] === 'object' && typeof node['properties'] === 'object' && node['additionalProperties'] !== false)
    .map(([path]) => path);
  expect(open).toEqual([]);
});

test.each([document, forVisitors])('refers to nothing that is not there', (one) => {
  for (const [path, node] of within(one)) {
    if (typeof node['$ref'] !== 'string') continue;
    const steps = node['$ref'].replace('#/', '').split('/');
    let found: unknown = one;
    for (const step of steps) found = (found as Record<string, unknown> | undefined)?.[step];
    expect([path, typeof found]).toEqual([path, 'object']);
  }
});

test('tells a visitor token of the routes that it may call, and of no shape that it never sees', () => {
  const open = routes.filter(({ path, method }) => {
    const roles = document.paths[path]?.[method.toLowerCase()]?.['x-roles'];
    return roles !== 'public' && roles?.includes('visitor') === true;
  });
  const told = Object.entries(forVisitors.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  expect(told.sort()).toEqual(open.map(({ method, path }) => `${method} ${path}`).sort());
  const shapes = Object.keys(forVisitors.components.schemas);
  expect(shapes).toEqual(
    expect.arrayContaining(['VisitorConversation', 'VisitorConversationSummary', 'VisitorMessage', 'OpenConversation']),
  );
  for (const hidden of ['Conversation', 'ConversationSummary', 'Message']) expect(shapes).not.toContain(hidden);
});

/** Where any JSON may stand: fields of every resource side by side, what events hold, and whole documents. */
const ANYTHING = [
  '#/schemas/Diff/properties/changes/items/properties/before',
  '#/schemas/Diff/properties/changes/items/properties/after',
  '#/schemas/Event/properties/data/additionalProperties',
  '#/schemas/FeedEvent/properties/data/additionalProperties',
  ...['docs', 'visitor-docs', 'asyncapi'].map(
    (name) => `#/paths//api/${name}.json/get/responses/200/content/application/json/schema/additionalProperties`,
  ),
];

test('says of every value what it takes, so that no client knows it as anything', () => {
  const TYPED = ['type', '$ref', 'enum', 'const', 'anyOf', 'oneOf', 'allOf'];
  const open = function* (schema: unknown, path: string): Iterable<string> {
    if (typeof schema !== 'object' || schema === null) return;
    if (!TYPED.some((name) => name in schema)) yield path;
    const { properties = {}, items, additionalProperties } = schema as Record<string, unknown>;
    for (const [name, one] of Object.entries(properties as object)) yield* open(one, `${path}/properties/${name}`);
    yield* open(items, `${path}/items`);
    yield* open(additionalProperties, `${path}/additionalProperties`);
    for (const kind of ['anyOf', 'oneOf'])
      for (const [at, one] of ((schema as Record<string, unknown[]>)[kind] ?? []).entries()) yield* open(one, `${path}/${kind}/${at}`);
  };
  const found = [
    ...Object.entries(document.components.schemas).flatMap(([name, schema]) => [...open(schema, `#/schemas/${name}`)]),
    ...[...within(document.paths, '#/paths')].flatMap(([path, { schema }]) => [...open(schema, `${path}/schema`)]),
  ];
  expect(found.sort()).toEqual(ANYTHING.sort());
  // A text of several is a text in every language.
  const untyped = [...within(document)].filter(
    ([path, node]) => Array.isArray(node['enum']) && node['type'] === undefined && !path.endsWith('/not'),
  );
  expect(untyped.map(([path]) => path)).toEqual([]);
  // OpenAPI reads it as "never in a request".
  expect([...within(document)].filter(([, node]) => node['readOnly'] !== undefined)).toEqual([]);
});

const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));

test('describes every operation in one to three sentences beyond its summary, and every tag', () => {
  for (const { operationId, summary, description } of operations) {
    const said = description.replace(/ (Roles: [a-z, ]+|Needs no key)\.$/, '');
    expect([operationId, said === description, said.includes(summary)]).toEqual([operationId, false, false]);
    const sentences = said.split(/(?<=[.!?])\s+(?=[A-Z`])/);
    expect([operationId, sentences.length >= 1 && sentences.length <= 3]).toEqual([operationId, true]);
  }
  const tags = document['tags'] as { name: string; description: string }[];
  expect(new Set(operations.flatMap((operation) => operation.tags))).toEqual(new Set(tags.map(({ name }) => name)));
});

test('names no event that there is not, and says of every write which events it appends', () => {
  const events = new Set([...STREAMS.values()].flatMap(({ aggregate }) => Object.keys(aggregate.codec.versions)));
  for (const { operationId, description } of operations)
    for (const [, name = ''] of description.matchAll(/`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`/g))
      expect([operationId, name, events.has(name)]).toEqual([operationId, name, true]);
  for (const [path, methods] of Object.entries(document.paths))
    for (const [method, { description }] of Object.entries(methods))
      if (method !== 'get') expect([method, path, /append|the same events/i.test(description)]).toEqual([method, path, true]);
});

test('says of every list what is in it', () => {
  const lists = [...within(document)].filter(([, node]) => node['type'] === 'array').map(([path, node]) => [path, typeof node['items']]);
  expect(lists.length).toBeGreaterThan(50);
  expect(lists.filter(([, items]) => items !== 'object')).toEqual([]);
});

test('names each choice once', () => {
  for (const [path, { enum: choices }] of within(document))
    if (Array.isArray(choices)) expect([path, choices]).toEqual([path, [...new Set<unknown>(choices)]]);
});

const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats.default(ajv);
for (const [name, schema] of Object.entries(document.components.schemas)) ajv.addSchema({ $id: name, ...pointed(schema) });

/** With references by name, as ajv has the schemas. */
function pointed(schema: object): object {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/components/schemas/', '"')) as object;
}

test('shows bodies that its own schemas and the checks take, of every operation that has one', () => {
  for (const route of routes) {
    const { body } = requestTypesOf(route);
    if (body === undefined) continue;
    const { schema, examples } = document.paths[route.path]?.[route.method.toLowerCase()]?.requestBody?.content['application/json'] ?? {};
    const validate = ajv.compile(pointed(schema ?? {}));
    const shown = Object.entries(examples ?? {});
    expect([body.name, shown.length > 0]).toEqual([body.name, true]);
    for (const [name, { value }] of shown) {
      expect([name, validate(value), validate.errors]).toEqual([name, true, null]);
      expect(() => new DtoPipe().transform(structuredClone(value), { type: 'body', metatype: body })).not.toThrow();
    }
  }
});

describe('says of a request what its checks say', () => {
  const VALUES: unknown[] = [
    undefined,
    null,
    true,
    0,
    -1,
    1.5,
    1,
    5,
    2_000_000,
    '',
    'x',
    'a b',
    'open',
    'agent',
    'next_reply',
    '2099-01-01T00:00:00Z',
    'a@example.com',
    'https://example.com/',
    'Europe/Berlin',
    'x'.repeat(129),
    'x'.repeat(60_000),
    [],
    ['x'],
    ['x', 'x'],
    ['a b', 5],
    [{}],
    Array.from({ length: 600 }, (_, i) => `t${i}`),
    {},
    { plan: 'pro' },
    { plan: ['pro'] },
    { ['x'.repeat(65)]: 1 },
    Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`a${i}`, i])),
    { type: 'text', content: 'Hi' },
    { type: 'card', content: { title: 'Hi', actions: [{ label: 'x', url: 'https://example.com/' }] } },
    { type: 'card', content: { title: 'Hi', actions: 'x' } },
    { type: 'attachment', content: 'x', attachments: [] },
    { mode: 'manual' },
    { mode: 'manual', agentIds: ['a'], cap: null },
    { timezone: 'UTC', schedule: { monday: [['09:00', '17:00']] } },
    { timezone: 'UTC', schedule: { mon: [] } },
    { enabled: true, message: 'x' },
    { name: 'Ada', email: 'a@example.com' },
  ];
  const bodies = new Set(routes.flatMap((route) => requestTypesOf(route).body ?? []));
  const pipe = new DtoPipe();
  const refusedByCode = (type: new () => object, body: object): string[] => {
    try {
      pipe.transform(body, { type: 'body', metatype: type });
      return [];
    } catch (error) {
      if (!(error instanceof ThreadlogError)) throw error;
      return [...new Set(error.extra.errors?.map(({ field }) => field.split(/[.[]/, 1)[0] ?? '') ?? [])];
    }
  };

  test.each([...bodies].map((type) => [type.name, type] as const))('%s', (_, type) => {
    const { properties, ...rest } = requestSchema(type, (nested) => ({
      $ref: nested instanceof z.ZodType ? z.globalRegistry.get(nested)?.id : nested.name.replace(/Dto$/, ''),
    }));
    const validate = ajv.compile({ ...rest, properties });
    const refusedByDocument = (body: object): string[] => {
      validate(body);
      return [
        ...new Set(
          // Of several properties one must be there: no single one is refused for that.
          (validate.errors ?? [])
            .filter(({ schemaPath }) => !schemaPath.startsWith('#/allOf/'))
            .map(
              ({ instancePath, params }) =>
                instancePath.split('/')[1] ?? String((params as { missingProperty?: string })['missingProperty'] ?? instancePath),
            ),
        ),
      ];
    };
    const sets = ((rest['allOf'] ?? []) as { anyOf?: { required: [string] }[] }[]).flatMap(({ anyOf }) =>
      anyOf === undefined ? [] : [{ anyOf }],
    );
    const inSets = new Set(sets.flatMap(({ anyOf }) => anyOf.map(({ required }) => required[0])));
    if (sets.length > 0) {
      expect(validate({})).toBe(false);
      expect(refusedByCode(type, {})).not.toEqual([]);
    }
    for (const name of Object.keys(properties))
      for (const value of VALUES) {
        if (value === undefined && inSets.has(name)) continue;
        const body = value === undefined ? {} : { [name]: value };
        const [code, said] = [refusedByCode(type, body).includes(name), refusedByDocument(body).includes(name)];
        expect({ [name]: JSON.stringify(value)?.slice(0, 80), refused: said }).toEqual({
          [name]: JSON.stringify(value)?.slice(0, 80),
          refused: code,
        });
      }
    expect(refusedByCode(type, { unknownField: 1 })).toContain('unknownField');
    expect(validate({ unknownField: 1 })).toBe(false);
  });
});
