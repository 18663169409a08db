import type { Answer, AnswerContent, OpenApiDocument, Operation, Parameter, Reference } from './openapi.js';
import type { JsonSchema } from '../http/request-schema.js';
import { curlExamples } from './curl-example.js';
import { SCRIPT } from './docs-page.script.js';
import { STYLE } from './docs-page.style.js';

const escape = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll('\n', ' ');
const lines = (text: string) => text.split('\n').map(escape).join('\n');
/** Shows words in backticks as code. */
const prose = (text: string) => escape(text).replaceAll(/`([^`]+)`/g, '<code>$1</code>');

/** The document as one page of HTML, readable without any script; the script adds a search and buttons that copy. */
export function docsPage(document: OpenApiDocument): string {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const tags = [...new Set(operations.flatMap(({ operation }) => operation.tags))];
  const of = (tag: string) => operations.filter(({ operation }) => operation.tags.includes(tag));
  const info = document['info'] as { title: string; version: string; description: string };
  const schemas = Object.entries(document.components.schemas);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(info.title)} API</title>
<style>${STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the operations</a>
<nav aria-label="Operations and schemas">
<p><strong>${escape(info.title)}</strong> ${escape(info.version)}<a href="docs.json">OpenAPI 3.1</a></p>
<form role="search" hidden>
<label for="wanted">Search (/)</label>
<input id="wanted" type="search" autocomplete="off" spellcheck="false">
<small id="found" role="status"></small>
</form>
${tags
  .map(
    (tag) =>
      `<a href="#${tag}"><strong>${tag}</strong></a><ul>${of(tag)
        .map(({ operation }) => `<li><a href="#${operation.operationId}">${prose(operation.summary)}</a></li>`)
        .join('')}</ul>`,
  )
  .join('\n')}
<a href="#schemas"><strong>schemas</strong></a>
<ul>${schemas.map(([name]) => `<li><a href="#schema-${name}">${name}</a></li>`).join('')}</ul>
</nav>
<main id="main">
<h1>${escape(info.title)} API</h1>
<p>${prose(info.description)}</p>
<p>Send a key as <code>X-API-Key</code> or as <code>Authorization: Bearer</code>. Errors are <code>application/problem+json</code>.</p>
<p>The examples are for a shell that knows the server and a key:</p>
${example('the server and a key', 'export THREADLOG_URL=http://127.0.0.1:3000\nexport THREADLOG_KEY=…')}
${tags
  .map(
    (tag) =>
      `<h2 id="${tag}">${tag}</h2>\n<p>${prose(about(document, tag))}</p>\n${of(tag)
        .map(({ path, method, operation }) => section(document, method, path, operation))
        .join('\n')}`,
  )
  .join('\n')}
<h2 id="schemas">schemas</h2>
${schemas
  .map(
    ([name, schema]) =>
      `<section id="schema-${name}" data-tag="schemas" data-search="${name}"><h3><a href="#schema-${name}">${name}</a></h3>${description(schema)}<pre>${shape(schema, 0)}</pre></section>`,
  )
  .join('\n')}
</main>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function section(document: OpenApiDocument, method: string, path: string, operation: Operation): string {
  const { operationId, summary, description: said } = operation;
  const parameters = operation.parameters.map((one) => ('$ref' in one ? pointedAt<Parameter>(document, 'parameters', one) : one));
  const body = operation.requestBody?.content['application/json']?.schema;
  const answers = Object.entries(operation.responses).map(
    ([status, one]) => [status, '$ref' in one ? pointedAt<Answer>(document, 'responses', one) : one] as const,
  );
  const name = `${method} ${path}`;
  const searched = [name, operationId, summary, ...parameters.map((one) => one.name)].join(' ');
  return `<section id="${operationId}" data-tag="${operation.tags[0] ?? ''}" data-search="${escape(searched)}">
