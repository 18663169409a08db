import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { copyFile, readFile, rm, stat, truncate } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { EmbeddedPostgresError, isCode, lastWords, messageOf, unlessAbsent } from './errors.js';
import { diskFull, saysDiskFull } from './folders.js';
import { type Cluster, type ClusterHome, OWNER, findHome, lastPort, openCluster, readPassword } from './postgres-cluster.js';
import { BARE_ENVIRONMENT } from './programs.js';
import { SUPERVISOR, type Session, crashed, endServer, findServer, waitForSession } from './server-process.js';

export interface EmbeddedPostgresOptions {
  /** Is made if absent. Two processes that name the same folder share one server. */
  readonly dataDir: string;
  /** Gets whole lines that say what happens, without secrets. */
  readonly log?: (line: string) => void;
  /** Server settings that add to or override the usual ones, such as `{ fsync: 'off' }` in tests. `port` fixes the port. */
  readonly settings?: Readonly<Record<string, string>>;
  /** How long (ms) to wait until the process that stopped the server starts it again, before we start it. 30 s by default. */
  readonly absenceMs?: number;
}

export interface EmbeddedPostgres {
  /** `postgres://threadlog:…@127.0.0.1:PORT/threadlog`. It stays the same while the server is restarted. */
  readonly url: string;
  /** True when the server was already running. */
  readonly adopted: boolean;
  /**
   * Ends the server if we started it, or if no other process keeps it running; otherwise the server goes on. Does not reject when the
   * server is already gone.
   */
  stop(): Promise<void>;
}

/** How long (ms) a running server may be silent before it counts as hung. */
const SILENCE_MS = 10_000;
/** How long (ms) a server that we start may be silent. */
const FIRST_SILENCE_MS = 60_000;
/** How long (ms) crash recovery may take. It is bounded by max_wal_size and takes seconds. */
const RECOVERY_MS = 600_000;
/** How long (ms) a server may go on accepting our connections and then cutting them. */
const REENTRY_MS = 30_000;
const LOG_BYTES = 8 * 1024 * 1024;

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  // Loopback TCP reaches nine tenths of a socket's speed, and a socket's path is limited in length.
  unix_socket_directories: '',
  cluster_name: 'threadlog',
  shared_buffers: '128MB',
  max_connections: '100',
  // Nobody replicates from an embedded server, and with this setting rebuilds load tables without the WAL. Crash safety is the same.
  wal_level: 'minimal',
  max_wal_senders: '0',
  timezone: 'UTC',
  log_timezone: 'UTC',
  // The client reports failed statements. In the server's log they would put the texts of messages into a file.
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_checkpoints: 'off',
};

/**
 * Starts the PostgreSQL that npm installed, or joins the server that already runs on this data folder, and keeps it running: if the server
 * is killed, it is started again on the same port.
 *
 * PostgreSQL itself ensures that only one server runs on the folder (postmaster.pid, shared memory). The connections of its supervisors
 * show which processes use the server: a connection ends with its process, however the process ends.
 *
 * @throws EmbeddedPostgresError with a message for people
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? ((): void => undefined);
  const dataDir = resolve(options.dataDir);
  const settings = { ...SETTINGS, ...options.settings };
  const cluster = await openCluster(dataDir, settings['fsync'] !== 'off', log);
  const logFile = join(dataDir, 'postgres.log');
  const password = await readPassword(cluster.home);
  const supervisor = new Supervisor(cluster, settings, logFile, password, options.absenceMs ?? 30_000, log);
  await supervisor.start();
  return { url: supervisor.url(), adopted: supervisor.adopted, stop: () => supervisor.stop() };
}

/** Finds the server that runs on this data folder and accepts its password, or undefined. Starts, makes and changes nothing. */
export async function findEmbeddedPostgres(dataDir: string): Promise<{ url: string } | undefined> {
  const home = await findHome(dataDir);
  const pid = home && (await findServer(home));
  if (home === undefined || pid === undefined) return undefined;
  const password = await readPassword(home);
  const session = await waitForSession(home, pid, password, { name: 'threadlog', silence: 3_000, patience: 30_000 });
  if (typeof session === 'string') return undefined;
  await session.client.end();
  return { url: urlOf(password, session.port) };
}

class Supervisor {
  adopted = false;
  #port = 0;
  #client: pg.Client | undefined;
  /** The process of the server that we started last. */
  #started: number | undefined;
  readonly #stopping = new AbortController();
  #recovering: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;
  #logGuard: NodeJS.Timeout | undefined;
  private readonly home: ClusterHome;

  constructor(
    private readonly cluster: Cluster,
    private readonly settings: Readonly<Record<string, string>>,
    private readonly logFile: string,
    private readonly password: string,
    private readonly absenceMs: number,
    private readonly log: (line: string) => void,
  ) {
    this.home = cluster.home;
  }

