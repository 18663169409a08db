import type { DomainEvent, Recorded } from '../event-store/aggregate.js';
import {
  type EventStore,
  parseStreamName,
  type Position,
  type StoredEvent,
  streamName,
  type StreamName,
} from '../event-store/event-store.js';
import { eventsUntil } from '../event-store/events-until.js';
import { ThreadlogError } from '../errors.js';
import { auditedResources } from '../features.js';
import { instanceOf, parseInstant } from '../http/validation.js';
import { ConversationReader } from '../conversations/conversation.reader.js';
import type { HistoryCaller } from '../read-models/audited-resource.js';
import { type DiffAnswer, DiffQueryDto, eventAnswer, HistoryReader } from '../read-models/history.js';
import { type Command, CommandFailed, type ExitCode, parseCommandLine, WrongUsage } from './command.js';
import { printable, printableJson } from './printable.js';
import { chooseOrganization, type Session, withSession } from './session.js';
import { streamArgument } from './stream-argument.js';
import { counted, type Terminal } from './terminal.js';

const REVISION = /^(0|[1-9]\d{0,8})$/;

export const replayCommand: Command = {
  help: `Usage: threadlog replay CONVERSATION [--revision N | --at INSTANT | --diff FROM..TO] [--organization ID] [--json]
       threadlog replay --stream NAME [--diff FROM..TO] [--json]
       threadlog replay [--after POSITION] [--organization ID] [--json]

Prints events from the log alone, oldest first: those of one conversation, of another stream, or of the whole organization.
With --revision or --at it prints the conversation as it was then; with --diff what differs between two revisions of a conversation, or of
another resource with a history.

  --revision N         as it was after this revision; revisions begin with 0
  --at INSTANT         as it was at this instant, such as 2026-01-16T09:00:00Z
  --diff FROM..TO      two revisions; without FROM from before the first event, without TO to the latest
  --stream NAME        one stream of any kind, such as inbox-main.4f6a…
  --after POSITION     continue after this position, where an earlier run ended
  --organization ID    may be left out while there is only one
  --json               print one JSON object a line: {stream, id, type, revision, position, occurredAt, actor, …, data} as the API's
                       events; with --revision or --at the conversation as the API answers it`,

  async run(given, terminal, signal) {
    const options = {
      revision: { type: 'string' },
      at: { type: 'string' },
      diff: { type: 'string' },
      stream: { type: 'string' },
      after: { type: 'string' },
      organization: { type: 'string' },
      json: { type: 'boolean' },
    } as const;
    const named = given.filter(
      (word, i) => !word.startsWith('-') && !/^--(revision|at|diff|stream|after|organization)$/.test(given[i - 1] ?? ''),
    );
    const { values, positionals } = parseCommandLine(given, options, named.length > 0 ? ['CONVERSATION'] : []);
    const [id] = positionals;
    const { revision, at, diff, stream, after, organization, json = false } = values;
    const past = pastOf(revision, at);
    const range = diff === undefined ? undefined : rangeOf(diff);
    if (past !== undefined && id === undefined) throw new WrongUsage('--revision and --at go with a CONVERSATION');
    if (range !== undefined && (past !== undefined || (id === undefined && stream === undefined)))
      throw new WrongUsage('--diff goes with a CONVERSATION or --stream, without --revision and --at');
    if ([id, stream, after].filter((one) => one !== undefined).length > 1)
      throw new WrongUsage('CONVERSATION, --stream and --after exclude each other');
    if (stream !== undefined && organization !== undefined) throw new WrongUsage('--stream names its organization itself');
    const ofOne = stream === undefined ? undefined : streamArgument(stream);
    return withSession(async (session) => {
      if (ofOne !== undefined && range !== undefined) return difference(session, ofOne, range, json, terminal);
      if (ofOne !== undefined) return events(session, ofStream(session.backend.store, ofOne), ofOne, json, terminal);
      const organizationId = await chooseOrganization(session, organization);
      if (id === undefined) return events(session, feed(session, organizationId, after, signal), undefined, json, terminal);
      if (past !== undefined) return conversation(session, organizationId, id, past, terminal);
      const name = streamName('conversation', organizationId, id);
      if (range !== undefined) return difference(session, name, range, json, terminal);
      return events(session, ofStream(session.backend.store, name), `conversation ${id}`, json, terminal);
    });
  },
};

/** @throws WrongUsage */
function pastOf(revision: string | undefined, at: string | undefined): { revision: number } | { at: number } | undefined {
  if (revision !== undefined && at !== undefined) throw new WrongUsage('--revision and --at exclude each other');
  if (revision !== undefined) {
    if (!REVISION.test(revision)) throw new WrongUsage('--revision is a whole number from 0');
    return { revision: Number(revision) };
  }
  if (at === undefined) return undefined;
  const instant = parseInstant(at);
  if (instant === undefined) throw new WrongUsage('--at is an instant with a zone, such as 2026-01-16T09:00:00Z');
  return { at: instant };
}