<h3><a href="#${operationId}"><span class="verb">${method}</span>${escape(path)}</a></h3>
<p><strong>${prose(summary)}</strong> ${prose(said)}</p>
${
  parameters.length === 0
    ? ''
    : `<details><summary>Parameters</summary><table>${parameters
        .map(
          (one) =>
            `<tr><td><code>${escape(one.name)}</code></td><td>${one.in}</td><td><code>${shape(one.schema, 0)}</code></td><td>${prose(
              one.description ?? (one.schema['description'] as string | undefined) ?? '',
            )}</td></tr>`,
        )
        .join('')}</table></details>`
}
${body === undefined ? '' : `<p>Body: <code>${shape(body, 0)}</code></p>`}
<details><summary>Answers</summary><table>${answers
    .map(([status, one]) => {
      const [type, content] = Object.entries(one.content ?? {})[0] ?? [];
      const said =
        type === undefined || type === 'application/problem+json'
          ? ''
          : `<code>${content === undefined ? '' : shape(content.schema, 0)}</code>${forVisitors(content)}`;
      return `<tr><td>${status}</td><td>${prose(one.description)} ${said}</td></tr>`;
    })
    .join('')}</table></details>
${curlExamples(method, path, operation)
  .map(({ title, command }) => `${title === '' ? '' : `<h4>Example: ${prose(title)}</h4>`}${example(title === '' ? name : title, command)}`)
  .join('\n')}
</section>`;
}

const forVisitors = (content: AnswerContent | undefined) =>
  content?.['x-visitor-schema'] === undefined ? '' : ` With a visitor token: <code>${shape(content['x-visitor-schema'], 0)}</code>`;

const example = (name: string, text: string) => `<div class="example" data-name="${escape(name)}"><pre>${lines(text)}</pre></div>`;

function about(document: OpenApiDocument, tag: string): string {
  const tags = document['tags'] as readonly { readonly name: string; readonly description: string }[];
  return tags.find(({ name }) => name === tag)?.description ?? '';
}

function pointedAt<T>({ components }: OpenApiDocument, kind: 'parameters' | 'responses', { $ref }: Reference): T {
  return (components[kind] as Readonly<Record<string, unknown>>)[$ref.slice(`#/components/${kind}/`.length)] as T;
}

const description = ({ description: said }: JsonSchema) => (typeof said === 'string' ? `<p>${prose(said)}</p>` : '');

/** A schema in the notation of types. */
function shape(schema: JsonSchema, depth: number): string {
  const { $ref, type, anyOf, oneOf, allOf, properties, required = [], items, additionalProperties } = schema;
  if (typeof $ref === 'string') {
    const name = escape($ref.slice($ref.lastIndexOf('/') + 1));
    return `<a href="#schema-${name}">${name}</a>`;
  }
  if ('const' in schema) return escape(JSON.stringify(schema['const']));
  if (Array.isArray(schema['enum'])) return schema['enum'].map((one) => escape(JSON.stringify(one))).join(' | ');
  const choices = (anyOf ?? oneOf ?? allOf) as readonly JsonSchema[] | undefined;
  if (choices !== undefined) return choices.map((one) => shape(one, depth)).join(allOf === undefined ? ' | ' : ' &amp; ');
  if (type === 'array') return `${shape((items ?? {}) as JsonSchema, depth)}[]${bounds(schema)}`;
  if (properties !== undefined) {
    const pad = '  '.repeat(depth + 1);
    const lines = Object.entries(properties as Readonly<Record<string, JsonSchema>>).map(
      ([name, one]) => `${pad}${escape(name)}${(required as readonly string[]).includes(name) ? '' : '?'}: ${shape(one, depth + 1)}`,
    );
    return `{\n${lines.join('\n')}\n${'  '.repeat(depth)}}`;
  }
  if (typeof additionalProperties === 'object' && additionalProperties !== null)
    return `{ [name]: ${shape(additionalProperties as JsonSchema, depth)} }${bounds(schema)}`;
  const types = Array.isArray(type) ? type.join(' | ') : typeof type === 'string' ? type : 'any';
  return `${types}${bounds(schema)}`;
}

const BOUNDS = [
  'format',
  'pattern',
  'minLength',
  'maxLength',
  'minimum',
  'maximum',
  'minItems',
  'maxItems',
  'maxProperties',
  'default',
] as const;

function bounds(schema: JsonSchema): string {
  const said = BOUNDS.filter((name) => name in schema).map((name) => `${name} ${String(schema[name])}`);
  return said.length === 0 ? '' : ` <small>(${escape(said.join(', '))})</small>`;
}