  url(): string {
    return urlOf(this.password, this.#port);
  }

  async start(): Promise<void> {
    try {
      this.adopted = (await this.#join()) || !(await this.#startServer());
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#logGuard = setInterval(() => void this.#boundLog(), 60_000).unref();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    clearInterval(this.#logGuard);
    await this.#recovering;
    const client = this.#client;
    this.#client = undefined;
    const pid = await findServer(this.home);
    const ours = pid === this.#started || (client !== undefined && (await isLastToLeave(client)));
    if (pid !== undefined && ours) await endServer(this.home, pid, 30_000);
    if (client !== undefined) await within(1_000, client.end(), undefined);
  }

  /** Joins the running server. False when no server runs; a hung server is ended first. */
  async #join(): Promise<boolean> {
    for (const until = Date.now() + REENTRY_MS; ;) {
      const pid = await findServer(this.home);
      if (pid === undefined) return false;
      const session = await this.#waitForSession(pid, SILENCE_MS);
      if (session === 'gone') return false;
      if (session === 'silent') {
        this.log(`the PostgreSQL that was left running (process ${pid}) does not answer: ending it`);
        await endServer(this.home, pid, 3_000);
        return false;
      }
      try {
        await this.#use(session);
      } catch (error) {
        // The server is shutting down, or one of its sessions was killed and it recovers in the same process. Another try shows which.
        if (!isDisconnect(error) || Date.now() > until) throw error;
        continue;
      }
      this.log(`using the PostgreSQL that already runs (process ${pid}, port ${session.port})`);
      return true;
    }
  }

  /** True when we started a server, false when another process was faster and we joined its server. */
  async #startServer(): Promise<boolean> {
    // Once the port was handed out, it must stay the same.
    const fixed = this.#port || Number(this.settings['port'] ?? 0);
    let port = fixed || ((await lastPort(this.home)) ?? somePort());
    // Backends of a killed server hold its shared memory as long as they run, and a port may be taken between the choice and the binding.
    for (let attempt = 1, until = Date.now() + 20_000; ; attempt += 1) {
      const launched = await this.#launch(port);
      if (typeof launched === 'object') {
        await this.#use(launched);
        return true;
      }
      const taken = launched.includes('could not bind') || launched.includes('could not create any TCP/IP sockets');
      const busy = launched.includes('pre-existing shared memory block') || launched.includes('lock file "postmaster.pid" already exists');
      // Another process joined the server before we did, was the last to leave, and stopped it.
      const ended = launched.includes('received fast shutdown request');
      if (taken && fixed !== 0) {
        throw new EmbeddedPostgresError(
          `Port ${port} of 127.0.0.1, where PostgreSQL is to listen, is taken by another program. End that program, or choose another port.`,
        );
      }
      if (!(taken || busy || ended) || Date.now() > until) {
        if (saysDiskFull(launched)) throw diskFull(this.home.dir);
        const words = `Its last words (more in ${this.logFile}):\n${lastWords(launched)}`;
        throw new EmbeddedPostgresError(`PostgreSQL did not start on ${this.home.data}. ${words}`);
      }
      if (taken) port = somePort();
      else if (await this.#join()) return false;
      else await sleep(Math.min(50 * attempt, 500));
    }
  }

  /** Makes one attempt. Answers a session of the new server, or the server's output if it ended. */
  async #launch(port: number): Promise<Session | string> {
    await this.#boundLog();
    // PostgreSQL refuses to start while the file names a living process, even an unrelated one that got the number of the last server.
    // PostgreSQL still finds backends that outlived their server by their shared memory, so removing the file cannot allow a second server.
    if (await crashed(this.home)) await rm(join(this.home.data, 'postmaster.pid'), { force: true });
    const { port: _, ...settings } = this.settings;
    const given = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const said = await sizeOf(this.logFile);
    const out = openSync(this.logFile, 'a', 0o600);
    let failed = '';
    // The server gets its own process session, so that Ctrl-C in the terminal reaches only us and the server lives until we have drained.
    const child = spawn(this.cluster.binaries.postgres, ['-D', this.home.data, '-p', String(port), ...given], {
      cwd: '/',
      env: BARE_ENVIRONMENT,
      detached: true,
      stdio: ['ignore', out, out],
      ...this.home.runAs,
    });
    child.on('error', (error) => (failed = error.message));
    child.unref();
    closeSync(out);
    this.#started = child.pid;
    try {
      const session = child.pid === undefined ? 'gone' : await this.#waitForSession(child.pid, FIRST_SILENCE_MS);
      if (typeof session === 'object') return session;
      if (session === 'silent') await this.#endStarted();
    } catch (error) {
      await this.#endStarted();
      throw error;
    }
    this.#started = undefined;
    return `${(await readFile(this.logFile)).subarray(said).toString()}${failed}`;
  }

  async #endStarted(): Promise<void> {
    if (this.#started !== undefined) await endServer(this.home, this.#started, 3_000);
    this.#started = undefined;
  }

  #waitForSession(pid: number, silence: number): ReturnType<typeof waitForSession> {
    const { log } = this;
    const limits = { name: SUPERVISOR, silence, patience: RECOVERY_MS, log, signal: this.#stopping.signal };
    return waitForSession(this.home, pid, this.password, limits);
  }

  /** Keeps a connection that shows at once when the server ends. */
  async #use({ client, pid, port, lost }: Session): Promise<void> {
    try {
      // The process that started the server may have died before it made the database.
      await makeDatabase(client);
    } catch (error) {
      await within(1_000, client.end(), undefined);
      throw error;
    }
    if (this.#port !== 0 && this.#port !== port) {
      this.log(`PostgreSQL came back on port ${port} instead of ${this.#port}: start this process again to use it`);
    }
    this.#port = port;
    this.#client = client;
    if (this.#started !== pid) this.#started = undefined;
    void lost.then(() => {
      if (this.#client !== client) return;
      this.#client = undefined;
      if (!this.#stopping.signal.aborted) this.#recovering = this.#recover();
    });
    // An idle connection must not keep a process alive that has nothing else to do. Called earlier, the process could end during a query.
    // The method exists, but the types lack it.
    (client as pg.Client & { unref(): void }).unref();
  }

  async #recover(): Promise<void> {
    this.log('lost the connection to PostgreSQL');
    const began = Date.now();
    const ours = this.#started !== undefined;
    for (let pause = 20, told = ''; !this.#stopping.signal.aborted; pause = Math.min(pause * 2, 1_000)) {
      try {
        if (await this.#join()) break;
        // A server that was stopped properly has removed its pid file. The process that stopped it may be about to start it again.
        const missed = ours || (await crashed(this.home)) || Date.now() - began > this.absenceMs;
        if (missed && !this.#stopping.signal.aborted) {
          if (await this.#startServer()) this.log(`started PostgreSQL again (port ${this.#port})`);
          break;
        }
      } catch (error) {
        if (messageOf(error) !== told) this.log(`PostgreSQL is not back yet: ${messageOf(error)}`);
        told = messageOf(error);
      }
      await pausing(pause, this.#stopping.signal);
    }
  }

  /** Keeps at most two files of LOG_BYTES. The file can be cut while the server uses it, since the server always writes at its end. */
  async #boundLog(): Promise<void> {
    try {
      if ((await sizeOf(this.logFile)) < LOG_BYTES) return;
      await copyFile(this.logFile, `${this.logFile}.1`);
      await truncate(this.logFile, 0);
    } catch (error) {
      this.log(`could not shorten ${this.logFile}: ${messageOf(error)}`);
    }
  }
}

async function makeDatabase(client: pg.Client): Promise<void> {
  const { rowCount } = await client.query('select from pg_database where datname = $1', [OWNER]);
  if (rowCount !== 0) return;
  try {
    await client.query(`create database ${OWNER}`);
  } catch (error) {
    // Another process made the database in between: the name is taken, or its row is being written.
    if (!isCode(error, '42P04', '23505')) throw error;
  }
}

/** Announces the leave before it looks for others, so that when two processes leave at once, at least one sees no other supervisor. */
async function isLastToLeave(client: pg.Client): Promise<boolean> {
  const leave = async (): Promise<boolean> => {
    await client.query(`set application_name = '${SUPERVISOR}, leaving'`);
    return (await client.query('select from pg_stat_activity where application_name = $1', [SUPERVISOR])).rowCount === 0;
  };
  try {
    return await within(4_000, leave(), false);
  } catch {
    // The server ended during the query, so there is nothing to end.
    return false;
  }
}

/** Waits at most `ms`, since a hung server must not keep its clients from leaving. */
async function within<T, F>(ms: number, work: Promise<T>, otherwise: F): Promise<T | F> {
  const late = new AbortController();
  try {
    return await Promise.race([work, sleep(ms, otherwise, { signal: late.signal })]);
  } finally {
    late.abort();
  }
}

/** A pause that does not keep the process alive and ends with the signal. */
async function pausing(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { ref: false, signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function isDisconnect(error: unknown): boolean {
  return isCode(error, '57P01', '57P02', '57P03', 'ECONNRESET', 'EPIPE') || messageOf(error).startsWith('Connection terminated');
}

async function sizeOf(file: string): Promise<number> {
  return (await unlessAbsent(stat(file)))?.size ?? 0;
}

/** A port below the range of outgoing connections. If it is taken, PostgreSQL reports this and gets another. */
function somePort(): number {
  return randomInt(20_000, 32_000);
}

function urlOf(password: string, port: number): string {
  return `postgres://${OWNER}:${password}@127.0.0.1:${port}/${OWNER}`;
}
