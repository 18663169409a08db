import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBackend } from '../../src/backend.js';
import { readConfig } from '../../src/config.js';
import { createLogger } from '../../src/log.js';
import { openMasterKey } from '../../src/security/master-key.js';
import { createDatabase } from '../support/database.js';

const silent = createLogger('silent');

describe('MASTER_KEY', () => {
  test('is made once in the data folder, by however many processes', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'threadlog-key-'));
    const keys = await Promise.all(Array.from({ length: 8 }, () => openMasterKey(undefined, join(dir, 'new'))));
    expect(new Set(keys.map((key) => key.derive('test').toString('hex'))).size).toBe(1);
    await rm(dir, { recursive: true });
  });

  test('of another installation is refused at start', async () => {
    const database = await createDatabase();
    const open = (key: Buffer) =>
      openBackend(readConfig({ DATABASE_URL: database.url, MASTER_KEY: key.toString('base64') }), silent, { name: 'test' });
    const right = randomBytes(32);
    const first = await open(right);
    await first.keys.hashKey('main');
    await first.close();
    await expect(open(randomBytes(32))).rejects.toThrow('this MASTER_KEY is not the one that the keys in the database were wrapped with');
    const again = await open(right);
    await again.close();
    await database.drop();
  });
});
