import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, readdir, realpath, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
let app: string;

beforeEach(async () => {
  app = await mkdtemp(join(tmpdir(), 'threadlog-build-'));
  await cp(join(ROOT, 'bin'), join(app, 'bin'), { recursive: true });
  for (const file of ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json']) await cp(join(ROOT, file), join(app, file));
  await writeFile(join(app, 'package.json'), '{ "type": "module" }');
  await symlink(join(ROOT, 'node_modules'), join(app, 'node_modules'));
  await mkdir(join(app, 'src', 'part'), { recursive: true });
  await writeFile(join(app, 'src', 'main.ts'), `import { part } from './part/part.js';\nprocess.stdout.write(part);\n`);
  await writeFile(join(app, 'src', 'part', 'part.ts'), `export const part: string = 'first';\n`);
  await age();
});

afterEach(async () => {
  await rm(app, { recursive: true, force: true });
});

test('a start builds what is missing, and leaves alone what is current', async () => {
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'first' });
  const built = await stamp();
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'first' });
  expect(await stamp()).toBe(built);
});

test('an edit, a deleted file and a changed setting each make the next start build', async () => {
  await run('start.js');
  await writeFile(join(app, 'src', 'part', 'part.ts'), `export const part: string = 'second';\n`);
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'second' });

  await writeFile(join(app, 'src', 'main.ts'), `process.stdout.write('alone');\n`);
  await rm(join(app, 'src', 'part'), { recursive: true });
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'alone' });
  expect(await readdir(join(app, 'dist', 'compiled', 'src'))).toEqual(['main.js', 'main.js.map']);
  expect(await readdir(join(app, 'dist', 'src'))).toEqual(['main.js', 'main.js.map']);

  const built = await stamp();
  await writeFile(join(app, 'tsconfig.json'), await readFile(join(app, 'tsconfig.json'), 'utf8'));
  await run('start.js');
  expect(await stamp()).toBeGreaterThan(built);
});

test('an edit during a build is not lost', async () => {
  const building = run('build.js');
  // The compiler writes last, so it has read the file that is changed now.
  await until(() => stat(join(app, 'dist', 'compiled', 'src', 'main.js')).then(Boolean, () => false));
  await writeFile(join(app, 'src', 'part', 'part.ts'), `export const part: string = 'late';\n`);
  await building;
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'late' });
});

test('sources that do not compile stop the start with the place, every time, and the last build is not started instead', async () => {
  await run('start.js');
  await writeFile(join(app, 'src', 'part', 'part.ts'), `export const part: string = 7;\n`);
  for (let time = 0; time < 2; time += 1) {
    const ran = await run('start.js');
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.errors).toContain('src/part/part.ts(1,14)');
  }
});

test('a build whose files were deleted is made again, whatever the compiler remembers', async () => {
  await run('start.js');
  for (const name of await readdir(join(app, 'dist'))) {
    if (name !== '.tsbuildinfo') await rm(join(app, 'dist', name), { recursive: true });
  }
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'first' });
});

test('processes that start at once all start, on one build', async () => {
  const builds = await countBuilds();
  const all = await Promise.all([1, 2, 3].map(() => run('start.js')));
  expect(await builds()).toBe(1);
  expect(all).toEqual([1, 2, 3].map(() => ({ code: 0, out: 'first', errors: '' })));
  expect((await readdir(join(app, 'dist'))).toSorted()).toEqual(['.built', '.tsbuildinfo', 'compiled', 'src']);
});

test('a killed build does not stop the next one', async () => {
  const building = spawn(process.execPath, [join(app, 'bin', 'build.js')], { cwd: tmpdir() });
  await until(() =>
    readdir(join(app, 'dist')).then(
      (names) => names.includes('.lock'),
      () => false,
    ),
  );
  building.kill('SIGKILL');
  await once(building, 'close');
  expect(await readdir(join(app, 'dist'))).toContain('.lock');
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'first' });
});

