const { readdirSync } = require('node:fs');
const { join } = require('node:path');

/** The folders of src with a file `x.feature.ts`. Whatever else is there is the kernel. */
const folders = readdirSync(join(__dirname, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
const filesOf = (folder) => readdirSync(join(__dirname, 'src', folder));
const features = folders.map(({ name }) => name).filter((name) => filesOf(name).some((file) => file.endsWith('.feature.ts')));
/** A file of a feature without a role in its name: `conversation.ts`, and not `conversation.list.ts`. */
const DOMAIN = `src/(${features.join('|')})/[a-z-]+\\.ts$`;

/** The layer rules: each is one sentence of reason and a check. `npm run lint` runs them. */
module.exports = {
  forbidden: [
    {
      name: 'src-never-imports-projections',
      comment: 'The API must run without the workers; only its entry point and the command line may load them.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(main\\.ts|cli/)' },
      to: { path: '^projections/' },
    },
    {
      name: 'domain-files-are-pure',
      comment:
        'Events, state and decisions must fold the same on every machine and in every test, so they import types, errors, schemas, linear-time patterns, the form of typed texts and each other only.',
      severity: 'error',
      from: { path: `^(${DOMAIN}|src/commands/claim\\.ts$)` },
      to: {
        pathNot: `^(${DOMAIN}|src/(errors|security/roles|texts/unseen-characters|event-store/(aggregate|event-store|schema-codec)|[a-z-]+/[a-z-]+\\.codec)\\.ts$|node_modules/(zod|re2js)/)`,
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'only-the-adapter-knows-eventstoredb',
      comment: 'The client has pitfalls that the adapter guards against; a second user would meet them unguarded.',
      severity: 'error',
      from: { path: '^(src|projections)/', pathNot: '^src/event-store/eventstoredb/' },
      to: { path: 'node_modules/@eventstore/db-client' },
    },
    {
      name: 'only-one-place-chooses-the-adapter',
      comment: 'Code that knows its store would behave differently on the other one.',
      severity: 'error',
      from: { path: '^(src|projections)/', pathNot: '^src/event-store/(eventstoredb|postgres|memory|open-event-store)' },
      to: { path: '^src/event-store/(eventstoredb|postgres|memory)/' },
    },
    {
      name: 'the-kernel-knows-no-feature',
      comment:
        'A room that knew a feature would have to be opened for every feature. What starts the program, lists or imports features does.',
      severity: 'error',
      from: { path: '^src/[a-z-]+/', pathNot: `^src/(${features.join('|')}|cli)/` },
      to: { path: `^src/((${features.join('|')}|cli)/|features\\.ts$)` },
    },
    {
      name: 'a-registration-loads-no-route',
      comment: 'Every process loads all registrations; the command line must not load the API with them.',
      severity: 'error',
      from: { path: '\\.feature\\.ts$' },
      to: { path: '\\.(module|controller|commands|list|reader)\\.ts$', dependencyTypesNot: ['dynamic-import', 'type-only'] },
    },
    {
      name: 'the-console-knows-answers-only',
      comment: "The console is the public API's first client: it takes the types of answers from src, and no code.",
      severity: 'error',
      from: { path: '^console/' },
      to: { path: '^(src|projections)/', pathNot: '^src/([a-z-]+/[a-z-]+\\.answer|http/problem)\\.ts$' },
    },
    {
      name: 'the-console-takes-types',
      comment: 'Code of the server in a page would carry its libraries along.',
      severity: 'error',
      from: { path: '^console/' },
      to: { path: '^(src|projections)/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'the-console-stores-are-pure',
      comment: 'What a page knows is tested without a browser, so it needs neither a page nor a library.',
      severity: 'error',
      from: { path: '^console/(store/|(keys|routes)\\.ts$)' },
      to: { pathNot: '^(console/(store/|inbox/views\\.ts$)|src/)' },
    },
    {
      name: 'the-server-knows-no-page',
      comment: 'The server serves what the build made.',
      severity: 'error',
      from: { path: '^(src|projections|migrations)/' },
      to: { path: '^console/' },
    },
    {
      name: 'no-cycles',
      comment: 'Decorated classes in an import cycle are undefined when the decorator runs.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only', 'dynamic-import'] } },
    },
    {
      name: 'no-barrels',
      comment: 'A file named index hides where a thing lives.',
      severity: 'error',
      from: {},
      to: { path: '^(src|projections|console)/.*index\\.tsx?$' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default', 'types'] },
  },
};
