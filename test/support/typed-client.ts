import { createHash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/*
 * Makes the typed client from docs/openapi.json, as a user makes it (docs/api.md), where it is not there or made from another document.
 * It is not committed: it is as large as the document and says nothing that the document does not.
 */

const DOCUMENT = new URL('../../docs/openapi.json', import.meta.url);
const CLIENT = fileURLToPath(new URL('../docs/threadlog', import.meta.url));
/** Where nobody looks for sources. */
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/', import.meta.url));

/** Writes test/docs/threadlog; nothing when it is current. */
export async function makeTypedClient(): Promise<void> {
  const { version } = createRequire(import.meta.url)('@hey-api/openapi-ts/package.json') as { version: string };
  const text = await readFile(DOCUMENT, 'utf8');
  const digest = createHash('sha256').update(version).update(text).digest('hex');
  if ((await readFile(`${CLIENT}/.made-of`, 'utf8').catch(() => '')) === digest) return;
  // Loading the generator takes longer than a whole call that finds the client current.
  const { createClient } = await import('@hey-api/openapi-ts');
  // A client that is half written is never met: tests, types and lint may want it at once.
  const mine = `${CACHE}threadlog-client.${process.pid}`;
  await createClient({ input: JSON.parse(text) as Record<string, unknown>, output: mine, logs: { level: 'silent', file: false } });
  await writeFile(`${mine}/.made-of`, digest);
  await rm(CLIENT, { recursive: true, force: true });
  await rename(mine, CLIENT);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await makeTypedClient();
