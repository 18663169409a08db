// The environment of test files under native-runtime.mjs: Node's own globals. What a file changes of its process is put back behind it, so
// that the worker's next file begins as if it were the first.

import { findSourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';

/** What asks a process to end. A listener that a file leaves would answer for the next one. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];

export default class NativeEnvironment {
  global = globalThis;
  /** Jest asks for these three, and uses them for `jest.…` alone. */
  moduleMocker = {};
  fakeTimers = null;
  fakeTimersModern = null;

  // Jest puts the file's console and its own process.exit in place after this and before setup().
  #before = {
    env: { ...process.env },
    folder: process.cwd(),
    console: globalThis.console,
    exit: Object.getOwnPropertyDescriptor(process, 'exit'),
    exitCode: process.exitCode,
    listeners: new Map(SIGNALS.map((signal) => [signal, process.rawListeners(signal)])),
  };

  async setup() {
    // In place of Jest's, which reads the source maps of its own transforms alone.
    Error.prepareStackTrace = stackOfSources;
  }

  async teardown() {
    const { env, folder, console, exit, exitCode, listeners } = this.#before;
    for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name];
    Object.assign(process.env, env);
    process.chdir(folder);
    globalThis.console = console;
    Object.defineProperty(process, 'exit', exit);
    process.exitCode = exitCode;
    for (const [signal, before] of listeners) {
      for (const listener of process.rawListeners(signal)) if (!before.includes(listener)) process.off(signal, listener);
    }
  }

  exportConditions() {
    return ['node', 'node-addons'];
  }

  getVmContext() {
    return null;
  }
}

/**
 * A stack with the lines of the sources, by the maps that typescript.mjs gives Node. Node's own one calls code outside functions `<anonymous>`,
 * and Jest shows no such frame.
 */
function stackOfSources(error, frames) {
  return [`${error}`, ...frames.map((frame) => `    at ${inSource(frame)}`)].join('\n');
}

function inSource(frame) {
  const url = frame.getFileName();
  const line = frame.getLineNumber();
  const column = frame.getColumnNumber();
  const found = url?.startsWith('file:') && line && column ? findSourceMap(url)?.findEntry(line - 1, column - 1) : undefined;
  if (found?.originalLine === undefined) return String(frame);
  return String(frame).replace(`${url}:${line}:${column}`, `${fileURLToPath(url)}:${found.originalLine + 1}:${found.originalColumn + 1}`);
}
