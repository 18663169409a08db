import { constants } from 'node:os';
import { InvalidConfiguration } from '../config.js';
import { type Command, CommandFailed, type ExitCode, WrongUsage } from './command.js';
import { Terminal } from './terminal.js';

/** Loaded only when called, so that --help is quick. */
const COMMANDS: Readonly<Record<string, { readonly summary: string; readonly load: () => Promise<Command> }>> = {
  export: {
    summary: 'write the whole log with its keys to a file',
    load: async () => (await import('./export.command.js')).exportCommand,
  },
  import: {
    summary: 'bring conversations, or an export, from a file into the log',
    load: async () => (await import('./import.command.js')).importCommand,
  },
  verify: {
    summary: 'prove that no event of the log was changed',
    load: async () => (await import('./verify.command.js')).verifyCommand,
  },
  replay: {
    summary: "tell a conversation's history, or an organization's",
    load: async () => (await import('./replay.command.js')).replayCommand,
  },
  parked: {
    summary: 'list, retry and skip what the read models could not handle',
    load: async () => (await import('./parked.command.js')).parkedCommand,
  },
  projections: {
    summary: 'list, rebuild, pause and resume the read models',
    load: async () => (await import('./projections.command.js')).projectionsCommand,
  },
  'api-keys': { summary: 'make, list and revoke API keys', load: async () => (await import('./api-keys.command.js')).apiKeysCommand },
  organizations: {
    summary: 'make and list organizations',
    load: async () => (await import('./organizations.command.js')).organizationsCommand,
  },
  'database-url': {
    summary: 'print a connection string for psql',
    load: async () => (await import('./database-url.command.js')).databaseUrlCommand,
  },
};

const HELP = `Usage: threadlog COMMAND [OPTIONS]

Commands:
${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(14)} ${summary}`)
  .join('\n')}

threadlog COMMAND --help tells more of each.

It reads the same environment as the server (DATA_DIR, DATABASE_URL, EVENTSTORE_URL, MASTER_KEY …) and works whether the server runs or
not. Exit codes: 0 done, 1 failed or something was found, 2 wrong usage.`;

async function main(given: readonly string[]): Promise<ExitCode> {
  const terminal = new Terminal(process.stdout, process.stderr);
  // Whoever reads the answer may stop reading, as head does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // EIO: the terminal was closed, and SIGHUP says so.
    if (error.code !== 'EIO') process.exit(error.code === 'EPIPE' ? 0 : 1);
  });
  process.stderr.on('error', () => undefined);
  const [name, ...rest] = given;
  if (name === '--help' || name === '-h' || name === 'help') {
    terminal.text(HELP);
    return 0;
  }
  const called = name === undefined || !Object.hasOwn(COMMANDS, name) ? undefined : COMMANDS[name];
  if (called === undefined) {
    terminal.note(name === undefined ? 'threadlog: a command is missing' : `threadlog: there is no command "${name}"`);
    terminal.note(`Commands: ${Object.keys(COMMANDS).join(', ')}. Try threadlog --help.`);
    return 2;
  }
  const command = await called.load();
  const options = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : rest.length);
  if (options.includes('--help') || options.includes('-h')) {
    terminal.text(command.help);
    return 0;
  }
  const interrupted = new AbortController();
  const interrupt = (signal: NodeJS.Signals) => {
    // Asked twice, it ends at once: everything is safe to cut off, it only has to be done again.
    if (interrupted.signal.aborted) process.exit(128 + constants.signals[signal]);
    interrupted.abort();
  };
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt).on('SIGHUP', interrupt);
  try {
    return await command.run(rest, terminal, interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) {
      terminal.note('interrupted');
      return 1;
    }
    if (error instanceof InvalidConfiguration) {
      terminal.note(`threadlog ${name}: the configuration is not valid:`);
      for (const line of error.message.split('\n')) terminal.note(line);
      return 1;
    }
    terminal.note(`threadlog ${name}: ${sentence(error)}`);
    if (!(error instanceof WrongUsage)) return 1;
    terminal.note(`Try threadlog ${name} --help.`);
    return 2;
  }
}

/** What went wrong, for a person: no stack. */
function sentence(error: unknown): string {
  if (error instanceof WrongUsage || error instanceof CommandFailed) return error.message;
  if (error instanceof AggregateError && error.message === '')
    return [...new Set(error.errors.map((one) => (one instanceof Error ? one.message : String(one))))].join('; ');
  if (!(error instanceof Error)) return String(error);
  // An error of the command protocol says that a store is away, and its cause why.
  const cause = error.cause instanceof Error ? `: ${sentence(error.cause)}` : '';
  return `${error.message === '' ? error.name : error.message}${cause}`;
}

process.exitCode = await main(process.argv.slice(2));
