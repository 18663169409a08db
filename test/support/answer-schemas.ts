import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { AppModule } from '../../src/app.module.js';
import { type ErrorCode, ERRORS } from '../../src/errors.js';
import { type Answer, openApiDocument, type Operation, PROBLEM_TYPE, type Reference } from '../../src/docs/openapi.js';
import { API_PREFIX } from '../../src/http/routes.js';

/* Every answer of every API test is held against the API's own document: status, media type, and a body without any other property. */

export const apiDocument = openApiDocument(AppModule.controllers);

const ajv = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true, strictRequired: false });
addFormats.default(ajv);
const SCHEMAS = 'https://threadlog.test/schemas/';
for (const [name, schema] of Object.entries(apiDocument.components.schemas)) ajv.addSchema(named({ $id: `${SCHEMAS}${name}`, ...schema }));

/** With references that hold wherever the schema stands. */
function named(schema: object): object {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/components/schemas/', `"${SCHEMAS}`)) as object;
}

const compiled = new Map<object, ValidateFunction>();
function validatorOf(schema: object): ValidateFunction {
  let validate = compiled.get(schema);
  if (validate === undefined) {
    compiled.set(schema, (validate = ajv.compile(named(schema))));
  }
  return validate;
}

const OPERATIONS = Object.entries(apiDocument.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    method: method.toUpperCase(),
    // Ids stand in a path encoded, so none has a slash.
    pattern: new RegExp(`^${path.replaceAll('.', String.raw`\.`).replaceAll(/\{\w+\}/g, '[^/]+')}$`),
    operation,
  })),
);

/** What the document says of a request; undefined for an address or a method that it does not have. */
export function operationOf(method: string, path: string): Operation | undefined {
  return OPERATIONS.find((one) => one.method === method && one.pattern.test(path))?.operation;
}

function answerOf(operation: Operation, status: number): Answer | undefined {
  const answer = operation.responses[String(status)];
  if (answer === undefined || !('$ref' in answer)) return answer as Answer | undefined;
  return apiDocument.components.responses[(answer as Reference).$ref.replace('#/components/responses/', '')];
}

/**
 * Holds an answer against the document.
 * @param path below /api/support, or of the console
 * @throws Error that says what is not as it is documented
 */
export function checkAnswer(
  method: string,
  path: string,
  status: number,
  contentType: string | null,
  body: unknown,
  asVisitor = false,
): void {
  const said = `${method} ${path} ${status}`;
  const problem = status >= 400 ? (body as { code?: ErrorCode; status?: number } | undefined) : undefined;
  if (problem?.code !== undefined && ERRORS[problem.code].status !== status) throw new Error(`${said}: ${problem.code} has another status`);
  const operation = operationOf(method, path.startsWith('/console/') ? path : `${API_PREFIX}${path}`);
  if (operation === undefined) {
    // Only what is no route is not in the document.
    if (status !== 404 && status !== 405 && status !== 400 && status !== 431) throw new Error(`${said}: not in the document`);
    check(said, apiDocument.components.schemas['Problem'] as object, body);
    return;
  }
  const answer = answerOf(operation, status);
  if (answer === undefined) throw new Error(`${said} is not documented: ${JSON.stringify(body)}`);
  const contents = Object.entries(answer.content ?? {});
  // The first is JSON; others can be asked for.
  const [type, content] = contents.find(([one], i) => i > 0 && contentType === `${one}; charset=utf-8`) ?? contents[0] ?? [];
  if (content === undefined) {
    if (body !== undefined) throw new Error(`${said}: a body where none is documented`);
    return;
  }
  const expected = type === 'application/problem+json' ? PROBLEM_TYPE : `${type}; charset=utf-8`;
  if (contentType !== expected) throw new Error(`${said}: an answer as ${contentType} instead of ${expected}`);
  check(said, (asVisitor ? content['x-visitor-schema'] : undefined) ?? content.schema, body);
}

function check(said: string, schema: object, body: unknown): void {
  const validate = validatorOf(schema);
  if (!validate(body))
    throw new Error(
      `${said} is not as it is documented:\n${ajv.errorsText(validate.errors, { separator: '\n' })}\n${JSON.stringify(body, null, 2)}`,
    );
}
