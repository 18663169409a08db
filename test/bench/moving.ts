import { spawn } from 'node:child_process';

export interface Moved {
  readonly messages: number;
  /** Messages of the import a second, the command's start included, until the lists have all of them. */
  readonly messagesPerSecond: number;
  readonly rebuild: Rebuild;
}

export interface Rebuild {
  readonly events: number;
  /** As the command says, from the first event read to the swap. */
  readonly eventsPerSecond: number;
}

/** Imports a file into the installation's one organization, then makes its read models again. */
export async function measureMoving(root: string, environment: Readonly<Record<string, string>>, file: string): Promise<Moved> {
  const started = performance.now();
  const summary = JSON.parse(await threadlog(root, environment, ['import', file, '--json'])) as { messages: number };
  const messagesPerSecond = summary.messages / ((performance.now() - started) / 1000);
  return { messages: summary.messages, messagesPerSecond, rebuild: await rebuild(root, environment) };
}

export async function rebuild(root: string, environment: Readonly<Record<string, string>>): Promise<Rebuild> {
  const { rebuilt } = JSON.parse(await threadlog(root, environment, ['projections', 'rebuild', '--json'])) as {
    rebuilt: [{ events: number; eventsPerSecond: number }];
  };
  const [{ events, eventsPerSecond }] = rebuilt;
  return { events, eventsPerSecond };
}

function threadlog(root: string, environment: Readonly<Record<string, string>>, argv: readonly string[]): Promise<string> {
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
