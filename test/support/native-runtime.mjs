// Loads test files as plain Node loads a program, in place of Jest's runtime: an import happens once in a worker, and not again in a sandbox
// of each file, where loading this program takes longer than most files' tests. Jest itself still runs, times and reports the tests.
// What sets in from the second file on: files of one worker share the modules of `src`, and what those hold.
// test/native-runtime.spec.ts proves what Jest promises over it; see it pass before another version of Jest.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import './typescript.mjs';

const require = createRequire(import.meta.url);
/** Where jest-circus keeps what listens to its events, for all of a process. */
const LISTENERS = Symbol.for('EVENT_HANDLERS');

// A stack must name the lines of the source.
process.setSourceMapsEnabled(true);

/** What Jest asks of a runtime to run a file. Module mocks, `jest.…` and coverage need its own. */
export default class NativeRuntime {
  /** Gives jest-circus anew: its modules hold the tests of one file. */
  requireInternalModule(path) {
    delete globalThis[LISTENERS];
    delete require.cache[path];
    return require(path);
  }

  requireModule(path) {
    return require(path);
  }

  unstable_shouldLoadAsEsm() {
    return true;
  }

  unstable_importModule(path) {
    return import(pathToFileURL(path).href);
  }

  getSourceMaps() {
    return new Map();
  }

  getAllCoverageInfoCopy() {
    return undefined;
  }

  setGlobalsForRuntime() {}
  enterTestCode() {}
  leaveTestCode() {}
  restoreAllMocks() {}
  teardown() {}
}
