import type { Answer, OpenApiDocument, Operation, Parameter, Reference } from '../platform/openapi.js';
import type { JsonSchema } from '../platform/request-schema.js';

/** The page's only style sheet; its hash stands in the page's Content-Security-Policy. */
export const STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --link: #8ab4ff; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1rem; border-right: 1px solid var(--line); font-size: 13px; }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; }
nav li { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
main { padding: 1rem 2rem 6rem; max-width: 70rem; }
h1 { margin-top: 0; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
section { margin: 2rem 0; scroll-margin-top: 1rem; }
h3 { font: 600 15px ui-monospace, monospace; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.verb { display: inline-block; min-width: 4.2rem; padding: 0 .5rem; margin-right: .5rem; border-radius: .3rem; background: var(--soft); text-align: center; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: 14px; }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
pre { background: var(--soft); padding: .75rem; border-radius: .4rem; overflow: auto; font-size: 13px; margin: .5rem 0; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
summary { cursor: pointer; }
small { opacity: .75; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto; border: 0; } main { padding: 1rem; } }
`;

const escape = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;').replaceAll('\n', ' ');
/** Words in backticks are code. */
const prose = (text: string) => escape(text).replaceAll(/`([^`]+)`/g, '<code>$1</code>');

/** The document as one page of HTML, to be read without any script. */
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
<nav>
<p><strong>${escape(info.title)}</strong> ${escape(info.version)}<br><a href="docs.json">OpenAPI 3.1</a></p>
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
<main>
<h1>${escape(info.title)} API</h1>
<p>${prose(info.description)}</p>
<p>Send a key as <code>X-API-Key</code> or as <code>Authorization: Bearer</code>. Errors are <code>application/problem+json</code>.</p>
${tags
  .map(
    (tag) =>
      `<h2 id="${tag}">${tag}</h2>\n${of(tag)
        .map(({ path, method, operation }) => section(document, method, path, operation))
        .join('\n')}`,
  )
  .join('\n')}
<h2 id="schemas">schemas</h2>
${schemas
  .map(([name, schema]) => `<section id="schema-${name}"><h3>${name}</h3>${description(schema)}<pre>${shape(schema, 0)}</pre></section>`)
  .join('\n')}
</main>
</body>
</html>
`;
}

function section(document: OpenApiDocument, method: string, path: string, operation: Operation): string {
  const roles = operation['x-roles'];
  const parameters = operation.parameters.map((one) => ('$ref' in one ? pointedAt<Parameter>(document, 'parameters', one) : one));
  const body = operation.requestBody?.content['application/json']?.schema;
  const answers = Object.entries(operation.responses).map(
    ([status, one]) => [status, '$ref' in one ? pointedAt<Answer>(document, 'responses', one) : one] as const,
  );
  return `<section id="${operation.operationId}">
<h3><span class="verb">${method}</span>${escape(path)}</h3>
<p>${prose(operation.summary)} <small>${roles === 'public' ? 'Without a key.' : `Roles: ${roles.join(', ')}.`}</small></p>
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
          : `<code>${content === undefined ? '' : shape(content.schema, 0)}</code>`;
      return `<tr><td>${status}</td><td>${prose(one.description)} ${said}</td></tr>`;
    })
    .join('')}</table></details>
</section>`;
}

function pointedAt<T>({ components }: OpenApiDocument, kind: 'parameters' | 'responses', { $ref }: Reference): T {
  return (components[kind] as Readonly<Record<string, unknown>>)[$ref.slice(`#/components/${kind}/`.length)] as T;
}

const description = ({ description: said }: JsonSchema) => (typeof said === 'string' ? `<p>${prose(said)}</p>` : '');

/** A schema as people write types down. */
function shape(schema: JsonSchema, depth: number): string {
  const { $ref, type, anyOf, oneOf, allOf, properties, required = [], items, prefixItems, additionalProperties } = schema;
  if (typeof $ref === 'string') {
    const name = escape($ref.slice($ref.lastIndexOf('/') + 1));
    return `<a href="#schema-${name}">${name}</a>`;
  }
  if ('const' in schema) return escape(JSON.stringify(schema['const']));
  if (Array.isArray(schema['enum'])) return schema['enum'].map((one) => escape(JSON.stringify(one))).join(' | ');
  const choices = (anyOf ?? oneOf ?? allOf) as readonly JsonSchema[] | undefined;
  if (choices !== undefined) return choices.map((one) => shape(one, depth)).join(allOf === undefined ? ' | ' : ' &amp; ');
  if (Array.isArray(prefixItems)) return `[${(prefixItems as readonly JsonSchema[]).map((one) => shape(one, depth)).join(', ')}]`;
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
