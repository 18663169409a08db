import { constants, setPriority } from 'node:os';
import { InvalidConfiguration } from '../config.js';
import { type Command, CommandFailed, type ExitCode, WrongUsage } from './command.js';
import type { Terminal } from './terminal.js';

/** Loaded only when called, so that --help is quick. */
const COMMANDS: Readonly<
  Record<
    string,
    {
      readonly summary: string;
      readonly load: () => Promise<Command>;
      /** Whether requests come first. Even its start would take a core from them, so it is asked before the command is loaded. */
      readonly isBackground?: (given: readonly string[]) => boolean;
    }
  >
> = {
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
    isBackground: ([action]) => action === 'rebuild',
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

/**
 * Runs a call of threadlog and reports its outcome on the terminal; every error is reported there too, in a sentence.
 * @param given the arguments after `threadlog`
 * @param interrupted aborted by Ctrl-C: the command then ends in order
 */
export async function runCommandLine(given: readonly string[], terminal: Terminal, interrupted: AbortSignal): Promise<ExitCode> {
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
  if (called.isBackground?.(rest) === true) setPriority(constants.priority.PRIORITY_LOW);
  const command = await called.load();
  const options = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : rest.length);
  if (options.includes('--help') || options.includes('-h')) {
    terminal.text(command.help);
    return 0;
  }
  try {
    return await command.run(rest, terminal, interrupted);
  } catch (error) {
    if (interrupted.aborted) {
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

/** The error as a sentence for a person, without a stack. */
function sentence(error: unknown): string {
  if (error instanceof WrongUsage || error instanceof CommandFailed) return error.message;
  if (error instanceof AggregateError && error.message === '')
    return [...new Set(error.errors.map((one) => (one instanceof Error ? one.message : String(one))))].join('; ');
  if (!(error instanceof Error)) return String(error);
  // An error of the command protocol only says that a store is away; its cause tells why.
  const cause = error.cause instanceof Error ? `: ${sentence(error.cause)}` : '';
  return `${error.message === '' ? error.name : error.message}${cause}`;
}
