import { parseArgs, type ParseArgsConfig } from 'node:util';
import type { Terminal } from './terminal.js';

/** 0: done. 1: it failed, or a verification found something. 2: it was called wrongly. */
export type ExitCode = 0 | 1 | 2;

/** What a file *.command.ts exports. */
export interface Command {
  /** The whole answer to --help. */
  readonly help: string;
  /**
   * @param given what stands behind the command's name
   * @param signal aborted by Ctrl-C: the command ends in order
   * @throws WrongUsage, CommandFailed, or what the parts throw that it uses
   */
  run(given: readonly string[], terminal: Terminal, signal: AbortSignal): Promise<ExitCode>;
}

/** The command line itself is wrong; the message says what about it. */
export class WrongUsage extends Error {
  override readonly name = 'WrongUsage';
}

/** It cannot be done, for a reason that a person can read. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed';
}

/** @throws WrongUsage for an option that is unknown or lacks its value, and for another number of words than `words` names */
export function parseCommandLine<O extends NonNullable<ParseArgsConfig['options']>>(
  given: readonly string[],
  options: O,
  words: readonly string[],
) {
  const parsed = (() => {
    try {
      return parseArgs({ args: [...given], options, allowPositionals: true, strict: true });
    } catch (error) {
      // Node's own sentence goes on with advice about positionals that starts after the first full stop.
      throw new WrongUsage(error instanceof Error ? (error.message.split('. ', 1)[0] ?? '') : String(error));
    }
  })();
  const missing = words[parsed.positionals.length];
  if (missing !== undefined) throw new WrongUsage(`${missing} is missing`);
  const extra = parsed.positionals[words.length];
  if (extra !== undefined) throw new WrongUsage(`"${extra}" is one word too many`);
  return parsed;
}

/** The value of an option that takes one of a few. @throws WrongUsage */
export function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw new WrongUsage(`${name} is one of ${allowed.join(', ')}`);
  return found;
}
