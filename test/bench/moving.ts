import { spawn } from 'node:child_process';

export interface Moved {
  readonly messages: number;
  /** Messages of the import a second, the command's start included, until the lists have all of them. */
  readonly messagesPerSecond: number;
  readonly rebuild: readonly RebuiltGroup[];
  readonly verify: Verified;
}

export interface RebuiltGroup {
  readonly group: string;
  readonly events: number;
  /** As the command says, from the first event read to the swap. */
  readonly eventsPerSecond: number;
}

/** A proof of the whole log, the command's start included. */
export interface Verified {
  readonly events: number;
  readonly eventsPerSecond: number;
}

/** Imports a file into the installation's one organization, makes its read models again, and proves its log. */
export async function measureMoving(root: string, environment: Readonly<Record<string, string>>, file: string): Promise<Moved> {
  const started = performance.now();
  const summary = JSON.parse(await threadlog(root, environment, ['import', file, '--json'])) as { messages: number };
  const messagesPerSecond = summary.messages / ((performance.now() - started) / 1000);
  const rebuilt = await rebuild(root, environment);
  return { messages: summary.messages, messagesPerSecond, rebuild: rebuilt, verify: await verify(root, environment) };
}

/** Makes the read models of every group again, one group after the other. */
export async function rebuild(root: string, environment: Readonly<Record<string, string>>): Promise<RebuiltGroup[]> {
  const { rebuilt } = JSON.parse(await threadlog(root, environment, ['projections', 'rebuild', '--json'])) as { rebuilt: RebuiltGroup[] };
  return rebuilt.map(({ group, events, eventsPerSecond }) => ({ group, events, eventsPerSecond }));
}

async function verify(root: string, environment: Readonly<Record<string, string>>): Promise<Verified> {
  const started = performance.now();
  const { ok, events } = JSON.parse(await threadlog(root, environment, ['verify', '--json'])) as { ok: boolean; events: number };
  if (!ok) throw new Error('the imported log does not verify');
  return { events, eventsPerSecond: events / ((performance.now() - started) / 1000) };
}

/** Runs a command of the command line. @returns what it prints */
export function threadlog(root: string, environment: Readonly<Record<string, string>>, argv: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [`${root}bin/threadlog.js`, ...argv], {
      cwd: root,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
    child.once('exit', (code) =>
      code === 0 ? resolve(text) : reject(new Error(`threadlog ${argv.join(' ')} ended with ${code}: ${text}`)),
    );
  });
}
