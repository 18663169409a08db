import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Jest on test files of its own, with the runtime and the environment of this project: what a run must tell of a test that fails, and what a
// file must not leave to the worker's next one.

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The order of the names is the order in which one worker runs them. */
const FILES = {
  'a-changes.spec.ts': `
    import { kept } from './kept.ts';
    const own = process.listenerCount('SIGTERM');
    test('changes its process', () => {
      expect(own).toBe(0);
      process.env['OF_THE_FIRST'] = 'yes';
      delete process.env['HOME'];
      process.chdir('/');
      process.on('SIGTERM', () => undefined);
      globalThis.console = { ...console };
      process.exit = (() => undefined) as never;
      kept.push('first');
    });`,
  'b-finds.spec.ts': `
    import { kept } from './kept.ts';
    test('finds it as it was, and shared modules as they are', () => {
      expect(process.env['OF_THE_FIRST']).toBeUndefined();
      expect(process.env['HOME']).toBeDefined();
      expect(process.cwd()).not.toBe('/');
      expect(process.listenerCount('SIGTERM')).toBe(0);
      expect(String(process.exit)).toContain('process.exit called with');
      expect(kept).toEqual(['first']);
    });`,
  'c-fails.spec.ts': `
    interface Erased { readonly one: number; }

    const wrong = (given: Erased) => expect(given.one).toBe(2);
    test('is wrong', () => wrong({ one: 1 }));
    describe('a test', () => test('never ends', () => new Promise(() => undefined), 50));
    test('rejects what nobody waits for', async () => {
      void Promise.reject(new Error('nobody waits'));
      await new Promise((resolve) => setTimeout(resolve, 20));
    });
    test('goes on', () => undefined);
    describe('whose preparation fails', () => {
      beforeAll(() => { throw new Error('not prepared'); });
      test('does not pass', () => undefined);
    });`,
  'd-loads-not.spec.ts': `throw new Error('not loaded');`,
  'e-dies.spec.ts': `test('takes its process along', () => { process.kill(process.pid, 'SIGKILL'); return new Promise(() => undefined); });`,
  'f-after.spec.ts': `test.each([1, 2])('is run by the next process: %i', (n) => expect(n).toBeGreaterThan(0));`,
};

interface Told {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly { readonly title: string; readonly status: string; readonly failureMessages: readonly string[] }[];
  }[];
}

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'threadlog-jest-'));
  await mkdir(join(folder, 'test'));
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  await writeFile(join(folder, 'test', 'kept.ts'), 'export const kept: string[] = [];');
  // The default order of files that never ran is by size, the largest first, and files of one size would be in none.
  await writeFile(
    join(folder, 'in-order.cjs'),
    `module.exports = class { sort(tests) { return [...tests].sort((a, b) => (a.path < b.path ? -1 : 1)); } cacheResults() {} };`,
  );
  for (const [name, text] of Object.entries(FILES)) await writeFile(join(folder, 'test', name), text);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Titles with their status, messages and the file's own message, by file. */
async function run(...options: string[]) {
  const { default: config } = (await import(join(ROOT, 'jest.config.mjs'))) as { default: Record<string, unknown> };
  const { runtime, testEnvironment, transform, testMatch, workerIdleMemoryLimit } = config;
  const here = (path: unknown) => String(path).replace('<rootDir>/', ROOT);
  const settings = {
    rootDir: folder,
    runtime: here(runtime),
    testEnvironment: here(testEnvironment),
    testSequencer: join(folder, 'in-order.cjs'),
    transform,
    testMatch,
    workerIdleMemoryLimit,
  };
  const output = join(folder, 'output.json');
  await new Promise((ended) => {
    execFile(
      process.execPath,
      [
        join(ROOT, 'node_modules/jest/bin/jest.js'),
        '-w',
        '1',
        '--config',
        JSON.stringify(settings),
        '--json',
        '--outputFile',
        output,
        ...options,
      ],
      { cwd: folder, env: { ...process.env, NODE_OPTIONS: '--disable-warning=ExperimentalWarning' } },
      ended,
    );
  });
  const told = JSON.parse(await readFile(output, 'utf8')) as Told;
  return (file: keyof typeof FILES) => {
    const found = told.testResults.find(({ name }) => name.endsWith(`/${file}`));
    if (found === undefined) throw new Error(`Jest said nothing of ${file}`);
    const tests = Object.fromEntries(found.assertionResults.map((test) => [test.title, test]));
    return { message: found.message, tests, statuses: found.assertionResults.map(({ status }) => status) };
  };
}

test('a file leaves nothing of its process to the next one, and what fails is told with its file and line', async () => {
  const of = await run();
  expect(of('a-changes.spec.ts')).toMatchObject({ message: '', statuses: ['passed'] });
  expect(of('b-finds.spec.ts')).toMatchObject({ message: '', statuses: ['passed'] });

  const { tests, statuses } = of('c-fails.spec.ts');
  expect(statuses).toEqual(['failed', 'failed', 'failed', 'passed', 'failed']);
  // The line of the source, not of what it was compiled to.
  expect(tests['is wrong']?.failureMessages[0]).toMatch(/Expected: .*2[\s\S]*c-fails\.spec\.ts:4:\d+/);
  expect(tests['never ends']?.failureMessages[0]).toMatch(/Exceeded timeout of 50 ms[\s\S]*c-fails\.spec\.ts:6:\d+/);
  expect(tests['rejects what nobody waits for']?.failureMessages[0]).toContain('nobody waits');
  expect(tests['does not pass']?.failureMessages[0]).toContain('not prepared');

  expect(of('d-loads-not.spec.ts').message).toMatch(/not loaded[\s\S]*d-loads-not\.spec\.ts:1:/);
  expect(of('e-dies.spec.ts').message).toContain('worker process');
  expect(of('f-after.spec.ts')).toMatchObject({ message: '', statuses: ['passed', 'passed'] });
}, 60_000);

test('tests are chosen by their names', async () => {
  const of = await run('-t', 'goes on');
  expect(of('c-fails.spec.ts').statuses).toEqual(['pending', 'pending', 'pending', 'passed', 'pending']);
}, 60_000);

test('the files that are to begin first exist', async () => {
  const { LONGEST } = (await import(join(ROOT, 'test/support/longest-first.mjs'))) as { LONGEST: string[] };
  expect(LONGEST.filter((name) => !existsSync(join(ROOT, name)))).toEqual([]);
});
