import { constants } from 'node:os';
import { runCommandLine } from './command-line.js';
import { Terminal } from './terminal.js';

const interrupted = new AbortController();
// The reader of the output may stop reading, as head does. The command then ends in order: a PostgreSQL that it has started must end with it.
let unread: 0 | 1 | undefined;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // EIO: the terminal was closed; SIGHUP reports that, too.
  if (error.code === 'EIO') return;
  unread ??= error.code === 'EPIPE' ? 0 : 1;
  interrupted.abort();
});
process.stderr.on('error', () => undefined);

const interrupt = (signal: NodeJS.Signals) => {
  // A second signal ends it at once: every command can be interrupted safely and run again.
  if (interrupted.signal.aborted) process.exit(128 + constants.signals[signal]);
  interrupted.abort();
};
process.on('SIGINT', interrupt).on('SIGTERM', interrupt).on('SIGHUP', interrupt);

const code = await runCommandLine(process.argv.slice(2), new Terminal(process.stdout, process.stderr), interrupted.signal);
process.exitCode = unread ?? code;
