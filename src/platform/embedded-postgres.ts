import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { copyFile, open, readFile, readlink, realpath, rm, stat, truncate } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Binaries } from './postgres-binaries.js';
import { BARE_ENVIRONMENT, EmbeddedPostgresError, diskFull, findBinaries, isCode, run } from './postgres-binaries.js';
import type { ClusterHome } from './postgres-cluster.js';
import {
  OWNER,
  chooseHome,
  ensureCluster,
  findHome,
  indent,
  messageOf,
  processExists,
  readPassword,
  rememberPort,
  saysDiskFull,
  rememberedPort,
} from './postgres-cluster.js';

export interface EmbeddedPostgresOptions {
  /** Made if absent. Two processes that name the same folder share one server. */
  readonly dataDir: string;
  /** Told what happens, in whole lines without secrets. */
  readonly log?: (line: string) => void;
  /** Server settings beside and before the usual ones, such as `{ fsync: 'off' }` in tests. `port` fixes the port. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  /** `postgres://threadlog:…@127.0.0.1:PORT/threadlog`. It stays the same while the server is restarted. */
  readonly url: string;
  /** True where the server was already running. */
  readonly adopted: boolean;
  /**
   * Ends the server if it is ours: started here, or left behind by a process that died. A server that another living process answers for
   * goes on. Never rejects because the server is already gone.
   */
  stop(): Promise<void>;
}

/** How long a living server may say nothing before it counts as hung. */
const SILENCE_MS = 10_000;
/** How long crash recovery may take. It is bounded by max_wal_size and takes seconds. */
const RECOVERY_MS = 600_000;
/** How long a server that lets us in may go on cutting us off. */
const REENTRY_MS = 30_000;
/** A server this young belongs to whoever is starting it, who has not come to say so yet. */
const NEWBORN_MS = 3_000;
const LOG_BYTES = 8 * 1024 * 1024;
const SUPERVISOR = 'threadlog supervisor';
/** Advisory lock in the database `postgres`, where nothing else takes locks. */
const OWNERSHIP = 7_237_001;

/** Clients whose connection is gone. */
const ENDED = new WeakSet<pg.Client>();

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  // Loopback TCP is within a tenth of a socket's speed and has no limit on the length of its path.
  unix_socket_directories: '',
  cluster_name: 'threadlog',
  shared_buffers: '128MB',
  max_connections: '100',
  // Nobody replicates from an embedded server, and rebuilds load their tables without writing them to the WAL first. Crash safety is the same.
  wal_level: 'minimal',
  max_wal_senders: '0',
  timezone: 'UTC',
  log_timezone: 'UTC',
  // Failed statements are the client's to report. Kept here, they would put the texts of messages into a file.
  log_min_messages: 'log',
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_checkpoints: 'off',
};

/**
 * Starts the PostgreSQL that npm installed, or joins the one that already runs on this data folder, and keeps it running: a server that is
 * killed is started again on the same port.
 *
 * The process that answers for the server is the one that holds an advisory lock in it. The lock goes with the process, however that ends, so
 * no file can claim an owner who is dead. That only one server runs on the folder is PostgreSQL's own rule (postmaster.pid, shared memory).
 *
 * @throws EmbeddedPostgresError with a message for people
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? ((): void => undefined);
  const settings = { ...SETTINGS, ...options.settings };
  const { home, binaries } = await openHome(resolve(options.dataDir), settings['fsync'] !== 'off', log);
  const supervisor = new Supervisor(
    home,
    binaries,
    settings,
    join(resolve(options.dataDir), 'postgres.log'),
    await readPassword(home),
    log,
  );
  await supervisor.start();
  return { url: supervisor.url(), adopted: supervisor.adopted, stop: () => supervisor.stop() };
}

/** The home and the programs for it. What another process made meanwhile, perhaps elsewhere or for another user, is used as it is. */
async function openHome(
  dataDir: string,
  durable: boolean,
  log: (line: string) => void,
): Promise<{ home: ClusterHome; binaries: Binaries }> {
  for (;;) {
    const chosen = await chooseHome(dataDir, log);
    const binaries = await findBinaries(dirname(chosen.dir), chosen.runAs, log);
    await ensureCluster(chosen, binaries, durable);
    const home = await findHome(dataDir);
    if (home !== undefined) return { home, binaries };
  }
}

