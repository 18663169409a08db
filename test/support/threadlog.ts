import { type ChildProcess, spawn } from 'node:child_process';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { runCommandLine } from '../../src/cli/command-line.js';
import { Terminal } from '../../src/cli/terminal.js';

const BIN = fileURLToPath(new URL('../../bin/threadlog.js', import.meta.url));

/** How a run of the command line ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** The command line needs a moment to load, and the first run of all may compile. */
export const CLI_MS = 300_000;

/** Starts `threadlog` as a person would, with nothing but this environment. */
export function startThreadlog(
  given: readonly string[],
  environment: Readonly<Record<string, string>>,
  input: string | Buffer = '',
): Running {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', BIN, ...given], {
    env: {
      ...process.env,
      // An empty variable counts as absent, so nothing of the test run's own configuration gets in.
      DATABASE_URL: '',
      MASTER_KEY: '',
      BOOTSTRAP_API_KEY: '',
      ...environment,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  // It may end before it has read everything.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr: withoutWarnings(stderr) }));
  });
  return { child, ended };
}

/** Runs `threadlog` to its end. */
export function threadlog(
  given: readonly string[],
  environment: Readonly<Record<string, string>>,
  input: string | Buffer = '',
): Promise<Ended> {
  return startThreadlog(given, environment, input).ended;
}

/**
 * Does in this process what `threadlog` does in one of its own, which would take a second to load. Calls
 * at the same time share this process's environment, and so must be given the same. What the backend logs goes to the test run's standard error.
 */
export async function threadlogHere(
  given: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<Omit<Ended, 'signal'>> {
  Object.assign(process.env, { DATABASE_URL: '', MASTER_KEY: '', BOOTSTRAP_API_KEY: '', ...environment });
  const written = { stdout: '', stderr: '' };
  const into = (name: keyof typeof written) =>
    new Writable({
      write(chunk, _, done) {
        written[name] += String(chunk);
        done();
      },
    });
  const terminal = new Terminal(into('stdout'), into('stderr'));
  return { code: await runCommandLine(given, terminal, new AbortController().signal), ...written };
}

/** The tests' PostgreSQL runs without fsync, which the log rightly warns of. */
function withoutWarnings(stderr: string): string {
  return stderr
    .split('\n')
    .filter((line) => !line.includes('a crash can lose or damage acknowledged events'))
    .join('\n');
}
