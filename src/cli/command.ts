import { parseArgs, type ParseArgsConfig } from 'node:util';
import type { Terminal } from './terminal.js';

/** 0: done. 1: the command failed, or a verification found something. 2: wrong usage. */
export type ExitCode = 0 | 1 | 2;

/** The export of every *.command.ts. */
export interface Command {
  /** The whole output of --help. */
  readonly help: string;
  /**
   * @param given the arguments after the command's name
   * @param signal aborted by Ctrl-C: the command then ends in order
   * @throws WrongUsage, CommandFailed, or an error of the services that it uses
   */
  run(given: readonly string[], terminal: Terminal, signal: AbortSignal): Promise<ExitCode>;
}

/** The command line is wrong; the message says why. */
export class WrongUsage extends Error {
  override readonly name = 'WrongUsage';
}

/** The command cannot succeed; the message gives the reason to a person. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';
}

/** @throws WrongUsage for an unknown option, an option without its value, or too many or too few words for `words` */
export function parseCommandLine<O extends NonNullable<ParseArgsConfig['options']>>(
  given: readonly string[],
  options: O,
  words: readonly string[],
) {
  const parsed = (() => {
    try {
      return parseArgs({ args: [...given], options, allowPositionals: true, strict: true });
    } catch (error) {
      // Node's message continues with advice about positionals after the first full stop.
      throw new WrongUsage(error instanceof Error ? (error.message.split('. ', 1)[0] ?? '') : String(error));
    }
  })();
  const missing = words[parsed.positionals.length];
  if (missing !== undefined) throw new WrongUsage(`${missing} is missing`);
  const extra = parsed.positionals[words.length];
  if (extra !== undefined) throw new WrongUsage(`"${extra}" is one word too many`);
  return parsed;
}

/** The value of an option that allows only some values. @throws WrongUsage */
export function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw new WrongUsage(`${name} is one of ${allowed.join(', ')}`);
  return found;
}
