// Lets plain Node run the TypeScript of this project from its sources: `node --import ./test/support/typescript.mjs file.ts`, or
// `import './typescript.mjs'` before importing a .ts file. Types are not checked. Tests and the processes that they start load their code
// with it, so they run the same.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire, register } from 'node:module';
import { fileURLToPath } from 'node:url';
import { isMainThread } from 'node:worker_threads';

// Node loads the hooks below in a thread of their own, from this same file.
if (isMainThread) register(import.meta.url);

/** What a source was compiled to last: a file for each, and in it the digest of all that its text depends on. */
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/threadlog-typescript/', import.meta.url));

const { version } = createRequire(import.meta.url)('@swc/core/package.json');

const OPTIONS = {
  swcrc: false,
  configFile: false,
  sourceMaps: 'inline',
  jsc: {
    target: 'es2022',
    keepClassNames: true,
    parser: { syntax: 'typescript', decorators: true },
    transform: { legacyDecorator: true, decoratorMetadata: true },
  },
  module: { type: 'es6' },
};

/** @type {import('node:module').ResolveHook} */
export async function resolve(specifier, context, nextResolve) {
  if (specifier.startsWith('.') && specifier.endsWith('.js') && context.parentURL?.endsWith('.ts')) {
    const source = new URL(specifier.replace(/\.js$/, '.ts'), context.parentURL);
    if (existsSync(source)) return nextResolve(source.href, context);
  }
  return nextResolve(specifier, context);
}

/** @type {import('node:module').LoadHook} */
export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context);
  return { format: 'module', source: await compile(fileURLToPath(url)), shortCircuit: true };
}

async function compile(filename) {
  const source = await readFile(filename, 'utf8');
  const digest = createHash('sha256')
    .update(JSON.stringify([version, OPTIONS, filename, source]))
    .digest('hex');
  const cached = `${CACHE}${createHash('sha256').update(filename).digest('hex').slice(0, 32)}`;
  const known = await readFile(cached, 'utf8').catch(() => '');
  if (known.startsWith(digest)) return known.slice(digest.length);
  // Loading the compiler takes as long as a small process itself.
  const { transform } = await import('@swc/core');
  const { code } = await transform(source, { filename, ...OPTIONS });
  try {
    await mkdir(CACHE, { recursive: true });
    const whole = `${cached}.${process.pid}`;
    await writeFile(whole, `${digest}${code}`);
    await rename(whole, cached);
  } catch {
    // A folder that may not be written, or is gone: the next process compiles again.
  }
  return code;
}
