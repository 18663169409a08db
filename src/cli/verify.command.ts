import {
  type EventStore,
  parseStreamName,
  type Position,
  type StoredEvent,
  streamName,
  type StreamName,
} from '../event-store/event-store.js';
import { eventsUntil } from '../event-store/events-until.js';
import { type EventPlace, headIn, HeadVerification, type SignedInLog } from '../event-store/head-verification.js';
import { HEAD_STREAM, HeadKey, type LogHead } from '../event-store/log-head.js';
import { LogVerification } from '../event-store/log-verification.js';
import { type Command, CommandFailed, type ExitCode, parseCommandLine, WrongUsage } from './command.js';
import { type Difference, type Kept, readKept } from './kept-log.js';
import { chooseOrganization, type Session, withSession } from './session.js';
import { streamArgument } from './stream-argument.js';
import { count, counted, type Terminal } from './terminal.js';

const PROGRESS_MS = 200;
/** How many streams with a bad event are named one by one. */
const SHOWN = 100;

export const verifyCommand: Command = {
  help: `Usage: threadlog verify [--against FILE | --stream NAME | --organization ID] [--json]

Reads the whole log, or one stream or organization of it, and proves that every event is as it was written: its hash follows from its own
bytes and from the event before it, revisions have no gap, and time never goes back in a stream. Names the first bad event of each stream,
and ends with 1 when there is any.

For the whole log it also compares every signed head with the events that it covers, and prints a head of everything that it read. A cut
tail, a removed stream and a rewritten history leave no trace in the log itself. Keep a head where nobody who can write to the database
can write; --against then finds them, and names the place: with one head the events between the last head that is right and the first that is
wrong, with more heads in FILE fewer events, with an export of the log exactly the first event that is not as it was.

  --against FILE       a head that verify printed before, alone or in its --json, or several, one a line; or an export; - is standard input
  --stream NAME        one stream, such as conversation-main.4f6a…
  --organization ID    the streams of one organization
  --json               print one JSON document: {ok, events, streams, bad: [{stream, revision, eventId, position, why}], badStreams,
                       head, heads: {right, bad: [{revision, count, why, place}]}, against: {count, why, place}}; place is {after, upTo,
                       missing, expected}: docs/cli.md`,

  async run(given, terminal, signal) {
    const options = {
      against: { type: 'string' },
      stream: { type: 'string' },
      organization: { type: 'string' },
      json: { type: 'boolean' },
    } as const;
    const { values } = parseCommandLine(given, options, []);
    const { against, stream, organization, json = false } = values;
    if ([against, stream, organization].filter((one) => one !== undefined).length > 1)
      throw new WrongUsage('--against, --stream and --organization exclude each other: a head covers the whole log');
    const named = stream === undefined ? undefined : streamArgument(stream);
    return withSession(async (session) => {
      const kept = against === undefined ? undefined : await readKept(against, session.backend.masterKey, signal);
      const verification = new LogVerification();
      if (named !== undefined) {
        await one(session, named, verification);
        return report(verification, undefined, json, terminal);
      }
      const end = await session.backend.store.head();
      const organizationId = organization === undefined ? undefined : await chooseOrganization(session, organization);
      const heads = organizationId === undefined ? await HeldHeads.read(session, end, kept) : undefined;
      await whole(session, end, organizationId, verification, heads, terminal, signal);
      return report(verification, await heads?.result(verification.bad.length === 0), json, terminal);
    });
  },
};

/** Compares the heads in the log, and the head kept elsewhere, with the events as they are read. */
class HeldHeads {
  private constructor(
    readonly verification: HeadVerification,
    private readonly key: HeadKey,
    private readonly store: EventStore,
    private readonly inLog: readonly SignedInLog[],
    private readonly kept: Kept | undefined,
  ) {}

  /** @param end ignores heads and events after this position */
  static async read({ backend }: Session, end: Position | 'start', kept: Kept | undefined): Promise<HeldHeads> {
    const inLog: SignedInLog[] = [];
    for await (const events of backend.store.read(streamName('head', HEAD_STREAM.organizationId, HEAD_STREAM.id)))
      for (const event of events) if (end !== 'start' && event.position <= end) inLog.push(headIn(event));
    const key = new HeadKey(backend.masterKey);
    const keptHeads = kept !== undefined && 'heads' in kept ? kept.heads : [];
    const heads = [...inLog.map(({ head }) => head), ...keptHeads].filter((head) => head !== undefined);
    return new HeldHeads(new HeadVerification(key, backend.store.log.id, heads), key, backend.store, inLog, kept);
  }

  /** A promise only where there is something to wait for, since a log has many events. */
  take(event: StoredEvent): Promise<void> | undefined {
    this.verification.take(event);
    return this.kept !== undefined && 'export' in this.kept ? this.kept.export.take(event) : undefined;
  }

  /** @param ok false signs no head: nothing is signed over wrong events */
  async result(ok: boolean): Promise<Result> {
    const judged = this.inLog.map(({ revision, head }) => ({
      revision,
      count: head?.count ?? null,
      why: head === undefined ? 'it is no head' : this.verification.whyNot(head),
      place: head === undefined ? null : this.#placeOf(head),
    }));
    const bad = judged.flatMap(({ why, ...one }) => (why === undefined ? [] : [{ ...one, why }]));
    const against = await this.#against();
    const right = ok && bad.length === 0 && (against === null || against.why === null);
    return {
      right,
      head: right ? this.key.sign(this.verification.fold, this.store.log.id) : null,
      heads: { right: judged.length - bad.length, bad },
      against,
    };
  }

