import { open, rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { type Command, CommandFailed, parseCommandLine, WrongUsage } from './command.js';
import { type Exported, exportLog } from './log-export.js';
import { chooseOrganization, withSession } from './session.js';
import { count, counted, type Terminal } from './terminal.js';

const PROGRESS_MS = 200;
/** These texts repeat so much that higher levels pack them hardly smaller. */
const GZIP_LEVEL = 3;

export const exportCommand: Command = {
  help: `Usage: threadlog export FILE [--organization ID] [--json]

Writes the whole log to FILE, with the wrapped keys and the other rows that the log cannot restore. threadlog import turns FILE into a new
instance with the same ids, times, revisions and hashes, on either log. Personal fields stay sealed: only the same MASTER_KEY, which FILE
does not contain, opens them. FILE ending in .gz is packed; - is standard output. docs/export.md describes the content.

FILE holds everything that was in the log when the export began; requests may go on meanwhile. An incomplete export is removed, and import
refuses a file that was cut off.

  --organization ID    only this organization
  --json               print one JSON document: {file, organizationId, events, kept: {TABLE: rows}, bytes, seconds, eventsPerSecond, head}`,

  async run(given, terminal, signal) {
    const options = { organization: { type: 'string' }, json: { type: 'boolean' } } as const;
    const { values, positionals } = parseCommandLine(given, options, ['FILE']);
    const [path = ''] = positionals;
    const { organization, json = false } = values;
    if (path === '-' && json) throw new WrongUsage('--json and - exclude each other: standard output is the export');
    return withSession(async (session) => {
      const organizationId = organization === undefined ? undefined : await chooseOrganization(session, organization);
      const exported: Exported = { events: 0, kept: {}, head: undefined };
      const began = performance.now();
      const { store, database, masterKey, clock } = session.backend;
      const parts = { store, database, masterKey, now: clock.now(), ...(organizationId === undefined ? {} : { organizationId }) };
      const lines = told(exportLog(parts, exported, signal), exported, began, terminal);
      const bytes = path === '-' ? await toOutput(lines, terminal) : await toFile(lines, path, signal);
      const seconds = (performance.now() - began) / 1_000;
      if (json) {
        const { events, kept, head } = exported;
        const rate = Math.round(events / seconds);
        const answer = { file: path, organizationId: organizationId ?? null, events, kept, bytes };
        terminal.json({ ...answer, seconds: Number(seconds.toFixed(3)), eventsPerSecond: rate, head });
      } else {
        const kept = Object.values(exported.kept).reduce((sum, rows) => sum + rows, 0);
        const say = (line: string) => (path === '-' ? terminal.note(line) : terminal.answer(line));
        say(`events exported      ${count(exported.events)}`);
        say(`keys and other rows  ${count(kept)}`);
        say(`bytes                ${count(bytes)}`);
        say(`seconds              ${seconds.toFixed(1)}`);
        say(`events a second      ${count(exported.events / seconds)}`);
      }
      return 0;
    });
  },
};

async function* told(
  lines: AsyncIterable<string>,
  exported: Exported,
  began: number,
  terminal: Terminal,
): AsyncGenerator<string, void, undefined> {
  let toldAt = 0;
  for await (const chunk of lines) {
    yield chunk;
    const now = performance.now();
    if (now - toldAt < PROGRESS_MS) continue;
    toldAt = now;
    const rate = exported.events / ((now - began) / 1_000);
    terminal.progress(`${counted(exported.events, 'event')} exported, ${count(rate)} a second`);
  }
}

/** Writes beside FILE and renames the file once it is complete and on the disk, so that FILE is never half an export. */
async function toFile(lines: AsyncIterable<string>, path: string, signal: AbortSignal): Promise<number> {
  const part = `${path}.part`;
  try {
    // Readable only by its owner: organization names, ids and times are not sealed.
    const file = await open(part, 'w', 0o600);
    const output = file.createWriteStream({ flush: true });
    if (path.endsWith('.gz')) await pipeline(Readable.from(lines), createGzip({ level: GZIP_LEVEL }), output, { signal });
    else await pipeline(Readable.from(lines), output, { signal });
    await rename(part, path);
    return output.bytesWritten;
  } catch (error) {
    await rm(part, { force: true });
    const { syscall, message } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new CommandFailed(`${path} cannot be written: ${message}`, { cause: error });
  }
}

/** Does not close standard output: the process ends by itself. */
async function toOutput(lines: AsyncIterable<string>, terminal: Terminal): Promise<number> {
  let bytes = 0;
  for await (const chunk of lines) {
    bytes += Buffer.byteLength(chunk);
    await terminal.raw(chunk);
  }
  return bytes;
}
