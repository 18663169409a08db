import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';
import { eventually } from './eventually.js';
import { childrenOf, isAlive, signal } from './processes.js';

/** A PostgreSQL of the test's own, which it may kill, freeze and restart. When it is killed it comes back by itself, as a service does. */
export interface PostgresServer {
  readonly url: string;
  /** On a connection of its own, past every proxy. */
  query<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  /** Ends it, and starts it again on the same port and data. @param meanwhile what happens while it is away */
  restart(meanwhile?: () => Promise<void>): Promise<void>;
  /** kill -9 of the postmaster and every process of it, in the order that `shuffle` makes of them. */
  kill(shuffle: (pids: number[]) => number[]): Promise<void>;
  /** Every process of it keeps its sockets and answers nothing. */
  freeze(): Promise<void>;
  resume(): void;
  /** Ends it and removes its data. */
  dispose(): Promise<void>;
}

/** @param options.folder where its data go, such as a small file system; made and removed by default */
export async function startPostgres(
  options: { readonly folder?: string; readonly settings?: Readonly<Record<string, string>> } = {},
): Promise<PostgresServer> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'threadlog-postgres-')));
  // PostgreSQL runs as another user where the tests run as root, and that user must get in.
  await chmod(folder, 0o755);
  const dataDir = join(folder, 'data');
  const start = () => startEmbeddedPostgres({ dataDir, ...(options.settings === undefined ? {} : { settings: options.settings }) });
  let server: EmbeddedPostgres = await start();
  let frozen: number[] = [];

  const processes = async () => {
    const postmaster = await findPostmaster(dataDir);
    return postmaster === undefined ? [] : [postmaster, ...childrenOf(postmaster)];
  };
  const resume = () => {
    for (const pid of frozen.splice(0)) signal(pid, 'SIGCONT');
  };
  return {
    url: server.url,
    async query<R extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      const client = new pg.Client({ connectionString: server.url });
      await client.connect();
      try {
        return (await client.query<R>(text, values)).rows;
      } finally {
        await client.end();
      }
    },
    async restart(meanwhile) {
      await server.stop();
      await meanwhile?.();
      server = await start();
    },
    async kill(shuffle) {
      const pids = await processes();
      for (const pid of shuffle(pids)) signal(pid, 'SIGKILL');
      await eventually(() => pids.every((pid) => !isAlive(pid)), 10_000);
    },
    async freeze() {
      frozen = await processes();
      for (const pid of frozen) signal(pid, 'SIGSTOP');
    },
    resume,
    async dispose() {
      resume();
      await server.stop();
      await rm(dataDir, { recursive: true, force: true, maxRetries: 10 });
      if (options.folder === undefined) await rm(folder, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}

/** The process that postmaster.pid names, if any; the file says nothing of whether it lives. */
export async function findPostmaster(dataDir: string): Promise<number | undefined> {
  const elsewhere = await readFile(join(dataDir, 'postgres-is-elsewhere.txt'), 'utf8').catch(() => '');
  const home = elsewhere.split('\n')[0] || join(dataDir, 'postgres');
  const file = await readFile(join(home, 'data', 'postmaster.pid'), 'utf8').catch(() => '');
  return Number(file.split('\n')[0]) || undefined;
}

/** PostgreSQL shows what a process does in its title: `postgres: cluster: user database 127.0.0.1(port) idle`. */
export function servesConnection(pid: number): boolean {
  try {
    return execFileSync('ps', ['-o', 'args=', '-p', String(pid)], { encoding: 'utf8' }).includes('127.0.0.1(');
  } catch {
    // It ended since it was listed.
    return false;
  }
}
