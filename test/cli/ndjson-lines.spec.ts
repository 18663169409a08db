import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { readLines } from '../../src/cli/ndjson-lines.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'threadlog-lines-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The lines of a file of these bytes. */
async function linesOf(...parts: readonly Buffer[]): Promise<string[]> {
  const path = join(folder, 'file');
  await writeFile(path, Buffer.concat(parts));
  const lines: string[] = [];
  for await (const { text } of readLines(path, new AbortController().signal)) lines.push(text ?? '');
  return lines;
}

const one = gzipSync('{"id":"1"}\n');
const two = gzipSync('{"id":"2"}\n');

test('of several gzip members one after the other all lines are read', async () => {
  expect(await linesOf(one, two)).toEqual(['{"id":"1"}', '{"id":"2"}']);
  // Also where a member begins beyond what is read at once.
  const long = gzipSync(`${'x'.repeat(10)}\n`.repeat(100_000), { level: 0 });
  expect(await linesOf(long, two)).toHaveLength(100_001);
});

test.each([
  ['zeros', [one, Buffer.alloc(10)]],
  ['zeros, and another member', [one, Buffer.alloc(10), two]],
  ['zeros, after more than is read at once', [gzipSync('x\n'.repeat(400_000), { level: 0 }), Buffer.alloc(1)]],
  ['plain lines', [one, Buffer.from('{"id":"2"}\n')]],
  ['one byte', [one, Buffer.from('x')]],
  ['half a member', [one, two.subarray(0, 20)]],
])('what follows gzip data and is none is an error: %s', async (_, parts) => {
  await expect(linesOf(...parts)).rejects.toThrow(/cannot be read( after line \d+)?: /);
});
