import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, readFile, readdir, readlink, realpath, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { EmbeddedPostgresError, isCode, lastWords, messageOf, unlessAbsent } from './errors.js';
import { diskFull, makeOpenFolder, makeWhole, saysDiskFull, writing } from './folders.js';
import { type Binaries, findBinaries } from './postgres-binaries.js';
import { type RunAs, run } from './programs.js';

/** The folders and files of a data folder's embedded PostgreSQL. */
export interface ClusterHome {
  /** The folder that holds all others. It appears complete or not at all. */
  readonly dir: string;
  /** PostgreSQL's own data folder. */
  readonly data: string;
  readonly passwordFile: string;
  readonly runAs: RunAs | undefined;
}

/** A cluster that exists, and the programs for it. */
export interface Cluster {
  readonly home: ClusterHome;
  readonly binaries: Binaries;
}

/** The name of an embedded PostgreSQL's database, and of the role that owns everything in it. */
export const OWNER = 'threadlog';

/** The folder where root keeps the clusters of data folders that no other user can reach. */
const SYSTEM_FOLDER = '/var/lib/threadlog';
const NOTE = 'postgres-is-elsewhere.txt';

/** Finds the existing home, or undefined when the data folder has none yet. Writes nothing. */
export async function findHome(dataDir: string): Promise<ClusterHome | undefined> {
  try {
    const dir = await placeOf(dataDir);
    const owner = await unlessAbsent(stat(dir));
    return owner && homeAt(await realpath(dir), isRoot() ? { uid: owner.uid, gid: owner.gid } : undefined);
  } catch (error) {
    throw new EmbeddedPostgresError(
      `Cannot look into ${dataDir}: ${messageOf(error)}. Run as the user that made it, or choose another DATA_DIR.`,
      { cause: error },
    );
  }
}

/**
 * Opens the cluster of a data folder, or makes it if there is none.
 *
 * The name DATA_DIR/postgres decides where the cluster is: it is the cluster's home, or a link to it. Home and link both appear atomically,
 * and only when nothing has that name. So processes that start together all use the cluster that the first of them made, even if they would
 * have chosen another folder or user.
 * @param durable whether new files are flushed to the disk
 * @throws EmbeddedPostgresError
 */
export async function openCluster(dataDir: string, durable: boolean, log: (line: string) => void): Promise<Cluster> {
  await writing(dataDir, async () => {
    makeOpenFolder(dataDir);
    await access(dataDir, constants.W_OK);
  });
  for (;;) {
    const chosen = await chooseHome(await realpath(dataDir), log);
    const binaries = await findBinaries(dirname(chosen.dir), chosen.runAs, log);
    const major = await majorOf(chosen);
    if (major === undefined) await makeCluster(chosen, binaries, durable);
    else if (major !== binaries.major) {
      throw new EmbeddedPostgresError(
        `The data in ${chosen.dir} was made by PostgreSQL ${major}, and the installed one is ${binaries.major}, which cannot read it. ` +
          `Go back to the version of Threadlog that made it and dump the database (pg_dump), or move ${chosen.dir} away to start with an empty one.`,
      );
    }
    const home = await findHome(dataDir);
    if (home !== undefined) return { home, binaries };
  }
}

/** The password of the role `threadlog`. */
export async function readPassword({ passwordFile }: ClusterHome): Promise<string> {
  let problem = 'it is empty';
  const text = await readFile(passwordFile, 'utf8').catch((error: unknown) => void (problem = messageOf(error)));
  if (text?.trim()) return text.trim();
  throw new EmbeddedPostgresError(
    `Cannot read the database password in ${passwordFile}: ${problem}. Run as the user that made it, or bring the file back from a backup.`,
  );
}

/**
 * The port of the last server, which PostgreSQL stores with its other options. It is used again, so that connection strings that people
 * have saved stay valid.
 */
export async function lastPort(home: ClusterHome): Promise<number | undefined> {
  const options = await unlessAbsent(readFile(join(home.data, 'postmaster.opts'), 'utf8'));
  const port = /"-p" "(\d+)"/.exec(options ?? '')?.[1];
  return port === undefined ? undefined : Number(port);
}

/**
 * The home to use, which need not exist yet. PostgreSQL refuses to run as root, so root runs it as the owner of the existing files, or else
 * as `postgres`, a system user `threadlog` (made if possible) or `nobody`.
 */
async function chooseHome(dataDir: string, log: (line: string) => void): Promise<ClusterHome> {
  const existing = await findHome(dataDir);
  if (!isRoot()) return existing === undefined ? homeAt(join(dataDir, 'postgres'), undefined) : ownHome(existing);
  if (existing !== undefined) return await reachableHome(existing);
  const runAs = await otherUser();
  if (!(await canEnter(dataDir, runAs))) await keepElsewhere(dataDir, runAs, log);
  return homeAt(await placeOf(dataDir), runAs);
}

/** Links DATA_DIR/postgres to a folder that PostgreSQL's user can reach, unless the name has been taken meanwhile. */
async function keepElsewhere(dataDir: string, runAs: RunAs, log: (line: string) => void): Promise<void> {
  // The random part keeps a new data folder from getting the database of a deleted folder with the same path.
  const hash = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  const elsewhere = join(SYSTEM_FOLDER, `${hash}-${randomBytes(4).toString('hex')}`);
  await writing(SYSTEM_FOLDER, async () => makeOpenFolder(SYSTEM_FOLDER));
  await writing(dataDir, async () => {
    try {
      await symlink(elsewhere, join(dataDir, 'postgres'));
    } catch (error) {
      if (isCode(error, 'EEXIST')) return;
      throw error;
    }
    const note =
      `${elsewhere}\n\nThe PostgreSQL of this data folder is kept in the folder above: PostgreSQL does not run as root, and the user that runs it (uid ${runAs.uid})\n` +
      `cannot reach this one. Back up both, and delete both to start afresh.\n`;
    await writeFile(join(dataDir, NOTE), note);
    log(`PostgreSQL cannot run as root and user ${runAs.uid} cannot reach ${dataDir}: its files go to ${elsewhere} (${NOTE} says so)`);
  });
}

