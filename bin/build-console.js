// @ts-check
// Bundles the web console: the page's script, style sheet and icon with their contents' hashes in their names, each also compressed, and a
// manifest that tells the server of them. By rolldown, which bundles the programs too: esbuild would do the same and be one more tool.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = join(root, 'console');

const TYPES = /** @type {const} */ ({
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
  html: 'text/html; charset=utf-8',
});

/**
 * @param {string} [into] a folder, made if it is not there; readers of the folder find either the old build or the new one
 * @returns {Promise<void>} nothing is done where there is no console
 */
export async function buildConsole(into = join(root, 'dist', 'console')) {
  if (!existsSync(sources)) return;
  const script = await bundle();
  /** @type {Map<string, Buffer>} */
  const files = new Map();
  const add = (/** @type {string} */ name, /** @type {string} */ end, /** @type {Buffer} */ content) => {
    const hash = createHash('sha256').update(content).digest('base64url').replaceAll(/[-_]/g, '').slice(0, 10);
    const named = `${name}-${hash}.${end}`;
    files.set(`assets/${named}`, content);
    return named;
  };
  const names = {
    SCRIPT: add('console', 'js', Buffer.from(script)),
    STYLE: add('style', 'css', readFileSync(join(sources, 'style.css'))),
    ICON: add('icon', 'svg', readFileSync(join(sources, 'icon.svg'))),
  };
  const page = Object.entries(names).reduce(
    (text, [name, file]) => text.replace(`%${name}%`, file),
    readFileSync(join(sources, 'index.html'), 'utf8'),
  );
  files.set('index.html', Buffer.from(page));

  mkdirSync(join(into, 'assets'), { recursive: true });
  /** @type {Record<string, { type: string, encodings: string[] }>} */
  const manifest = {};
  const written = new Set(['manifest.json']);
  const write = (/** @type {string} */ name, /** @type {Buffer} */ content) => {
    // Two tests may build at once: nobody reads half a file.
    const part = join(into, `${name}.${process.pid}.part`);
    writeFileSync(part, content);
    renameSync(part, join(into, name));
    written.add(name);
  };
  for (const [name, content] of files) {
    write(name, content);
    write(`${name}.gz`, gzipSync(content, { level: 9 }));
    write(`${name}.br`, brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: content.length } }));
    const end = /** @type {keyof typeof TYPES} */ (name.slice(name.lastIndexOf('.') + 1));
    manifest[name] = { type: TYPES[end], encodings: ['br', 'gzip'] };
  }
  write('manifest.json', Buffer.from(JSON.stringify({ files: manifest })));
  for (const name of readdirSync(into, { recursive: true }).map(String))
    if (name !== 'assets' && !written.has(name.replaceAll('\\', '/')) && !name.endsWith('.part')) rmSync(join(into, name), { force: true });
}

async function bundle() {
  const { rolldown } = await import('rolldown');
  const bundled = await rolldown({
    cwd: root,
    input: join(sources, 'main.tsx'),
    platform: 'browser',
    tsconfig: join(sources, 'tsconfig.json'),
  });
  const { output } = await bundled.generate({ format: 'esm', minify: true });
  await bundled.close();
  const [script] = output;
  if (output.length !== 1) throw new Error('the console has more than one script: split it and serve the others too');
  return script.code;
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await buildConsole();
