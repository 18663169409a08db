import { availableParallelism } from 'node:os';

export default {
  // Loads the program once in a worker; in Jest's own sandboxes every test file would load it anew.
  runtime: '<rootDir>/test/support/native-runtime.mjs',
  testEnvironment: '<rootDir>/test/support/native-environment.mjs',
  transform: {},
  testSequencer: '<rootDir>/test/support/longest-first.mjs',
  // Jest leaves one core to itself, which on two means one file at a time. Much of what these tests do is wait, for deadlines, for leases that
  // run out and for processes that start, so that one file more than there are cores keeps them busy.
  // An EventStoreDB that was given is one log for all files: what one leaves half written there would be another's to fold.
  maxWorkers: process.env.EVENTSTORE_URL ? 1 : availableParallelism() + 1,
  // A new worker loads the program again, which takes one to three seconds of a core.
  workerIdleMemoryLimit: '700MB',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.spec.ts'],
  globalSetup: '<rootDir>/test/support/global-setup.mjs',
  globalTeardown: '<rootDir>/test/support/global-teardown.mjs',
  testTimeout: 30_000,
};
