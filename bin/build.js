// @ts-check
// Compiles the sources to dist, only if something changed since the last time; `node bin/build.js --force` compiles whatever the dates say.
import { spawnSync } from 'node:child_process';
import { existsSync, linkSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');
const compiler = join(root, 'node_modules', 'ts7', 'bin', 'tsc');
/** As old as the beginning of the build that made dist: an edit during a build is newer than it. */
const stamp = join(dist, '.built');
const lock = join(dist, '.building');

const SOURCES = ['src', 'projections', 'migrations'];
const SETTINGS = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];

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
  await takeLock();
  try {
    // Another process may have built while we waited.
    if (force || !isCurrent()) build();
  } finally {
    rmSync(lock, { force: true });
  }
}

function build() {
  const begun = `${stamp}.${process.pid}`;
  writeFileSync(begun, '');
  if (process.stderr.isTTY) process.stderr.write('compiling …\n');
  // The compiler trusts its notes about what it wrote before; without the files they describe, it would write nothing.
  if (!existsSync(stamp)) rmSync(join(dist, '.tsbuildinfo'), { force: true });
  const compiled = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], { cwd: root, encoding: 'utf8' });
  if (compiled.status !== 0) {
    rmSync(begun, { force: true });
    throw new Error(
      `The sources do not compile:\n${compiled.stdout ?? ''}${compiled.stderr ?? ''}${compiled.error?.message ?? ''}`.trimEnd(),
    );
  }
  for (const folder of SOURCES) removeOrphans(join(dist, folder), join(root, folder));
  renameSync(begun, stamp);
}

/** The compiler leaves the output of deleted sources behind, which would go on working by accident. */
function removeOrphans(/** @type {string} */ made, /** @type {string} */ source) {
  if (!existsSync(made)) return;
  for (const entry of readdirSync(made, { withFileTypes: true })) {
    const path = join(made, entry.name);
    const from = join(source, entry.name.replace(/\.js(\.map)?$/, '.ts'));
    if (!existsSync(from)) rmSync(path, { recursive: true });
    else if (entry.isDirectory()) removeOrphans(path, from);
  }
}

function isCurrent() {
  if (!existsSync(stamp)) return false;
  const built = statSync(stamp).mtimeMs;
  return (
    !SOURCES.some((folder) => changedSince(join(root, folder), built)) && !SETTINGS.some((file) => changedSince(join(root, file), built))
  );
}

/** Folders count as well: their date changes when a file is added or deleted. */
function changedSince(/** @type {string} */ path, /** @type {number} */ time) {
  if (!existsSync(path)) return false;
  const stats = statSync(path);
  // Equal counts as changed: dates have the grain of the system's clock tick.
  if (stats.mtimeMs >= time) return true;
  return stats.isDirectory() && readdirSync(path).some((name) => changedSince(join(path, name), time));
}

async function takeLock() {
  const mine = `${lock}.${process.pid}`;
  writeFileSync(mine, String(process.pid));
  try {
    for (;;) {
      try {
        // A link appears with its content, where a new file would be empty for a moment and its holder unknown.
        linkSync(mine, lock);
        return;
      } catch (error) {
        if (!isCode(error, 'EEXIST')) throw error;
      }
      const holder = lockHolder();
      if (holder !== undefined && !isAlive(holder)) breakLock(holder);
      await sleep(50);
    }
  } finally {
    rmSync(mine, { force: true });
  }
}

/** Only whoever moved the dead lock away may have broken it; a living one that was caught by the move is put back. */
function breakLock(/** @type {number} */ holder) {
  const broken = `${lock}.broken-${process.pid}`;
  try {
    renameSync(lock, broken);
    if (Number(readFileSync(broken, 'utf8')) !== holder) linkSync(broken, lock);
  } catch (error) {
    if (!isCode(error, 'ENOENT', 'EEXIST')) throw error;
  }
  rmSync(broken, { force: true });
}

function lockHolder() {
  try {
    return Number(readFileSync(lock, 'utf8'));
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function isAlive(/** @type {number} */ pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isCode(error, 'EPERM');
  }
}

function isCode(/** @type {unknown} */ error, /** @type {string[]} */ ...codes) {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    await ensureBuilt({ force: process.argv.includes('--force') });
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
