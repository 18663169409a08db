import { constants } from 'node:os';
import { runCommandLine } from './command-line.js';
import { Terminal } from './terminal.js';

// Whoever reads the answer may stop reading, as head does.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // EIO: the terminal was closed, and SIGHUP says so.
  if (error.code !== 'EIO') process.exit(error.code === 'EPIPE' ? 0 : 1);
});
process.stderr.on('error', () => undefined);

const interrupted = new AbortController();
const interrupt = (signal: NodeJS.Signals) => {
  // Asked twice, it ends at once: everything is safe to cut off, it only has to be done again.
  if (interrupted.signal.aborted) process.exit(128 + constants.signals[signal]);
  interrupted.abort();
};
process.on('SIGINT', interrupt).on('SIGTERM', interrupt).on('SIGHUP', interrupt);

process.exitCode = await runCommandLine(process.argv.slice(2), new Terminal(process.stdout, process.stderr), interrupted.signal);
