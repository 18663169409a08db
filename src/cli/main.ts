import { constants } from 'node:os';
import { runCommandLine } from './command-line.js';
import { Terminal } from './terminal.js';

// The reader of the output may stop reading, as head does.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // EIO: the terminal was closed; SIGHUP reports that, too.
  if (error.code !== 'EIO') process.exit(error.code === 'EPIPE' ? 0 : 1);
});
process.stderr.on('error', () => undefined);

const interrupted = new AbortController();
const interrupt = (signal: NodeJS.Signals) => {
  // A second signal ends it at once: every command can be interrupted safely and run again.
  if (interrupted.signal.aborted) process.exit(128 + constants.signals[signal]);
  interrupted.abort();
};
process.on('SIGINT', interrupt).on('SIGTERM', interrupt).on('SIGHUP', interrupt);

process.exitCode = await runCommandLine(process.argv.slice(2), new Terminal(process.stdout, process.stderr), interrupted.signal);
