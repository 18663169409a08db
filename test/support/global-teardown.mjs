import { rm } from 'node:fs/promises';
import { asAdmin } from './global-setup.mjs';

export default async function tearDown() {
  const started = globalThis.threadlogTestServer;
  if (started !== undefined) {
    await started.server.stop();
    await rm(started.dataDir, { recursive: true, force: true });
  } else if (globalThis.threadlogTestTemplate !== undefined) {
    await asAdmin((client) => client.query(`drop database if exists ${globalThis.threadlogTestTemplate} with (force)`));
  }
}
