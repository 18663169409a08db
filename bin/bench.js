// @ts-check
// The server under measurement is the build; the bench itself is run from its sources.
import { register } from 'node:module';
import { ensureBuilt } from './build.js';

try {
  await ensureBuilt();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
register('../test/support/typescript.mjs', import.meta.url);
await import(new URL('../test/bench/main.ts', import.meta.url).href);
