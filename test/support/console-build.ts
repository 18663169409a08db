import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** Builds the console into dist/console, where an API that runs from its sources looks for it. It takes a third of a second. */
export async function buildConsole(): Promise<void> {
  await promisify(execFile)(process.execPath, [fileURLToPath(new URL('../../bin/build-console.js', import.meta.url))]);
}