/** @throws WrongUsage */
function rangeOf(diff: string): { from?: string; to?: string } {
  const parts = /^(-1|0|[1-9]\d{0,8})?\.\.(-1|0|[1-9]\d{0,8})?$/.exec(diff);
  if (parts === null) throw new WrongUsage('--diff is FROM..TO, two revisions such as 2..5; either may be left out');
  const [, from, to] = parts;
  return { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
}

/** As the API compares it, with the rights of an operator, who sees every stream. */
async function difference(
  { backend: { store, transactor, keys } }: Session,
  stream: StreamName,
  range: { from?: string; to?: string },
  json: boolean,
  terminal: Terminal,
): Promise<ExitCode> {
  const { kind = '', organizationId = '', id = '' } = parseStreamName(stream) ?? {};
  const reader = new HistoryReader(store, transactor, keys);
  const query = instanceOf(DiffQueryDto, range);
  const resources = (await auditedResources()).filter(({ aggregate }) => aggregate.kind === kind);
  for (const resource of resources)
    try {
      const { body } = await reader.diff(resource, OPERATOR, organizationId, id, query);
      if (json) terminal.json(body.data);
      else tellDifference(body, terminal);
      return 0;
    } catch (error) {
      if (!(error instanceof ThreadlogError)) throw error;
      const { errors } = error.extra;
      if (errors !== undefined)
        throw new CommandFailed(errors.map(({ field, message }) => `${field} ${message}`).join('; '), { cause: error });
      if (error.code !== 'not_found') throw error;
    }
  throw new CommandFailed(
    resources.length === 0 ? `a stream of the kind ${kind} has no resource that could be compared` : `there is no stream ${stream}`,
  );
}

const OPERATOR: HistoryCaller = { self: { type: 'apiKey', id: '' }, role: 'auditor' };

function tellDifference({ data: { from, to, changes, events }, meta }: DiffAnswer, terminal: Terminal): void {
  terminal.answer(
    `revision ${from} to ${to}: ${counted(events.length, 'event')}${meta.hasMore ? ' and more' : ''}, ${counted(changes.length, 'field')} changed`,
  );
  for (const { field, before, after } of changes) terminal.answer(`  ${field}: ${printableJson(before)} → ${printableJson(after)}`);
}

async function conversation(
  { backend: { store, transactor, keys } }: Session,
  organizationId: string,
  id: string,
  past: { revision: number } | { at: number },
  terminal: Terminal,
): Promise<ExitCode> {
  const found = await new ConversationReader(store, transactor, keys).conversation(organizationId, id, past, false, true);
  if (found === undefined)
    throw new CommandFailed(`there is no conversation ${id} in the organization ${organizationId}, or was none then`);
  terminal.json(found.answer);
  return 0;
}

async function* ofStream(store: EventStore, stream: StreamName): AsyncGenerator<readonly StoredEvent[]> {
  yield* store.read(stream);
}

/** The events that are in the log now: other processes may go on writing. */
async function* feed(
  { backend: { store } }: Session,
  organizationId: string,
  after: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<readonly StoredEvent[]> {
  const end = await store.head();
  const known = (after ?? 'start') as Position | 'start';
  if (end !== 'start' && known !== 'start' && known.length !== end.length)
    throw new CommandFailed(`"${known}" is not a position of this log; its positions look like ${end}`);
  if (known !== 'start' && (end === 'start' || known > end))
    throw new CommandFailed(`"${known}" is beyond the end of this log${end === 'start' ? ', which is empty' : `, which is at ${end}`}`);
  if (known === end) return;
  for await (const batch of eventsUntil(store, end, signal, known))
    yield batch.filter(({ stream }) => parseStreamName(stream)?.organizationId === organizationId);
}

/** @param what names the requested conversation or stream, when it must exist */
async function events(
  { backend: { keys } }: Session,
  batches: AsyncIterable<readonly StoredEvent[]>,
  what: string | undefined,
  json: boolean,
  terminal: Terminal,
): Promise<ExitCode> {
  const { unsealingDecoder } = await import('../event-decoding.js');
  const decode = unsealingDecoder(keys);
  let told = 0;
  let unreadable = 0;
  for await (const batch of batches) {
    const { decoded, failed } = await decode(batch);
    const lines = [
      ...decoded.map((event) => ({ position: event.position, line: json ? asJson(event) : asLine(event) })),
      ...failed.map(({ event, error }) => ({ position: event.position, line: asUnreadable(event, error, json) })),
    ].sort((a, b) => (a.position < b.position ? -1 : 1));
    told += lines.length;
    unreadable += failed.length;
    if (lines.length > 0) await terminal.raw(lines.map(({ line }) => `${line}\n`).join(''));
    terminal.progress(`${counted(told, 'event')} told`);
  }
  if (told === 0 && what !== undefined) throw new CommandFailed(`there is no ${what}`);
  if (unreadable > 0) terminal.note(`${counted(unreadable, 'event')} cannot be read by this build`);
  return unreadable > 0 ? 1 : 0;
}

const asJson = (event: Recorded<DomainEvent>) => printableJson({ stream: event.stream, ...eventAnswer(event) });

function asLine({ position, stream, revision, type, metadata: { occurredAt, actor }, data }: Recorded<DomainEvent>): string {
  const what = `${occurredAt}  ${position}  ${stream} ${revision}  ${type} by ${actor.type} ${actor.id}`;
  return `${printable(what)}  ${printableJson(data)}`;
}

function asUnreadable({ position, stream, revision, id, type }: StoredEvent, error: Error, json: boolean): string {
  if (json) return printableJson({ stream, id, type, revision, position, unreadable: error.message });
  return printable(`-                         ${position}  ${stream} ${revision}  ${type} cannot be read: ${error.message}`);
}
