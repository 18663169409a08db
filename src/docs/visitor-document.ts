import type { JsonSchema } from '../http/request-schema.js';
import type { Answer, AnswerContent, OpenApiDocument, Operation, Reference } from './openapi.js';

/**
 * The API for the holder of a visitor token: the routes that it may call, with what it is answered there. A document of its own, since
 * OpenAPI cannot say that an answer depends on who asks, and a client would have to tell two shapes apart in every answer.
 */
export function visitorDocument(document: OpenApiDocument): OpenApiDocument {
  const paths = Object.fromEntries(
    Object.entries(document.paths).flatMap(([path, methods]) => {
      const open = Object.entries(methods).filter(([, { 'x-roles': roles }]) => roles !== 'public' && roles.includes('visitor'));
      return open.length === 0 ? [] : [[path, Object.fromEntries(open.map(([method, one]) => [method, forVisitor(one)]))]];
    }),
  );
  const { securitySchemes } = document.components;
  const tags = new Set(Object.values(paths).flatMap((methods) => Object.values(methods).flatMap((one) => one.tags)));
  const info = document['info'] as JsonSchema;
  return {
    ...document,
    info: {
      ...info,
      title: 'Threadlog for visitors',
      description:
        'What the holder of a visitor token may call, and what it is answered. docs/api.md says which fields and parameters of a request are not for visitors.',
    },
    tags: (document['tags'] as readonly { readonly name: string }[]).filter(({ name }) => tags.has(name)),
    paths,
    components: { ...reached(document.components, paths), securitySchemes },
  };
}

/** An operation with the answers of a visitor token. */
function forVisitor(operation: Operation): Operation {
  const answered = ({ schema, 'x-visitor-schema': visitors = schema }: AnswerContent): AnswerContent => ({ schema: visitors });
  const responses = Object.entries(operation.responses).map(([status, answer]): [string, Answer | Reference] => {
    if ('$ref' in answer || answer.content === undefined) return [status, answer];
    return [status, { ...answer, content: Object.fromEntries(Object.entries(answer.content).map(([type, one]) => [type, answered(one)])) }];
  });
  return { ...operation, responses: Object.fromEntries(responses) };
}

type Components = OpenApiDocument['components'];

/** The components that the paths refer to, directly or through others, each kind in its order. */
function reached(components: Components, paths: OpenApiDocument['paths']): Components {
  const { schemas, responses, parameters, headers } = components;
  const kinds: Readonly<Record<string, JsonSchema>> = { schemas, responses, parameters, headers: headers as JsonSchema };
  const found = new Set<string>();
  const follow = (node: unknown): void => {
    for (const [, kind = '', name = ''] of JSON.stringify(node).matchAll(/"\$ref":"#\/components\/(\w+)\/([^"]+)"/g)) {
      if (found.has(`${kind}/${name}`)) continue;
      found.add(`${kind}/${name}`);
      follow(kinds[kind]?.[name]);
    }
  };
  follow(paths);
  const kept = <T>(kind: string, all: Readonly<Record<string, T>>): Record<string, T> =>
    Object.fromEntries(Object.entries(all).filter(([name]) => found.has(`${kind}/${name}`)));
  return {
    schemas: kept('schemas', schemas),
    responses: kept('responses', responses),
    parameters: kept('parameters', parameters),
    headers: kept('headers', headers as JsonSchema),
  };
}
