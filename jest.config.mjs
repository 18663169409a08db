export default {
  testEnvironment: 'node',
  // Jest leaves one core to itself, which on two means one file at a time; much of what these tests do is wait for processes.
  // An EventStoreDB that was given is one log for all files: what one leaves half written there would be another's to fold.
  maxWorkers: process.env.EVENTSTORE_URL ? 1 : '100%',
  workerIdleMemoryLimit: '400MB',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.spec.ts'],
  globalSetup: '<rootDir>/test/support/global-setup.mjs',
  globalTeardown: '<rootDir>/test/support/global-teardown.mjs',
  testTimeout: 30_000,
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        sourceMaps: 'inline',
        jsc: {
          target: 'es2022',
          keepClassNames: true,
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true },
        },
        module: { type: 'es6' },
      },
    ],
  },
};
