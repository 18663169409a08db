import { BadDialogue, type Dialogue, readDialogue } from './dialogue.js';
import { ConversationImporter, type Imported } from './dialogue-import.js';
import { ConversationWriter } from '../conversations/conversation.commands.js';
import { type KeyLeft, VisitorWriter } from '../visitors/visitor.writer.js';
import { type Command, type ExitCode, oneOf, parseCommandLine, WrongUsage } from './command.js';
import { type ExportHeader, headerOf } from './log-export.js';
import { eventsInFile, LogImport } from './log-import.js';
import { type Line, readLines } from './ndjson-lines.js';
import { patience } from './patience.js';
import { LiveReadModels } from './read-models.js';
import { chooseOrganization, type Session, withSession } from './session.js';
import { count, counted, type Terminal } from './terminal.js';

/** Dialogues and text bytes of one block, and how many blocks are in progress at once, so that reading never waits for the log. */
const BLOCK_DIALOGUES = 32;
const BLOCK_BYTES = 1024 * 1024;
const BLOCKS = 4;
/** How many bad lines are reported one by one; later ones are only counted. */
const SHOWN = 1_000;
const PROGRESS_MS = 200;

export const importCommand: Command = {
  help: `Usage: threadlog import FILE [--organization ID] [--on-bad-line skip|fail] [--no-wait] [--json]
       threadlog import EXPORT [--no-wait] [--json]

Brings conversations into the log, one JSON object a line:
  {"id": "7", "topics": ["billing"], "turns": [{"from": "visitor", "text": "Hello"}, {"from": "agent", "text": "Hi!"}]}
docs/import.md lists all fields. FILE may be packed with gzip; - is standard input. FILE is never held in memory as a whole.

A second import of the same file adds nothing, and an import after an interruption adds what is missing. Imported conversations trigger no
webhook, rule or assignment. At the end it waits until the lists show everything, and runs the projections itself when no server does.

It recognizes a file of threadlog export. Such a file goes into an empty instance, with the same MASTER_KEY, while no server or worker
runs, and gives the same ids, times, revisions, hashes and answers. Any other instance is refused and left as it is, except one in which
an import of the same file has begun. docs/export.md explains more.

  --organization ID       may be left out while there is only one; an export brings its own
  --on-bad-line skip      report each bad line with its number, and go on
  --on-bad-line fail      stop at the first bad line (the default); what was imported before it stays
  --no-wait               end when everything is in the log
  --json                  print one JSON document: {lines, imported, present, bad, badLines, warnings, messages, seconds,
                          messagesPerSecond},
                          of an export {events, present, kept: {TABLE: rows}, from, log, seconds, eventsPerSecond}`,

  async run(given, terminal, signal) {
    const options = {
      organization: { type: 'string' },
      'on-bad-line': { type: 'string' },
      'no-wait': { type: 'boolean' },
      json: { type: 'boolean' },
    } as const;
    const { values, positionals } = parseCommandLine(given, options, ['FILE']);
    const [path = ''] = positionals;
    const onBadLine = oneOf('--on-bad-line', values['on-bad-line'] ?? 'fail', ['skip', 'fail']);
    const wait = values['no-wait'] !== true;
    const json = values.json === true;
    const lines = readLines(path, signal);
    try {
      const first = await lines.next();
      const header = first.done === true || first.value.text === undefined ? undefined : headerOf(first.value.text);
      const all = withFirst(first, lines);
      if (header !== undefined) {
        if (values.organization !== undefined || values['on-bad-line'] !== undefined)
          throw new WrongUsage('--organization and --on-bad-line are for conversations: an export is imported as it is');
        // Checked before anything is opened. A pipe can be read only once, so there a missing end is reported when it is reached.
        const total = path === '-' ? undefined : await eventsInFile(readLines(path, signal));
        return await withSession((session) => importExport(session, { header, lines: all, total, wait, json }, terminal, signal));
      }
      return await withSession(async (session) => {
        const organizationId = await chooseOrganization(session, values.organization);
        const readModels = new LiveReadModels(session.backend, terminal);
        const run = new ImportRun(session, organizationId, terminal, onBadLine, signal);
        try {
          // Only once there is something to fold: a second run over the same file adds nothing.
          await run.all(all, wait ? () => readModels.ensureRunning() : undefined);
          if (!run.failed && wait) await readModels.caughtUp(signal);
        } finally {
          await readModels.stop();
        }
        run.report(json);
        return run.failed ? 1 : 0;
      });
    } finally {
      await lines.return();
    }
  },
};

