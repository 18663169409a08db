import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { startApi, type TestApi } from '../support/api.js';
import { CLI_MS } from '../support/threadlog.js';

/** A block of commands, and the block right after it, which is their output. */
interface Step {
  readonly commands: string;
  readonly output: string;
}

function stepsOf(page: string): Step[] {
  return [...page.matchAll(/^```sh\n([^]*?)^```\n(?:\n```\n([^]*?)^```\n)?/gm)].map(([, commands = '', output = '']) => ({
    commands,
    output,
  }));
}

/** `…` in a line stands for any text, and alone on a line for any lines. */
function asPattern(output: string): RegExp {
  const lines = output
    .trimEnd()
    .split('\n')
    .map((line) =>
      line === '…'
        ? String.raw`[^]*`
        : line
            .split('…')
            .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
            .join('.*'),
    );
  return new RegExp(`^${lines.join('\n')}$`);
}

let api: TestApi;
let folder: string;
beforeAll(async () => {
  api = await startApi();
  folder = await mkdtemp(join(tmpdir(), 'threadlog-audit-'));
});
afterAll(async () => {
  await api.stop();
  await rm(folder, { recursive: true, force: true });
});

test(
  'every command of docs/audit.md does what the page says',
  async () => {
    const [prelude, ...steps] = stepsOf(await readFile('docs/audit.md', 'utf8'));
    expect(steps.length).toBeGreaterThan(8);
    const given = (prelude?.commands ?? '')
      .replace(/^API=.*$/m, `API=${api.url}/api/support`)
      .replace(/^KEY=.*$/m, `KEY='X-API-Key: ${api.adminKey}'`);
    const bin = join(process.cwd(), 'bin/threadlog.js');
    const END = '--- the next step ---';
    const script = [
      'set -eu',
      given,
      `npx() { shift; "${process.execPath}" --disable-warning=ExperimentalWarning "${bin}" "$@"; }`,
      ...steps.flatMap(({ commands }) => [commands, `echo '${END}'`]),
    ].join('\n');
    const { EVENTSTORE_URL = '' } = process.env;
    const child = spawn('bash', ['-c', script], {
      cwd: folder,
      env: {
        ...process.env,
        DATABASE_URL: api.backend.databaseUrl,
        MASTER_KEY: api.backend.config.MASTER_KEY ?? '',
        DATA_DIR: folder,
        EVENTSTORE_URL,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
    const outputs = output.split(`${END}\n`);
    for (const [i, { commands, output: expected }] of steps.entries()) {
      const said = outputs[i]?.trimEnd() ?? `nothing: the commands before it failed\n${errors}`;
      if (!asPattern(expected).test(said)) throw new Error(`${commands}\nprinted\n${said}\ninstead of\n${expected}\n${errors}`);
    }
    expect(outputs).toHaveLength(steps.length + 1);
  },
  CLI_MS,
);
