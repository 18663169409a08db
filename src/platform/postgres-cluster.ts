import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { chown, lstat, mkdir, open, readFile, readdir, readlink, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Binaries, RunAs } from './postgres-binaries.js';
import { EmbeddedPostgresError, diskFull, isCode, run } from './postgres-binaries.js';

/** Where the embedded PostgreSQL of a data folder keeps its things. */
export interface ClusterHome {
  /** The folder that holds the rest. It appears whole or not at all. */
  readonly dir: string;
  /** PostgreSQL's own data folder. */
  readonly data: string;
  readonly passwordFile: string;
  readonly portFile: string;
  readonly runAs: RunAs | undefined;
}

/** The role that owns everything, and the database, of an embedded PostgreSQL. */
export const OWNER = 'threadlog';

/** Where root keeps the clusters of data folders that no other user can reach. */
const SYSTEM_FOLDER = '/var/lib/threadlog';
const NOTE = 'postgres-is-elsewhere.txt';

/** The home that exists, or undefined where the data folder has none yet. Writes nothing. */
export async function findHome(dataDir: string): Promise<ClusterHome | undefined> {
  const dir = await placeOf(dataDir);
  try {
    const { uid, gid } = await stat(dir);
    return homeAt(await realpath(dir), isRoot() ? { uid, gid } : undefined);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw new EmbeddedPostgresError(
      `Cannot look into ${dir}: ${messageOf(error)}. Run as the user that made it, or choose another DATA_DIR.`,
      { cause: error },
    );
  }
}

/**
 * The home to use, which need not exist yet. PostgreSQL refuses to run as root, so root runs it as the user who owns what is there, else as
 * `postgres`, a system user `threadlog` (made if possible) or `nobody`.
 *
 * The name DATA_DIR/postgres decides where the database is: it is the home itself, or a link to it. Both come into being at once and only
 * where nothing has that name, so processes that start together all end up with what the first of them made.
 */
export async function chooseHome(dataDir: string, log: (line: string) => void): Promise<ClusterHome> {
  await makeDataDir(dataDir);
  const existing = await findHome(dataDir);
  if (existing !== undefined) return isRoot() ? await reachable(existing) : await readable(existing);
  if (!isRoot()) return homeAt(join(await realpath(dataDir), 'postgres'), undefined);
  const runAs = await otherUser();
  const real = await realpath(dataDir);
  if (!(await canEnter(real, runAs))) await keepElsewhere(real, runAs, log);
  return homeAt(await placeOf(real), runAs);
}

/** Links DATA_DIR/postgres to a folder that PostgreSQL's user can reach, unless that name is taken by now. */
async function keepElsewhere(dataDir: string, runAs: RunAs, log: (line: string) => void): Promise<void> {
  // The random part keeps a new data folder from meeting the database of a deleted one that had the same path.
  const hash = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  const elsewhere = (await noted(dataDir)) ?? join(SYSTEM_FOLDER, `${hash}-${randomBytes(4).toString('hex')}`);
  await writing(SYSTEM_FOLDER, async () => makeOpenFolder(SYSTEM_FOLDER));
  try {
    await writing(dataDir, () => symlink(elsewhere, join(dataDir, 'postgres')), 'EEXIST');
  } catch (error) {
    if (isCode(error, 'EEXIST')) return;
    throw error;
  }
  const note =
    `${elsewhere}\n\nThe PostgreSQL of this data folder is kept in the folder above: PostgreSQL does not run as root, and the user that runs it (uid ${runAs.uid})\n` +
    `cannot reach this one. Back up both, and delete both to start afresh.\n`;
  await writing(dataDir, () => writeDurably(join(dataDir, NOTE), note));
  log(`PostgreSQL cannot run as root and user ${runAs.uid} cannot reach ${dataDir}: its files go to ${elsewhere} (${NOTE} says so)`);
}

/** Where the home is, or will be. */
async function placeOf(dataDir: string): Promise<string> {
  const name = join(resolve(dataDir), 'postgres');
  try {
    return await readlink(name);
  } catch (error) {
    // A folder, not a link.
    if (isCode(error, 'EINVAL')) return name;
    // Earlier builds wrote the note alone.
    if (isCode(error, 'ENOENT')) return (await noted(dataDir)) ?? name;
    throw error;
  }
}

/** Makes an empty cluster unless there is one, and refuses one of another major version. */
export async function ensureCluster(home: ClusterHome, binaries: Binaries, durable: boolean): Promise<void> {
  await clearUnfinished(home);
  const major = await majorOf(home);
  if (major === undefined) return makeCluster(home, binaries, durable);
  if (major !== binaries.major) {
    throw new EmbeddedPostgresError(
      `The data in ${home.dir} was made by PostgreSQL ${major}, and the installed one is ${binaries.major}, which cannot read it. ` +
        `Go back to the version of Threadlog that made it and dump the database (pg_dump), or move ${home.dir} away to start with an empty one.`,
    );
  }
}

