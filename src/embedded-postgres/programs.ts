import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { isCode } from './errors.js';

/** The user that PostgreSQL's programs run as. Absent unless the current user is root; the programs then run as the current user. */
export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL does not get our environment: it may hold keys, and a stray PGDATA or LC_ALL would change the new cluster. */
export const BARE_ENVIRONMENT = { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C' };

/**
 * Runs a program to its end. Does not throw when the program fails.
 * @returns its stdout and stderr, or the system's error when the program could not be started
 */
export function run(file: string, args: readonly string[], runAs?: RunAs): Promise<{ readonly ok: boolean; readonly output: string }> {
  return new Promise((resolve) => {
    // The current folder may be closed to the other user.
    execFile(file, args, { cwd: '/', env: BARE_ENVIRONMENT, ...runAs }, (error, stdout, stderr) => {
      const output = `${stdout}${stderr}`.trim();
      resolve({ ok: error === null, output: error !== null && output === '' ? error.message : output });
    });
  });
}

/** Whether the process runs. False also for a zombie, which stays when the init process does not collect its children. */
export async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (!isCode(error, 'EPERM')) return false;
  }
  if (process.platform !== 'linux') return true;
  try {
    return !/\) [ZX] /.test(await readFile(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
