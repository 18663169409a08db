import { readFile, readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { EmbeddedPostgresError, isCode, messageOf, unlessAbsent } from './errors.js';
import { type ClusterHome, OWNER } from './postgres-cluster.js';
import { isAlive, run } from './programs.js';
import { ignoreFailure } from '../ignore-failure.js';

/** The application name of connections from processes that keep the server running. */
export const SUPERVISOR = 'threadlog supervisor';

/** A connection to the database `postgres` of a running server. */
export interface Session {
  readonly client: pg.Client;
  readonly pid: number;
  readonly port: number;
  /** Settles when the connection is gone. */
  readonly lost: Promise<unknown>;
}

/** Finds the process of this cluster's server. A pid file alone proves nothing, since another process may have its number by now. */
export async function findServer(home: ClusterHome): Promise<number | undefined> {
  const pid = Number((await pidFile(home))?.[0]);
  return pid > 0 && (await servesFrom(pid, home)) ? pid : undefined;
}

/** Whether the last server ended without a proper stop, so that its pid file is still there. */
export async function crashed(home: ClusterHome): Promise<boolean> {
  return (await pidFile(home)) !== undefined && (await findServer(home)) === undefined;
}

/**
 * Waits until the server with this pid lets us in.
 * @param limits.silence ms that a living server may be silent @param limits.patience ms that its recovery may take
 * @returns 'gone' when the process ended, 'silent' when it hangs
 * @throws EmbeddedPostgresError when waiting is useless
 */
export async function waitForSession(
  home: ClusterHome,
  pid: number,
  password: string,
  limits: { name: string; silence: number; patience: number; log?: (line: string) => void; signal?: AbortSignal },
): Promise<Session | 'gone' | 'silent'> {
  const began = Date.now();
  let heard = began;
  let told = began;
  for (;;) {
    limits.signal?.throwIfAborted();
    if (!(await isAlive(pid))) return 'gone';
    const port = await boundPort(home, pid);
    if (port !== undefined) {
      try {
        return { ...(await connect(port, password, limits.name)), pid, port };
      } catch (error) {
        if (isCode(error, '28P01', '28000')) {
          throw new EmbeddedPostgresError(
            `The PostgreSQL that runs on ${home.data} (process ${pid}, port ${port}) refuses the password in ${home.passwordFile}. ` +
              `Put the role ${OWNER}'s password of that server into the file, or set the role's password to the one in it.`,
            { cause: error },
          );
        }
        // 57P03: starting, recovering or shutting down. 53300: every connection is taken. Both are signs of life.
        if (isCode(error, '57P03', '53300')) heard = Date.now();
        if (isCode(error, '53300') && heard - began > limits.silence) {
          throw new EmbeddedPostgresError(
            `All connections of the PostgreSQL that runs on ${home.data} (port ${port}) are taken. Close some and start again.`,
            { cause: error },
          );
        }
        if (Date.now() - told > 5_000) {
          limits.log?.(`waiting for PostgreSQL: ${messageOf(error)}`);
          told = Date.now();
        }
      }
    }
    const now = Date.now();
    if (now - heard > limits.silence) return 'silent';
    if (now - began > limits.patience)
      throw new EmbeddedPostgresError(`PostgreSQL on ${home.data} is still not ready after ${Math.round((now - began) / 1000)} s.`);
    await sleep(now - began < 1_000 ? 10 : 100);
  }
}

/**
 * Ends the server by a fast shutdown. If it does not end within `patience` (ms), it is killed, and its next start recovers.
 * @throws EmbeddedPostgresError
 */
export async function endServer(home: ClusterHome, pid: number, patience: number): Promise<void> {
  for (const [signal, ms] of [
    ['SIGINT', patience],
    ['SIGQUIT', 3_000],
    ['SIGKILL', 5_000],
  ] as const) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (isCode(error, 'ESRCH')) return;
      throw new EmbeddedPostgresError(
        `Cannot end the PostgreSQL that runs on ${home.data} (process ${pid}): ${messageOf(error)}. End it yourself.`,
        { cause: error },
      );
    }
    for (const until = Date.now() + ms; Date.now() < until; await sleep(5)) if (!(await isAlive(pid))) return;
  }
  throw new EmbeddedPostgresError(
    `The PostgreSQL that runs on ${home.data} (process ${pid}) cannot be ended, not even by SIGKILL: its disk may hang.`,
  );
}

async function connect(port: number, password: string, name: string): Promise<Pick<Session, 'client' | 'lost'>> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: OWNER,
    password,
    database: 'postgres',
    application_name: name,
    connectionTimeoutMillis: 3_000,
    // A supervisor's connection is idle by design. A timeout that is meant for workers must not end it.
    options: '-c idle_session_timeout=0',
  });
  // An 'error' without a listener would end the process. The 'end' that follows is handled.
  client.on('error', () => undefined);
  const lost = new Promise((settle) => client.once('end', settle));
  try {
    await client.connect();
    return { client, lost };
  } catch (error) {
    await ignoreFailure(client.end(), 'the connection is given up either way');
    throw error;
  }
}

/** The port, once the server has bound it. Before that, another program may be listening there. */
async function boundPort(home: ClusterHome, pid: number): Promise<number | undefined> {
  const lines = await pidFile(home);
  const port = Number(lines?.[3]);
  return Number(lines?.[0]) === pid && port > 0 && (lines?.[5] ?? '').trim() !== '' ? port : undefined;
}

async function pidFile(home: ClusterHome): Promise<string[] | undefined> {
  return (await unlessAbsent(readFile(join(home.data, 'postmaster.pid'), 'utf8')))?.split('\n');
}

async function servesFrom(pid: number, home: ClusterHome): Promise<boolean> {
  if (!(await isAlive(pid))) return false;
  try {
    // The server's working directory is its data folder, even if the folder was moved.
    return (await readlink(`/proc/${pid}/cwd`)) === (await realpath(home.data));
  } catch {
    // There is no /proc (macOS), or no permission to read it.
    return (await run('ps', ['-o', 'args=', '-p', String(pid)])).output.includes(home.data);
  }
}
