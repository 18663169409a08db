// @ts-check
// Compiles the sources to dist, only if something changed since the last time; `node bin/build.js --force` compiles whatever the dates say.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readlinkSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
const compiler = join(root, 'node_modules', 'ts7', 'bin', 'tsc');
/** As old as the beginning of the build that made dist: an edit during a build is newer than it. */
const stamp = join(dist, '.built');
/** A link to the id of the process that builds: a link appears together with what it says. */
const lock = join(dist, '.lock');
const SOURCES = ['src', 'projections', 'migrations', 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];

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
    if (force || !isCurrent()) build();
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

function build() {
  const begun = `${stamp}.${process.pid}`;
  writeFileSync(begun, '');
  if (process.stderr.isTTY) process.stderr.write('compiling …\n');
  // The compiler trusts its notes about what it wrote before. Without the files they describe, it would write nothing.
  if (!existsSync(stamp)) rmSync(join(dist, '.tsbuildinfo'), { force: true });
  const compiled = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, encoding: 'utf8' });
  if (compiled.status !== 0) {
    rmSync(begun, { force: true });
    throw new Error(
      `The sources do not compile:\n${compiled.stdout ?? ''}${compiled.stderr ?? ''}${compiled.error?.message ?? ''}`.trimEnd(),
    );
  }
  // The compiler leaves the output of deleted sources behind, which would go on working by accident.
  for (const made of readdirSync(dist, { recursive: true }).map(String)) {
    const source = join(root, made.replace(/\.js(\.map)?$/, '.ts'));
    if (!made.startsWith('.') && !existsSync(source)) rmSync(join(dist, made), { recursive: true, force: true });
  }
  renameSync(begun, stamp);
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
