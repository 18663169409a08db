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
        'Events, state and decisions must fold the same on every machine and in every test, so they import types, errors, schemas, the form of typed texts and each other only.',
      severity: 'error',
      from: {
        path: '^src/(conversations/conversation|commands/claim|canned-responses/(canned-response|template)|visitors/visitor|companies/company|inboxes/inbox|team/assignee|organizations/organization|api-keys/api-key|views/view)\\.ts$',
      },
      to: {
        pathNot:
          '^(src/(errors|security/roles|texts/unseen-characters|event-store/(aggregate|event-store|schema-codec)|conversations/conversation\\.codec|canned-responses/template)\\.ts$|node_modules/zod/)',
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
      name: 'adapters-know-nothing-of-the-domain',
      comment: 'The port carries bytes; an adapter that knew an event would be a second codec.',
      severity: 'error',
      from: { path: '^src/event-store/' },
      to: {
        path: '^src/(conversations|visitors|commands|companies|inboxes|team|organizations|api-keys|canned-responses|views|read-models|audit|cli)/',
      },
    },
    {
      name: 'no-cycles',
      comment: 'Decorated classes in an import cycle are undefined when the decorator runs.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'no-barrels',
      comment: 'A file named index hides where a thing lives.',
      severity: 'error',
      from: {},
      to: { path: '^(src|projections)/.*index\\.ts$' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default', 'types'] },
  },
};
