import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks of /proc/<pid>/stat a second; 100 on every Linux that Node runs on. */
const TICKS = 100;

/** CPU time of a process in µs, user and system together; 0 when it is gone. */
export function cpuOf(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return ((Number(fields[11]) + Number(fields[12])) / TICKS) * 1e6;
  } catch {
    return 0;
  }
}

/** CPU time in µs of a process, its living descendants, and those descendants that it has waited for. */
export function cpuOfTree(root: number): number {
  let total = cpuOf(root);
  try {
    const fields = readFileSync(`/proc/${root}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    total += ((Number(fields[13]) + Number(fields[14])) / TICKS) * 1e6;
  } catch {
    return total;
  }
  for (const child of childrenOf(root)) total += cpuOfTree(child);
  return total;
}

function childrenOf(root: number): number[] {
  const children: number[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const parent = Number(
        readFileSync(`/proc/${entry}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')[1],
      );
      if (parent === root) children.push(Number(entry));
    } catch {
      // It ended while the list was read.
    }
  }
  return children;
}

/** Resident memory of a process and its living descendants in MB. Pages that they share count for each of them. */
export function memoryOfTree(pid: number): number {
  const own = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  return own + childrenOf(pid).reduce((sum, child) => sum + memoryOfTree(child), 0);
}