/** The server that runs on this data folder and answers with its password, or undefined. Starts, makes and changes nothing. */
export async function findEmbeddedPostgres(dataDir: string): Promise<{ url: string } | undefined> {
  const home = await findHome(dataDir);
  if (home === undefined) return undefined;
  const running = await runningServer(home);
  if (running === undefined) return undefined;
  const password = await readPassword(home);
  const answer = await waitForAnswer(home, running.pid, password, { silence: 3_000, recovery: 30_000 });
  if (answer === 'gone' || answer === 'silent') return undefined;
  await answer.client.end();
  return { url: urlOf(password, answer.port) };
}

class Supervisor {
  adopted = false;
  #port = 0;
  #client: pg.Client | undefined;
  #owns = false;
  /** Owned because nobody else did: others may have been here longer, and then the server stays with them. */
  #inherited = false;
  readonly #stopping = new AbortController();
  #recovering: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;
  #logGuard: NodeJS.Timeout | undefined;

  constructor(
    private readonly home: ClusterHome,
    private readonly binaries: Binaries,
    private readonly settings: Readonly<Record<string, string>>,
    private readonly logFile: string,
    private readonly password: string,
    private readonly log: (line: string) => void,
  ) {}

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
    this.#logGuard = setInterval(() => void (this.#owns && this.#boundLog()), 60_000).unref();
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
    // Whoever started the server may have died since; then the last one to leave ends it.
    if (client !== undefined && (!this.#owns || this.#inherited)) this.#owns = await lastToLeave(client);
    // Our connection stays open until the server cuts it, so that nobody inherits a server that is going down.
    if (this.#owns) await this.#endServer();
    else if (client !== undefined) await within(1_000, client.end(), undefined);
  }

  /** Joins the running server. False where none runs; one that hangs is ended first. */
  async #join(): Promise<boolean> {
    for (const until = Date.now() + REENTRY_MS; ;) {
      const running = await runningServer(this.home);
      if (running === undefined) return false;
      const answer = await waitForAnswer(this.home, running.pid, this.password, {
        silence: SILENCE_MS,
        recovery: RECOVERY_MS,
        log: this.log,
        signal: this.#stopping.signal,
      });
      if (answer === 'gone') return false;
      if (answer === 'silent') {
        this.log(`the PostgreSQL that was left running (process ${running.pid}) does not answer: ending it`);
        await endProcess(running.pid, this.home);
        return false;
      }
      try {
        await makeDatabase(answer.client);
        this.#inherited = await inherit(answer.client);
      } catch (error) {
        await within(1_000, answer.client.end(), undefined);
        // It is on its way down, or one of its sessions was killed and it starts over in the same process: another look tells which.
        if (!isDisconnect(error) || Date.now() > until) throw error;
        continue;
      }
      this.#moveTo(answer.port);
      if (this.#inherited) {
        this.#owns = true;
        this.log(`took over the PostgreSQL that an earlier run left running (process ${running.pid}, port ${answer.port})`);
      } else {
        this.log(`using the PostgreSQL that another process runs (process ${running.pid}, port ${answer.port})`);
      }
      this.#watch(answer.client);
      return true;
    }
  }

  /** True where we started a server, false where another process was faster and we joined its server. */
  async #startServer(): Promise<boolean> {
    const fixed = this.#port !== 0 || this.settings['port'] !== undefined;
    let port = this.#port !== 0 ? this.#port : Number(this.settings['port'] ?? (await rememberedPort(this.home)) ?? (await freePort()));
    // Backends of a killed server hold its shared memory for as long as they run on; a port may be taken between looking and binding.
    for (let attempt = 1, until = Date.now() + 20_000; ; attempt += 1) {
      const launched = await this.#launch(port);
      if ('client' in launched) {
        await this.#settle(launched.client, port);
        return true;
      }
      const { lines } = launched;
      const taken = lines.includes('could not bind') || lines.includes('could not create any TCP/IP sockets');
      const busy = lines.includes('pre-existing shared memory block') || lines.includes('lock file "postmaster.pid" already exists');
      if (taken && fixed) {
        throw new EmbeddedPostgresError(
          `Port ${port} of 127.0.0.1, where PostgreSQL is to listen, is taken by another program. End that program, or choose another port.`,
        );
      }
      if (!(taken || busy) || Date.now() > until) throw this.#failure(lines);
      if (taken) port = await freePort();
      if (busy) {
        if (await this.#join()) return false;
        await sleep(Math.min(50 * attempt, 500));
      }
    }
  }

  async #settle(client: pg.Client, port: number): Promise<void> {
    // Until somebody else says so it is ours to end, also when one of these steps fails.
    this.#owns = true;
    this.#inherited = false;
    try {
      this.#owns = await tryOwn(client);
      await makeDatabase(client);
      await rememberPort(this.home, port);
    } catch (error) {
      // Left open, it would keep the lock from our next attempt.
      await within(1_000, client.end(), undefined);
      throw error;
    }
    this.#moveTo(port);
    this.#watch(client);
  }