test('a program finds others from where its source lies, loads late what it loads late, and names lines of the sources', async () => {
  const late = `export function late(): string {\n  throw new Error('late');\n}\n`;
  const tell = `import { fileURLToPath } from 'node:url';
process.stdout.write(fileURLToPath(new URL('../main.js', import.meta.url)) + ' ');
const { late } = await import('./part/late.js');
try {
  late();
} catch (error) {
  process.stdout.write(String((error as Error).stack));
}
`;
  await mkdir(join(app, 'src', 'deep'));
  await writeFile(join(app, 'src', 'deep', 'tell.ts'), tell.replace('./part', '../part'));
  await writeFile(join(app, 'src', 'part', 'late.ts'), late);
  await writeFile(join(app, 'src', 'main.ts'), `import './deep/tell.js';\n`);
  const { code, out } = await run('start.js', '--enable-source-maps');
  expect(code).toBe(0);
  const root = await realpath(app);
  expect(out.split(' ')[0]).toBe(join(root, 'dist', 'src', 'main.js'));
  expect(out).toContain(`${join(root, 'src', 'part', 'late.ts')}:2:`);
  expect(out).toContain(`${join(root, 'src', 'deep', 'tell.ts')}:5:`);
  expect(await readdir(join(app, 'dist', 'chunks'))).toContainEqual(expect.stringMatching(/^late-.*\.js$/));
});

test('where there is no compiler the build is used as it is, and where there is none either, that is said', async () => {
  await run('build.js');
  await rm(join(app, 'node_modules'));
  await writeFile(join(app, 'src', 'part', 'part.ts'), `export const part: string = 'unseen';\n`);
  expect(await run('start.js')).toMatchObject({ code: 0, out: 'first' });
  await rm(join(app, 'dist'), { recursive: true });
  const ran = await run('start.js');
  expect(ran).toMatchObject({ code: 1, out: '' });
  expect(ran.errors).toContain('npm ci');
});

/** The sources as they are in a checkout: older than anything that is built now. */
async function age(): Promise<void> {
  const past = new Date(Date.now() - 60_000);
  for (const name of await readdir(app, { recursive: true })) {
    if (!name.startsWith('node_modules')) await utimes(join(app, name), past, past);
  }
}

/** Puts a program before the compiler that notes each call. */
async function countBuilds(): Promise<() => Promise<number>> {
  const [modules, notes] = [join(app, 'node_modules'), join(app, 'calls')];
  await rm(modules);
  await mkdir(join(modules, 'ts7', 'bin'), { recursive: true });
  for (const name of ['@types', 'rolldown']) await symlink(join(ROOT, 'node_modules', name), join(modules, name));
  const real = JSON.stringify(join(ROOT, 'node_modules', 'ts7', 'bin', 'tsc'));
  const noting = `require('node:fs').appendFileSync(${JSON.stringify(notes)}, '.');
    process.exitCode = require('node:child_process').spawnSync(process.execPath, [${real}, ...process.argv.slice(2)], { stdio: 'inherit' }).status;`;
  await writeFile(join(modules, 'ts7', 'package.json'), '{ "type": "commonjs" }');
  await writeFile(join(modules, 'ts7', 'bin', 'tsc'), noting);
  return async () => (await readFile(notes, 'utf8')).length;
}

async function stamp(): Promise<number> {
  return (await stat(join(app, 'dist', '.built'))).mtimeMs;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 60_000; !(await holds());) if (Date.now() > deadline) throw new Error('it did not come true');
}

function run(program: string, ...options: string[]): Promise<{ code: number | null; out: string; errors: string }> {
  return new Promise((ended) => {
    const child = spawn(process.execPath, [...options, join(app, 'bin', program)], { cwd: tmpdir() });
    let [out, errors] = ['', ''];
    child.stdout.on('data', (chunk) => (out += String(chunk)));
    child.stderr.on('data', (chunk) => (errors += String(chunk)));
    child.on('close', (code) => ended({ code, out, errors }));
  });
}
