import { openBackend } from '../backend.js';
import { readConfig } from '../config.js';
import { createLogger } from '../log.js';
import { printable } from './printable.js';

/** A worker that lives as long as its parent, even when the parent is killed: read-models.ts starts it during long commands. */
async function main(): Promise<void> {
  const parentGone = new Promise<void>((resolve) => process.once('disconnect', resolve));
  // Ctrl-C, and the end of the terminal, reach the whole process group. The parent decides when this process ends.
  process.on('SIGINT', () => undefined).on('SIGHUP', () => undefined);
  process.stderr.on('error', () => undefined);
  const logger = createLogger('warn', process.stderr);
  const backend = await openBackend(readConfig(), logger, { name: 'threadlog-cli-projections' });
  try {
    const { startLiveProjections } = await import('../../projections/live.js');
    const projections = await startLiveProjections(backend, {});
    projections.failed.catch((error: unknown) => logger.error({ error: String(error) }, 'a projection group stopped'));
    await parentGone;
    await projections.stop();
  } finally {
    await backend.close();
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`${printable(`the projections ended: ${error instanceof Error ? error.message : String(error)}`)}\n`);
  process.exitCode = 1;
  if (process.connected) process.disconnect();
});