async function* withFirst<T>(first: IteratorResult<T, void>, rest: AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}

async function importExport(
  { backend }: Session,
  given: {
    readonly header: ExportHeader;
    readonly lines: AsyncIterable<Line>;
    readonly total: number | undefined;
    readonly wait: boolean;
    readonly json: boolean;
  },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<ExitCode> {
  const { store, database, masterKey } = backend;
  const { header, wait, json } = given;
  const began = performance.now();
  const run = new LogImport({ store, database, masterKey, patiently: patience(signal) }, header, signal);
  const { done } = run;
  const telling = setInterval(() => {
    const of = given.total === undefined ? '' : ` of ${count(given.total)}`;
    const rate = done.events / ((performance.now() - began) / 1_000);
    terminal.progress(
      `${count(done.events + done.present)}${of} events, ${count(done.present)} of them already there; ${count(rate)} a second`,
    );
  }, PROGRESS_MS);
  try {
    await run.run(given.lines);
    // Installs the reactors after the imported events, which are no news to them.
    if (done.events > 0) {
      const [{ reactorsOf }, { installReactor }] = await Promise.all([
        import('../../projections/registry.js'),
        import('../../projections/runtime/reactor.js'),
      ]);
      await database.deleteFrom('keep.reactors').execute();
      for (const reactor of reactorsOf(backend)) await installReactor(database, store, reactor);
    }
  } finally {
    clearInterval(telling);
  }
  const seconds = (performance.now() - began) / 1_000;
  if (wait) {
    // Only now: the export already holds, or continues with, what projections and reactors would append in the meantime.
    const readModels = new LiveReadModels(backend, terminal);
    try {
      await readModels.caughtUp(signal);
    } finally {
      await readModels.stop();
    }
  }
  const { events, present, kept } = done;
  const rate = events / seconds;
  if (json) {
    const answer = { events, present, kept, from: header.log.id, log: store.log.id };
    terminal.json({ ...answer, seconds: Number(seconds.toFixed(3)), eventsPerSecond: Math.round(rate) });
  } else {
    terminal.answer(`events imported        ${count(events)}`);
    terminal.answer(`  already there        ${count(present)}`);
    terminal.answer(`keys and other rows    ${count(Object.values(kept).reduce((sum, rows) => sum + rows, 0))}`);
    terminal.answer(`seconds                ${seconds.toFixed(1)}`);
    terminal.answer(`events a second        ${count(rate)}`);
  }
  return 0;
}

/** A line's number and its dialogue. */
interface Numbered {
  readonly line: number;
  readonly dialogue: Dialogue;
}

/** One run over one file. */
class ImportRun {
  /** True when a bad line ended the run. */
  failed = false;
  private lines = 0;
  private imported = 0;
  private present = 0;
  private messages = 0;
  private bad = 0;
  private readonly badLines: { line: number; reason: string }[] = [];
  /** Keys that belong to other visitors and stayed with them; the first SHOWN of them. */
  private readonly warnings: ({ line: number } & KeyLeft)[] = [];
  private left = 0;
  private readonly began = performance.now();
  private toldAt = 0;
  private readonly importer: ConversationImporter;

  constructor(
    private readonly session: Session,
    organizationId: string,
    private readonly terminal: Terminal,
    private readonly onBadLine: 'skip' | 'fail',
    private readonly signal: AbortSignal,
  ) {
    const { store, transactor, keys, unchangedAnswers, ids } = session.backend;
    this.importer = new ConversationImporter(
      {
        store,
        transactor,
        keys,
        ids,
        agents: session.agents,
        visitors: new VisitorWriter(transactor, keys, unchangedAnswers),
        conversations: new ConversationWriter(transactor, keys),
        patiently: patience(signal),
      },
      organizationId,
    );
  }

  /**
   * @param onFirst called once, at the first import
   * @throws CommandFailed when the file or a store fails
   */
  async all(lines: AsyncIterable<Line>, onFirst?: () => Promise<void>): Promise<void> {
    const { signal } = this;
    const inHand = new Set<Promise<void>>();
    let fault: { readonly error: unknown } | undefined;
    let first = onFirst;
    const begin = (block: readonly Numbered[]) => {
      const working = this.block(block)
        .then(async () => {
          if (this.imported === 0 || first === undefined) return;
          const run = first;
          first = undefined;
          await run();
        })
        .catch((error: unknown) => void (fault ??= { error }))
        .finally(() => inHand.delete(working));
      inHand.add(working);
    };
    let block: Numbered[] = [];
    let bytes = 0;
    try {
      for await (const line of lines) {
        this.lines++;
        const dialogue = this.read(line);
        if (dialogue !== undefined) {
          block.push({ line: line.number, dialogue });
          bytes += line.text?.length ?? 0;
        }
        if (block.length >= BLOCK_DIALOGUES || bytes >= BLOCK_BYTES) {
          begin(block);
          block = [];
          bytes = 0;
          while (inHand.size >= BLOCKS) await Promise.race(inHand);
        }
        if (this.failed || fault !== undefined || signal.aborted) break;
      }
      if (block.length > 0 && fault === undefined && !signal.aborted) begin(block);
    } finally {
      // Work in progress must end before the stores are closed.
      await Promise.all(inHand);
    }
    signal.throwIfAborted();
    if (fault !== undefined) throw fault.error;
  }

  report(json: boolean): void {
    const seconds = (performance.now() - this.began) / 1_000;
    const rate = this.messages / seconds;
    if (json) {
      this.terminal.json({
        lines: this.lines,
        imported: this.imported,
        present: this.present,
        bad: this.bad,
        badLines: this.badLines,
        warnings: this.warnings,
        messages: this.messages,
        seconds: Number(seconds.toFixed(3)),
        messagesPerSecond: Math.round(rate),
      });
      return;
    }
    this.terminal.answer(`lines                     ${count(this.lines)}`);
    this.terminal.answer(`conversations imported    ${count(this.imported)}`);
    this.terminal.answer(`  already there           ${count(this.present)}`);
    this.terminal.answer(`  bad lines               ${count(this.bad)}`);
    if (this.left > 0) this.terminal.answer(`keys left to others       ${count(this.left)}`);
    this.terminal.answer(`messages imported         ${count(this.messages)}`);
    this.terminal.answer(`seconds                   ${seconds.toFixed(1)}`);
    this.terminal.answer(`messages a second         ${count(rate)}`);
  }

  private read({ number, text, fault }: Line): Dialogue | undefined {
    if (text === undefined) {
      this.badLine(number, fault ?? 'cannot be read');
      return undefined;
    }
    try {
      return readDialogue(text, this.session.backend.clock.now());
    } catch (error) {
      if (!(error instanceof BadDialogue)) throw error;
      this.badLine(number, error.message);
      return undefined;
    }
  }

  private badLine(line: number, reason: string): void {
    this.bad++;
    if (this.onBadLine === 'fail') this.failed = true;
    if (this.badLines.length >= SHOWN) return;
    this.badLines.push({ line, reason });
    this.terminal.note(`line ${line}: ${reason}`);
    if (this.badLines.length === SHOWN) this.terminal.note('further bad lines are counted only');
  }

  private warn(line: number, { field, code }: KeyLeft): void {
    this.left++;
    if (this.warnings.length >= SHOWN) return;
    this.warnings.push({ line, field, code });
    this.terminal.note(`line ${line}: imported without ${field}, which is another visitor's (${code})`);
    if (this.warnings.length === SHOWN) this.terminal.note('further keys that were left to others are counted only');
  }

  private async block(block: readonly Numbered[]): Promise<void> {
    const results = await this.importer.importAll(block.map(({ dialogue }) => dialogue));
    results.forEach((result, index) => this.tally(result, block[index]?.line ?? 0));
    this.tell();
  }

  private tally(result: Imported, line: number): void {
    switch (result.outcome) {
      case 'imported':
        this.imported++;
        this.messages += result.messages;
        for (const left of result.left) this.warn(line, left);
        return;
      case 'present':
        this.present++;
        return;
      case 'refused':
        this.badLine(line, result.reason);
    }
  }

  private tell(): void {
    const now = performance.now();
    if (now - this.toldAt < PROGRESS_MS) return;
    this.toldAt = now;
    const rate = this.messages / ((now - this.began) / 1_000);
    this.terminal.progress(
      `${counted(this.imported, 'conversation')} imported, ${count(this.present)} already there, ${count(this.bad)} bad; ` +
        `${counted(this.messages, 'message')}, ${count(rate)} a second`,
    );
  }
}
