// Writes the parts of docs/ that follow from the code; with --check it says which of them are out of date and exits with 1.
import 'reflect-metadata';
import { readFile, writeFile } from 'node:fs/promises';
import prettier from 'prettier';
import '../test/support/typescript.mjs';

const check = process.argv.includes('--check');
const source = (path) => import(new URL(`../src/${path}`, import.meta.url).href);

const row = (cells) => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`;
const table = (head, rows) => [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');

async function errors() {
  const { ERRORS } = await source('errors.ts');
  return [
    '# Errors',
    'Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `instance`, `code`, `requestId`, often a `detail`; on `validation_failed` also `errors: [{field, message}]`, on a refused transition `allowed: [moves]`. Generated from `src/errors.ts`.',
    table(
      ['code', 'status', 'meaning'],
      Object.entries(ERRORS).map(([code, { status, title }]) => [`\`${code}\``, status, title]),
    ),
    'An error means that nothing was written. The exception is `outcome_unknown`: repeat the request with the same `Idempotency-Key`, and it is done once. 429 and 503 carry `Retry-After`.',
  ].join('\n\n');
}

async function configuration() {
  const { SETTINGS, readConfig } = await source('config.ts');
  const defaults = readConfig({});
  return [
    '# Configuration',
    'By environment variables, checked at start: every wrong one is named at once. An empty one counts as absent. Generated from `src/config.ts`.',
    table(
      ['variable', 'default', 'meaning'],
      Object.entries(SETTINGS).map(([name, schema]) => [
        `\`${name}\``,
        defaults[name] === undefined ? '–' : `\`${defaults[name]}\``,
        schema.description,
      ]),
    ),
  ].join('\n\n');
}

async function routes() {
  const { AppModule } = await source('app.module.ts');
  const { Reflector } = await import('@nestjs/core');
  const { declaredRoles } = await source('security/auth.guard.ts');
  const { routesOf } = await source('http/routes.ts');
  const { CALLER_ROLES: roles } = await source('security/roles.ts');
  const reflector = new Reflector();
  const rows = routesOf(AppModule.controllers).map(({ method, path, handler }) => {
    const allowed = declaredRoles(reflector, handler);
    return [`\`${method} ${path}\``, ...roles.map((role) => (allowed === 'public' || allowed.includes(role) ? '✓' : ''))];
  });
  const { LIVE_MESSAGES } = await source('live/live-message.ts');
  const { FOLLOWING_ROLES } = await source('live/live.authentication.ts');
  const messages = [
    ['follow the live feed', FOLLOWING_ROLES],
    ...Object.entries(LIVE_MESSAGES).map(([type, one]) => [`\`${type}\``, one.roles]),
  ].map(([name, allowed]) => [name, ...roles.map((role) => (allowed.includes(role) ? '✓' : ''))]);
  return [
    '# Roles',
    'Which role may call which route, and send which message over a socket. Every route and message declares its roles; one that does not stops the program at start. Generated from the code.',
    table(['route', ...roles], rows),
    table(['message over a socket', ...roles], messages),
    '`admin` does everything. `agent` works on conversations, visitors, companies, canned responses and views. `auditor` reads everything and writes nothing. `analyst` reads lists and numbers; message contents are withheld (`content: null`). `visitor` is the holder of a visitor token, and reaches its own conversations alone: [api.md](api.md#visitor-tokens).',
  ].join('\n\n');
}

async function events() {
  const { STREAMS } = await source('features.ts');
  const { GROUPS } = await import(new URL('../projections/registry.ts', import.meta.url).href);
  const projections = Object.values(GROUPS).flatMap((make) => make());
  const rows = [...STREAMS].flatMap(
    ([
      kind,
      {
        aggregate: { codec },
      },
    ]) =>
      Object.entries(codec.versions).map(([type, version]) => [
        kind,
        `\`${type}\``,
        version,
        (codec.sealed[type] ?? []).map((field) => `\`${field}\``).join(', '),
        ...projections.map((projection) => (projection.kinds.includes(kind) ? '✓' : '')),
      ]),
  );
  return [
    '# Events',
    'Every event type of the log: the kind of stream it belongs to, its stored version, its sealed (personal) fields, and the projections that read it. Events are kept for ever, so a type or a field never changes its meaning; a new version is added beside the old one. Generated from the codecs.',
    table(['stream', 'event', 'version', 'sealed fields', ...projections.map(({ name }) => name)], rows),
    'Metadata of each event: `organizationId`, `actor {type, id}`, `occurredAt`, `commandId`, `requestHash`, `correlationId`, `causationId`, `causationDepth`, `schemaVersion`, `keyId?`, `imported?`, `hash`.',
  ].join('\n\n');
}