/** The password of the role `threadlog`. */
export async function readPassword(home: ClusterHome): Promise<string> {
  let password: string;
  try {
    password = (await readFile(home.passwordFile, 'utf8')).trim();
  } catch (error) {
    throw new EmbeddedPostgresError(
      `Cannot read the database password in ${home.passwordFile}: ${messageOf(error)}. Run as the user that made it, or bring the file back from a backup.`,
      { cause: error },
    );
  }
  if (password === '')
    throw new EmbeddedPostgresError(`The database password in ${home.passwordFile} is empty. Bring the file back from a backup.`);
  return password;
}

/** The port of the last start, or undefined. */
export async function rememberedPort(home: ClusterHome): Promise<number | undefined> {
  try {
    const port = Number((await readFile(home.portFile, 'utf8')).trim());
    return Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Keeps the port, so that a connection string noted today still works tomorrow. */
export async function rememberPort(home: ClusterHome, port: number): Promise<void> {
  if ((await rememberedPort(home)) === port) return;
  await writeDurably(home.portFile, `${port}\n`);
}

async function makeCluster(home: ClusterHome, binaries: Binaries, durable: boolean): Promise<void> {
  // Everything is made under another name and renamed when whole: a kill in the middle leaves nothing that looks like a cluster.
  const unfinished = homeAt(`${home.dir}.new-${process.pid}-${randomBytes(4).toString('hex')}`, home.runAs);
  await writing(dirname(home.dir), async () => {
    await mkdir(unfinished.dir, { mode: 0o700 });
    await writeDurably(unfinished.passwordFile, `${randomBytes(24).toString('hex')}\n`);
    if (home.runAs !== undefined) {
      await chown(unfinished.passwordFile, home.runAs.uid, home.runAs.gid);
      await chown(unfinished.dir, home.runAs.uid, home.runAs.gid);
    }
  });
  try {
    await initdb(unfinished, binaries, durable);
    await rename(unfinished.dir, home.dir);
    await syncFolder(dirname(home.dir));
  } catch (error) {
    await rm(unfinished.dir, { recursive: true, force: true });
    // Another process was faster, with a cluster or (ENOTDIR) with a link to where its cluster will be.
    if (!isCode(error, 'ENOTEMPTY', 'EEXIST', 'ENOTDIR')) throw error;
  }
}

async function initdb(home: ClusterHome, binaries: Binaries, durable: boolean): Promise<void> {
  let output = '';
  // The collation is PostgreSQL's own, so an upgrade of the system's C library can never unsort an index. The system's locale only classifies
  // letters for search; not every system has C.UTF-8.
  for (const locale of ['C.UTF-8', 'en_US.UTF-8', 'C']) {
    const args = [
      '-D',
      home.data,
      '-U',
      OWNER,
      `--pwfile=${home.passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      `--locale=${locale}`,
    ];
    args.push('--locale-provider=builtin', '--builtin-locale=C.UTF-8', ...(durable ? [] : ['--no-sync']));
    const ran = await run(binaries.initdb, args, home.runAs);
    if (ran.ok) return;
    output = ran.output;
    if (!output.includes('invalid locale')) break;
  }
  if (saysDiskFull(output)) throw diskFull(home.dir);
  throw new EmbeddedPostgresError(`PostgreSQL could not make its data folder ${home.data}:\n${indent(output)}`);
}

async function majorOf(home: ClusterHome): Promise<string | undefined> {
  try {
    return (await readFile(join(home.data, 'PG_VERSION'), 'utf8')).trim();
  } catch (error) {
    if (!isCode(error, 'ENOENT')) throw error;
  }
  try {
    // An empty folder is no cluster and harms nobody: the rename replaces it.
    if ((await readdir(home.dir)).length === 0) return undefined;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
  throw new EmbeddedPostgresError(
    `${home.dir} exists and holds no PostgreSQL data (${join(home.data, 'PG_VERSION')} is missing). Bring it back from a backup, or move it away to start with an empty database.`,
  );
}

/** Removes what a killed process left half made; one that is still being made by a living process stays. */
async function clearUnfinished(home: ClusterHome): Promise<void> {
  const parent = dirname(home.dir);
  for (const name of await readdir(parent)) {
    const maker = name.startsWith(`${basename(home.dir)}.new-`) ? Number(/\.new-(\d+)-/.exec(name)?.[1]) : Number.NaN;
    if (!Number.isInteger(maker) || processExists(maker)) continue;
    try {
      await rm(join(parent, name), { recursive: true, force: true });
    } catch (error) {
      // Its initdb outlived it and is still writing. The next start gets rid of it.
      if (!isCode(error, 'ENOTEMPTY', 'EBUSY')) throw error;
    }
  }
}

async function makeDataDir(dataDir: string): Promise<void> {
  await writing(dataDir, async () => {
    makeOpenFolder(dataDir);
    const probe = join(dataDir, `.writable-${process.pid}-${randomBytes(4).toString('hex')}`);
    await writeFile(probe, '');
    await rm(probe);
  });
}

/**
 * A folder that PostgreSQL's user gets through, whatever the umask: the secrets in it are closed one by one. It is never seen in a closed
 * state, in which another process would take it for one that is closed on purpose.
 */
function makeOpenFolder(folder: string): void {
  const umask = process.umask(0o022);
  try {
    mkdirSync(folder, { recursive: true });
  } finally {
    process.umask(umask);
  }
}

async function noted(dataDir: string): Promise<string | undefined> {
  try {
    const [path] = (await readFile(join(dataDir, NOTE), 'utf8')).split('\n');
    return path === undefined || path === '' ? undefined : path;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw new EmbeddedPostgresError(`Cannot read ${join(dataDir, NOTE)}: ${messageOf(error)}. Run as the user that made it.`, {
      cause: error,
    });
  }
}

/** Root: a home that was copied or unpacked by root belongs to root, and PostgreSQL runs as nobody but its owner. */
async function reachable(home: ClusterHome): Promise<ClusterHome> {
  const runAs = home.runAs === undefined || home.runAs.uid === 0 ? await otherUser() : home.runAs;
  if (home.runAs?.uid !== runAs.uid) await chownAll(home.dir, runAs);
  if (!(await canEnter(home.dir, runAs))) {
    throw new EmbeddedPostgresError(
      `PostgreSQL does not run as root, and the user that owns its files (uid ${runAs.uid}) cannot reach ${home.dir}. ` +
        `Open the folders above it to that user (chmod o+x), or move the data folder to where it can.`,
    );
  }
  return { ...home, runAs };
}

async function readable(home: ClusterHome): Promise<ClusterHome> {
  const { uid } = await stat(home.dir);
  if (uid !== process.getuid?.()) {
    throw new EmbeddedPostgresError(
      `${home.dir} belongs to another user (uid ${uid}): Threadlog was started here as root or by somebody else. Run it as before, ` +
        `give the folder to the current user (sudo chown -R $(id -u) ${home.dir}), or choose another DATA_DIR.`,
    );
  }
  return home;
}

async function chownAll(path: string, to: RunAs): Promise<void> {
  if ((await lstat(path)).isSymbolicLink()) return;
  await chown(path, to.uid, to.gid);
  if ((await lstat(path)).isDirectory()) for (const name of await readdir(path)) await chownAll(join(path, name), to);
}

async function otherUser(): Promise<RunAs> {
  const existing = (await idsOf('postgres')) ?? (await idsOf(OWNER));
  if (existing !== undefined) return existing;
  await run('useradd', ['--system', '--no-create-home', '--user-group', '--shell', '/usr/sbin/nologin', OWNER]);
  const user = (await idsOf(OWNER)) ?? (await idsOf('nobody'));
  if (user !== undefined) return user;
  throw new EmbeddedPostgresError(
    'PostgreSQL does not run as root, and there is no other user to run it as. Start Threadlog as a plain user, make a user named postgres, or set DATABASE_URL.',
  );
}

async function idsOf(user: string): Promise<RunAs | undefined> {
  const [uid, gid] = await Promise.all([run('id', ['-u', user]), run('id', ['-g', user])]);
  return uid.ok && gid.ok ? { uid: Number(uid.output), gid: Number(gid.output) } : undefined;
}

async function canEnter(folder: string, as: RunAs): Promise<boolean> {
  return (await run('/bin/sh', ['-c', 'cd -- "$1"', 'sh', folder], as)).ok;
}

function homeAt(dir: string, runAs: RunAs | undefined): ClusterHome {
  return { dir, data: join(dir, 'data'), passwordFile: join(dir, 'password'), portFile: join(dir, 'port'), runAs };
}

async function writeDurably(file: string, text: string): Promise<void> {
  const unfinished = `${file}.new-${process.pid}`;
  const handle = await open(unfinished, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(unfinished, file);
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Says in words for people why `work` could not write in `folder`. @param expected a code that the caller deals with */
async function writing<T>(folder: string, work: () => Promise<T>, expected?: string): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (expected !== undefined && isCode(error, expected)) throw error;
    if (isCode(error, 'ENOSPC', 'EDQUOT')) throw diskFull(folder);
    if (isCode(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST')) {
      throw new EmbeddedPostgresError(
        `Cannot write in ${folder}: ${messageOf(error)}. Make it writable for the current user, or choose another DATA_DIR.`,
        { cause: error },
      );
    }
    throw error;
  }
}

/** PostgreSQL's several ways to say it. */
export function saysDiskFull(output: string): boolean {
  return /No space left on device|Check free disk space|Disk quota exceeded/.test(output);
}

/** True for a process of any user, and for one that ended and was not yet collected by its parent. */
export function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isCode(error, 'EPERM');
  }
}

/** The last lines of a program's output, set off from our own words. */
export function indent(text: string): string {
  return text
    .trim()
    .split('\n')
    .slice(-12)
    .map((line) => `  ${line}`)
    .join('\n');
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}