  /** The first kept head that is wrong, or else the one that covers most; or the export. */
  async #against(): Promise<Result['against']> {
    if (this.kept === undefined) return null;
    if ('export' in this.kept) {
      const difference = await this.kept.export.end();
      return { count: this.kept.export.events, of: 'export', why: difference?.why ?? null, place: difference?.place ?? null };
    }
    const heads = this.kept.heads.toSorted((a, b) => a.count - b.count);
    const head = heads.find((one) => this.verification.whyNot(one) !== undefined) ?? heads.at(-1);
    if (head === undefined) return null;
    return { count: head.count, of: 'head', why: this.verification.whyNot(head) ?? null, place: this.#placeOf(head) };
  }

  #placeOf(head: LogHead): Difference['place'] | null {
    const place = this.verification.placeOf(head);
    return place === undefined ? null : { ...place, expected: null };
  }
}

interface Result {
  readonly right: boolean;
  /** The head of everything that was read, when everything was right. */
  readonly head: LogHead | null;
  readonly heads: {
    readonly right: number;
    readonly bad: readonly {
      readonly revision: number;
      readonly count: number | null;
      readonly why: string;
      readonly place: Difference['place'] | null;
    }[];
  };
  readonly against: {
    readonly count: number;
    readonly of: 'head' | 'export';
    readonly why: string | null;
    readonly place: Difference['place'] | null;
  } | null;
}

async function one({ backend }: Session, stream: StreamName, verification: LogVerification): Promise<void> {
  for await (const events of backend.store.read(stream)) for (const event of events) verification.take(event);
  if (verification.events === 0) throw new CommandFailed(`there is no stream ${stream}`);
}

/** @param end the end of the log when the verification began: other processes may go on writing */
async function whole(
  { backend }: Session,
  end: Position | 'start',
  organizationId: string | undefined,
  verification: LogVerification,
  heads: HeldHeads | undefined,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const began = performance.now();
  let toldAt = 0;
  for await (const events of eventsUntil(backend.store, end, signal)) {
    for (const event of events) {
      const taken = heads?.take(event);
      if (taken !== undefined) await taken;
      if (organizationId !== undefined && parseStreamName(event.stream)?.organizationId !== organizationId) continue;
      verification.take(event);
    }
    const now = performance.now();
    if (now - toldAt <= PROGRESS_MS) continue;
    toldAt = now;
    terminal.progress(
      `${counted(verification.events, 'event')} of ${counted(verification.streams, 'stream')} verified, ` +
        `${count(verification.events / ((now - began) / 1_000))} a second`,
    );
  }
}

function report(verification: LogVerification, result: Result | undefined, json: boolean, terminal: Terminal): ExitCode {
  const { events, streams, bad } = verification;
  const ok = bad.length === 0 && result?.right !== false;
  if (json) {
    const { head, heads, against } = result ?? { head: null, heads: null, against: null };
    terminal.json({ ok, events, streams, bad: bad.slice(0, SHOWN), badStreams: bad.length, head, heads, against });
    return ok ? 0 : 1;
  }
  const read = `${counted(events, 'event')} in ${counted(streams, 'stream')}`;
  if (bad.length === 0) terminal.answer(`${read}: every hash, revision and time is as it was written.`);
  else terminal.answer(`${read}: ${counted(bad.length, 'stream')} with a bad event, the first in the log first.`);
  for (const { stream, revision, position, why } of bad.slice(0, SHOWN))
    terminal.answer(`  ${stream} revision ${revision} (position ${position}): ${why}`);
  if (bad.length > SHOWN) terminal.answer(`  and ${count(bad.length - SHOWN)} more`);
  if (result !== undefined) reportHeads(result, bad.length > 0, terminal);
  if (events === 0) terminal.note('nothing was verified: is it this log? DATA_DIR or DATABASE_URL and EVENTSTORE_URL say which is read');
  return ok ? 0 : 1;
}

function reportHeads({ head, heads, against }: Result, someBad: boolean, terminal: Terminal): void {
  if (heads.right > 0) terminal.answer(`${counted(heads.right, 'signed head')} in the log: what it covers is as it was signed.`);
  for (const { revision, why } of heads.bad.slice(0, SHOWN))
    terminal.answer(`The signed head at revision ${revision} is not right: ${why}.`);
  if (heads.bad[0] !== undefined) tellPlace(heads.bad[0].place, terminal);
  if (heads.bad.length > SHOWN) terminal.answer(`  and ${count(heads.bad.length - SHOWN)} more`);
  if (against !== null) {
    terminal.answer(
      against.why === null
        ? `${someBad ? 'By its hashes, which the bad events do not fit, the' : 'The'} log begins with the ${counted(against.count, 'event')} of the ${against.of} that was kept.`
        : `The ${against.of} that was kept is not this log's: ${against.why}.`,
    );
    tellPlace(against.place, terminal);
  }
  if (head !== null) {
    terminal.answer('The head of this log, to be kept elsewhere:');
    terminal.json(head);
  }
}

const named = ({ stream, revision, position }: EventPlace) => `${stream} revision ${revision} (position ${position})`;

function tellPlace(place: Difference['place'] | null, terminal: Terminal): void {
  if (place === null) return;
  const { after, upTo, missing, expected } = place;
  const right = after === null ? "from the log's first event on" : `after ${named(after)}`;
  if (expected !== null) {
    const now = upTo === null ? 'where the log ends' : `where the log now has ${named(upTo)}`;
    terminal.answer(`  first: ${named(expected)}, ${right}, ${now}`);
    return;
  }
  terminal.answer(`  the first difference is ${right}${upTo === null ? '' : `, at the latest at ${named(upTo)}`}`);
  if (missing === null) return;
  const { after: before, before: next } = missing;
  terminal.answer(
    `  events are missing ${before === null ? "at the log's beginning" : `after ${named(before)}`}${next === null ? ", the log's last" : `, before ${named(next)}`}`,
  );
}
