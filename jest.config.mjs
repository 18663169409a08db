export default {
  // Loads the program once in a worker; in Jest's own sandboxes every test file would load it anew.
  runtime: '<rootDir>/test/support/native-runtime.mjs',
  testEnvironment: '<rootDir>/test/support/native-environment.mjs',
  transform: {},
  testSequencer: '<rootDir>/test/support/longest-first.mjs',
  // Jest leaves one core to itself, which on two means one file at a time; much of what these tests do is wait for processes.
  // An EventStoreDB that was given is one log for all files: what one leaves half written there would be another's to fold.
  maxWorkers: process.env.EVENTSTORE_URL ? 1 : '100%',
  workerIdleMemoryLimit: '400MB',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.spec.ts'],
  globalSetup: '<rootDir>/test/support/global-setup.mjs',
  globalTeardown: '<rootDir>/test/support/global-teardown.mjs',
  testTimeout: 30_000,
};
