import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLI_MS, threadlog, threadlogHere } from '../support/threadlog.js';

const COMMANDS = ['export', 'import', 'verify', 'api-keys', 'organizations', 'database-url', 'projections', 'parked', 'replay'];

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'threadlog-usage-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const call = (given: readonly string[]) => threadlogHere(given, { DATA_DIR: join(folder, 'none') });

test('--help names every command, and each command explains itself', async () => {
  const all = await call(['--help']);
  expect(all).toMatchObject({ code: 0, stderr: '' });
  for (const name of COMMANDS) expect(all.stdout).toContain(`  ${name} `);
  for (const name of COMMANDS) {
    const one = await call([name, '--help']);
    expect(one).toMatchObject({ code: 0, stderr: '' });
    expect(one.stdout).toContain(`Usage: threadlog ${name}`);
    expect(one.stdout).toContain('--json');
  }
});

test('wrong usage ends with 2 and says what is wrong, before anything is opened', async () => {
  const wrong: [string[], string][] = [
    [[], 'a command is missing'],
    [['imports'], 'there is no command "imports"'],
    [['toString'], 'there is no command "toString"'],
    [['a\u001b[2J\n\u202eb'], String.raw`there is no command "a\u{1b}[2J\u{a}\u{202e}b"`],
    [['export'], 'FILE is missing'],
    [['export', '-', '--json'], 'exclude each other'],
    [['export', 'a', '--fast'], "Unknown option '--fast'"],
    [['import'], 'FILE is missing'],
    [['import', 'a', 'b'], '"b" is one word too many'],
    [['import', 'a', '--fast'], "Unknown option '--fast'"],
    [['import', 'a', '--on-bad-line', 'ignore'], '--on-bad-line is one of skip, fail'],
    [['import', 'a', '--organization'], '--organization'],
    [['verify', '--stream', 'x', '--organization', 'y'], 'exclude each other'],
    [['verify', '--stream', 'nonsense'], 'is not the name of a stream'],
    [['api-keys'], 'create, list or revoke is missing'],
    [['api-keys', 'make'], 'there is no "api-keys make"'],
    [['api-keys', 'create'], '--role is missing'],
    [['api-keys', 'create', '--role', 'root'], '--role is one of admin, agent, auditor, analyst'],
    [['api-keys', 'create', '--role', 'admin', '--name', ' '], '--name is a text'],
    [['api-keys', 'revoke'], 'ID is missing'],
    [['organizations', 'create'], 'NAME is missing'],
    [['organizations', 'create', 'X', '--id', 'Capital'], '--id is 1 to 64'],
    [['database-url', '--role', 'root'], '--role is one of'],
    [['projections'], 'list, rebuild, pause or resume is missing'],
    [['projections', 'drop'], 'there is no "projections drop"'],
    [['projections', 'list', 'core'], '"core" is one word too many'],
    [['projections', 'rebuild', 'insights'], 'GROUP is one of core, insight'],
    [['projections', 'rebuild', 'core', 'core'], '"core" is one word too many'],
    [['projections', 'pause', 'core', 'core'], '"core" is one word too many'],
    [['parked'], 'list, retry or skip is missing'],
    [['parked', 'drop'], 'there is no "parked drop"'],
    [['parked', 'skip'], 'STREAM is missing'],
    [['parked', 'retry', 'nonsense'], 'is not the name of a stream'],
    [['replay', 'a', 'b'], '"b" is one word too many'],
    [['replay', 'a', '--revision', '-1'], '--revision'],
    [['replay', 'a', '--revision', '1', '--at', '2026-01-01T00:00:00Z'], 'exclude each other'],
    [['replay', 'a', '--at', 'yesterday'], '--at is an instant with a zone'],
    [['replay', '--revision', '1'], 'go with a CONVERSATION'],
    [['replay', 'a', '--diff', '2'], '--diff is FROM..TO'],
    [['replay', 'a', '--diff', '2..x'], '--diff is FROM..TO'],
    [['replay', '--diff', '..2'], '--diff goes with a CONVERSATION or --stream'],
    [['replay', 'a', '--diff', '..2', '--revision', '1'], '--diff goes with a CONVERSATION or --stream'],
    [['replay', 'a', '--after', '1'], 'exclude each other'],
    [['replay', '--stream', 'nonsense'], 'is not the name of a stream'],
    [['projections', 'resume', 'cores'], 'NAME is one of core'],
  ];
  for (const [given, why] of wrong) {
    const ended = await call(given);
    expect({ given, ...ended }).toEqual({ given, code: 2, stdout: '', stderr: expect.stringContaining(why) as string });
    expect(ended.stderr).toMatch(/Try threadlog .*--help/);
    expect(ended.stderr).not.toMatch(/^ +at /m);
  }
  // Whatever opens a store makes this folder first.
  expect(existsSync(join(folder, 'none'))).toBe(false);
});

test(
  'a process of its own says the same, and ends with the same code',
  async () => {
    const env = { DATA_DIR: join(folder, 'none') };
    const [helped, wrong] = await Promise.all([threadlog(['verify', '--help'], env), threadlog(['parked', 'drop'], env)]);
    expect(helped).toEqual({ ...(await call(['verify', '--help'])), signal: null });
    expect(wrong).toEqual({ ...(await call(['parked', 'drop'])), signal: null });
    expect([helped.code, wrong.code]).toEqual([0, 2]);
  },
  CLI_MS,
);

test(
  'what cannot be reached or is configured wrongly is told in a sentence, without a stack',
  async () => {
    const env = { DATA_DIR: join(folder, 'none') };
    const [unreachable, invalid, stopped] = await Promise.all([
      threadlog(['organizations', 'list'], { ...env, DATABASE_URL: 'postgres://nobody:none@127.0.0.1:1/none' }),
      threadlog(['organizations', 'list'], { ...env, DATABASE_URL: 'mysql://x', POOL_SIZE: 'many' }),
      threadlog(['database-url'], env),
    ]);
    expect(unreachable).toMatchObject({ code: 1, stdout: '' });
    expect(unreachable.stderr).toMatch(/^threadlog organizations: .*ECONNREFUSED/);
    expect(invalid).toMatchObject({ code: 1, stdout: '' });
    expect(invalid.stderr).toContain('DATABASE_URL: must be postgres://');
    expect(invalid.stderr).toContain('POOL_SIZE');
    expect(stopped).toMatchObject({ code: 1, stdout: '' });
    expect(stopped.stderr).toContain('no PostgreSQL runs on');
    for (const { stderr } of [unreachable, invalid, stopped]) expect(stderr).not.toMatch(/^ +at /m);
  },
  CLI_MS,
);
