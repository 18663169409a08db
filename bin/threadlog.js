#!/usr/bin/env node
// @ts-check
import { ensureBuilt } from './build.js';

try {
  await ensureBuilt();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
process.setSourceMapsEnabled(true);
await import(new URL('../dist/src/cli/main.js', import.meta.url).href);