  /** One try: a client of the server that came up, or what the server said before it went. */
  async #launch(port: number): Promise<{ client: pg.Client } | { lines: string }> {
    await this.#boundLog();
    await removeStaleLock(this.home);
    const { port: _, ...settings } = this.settings;
    const args = [
      '-D',
      this.home.data,
      '-p',
      String(port),
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ];
    const said = await sizeOf(this.logFile);
    const out = openSync(this.logFile, 'a', 0o600);
    let failed = '';
    // In a session of its own: Ctrl-C in the terminal goes to us alone, and the server lives until we have drained.
    const child = spawn(this.binaries.postgres, args, {
      cwd: '/',
      env: BARE_ENVIRONMENT,
      detached: true,
      stdio: ['ignore', out, out],
      ...this.home.runAs,
    });
    child.on('error', (error) => (failed = error.message));
    child.unref();
    closeSync(out);
    const answer = await this.#awaitLaunched(child.pid);
    if (typeof answer === 'object') return { client: answer.client };
    const lines = await tailOf(this.logFile, said);
    return { lines: `${lines}${failed}` };
  }

  async #awaitLaunched(pid: number | undefined): Promise<Answer> {
    if (pid === undefined) return 'gone';
    const limits = { silence: 60_000, recovery: RECOVERY_MS, log: this.log, signal: this.#stopping.signal };
    try {
      const answer = await waitForAnswer(this.home, pid, this.password, limits);
      if (answer === 'silent') await endProcess(pid, this.home);
      return answer;
    } catch (error) {
      // Nobody else knows of this server yet.
      await endProcess(pid, this.home);
      throw error;
    }
  }

  #failure(lines: string): EmbeddedPostgresError {
    if (saysDiskFull(lines)) return diskFull(this.home.dir);
    return new EmbeddedPostgresError(
      `PostgreSQL did not start on ${this.home.data}. Its last words (more in ${this.logFile}):\n${indent(lines || '(nothing)')}`,
    );
  }

  #moveTo(port: number): void {
    if (this.#port !== 0 && this.#port !== port) {
      this.log(`PostgreSQL came back on port ${port} instead of ${this.#port}: start this process again to use it`);
    }
    this.#port = port;
  }

  /** Our own connection tells us at once when the server goes. */
  #watch(client: pg.Client): void {
    this.#client = client;
    const lost = (): void => {
      if (this.#client !== client) return;
      this.#client = undefined;
      if (!this.#stopping.signal.aborted) this.#recovering = this.#recover();
    };
    client.on('end', lost);
    // It may have gone before anyone listened. Not within this call, which may be part of a recovery.
    if (ENDED.has(client)) setImmediate(lost);
    letExit(client);
  }

  async #recover(): Promise<void> {
    const owned = this.#owns;
    this.#owns = false;
    this.log('lost the connection to PostgreSQL');
    for (let pause = 20, told = ''; !this.#stopping.signal.aborted; pause = Math.min(pause * 2, 1_000)) {
      try {
        if (await this.#join()) break;
        // A server that was stopped in order took its pid file along. If it was another's, whoever stopped it meant it; we wait for the next one.
        if ((owned || (await crashed(this.home))) && !this.#stopping.signal.aborted) {
          if (await this.#startServer()) this.log(`started PostgreSQL again (port ${this.#port})`);
          break;
        }
      } catch (error) {
        if (messageOf(error) !== told) this.log(`PostgreSQL is not back yet: ${messageOf(error)}`);
        told = messageOf(error);
      }
      await pausing(pause, this.#stopping.signal);
    }
    // Stopped while it was down: what was ours and may have come up again is still ours to end.
    if (this.#stopping.signal.aborted && this.#client === undefined) this.#owns ||= owned;
  }

  async #endServer(): Promise<void> {
    const running = await runningServer(this.home);
    if (running !== undefined) await endProcess(running.pid, this.home, 30_000);
  }

  /** Keeps at most two files of LOG_BYTES. The server writes at the end of the file whatever its length, so it may be cut under it. */
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

type Answer = { client: pg.Client; port: number } | 'gone' | 'silent';

/** Waits until the server with this pid lets us in, has ended, or has said nothing for too long. Throws where waiting is of no use. */
async function waitForAnswer(
  home: ClusterHome,
  pid: number,
  password: string,
  limits: { silence: number; recovery: number; log?: (line: string) => void; signal?: AbortSignal },
): Promise<Answer> {
  const began = Date.now();
  let heard = began;
  let told = began;
  for (;;) {
    limits.signal?.throwIfAborted();
    if (!(await alive(pid))) return 'gone';
    const port = await boundPort(home, pid);
    if (port !== undefined) {
      try {
        return { client: await connect(port, password), port };
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
        if (isCode(error, '53300') && Date.now() - began > limits.silence) {
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
    if (now - began > limits.recovery)
      throw new EmbeddedPostgresError(`PostgreSQL on ${home.data} is still not ready after ${Math.round((now - began) / 1000)} s.`);
    await sleep(now - began < 1_000 ? 10 : 100);
  }
}

async function connect(port: number, password: string): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: OWNER,
    password,
    database: 'postgres',
    application_name: SUPERVISOR,
    connectionTimeoutMillis: 3_000,
    // Ours is idle by design; a limit meant for workers must not end it.
    options: '-c idle_session_timeout=0',
  });
  // An 'error' without a listener would end the process; 'end' follows and is what counts.
  client.on('error', () => undefined);
  client.on('end', () => ENDED.add(client));
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** An idle connection must not keep alive a process that has nothing else to do. Not earlier: a query would not be waited for either. */
function letExit(client: pg.Client): void {
  // The method exists, but the types do not know it.
  (client as pg.Client & { unref(): void }).unref();
}

async function makeDatabase(client: pg.Client): Promise<void> {
  const { rowCount } = await client.query('select 1 from pg_database where datname = $1', [OWNER]);
  if (rowCount !== 0) return;
  try {
    await client.query(`create database ${OWNER}`);
  } catch (error) {
    // Another process made it in between: the name is taken, or its row is being written.
    if (!isCode(error, '42P04', '23505')) throw error;
  }
}

async function tryOwn(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ mine: boolean }>('select pg_try_advisory_lock($1) as mine', [OWNERSHIP]);
  return rows[0]?.mine === true;
}

/** Takes the ownership that a dead process left. A newborn server is left to its starter for a while. */
async function inherit(client: pg.Client): Promise<boolean> {
  for (;;) {
    const { rows } = await client.query<{ held: boolean; age: number }>(
      `select exists (select from pg_locks where locktype = 'advisory' and objid = $1) as held,
              (extract(epoch from clock_timestamp() - pg_postmaster_start_time()) * 1000)::int as age`,
      [OWNERSHIP],
    );
    if (rows[0] === undefined || rows[0].held) return false;
    if (rows[0].age >= NEWBORN_MS) return tryOwn(client);
    await sleep(25);
  }
}

/**
 * True, and ours to end, where nobody else stays. Leaving is announced before looking round: of two who leave at once at least one sees
 * nobody staying, and it waits for the lock that the other may hold until it has gone.
 */
async function lastToLeave(client: pg.Client): Promise<boolean> {
  const leave = async (): Promise<boolean> => {
    await client.query(`set application_name = '${SUPERVISOR}, leaving'`);
    const { rowCount } = await client.query('select from pg_stat_activity where application_name = $1', [SUPERVISOR]);
    if (rowCount !== 0) return false;
    await client.query('select pg_advisory_lock($1)', [OWNERSHIP]);
    return true;
  };
  try {
    return await within(4_000, leave(), false);
  } catch {
    // The server went while we asked. Then there is nothing to end.
    return false;
  }
}

/** A hung server must not hang its clients' farewell. */
async function within<T, F>(ms: number, work: Promise<T>, otherwise: F): Promise<T | F> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<F>((give) => (timer = setTimeout(() => give(otherwise), ms)));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Neither keeps the process alive nor outlasts the signal. */
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

/** The server that runs on this cluster. A pid file alone proves nothing: its process may be gone, and the number given to another. */
async function runningServer(home: ClusterHome): Promise<{ pid: number } | undefined> {
  const lines = await pidFile(home);
  const pid = Number(lines?.[0]);
  return Number.isInteger(pid) && pid > 0 && (await servesFrom(pid, home)) ? { pid } : undefined;
}

async function crashed(home: ClusterHome): Promise<boolean> {
  return (await pidFile(home)) !== undefined && (await runningServer(home)) === undefined;
}

/** PostgreSQL refuses to start while the file names a living process, even one that only has the number of its last server. */
async function removeStaleLock(home: ClusterHome): Promise<void> {
  // Backends that outlived their server are still found by their shared memory, so removing the file opens no way to a second server.
  if (await crashed(home)) await rm(join(home.data, 'postmaster.pid'), { force: true });
}

/** The port, once the server has bound it: before that another program may be listening there. */
async function boundPort(home: ClusterHome, pid: number): Promise<number | undefined> {
  const lines = await pidFile(home);
  const port = Number(lines?.[3]);
  return Number(lines?.[0]) === pid && Number.isInteger(port) && port > 0 && (lines?.[5] ?? '').trim() !== '' ? port : undefined;
}

async function pidFile(home: ClusterHome): Promise<string[] | undefined> {
  try {
    return (await readFile(join(home.data, 'postmaster.pid'), 'utf8')).split('\n');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

async function servesFrom(pid: number, home: ClusterHome): Promise<boolean> {
  if (!(await alive(pid))) return false;
  try {
    // The server works in its data folder, wherever that was moved since it started.
    return (await readlink(`/proc/${pid}/cwd`)) === (await realpath(home.data));
  } catch {
    // No /proc (macOS), or not allowed to look.
    return (await run('ps', ['-o', 'args=', '-p', String(pid)])).output.includes(home.data);
  }
}

/** A process that ended but was never collected, as happens below an init that collects nobody, is not alive. */
async function alive(pid: number): Promise<boolean> {
  if (!processExists(pid)) return false;
  try {
    const status = await readFile(`/proc/${pid}/stat`, 'utf8');
    return !/\) [ZX] /.test(status);
  } catch (error) {
    // Gone since, where there is a /proc at all.
    return isCode(error, 'ENOENT', 'ESRCH') ? process.platform !== 'linux' : processExists(pid);
  }
}

/** Fast shutdown, then immediate shutdown, then the end without a word; after the latter two the next start recovers. */
async function endProcess(pid: number, home: ClusterHome, patience = 3_000): Promise<void> {
  for (const [signal, wait] of [
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
    if (await endsWithin(wait, pid)) return;
  }
  throw new EmbeddedPostgresError(
    `The PostgreSQL that runs on ${home.data} (process ${pid}) cannot be ended, not even by SIGKILL: its disk may hang.`,
  );
}

async function endsWithin(ms: number, pid: number): Promise<boolean> {
  for (const until = Date.now() + ms; Date.now() < until; await sleep(5)) if (!(await alive(pid))) return true;
  return false;
}

function freePort(): Promise<number> {
  return new Promise((found, failed) => {
    const server = createServer();
    server.on('error', failed);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (typeof address === 'object' && address !== null ? found(address.port) : failed(new Error('no port was given'))));
    });
  });
}

async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (isCode(error, 'ENOENT')) return 0;
    throw error;
  }
}

/** What was written after `from`, at most the last 4,000 bytes. */
async function tailOf(file: string, from: number): Promise<string> {
  const size = await sizeOf(file);
  const start = Math.max(Math.min(from, size), size - 4_000);
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.subarray(0, bytesRead).toString('utf8');
  } finally {
    await handle.close();
  }
}

function urlOf(password: string, port: number): string {
  return `postgres://${OWNER}:${password}@127.0.0.1:${port}/${OWNER}`;
}
