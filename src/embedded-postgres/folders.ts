import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { EmbeddedPostgresError, isCode, messageOf } from './errors.js';
import { isAlive } from './programs.js';

/**
 * Makes the folder `path` under another name and renames it when it is complete, so that a kill in the middle leaves nothing that looks
 * finished. Does nothing when another process was faster: its folder is as good as ours, and may be in use.
 */
export async function makeWhole(path: string, make: (unfinished: string) => Promise<void>): Promise<void> {
  await removeUnfinished(path);
  const unfinished = `${path}.new-${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    await writing(dirname(path), () => make(unfinished));
    await rename(unfinished, path);
    await syncFolder(dirname(path));
  } catch (error) {
    // ENOTDIR: the other process made a link to a folder.
    if (!isCode(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR')) throw error;
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/** Removes the unfinished folders of killed processes. */
async function removeUnfinished(path: string): Promise<void> {
  for (const name of await readdir(dirname(path))) {
    const maker = name.startsWith(`${basename(path)}.new-`) ? Number(/\.new-(\d+)-/.exec(name)?.[1]) : Number.NaN;
    if (!Number.isInteger(maker) || (await isAlive(maker))) continue;
    try {
      await rm(join(dirname(path), name), { recursive: true, force: true });
    } catch (error) {
      // The initdb of a killed process is still writing. The next start removes the folder.
      if (!isCode(error, 'ENOTEMPTY', 'EBUSY')) throw error;
    }
  }
}

/**
 * Makes a folder that PostgreSQL's user can enter, whatever the umask is; each secret in it is protected by itself. The folder is never
 * closed even for a moment, since another process would take that for intended.
 */
export function makeOpenFolder(folder: string): void {
  const umask = process.umask(0o022);
  try {
    mkdirSync(folder, { recursive: true });
  } finally {
    process.umask(umask);
  }
}

/** Runs `work`, which writes in `folder`. If the writing fails, the error explains the cause to people. */
export async function writing<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isCode(error, 'ENOSPC', 'EDQUOT')) throw diskFull(folder);
    if (!isCode(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST')) throw error;
    throw new EmbeddedPostgresError(
      `Cannot write in ${folder}: ${messageOf(error)}. Make it writable for the current user, or choose another DATA_DIR.`,
      { cause: error },
    );
  }
}

/** Whether PostgreSQL says, in one of its several ways, that the disk is full. */
export function saysDiskFull(output: string): boolean {
  return /No space left on device|Check free disk space|Disk quota exceeded/.test(output);
}

export function diskFull(folder: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `The disk that holds ${folder} is full. Free some space (PostgreSQL needs about 200 MB to begin with) and start again.`,
  );
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
