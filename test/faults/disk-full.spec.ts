import { execFileSync } from 'node:child_process';
import { open, rm } from 'node:fs/promises';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { timeLimit } from '../support/fault-length.js';
import { type Installation, makeInstallation, type ThreadlogProcess } from '../support/installation.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { faultSeed } from '../support/seeded-random.js';
import { FaultRun } from './fault-run.js';

/*
 * The disk of PostgreSQL fills up under clients that write without a pause, and is given room again. What was acknowledged stays, what was
 * not is told as such, and everything goes on by itself.
 */
const SEED = faultSeed();
/** A new PostgreSQL takes about 60 MB of it, its log of changes included, and the read models of what is written some ten more. */
const DISK_MB = 240;

/** A file system of that size; undefined where this user cannot make one. */
function mountSmallDisk(): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'threadlog-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MB}m`, 'tmpfs', folder], { stdio: 'ignore' });
    return folder;
  } catch {
    rmdirSync(folder);
    return undefined;
  }
}

const disk = mountSmallDisk();
if (disk === undefined) {
  it('a full disk: NOT RUN, because this user cannot mount a small one', () => {
    process.stderr.write('a full disk: NOT RUN (test/faults/disk-full.spec.ts needs the right to mount a tmpfs)\n');
    expect(disk).toBeUndefined();
  });
} else {
  describe('on a small disk', () => fillUp(disk));
}

function fillUp(folder: string): void {
  let postgres: PostgresServer;
  let installation: Installation;
  let api: ThreadlogProcess;
  let run: FaultRun;

  beforeAll(async () => {
    postgres = await startPostgres({ folder, settings: { max_wal_size: '32MB', min_wal_size: '32MB' } });
    installation = await makeInstallation({ databaseUrl: postgres.url });
    api = await installation.start('api');
    await installation.start('worker');
    run = await FaultRun.begin(installation, [api], { writers: 8, seed: SEED });
  }, 120_000);
  afterAll(async () => {
    await installation?.dispose();
    await postgres?.dispose();
    execFileSync('umount', [folder]);
    rmdirSync(folder);
  }, 60_000);

  it(
    `loses and doubles nothing when its disk is full, says 503 meanwhile, and goes on when there is room (seed ${SEED})`,
    () =>
      run.survive('a full disk', async () => {
        const ballast = join(folder, 'ballast');
        await fill(ballast);
        const before = refusals();
        // Until it shows: the log of changes has some room of its own left.
        for (const until = performance.now() + 30_000; refusals() === before;) {
          if (performance.now() > until) throw new Error('nobody noticed that the disk is full');
          await fill(ballast);
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        expect((await fetch(`${api.url}/health/live`)).status).toBe(200);
        await rm(ballast);
      }),
    timeLimit(120_000),
  );

  it('has read models that are the fold of the log, and chains that verify', () => run.judge(SEED), timeLimit(60_000));

  const refusals = () => [...run.writers.answers].reduce((sum, [answer, count]) => (answer.startsWith('503') ? sum + count : sum), 0);
}

/** Appends to a file until nothing fits on its disk. */
async function fill(path: string): Promise<void> {
  const file = await open(path, 'a');
  try {
    for (const size of [1024 * 1024, 4096]) {
      const block = Buffer.alloc(size);
      try {
        for (;;) if ((await file.write(block)).bytesWritten < size) break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
  } finally {
    await file.close();
  }
}