async function ruleFields() {
  const { FIELDS, ATTRIBUTE_FIELDS, OPERATORS_OF, EVENT_TRIGGERS, CHANGED_BY } = await source('automation/rule-fields.ts');
  const fields = [...Object.entries(FIELDS), ...Object.entries(ATTRIBUTE_FIELDS).map(([prefix, field]) => [`${prefix}NAME`, field])];
  return [
    '# Fields of automation rules',
    'What a condition may look at. A personal field is sealed in the trace and gone with the visitor. [automation.md](automation.md) says how rules work. Generated from `src/automation/rule-fields.ts`.',
    table(
      ['field', 'type', 'personal', 'its value'],
      fields.map(([name, { type, choices, personal, says }]) => [
        `\`${name}\``,
        choices === undefined ? type : `${type}: ${choices.join(', ')}`,
        personal === true ? '✓' : '',
        says,
      ]),
    ),
    'The operators of each type. Texts, tags and attributes are compared without regard to case, ids and choices exactly.',
    table(
      ['type', 'operators'],
      Object.entries(OPERATORS_OF).map(([type, operators]) => [type, operators.map((one) => `\`${one}\``).join(' ')]),
    ),
    'The events that trigger rules, and the `previous.` fields that each can set. Time triggers set none.',
    table(
      ['trigger', 'previous'],
      EVENT_TRIGGERS.map((trigger) => [`\`${trigger}\``, CHANGED_BY[trigger].map((one) => `\`${one}\``).join(' ')]),
    ),
  ].join('\n\n');
}

async function metrics() {
  const { METRICS, DEFINITIONS_VERSION } = await source('analytics/metrics.ts');
  const { ANALYST_VIEWS } = await source('analytics/analyst.views.ts');
  return [
    '# Metrics',
    `What every number means, version ${DEFINITIONS_VERSION} of the definitions. [analytics.md](analytics.md) says how to ask. Generated from \`src/analytics/metrics.ts\`, from which the API, the views of the schema \`analytics\` and the tests follow too.`,
    table(
      ['metric', 'unit', 'definition', 'by agent it belongs to', 'dimensions', 'working hours'],
      METRICS.map(({ name, unit, definition, belongsTo, dimensions, behind }) => [
        `\`${name}\``,
        unit,
        definition,
        belongsTo,
        dimensions.join(', '),
        behind.working === undefined ? '' : '✓',
      ]),
    ),
    'Numbers belong to ids: an agent, or an API key that acts without an agent and counts as a person. All dimensions are as of the event, for `rating` as of the end of its episode.',
    '# Views',
    'The views of the schema `analytics`, for SQL. Each shows the organization of the database role that asks.',
    ...ANALYST_VIEWS.flatMap(({ name, says, columns }) => [
      `## ${name}`,
      says,
      table(
        ['column', 'what it holds'],
        Object.entries(columns).map(([column, one]) => [`\`${column}\``, one.says]),
      ),
    ]),
  ].join('\n\n');
}

/** The API, as /api/docs.json answers it. */
async function openapi() {
  const { AppModule } = await source('app.module.ts');
  const { openApiDocument } = await source('docs/openapi.ts');
  return JSON.stringify(openApiDocument(AppModule.controllers));
}

/** What is sent over sockets, as /api/asyncapi.json answers it. */
async function asyncapi() {
  const { AppModule } = await source('app.module.ts');
  const { asyncApiDocument } = await source('docs/asyncapi.ts');
  return JSON.stringify(asyncApiDocument(AppModule.providers));
}

let stale = 0;
const PAGES = {
  'errors.md': errors,
  'configuration.md': configuration,
  'roles.md': routes,
  'events.md': events,
  'automation-fields.md': ruleFields,
  'metrics.md': metrics,
  'openapi.json': openapi,
  'asyncapi.json': asyncapi,
};
for (const [name, make] of Object.entries(PAGES)) {
  const path = new URL(name, import.meta.url);
  const parser = name.endsWith('.md') ? 'markdown' : 'json';
  const text = await prettier.format(`${await make()}\n`, { parser, printWidth: 140, singleQuote: true });
  const before = await readFile(path, 'utf8').catch(() => '');
  if (text === before) continue;
  if (check) {
    process.stderr.write(`docs/${name} is out of date: npm run generate\n`);
    stale++;
  } else {
    await writeFile(path, text);
    process.stdout.write(`docs/${name} written\n`);
  }
}
process.exit(stale > 0 ? 1 : 0);
