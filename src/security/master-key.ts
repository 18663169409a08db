import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MasterKey } from './sealing.js';

/**
 * The operator's key: MASTER_KEY, or the file in DATA_DIR, which the first start creates. Two processes that start at once agree on one
 * key, because the file is created exclusively.
 */
export async function openMasterKey(given: string | undefined, dataDir: string): Promise<MasterKey> {
  if (given !== undefined) return new MasterKey(Buffer.from(given, 'base64'));
  await mkdir(dataDir, { recursive: true });
  const path = join(dataDir, 'master.key');
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(`${randomBytes(32).toString('base64')}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  for (let attempt = 0; ; attempt++) {
    const text = (await readFile(path, 'utf8')).trim();
    // Another process may have just created it without having written it yet.
    if (text.length === 44) return new MasterKey(Buffer.from(text, 'base64'));
    if (attempt === 50)
      throw new Error(
        `${path} does not hold a key of 32 bytes in base64; restore it from a backup: without it personal fields cannot be unsealed`,
      );
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