/** The path where the home is or will be. */
async function placeOf(dataDir: string): Promise<string> {
  const name = join(resolve(dataDir), 'postgres');
  try {
    return await readlink(name);
  } catch (error) {
    // A folder, or nothing yet. Earlier builds made no link and only wrote the note.
    if (isCode(error, 'EINVAL')) return name;
    if (isCode(error, 'ENOENT')) return (await noted(dataDir)) ?? name;
    throw error;
  }
}

async function noted(dataDir: string): Promise<string | undefined> {
  return (await unlessAbsent(readFile(join(dataDir, NOTE), 'utf8')))?.split('\n')[0];
}

async function makeCluster(home: ClusterHome, binaries: Binaries, durable: boolean): Promise<void> {
  await makeWhole(home.dir, async (dir) => {
    const unfinished = homeAt(dir, home.runAs);
    await mkdir(dir, { mode: 0o700 });
    await writeFile(unfinished.passwordFile, `${randomBytes(24).toString('hex')}\n`, { mode: 0o600, flush: true });
    if (home.runAs !== undefined) await giveTo(home.runAs, dir);
    await initdb(unfinished, binaries, durable);
  });
}

async function initdb(home: ClusterHome, binaries: Binaries, durable: boolean): Promise<void> {
  const args = ['-D', home.data, '-U', OWNER, `--pwfile=${home.passwordFile}`, '--auth=scram-sha-256', '--encoding=UTF8'];
  // The collation is PostgreSQL's own, so that an upgrade of the system's C library can never break the order of an index.
  args.push('--locale-provider=builtin', '--builtin-locale=C.UTF-8', ...(durable ? [] : ['--no-sync']));
  let output = '';
  // The system's locale only classifies letters for search; not every system has C.UTF-8.
  for (const locale of ['C.UTF-8', 'en_US.UTF-8', 'C']) {
    const ran = await run(binaries.initdb, [...args, `--locale=${locale}`], home.runAs);
    if (ran.ok) return;
    output = ran.output;
    if (!output.includes('invalid locale')) break;
  }
  if (saysDiskFull(output)) throw diskFull(home.dir);
  throw new EmbeddedPostgresError(`PostgreSQL could not make its data folder ${home.data}:\n${lastWords(output)}`);
}

/** The major version of the cluster, or undefined when there is none. An empty folder counts as none, and the new cluster replaces it. */
async function majorOf(home: ClusterHome): Promise<string | undefined> {
  const major = await unlessAbsent(readFile(join(home.data, 'PG_VERSION'), 'utf8'));
  if (major !== undefined) return major.trim();
  const names = await unlessAbsent(readdir(home.dir));
  if (names === undefined || names.length === 0) return undefined;
  throw new EmbeddedPostgresError(
    `${home.dir} exists and holds no PostgreSQL data (${join(home.data, 'PG_VERSION')} is missing). Bring it back from a backup, or move it away to start with an empty database.`,
  );
}

/** For root. A home that root copied or unpacked belongs to root, but PostgreSQL runs only as the owner of its files. */
async function reachableHome(home: ClusterHome): Promise<ClusterHome> {
  const runAs = home.runAs === undefined || home.runAs.uid === 0 ? await otherUser() : home.runAs;
  if (home.runAs?.uid !== runAs.uid) await giveTo(runAs, home.dir);
  if (!(await canEnter(home.dir, runAs))) {
    throw new EmbeddedPostgresError(
      `PostgreSQL does not run as root, and the user that owns its files (uid ${runAs.uid}) cannot reach ${home.dir}. ` +
        `Open the folders above it to that user (chmod o+x), or move the data folder to where it can.`,
    );
  }
  return { ...home, runAs };
}

/** For a plain user. */
async function ownHome(home: ClusterHome): Promise<ClusterHome> {
  const { uid } = await stat(home.dir);
  if (uid === process.getuid?.()) return home;
  throw new EmbeddedPostgresError(
    `${home.dir} belongs to another user (uid ${uid}): Threadlog was started here as root or by somebody else. Run it as before, ` +
      `give the folder to the current user (sudo chown -R $(id -u) ${home.dir}), or choose another DATA_DIR.`,
  );
}

async function giveTo({ uid, gid }: RunAs, folder: string): Promise<void> {
  const given = await run('chown', ['-R', '-h', `${uid}:${gid}`, folder]);
  if (!given.ok) throw new EmbeddedPostgresError(`Cannot give ${folder} to the user that runs PostgreSQL (uid ${uid}): ${given.output}`);
}

async function otherUser(): Promise<RunAs> {
  const existing = (await idsOf('postgres')) ?? (await idsOf(OWNER));
  if (existing !== undefined) return existing;
  await run('useradd', ['--system', '--no-create-home', '--user-group', '--shell', '/usr/sbin/nologin', OWNER]);
  // Another process may have made the user first.
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
  return { dir, data: join(dir, 'data'), passwordFile: join(dir, 'password'), runAs };
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}
